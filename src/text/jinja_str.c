/* text/jinja_str.c - making texts. */
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_run.h"

size_t cmi_jinja_count_chars(const char *p, size_t n)
{
    size_t n_chars = 0;
    for (size_t i = 0; i < n; i++) {
        n_chars += ((unsigned char)p[i] & 0xC0) != 0x80;
    }
    return n_chars;
}

const cmi_jinja_str *cmi_jinja_str_borrow(cmi_jinja_run *r, const char *p, size_t n)
{
    cmi_jinja_str *s = cmi_jinja_charge(r, n) ? cmi_jinja_alloc(r, 1, sizeof *s) : NULL;
    if (s != NULL) {
        *s = (cmi_jinja_str){.bytes = p, .n_bytes = n, .n_chars = cmi_jinja_count_chars(p, n)};
    }
    return s;
}

const cmi_jinja_str *cmi_jinja_str_copy(cmi_jinja_run *r, const char *p, size_t n)
{
    char *copy = cmi_jinja_alloc(r, n, 1);
    if (copy == NULL) {
        return NULL;
    }
    if (n > 0) {
        memcpy(copy, p, n);
    }
    return cmi_jinja_str_borrow(r, copy, n);
}

/* The first join of two texts takes just what it needs; whoever goes on joining gets room. */
static char *new_room(cmi_jinja_run *r, const cmi_jinja_str *a, size_t n, cmi_jinja_room *room)
{
    size_t n_spare = a->room != NULL ? n / 2 : 0;
    char *bytes = cmi_jinja_alloc(r, n + n_spare, 1);
    if (bytes != NULL) {
        memcpy(bytes, a->bytes, a->n_bytes);
        *room = (cmi_jinja_room){.end = bytes + a->n_bytes, .n_free = n + n_spare - a->n_bytes};
    }
    return bytes;
}

const cmi_jinja_str *cmi_jinja_concat(cmi_jinja_run *r, const cmi_jinja_str *a,
                                      const cmi_jinja_str *b)
{
    if (a->n_bytes == 0 || b->n_bytes == 0) {
        return a->n_bytes == 0 ? b : a;
    }
    struct {
        cmi_jinja_str str;
        cmi_jinja_room room;
    } *made = cmi_jinja_alloc(r, 1, sizeof *made);
    if (made == NULL || !cmi_jinja_charge(r, b->n_bytes)) {
        return NULL;
    }
    size_t n = a->n_bytes + b->n_bytes;
    made->str = (cmi_jinja_str){
        .bytes = a->bytes, .n_bytes = n, .n_chars = a->n_chars + b->n_chars, .room = a->room};
    cmi_jinja_room *room = a->room;
    if (room == NULL || room->end != a->bytes + a->n_bytes || room->n_free < b->n_bytes) {
        room = &made->room;
        made->str.room = room;
        made->str.bytes = cmi_jinja_charge(r, a->n_bytes) ? new_room(r, a, n, room) : NULL;
        if (made->str.bytes == NULL) {
            return NULL;
        }
    }
    memcpy(room->end, b->bytes, b->n_bytes);
    room->end += b->n_bytes;
    room->n_free -= b->n_bytes;
    return &made->str;
}

size_t cmi_jinja_str_offset(const cmi_jinja_str *s, size_t i)
{
    if (s->n_chars == s->n_bytes || i == 0) {
        return i;
    }
    if (i >= s->n_chars) {
        return s->n_bytes;
    }
    size_t at = 0;
    for (size_t n_begun = 1;; n_begun++) {
        at++;
        while (((unsigned char)s->bytes[at] & 0xC0) == 0x80) {
            at++;
        }
        if (n_begun == i) {
            return at;
        }
    }
}

bool cmi_jinja_str_equal(const cmi_jinja_str *a, const cmi_jinja_str *b)
{
    return a->n_bytes == b->n_bytes &&
           (a->bytes == b->bytes || memcmp(a->bytes, b->bytes, a->n_bytes) == 0);
}

bool cmi_jinja_str_is(const cmi_jinja_str *s, const char *text)
{
    return s->n_bytes == strlen(text) && memcmp(s->bytes, text, s->n_bytes) == 0;
}

bool cmi_jinja_add(cmi_jinja_builder *b, const char *p, size_t n)
{
    if (n > b->cap - b->n) {
        size_t cap = CMI_MAX(b->n + n, b->cap * 2 + 32);
        char *bytes = cmi_jinja_charge(b->r, n) ? cmi_jinja_alloc(b->r, cap, 1) : NULL;
        if (bytes == NULL) {
            return false;
        }
        if (b->n > 0) {
            memcpy(bytes, b->bytes, b->n);
        }
        b->bytes = bytes;
        b->cap = cap;
    }
    if (n > 0) {
        memcpy(b->bytes + b->n, p, n);
    }
    b->n += n;
    return true;
}

bool cmi_jinja_add_str(cmi_jinja_builder *b, const cmi_jinja_str *s)
{
    return cmi_jinja_add(b, s->bytes, s->n_bytes);
}

bool cmi_jinja_add_c(cmi_jinja_builder *b, const char *text)
{
    return cmi_jinja_add(b, text, strlen(text));
}

bool cmi_jinja_add_char(cmi_jinja_builder *b, uint32_t cp)
{
    char bytes[4];
    return cmi_jinja_add(b, bytes, cmi_utf8_encode(cp, bytes));
}

bool cmi_jinja_add_hex(cmi_jinja_builder *b, char letter, uint32_t value, int n_digits)
{
    char text[10] = {'\\', letter};
    for (int i = 0; i < n_digits; i++) {
        text[2 + i] = "0123456789abcdef"[value >> 4 * (n_digits - 1 - i) & 15];
    }
    return cmi_jinja_add(b, text, 2 + (size_t)n_digits);
}

bool cmi_jinja_built(cmi_jinja_builder *b, cmi_jinja_value *out)
{
    const cmi_jinja_str *s = cmi_jinja_str_borrow(b->r, b->n == 0 ? "" : b->bytes, b->n);
    *out = cmi_jinja_text(s);
    return s != NULL;
}
