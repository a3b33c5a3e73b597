#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

void cmi_buf_init(cmi_buf *b, size_t max)
{
    *b = (cmi_buf){.max = max};
}

void cmi_buf_deinit(cmi_buf *b)
{
    if (b != NULL) {
        cmi_free(b->data);
        *b = (cmi_buf){.max = b->max};
    }
}

char *cmi_buf_reserve(cmi_buf *b, size_t n)
{
    if (n > b->max - b->len) {
        b->overflow = true;
        return NULL;
    }
    size_t need = b->len + n + 1;
    if (need > b->cap) {
        size_t cap = CMI_MAX(need, b->cap + b->cap / 2 + 64);
        b->data = cmi_realloc(b->data, cap, 1);
        b->cap = cap;
    }
    return b->data + b->len;
}

bool cmi_buf_append(cmi_buf *b, const void *bytes, size_t n)
{
    char *to = cmi_buf_reserve(b, n);
    if (to == NULL) {
        return false;
    }
    if (n > 0) {
        memcpy(to, bytes, n);
    }
    b->len += n;
    b->data[b->len] = '\0';
    return true;
}

bool cmi_buf_str(cmi_buf *b, const char *s)
{
    return cmi_buf_append(b, s, strlen(s));
}

bool cmi_buf_char(cmi_buf *b, char c)
{
    return cmi_buf_append(b, &c, 1);
}

bool cmi_buf_printf(cmi_buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *to = n < 0 ? NULL : cmi_buf_reserve(b, (size_t)n);
    if (to == NULL) {
        b->overflow = true;
        return false;
    }
    va_start(args, fmt);
    vsnprintf(to, (size_t)n + 1, fmt, args);
    va_end(args);
    b->len += (size_t)n;
    return true;
}

void cmi_buf_consume(cmi_buf *b, size_t n)
{
    if (n > 0) {
        memmove(b->data, b->data + n, b->len - n);
        b->len -= n;
        b->data[b->len] = '\0';
    }
}

void cmi_buf_truncate(cmi_buf *b, size_t n)
{
    if (n < b->len) {
        b->len = n;
        b->data[n] = '\0';
    }
}

void cmi_buf_clear(cmi_buf *b)
{
    b->len = 0;
    b->overflow = false;
    if (b->data != NULL) {
        b->data[0] = '\0';
    }
}

const char *cmi_buf_cstr(const cmi_buf *b)
{
    return b->data == NULL ? "" : b->data;
}
