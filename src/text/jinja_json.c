/* text/jinja_json.c - JSON values in, and the tojson filter: json.dumps as transformers calls it,
 * with nothing escaped for HTML and text outside ASCII as it is. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_run.h"
#include "text/jinja_sort.h"

static const cmi_jinja_str space = CMI_JINJA_STR(" ");
static const cmi_jinja_str comma = CMI_JINJA_STR(",");
static const cmi_jinja_str comma_space = CMI_JINJA_STR(", ");
static const cmi_jinja_str colon_space = CMI_JINJA_STR(": ");

/* ---- from jansson ---- */

static bool from_array(cmi_jinja_run *r, const json_t *json, cmi_jinja_value *out)
{
    size_t n = json_array_size(json);
    cmi_jinja_value *items = cmi_jinja_alloc(r, n, sizeof *items);
    if (items == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!cmi_jinja_from_json(r, json_array_get(json, i), &items[i])) {
            return false;
        }
    }
    return cmi_jinja_new_seq(r, CMI_JINJA_LIST, items, n, out);
}

static bool from_object(cmi_jinja_run *r, const json_t *json, cmi_jinja_value *out)
{
    size_t n = json_object_size(json);
    cmi_jinja_value *keys = cmi_jinja_alloc(r, n, sizeof *keys);
    cmi_jinja_value *values = keys == NULL ? NULL : cmi_jinja_alloc(r, n, sizeof *values);
    if (values == NULL) {
        return false;
    }
    json_t *object = (json_t *)(uintptr_t)json; /* jansson's iterators change nothing */
    const char *key;
    json_t *value;
    size_t i = 0;
    json_object_foreach(object, key, value)
    {
        const cmi_jinja_str *text = cmi_jinja_str_borrow(r, key, strlen(key));
        if (text == NULL || !cmi_jinja_from_json(r, value, &values[i])) {
            return false;
        }
        keys[i++] = cmi_jinja_text(text);
    }
    cmi_jinja_dict_builder b = {.keys = keys, .values = values, .n = n, .cap = n};
    return cmi_jinja_dict_built(r, &b, out);
}

bool cmi_jinja_from_json(cmi_jinja_run *r, const json_t *json, cmi_jinja_value *out)
{
    const cmi_jinja_str *text;
    switch (json == NULL ? JSON_NULL : json_typeof(json)) {
    case JSON_TRUE:
    case JSON_FALSE:
        *out = cmi_jinja_bool(json_is_true(json));
        return true;
    case JSON_INTEGER:
        *out = cmi_jinja_int(json_integer_value(json));
        return true;
    case JSON_REAL:
        *out = cmi_jinja_float(json_real_value(json));
        return true;
    case JSON_STRING:
        text = cmi_jinja_str_borrow(r, json_string_value(json), json_string_length(json));
        *out = cmi_jinja_text(text);
        return text != NULL;
    case JSON_NULL:
        *out = cmi_jinja_none();
        return true;
    default:
        break;
    }
    if (!cmi_jinja_descend(r)) {
        return false;
    }
    bool ok = cmi_jinja_charge(r, 1) &&
              (json_is_array(json) ? from_array(r, json, out) : from_object(r, json, out));
    cmi_jinja_ascend(r);
    return ok;
}

/* ---- tojson ---- */

typedef struct json_style {
    cmi_jinja_builder b;
    bool ensure_ascii, sort_keys;
    bool has_indent;
    const cmi_jinja_str *indent; /* of one level */
    const cmi_jinja_str *item_separator, *key_separator;
    size_t level;
} json_style;

static bool add_json(json_style *s, const cmi_jinja_value *v);

/* Whether a byte stands for itself; those of longer sequences do unless all must be ASCII. */
static bool is_plain(const json_style *s, unsigned char byte)
{
    return byte >= 0x20 && byte != '"' && byte != '\\' && (byte < 0x7F || !s->ensure_ascii);
}

static bool add_escaped(json_style *s, uint32_t cp)
{
    static const char escapes[][2] = {{'"', '"'},  {'\\', '\\'}, {'\n', 'n'}, {'\r', 'r'},
                                      {'\t', 't'}, {'\f', 'f'},  {'\b', 'b'}};
    for (size_t i = 0; i < CMI_LEN(escapes); i++) {
        if (cp == (uint32_t)escapes[i][0]) {
            char text[2] = {'\\', escapes[i][1]};
            return cmi_jinja_add(&s->b, text, 2);
        }
    }
    if (cp < 0x10000) {
        return cmi_jinja_add_hex(&s->b, 'u', cp, 4);
    }
    uint32_t offset = cp - 0x10000;
    return cmi_jinja_add_hex(&s->b, 'u', 0xD800 + (offset >> 10), 4) &&
           cmi_jinja_add_hex(&s->b, 'u', 0xDC00 + (offset & 0x3FF), 4);
}

static bool add_json_text(json_style *s, const cmi_jinja_str *text)
{
    if (!cmi_jinja_charge(s->b.r, text->n_bytes * 4) || !cmi_jinja_add_c(&s->b, "\"")) {
        return false;
    }
    size_t at = 0;
    while (at < text->n_bytes) {
        size_t from = at;
        while (at < text->n_bytes && is_plain(s, (unsigned char)text->bytes[at])) {
            at++;
        }
        if (!cmi_jinja_add(&s->b, text->bytes + from, at - from)) {
            return false;
        }
        uint32_t cp = 0;
        if (at < text->n_bytes) {
            at += (size_t)cmi_utf8_next(text->bytes + at, text->n_bytes - at, &cp);
            if (!add_escaped(s, cp)) {
                return false;
            }
        }
    }
    return cmi_jinja_add_c(&s->b, "\"");
}

/* true, null, numbers: what they are as a value and, in quotes, as a key. */
static bool add_json_word(json_style *s, const cmi_jinja_value *v)
{
    char text[CMI_JINJA_FLOAT_BYTES];
    switch ((cmi_jinja_kind)v->kind) {
    case CMI_JINJA_NONE:
        return cmi_jinja_add_c(&s->b, "null");
    case CMI_JINJA_BOOL:
        return cmi_jinja_add_c(&s->b, v->boolean ? "true" : "false");
    case CMI_JINJA_INT:
        snprintf(text, sizeof text, "%" PRId64, v->integer);
        return cmi_jinja_add_c(&s->b, text);
    default:
        break;
    }
    if (isnan(v->real) || isinf(v->real)) {
        return cmi_jinja_add_c(&s->b, isnan(v->real) ? "NaN"
                                      : v->real < 0  ? "-Infinity"
                                                     : "Infinity");
    }
    cmi_jinja_print_float(v->real, text);
    return cmi_jinja_add_c(&s->b, text);
}

static bool new_line(json_style *s)
{
    if (!s->has_indent) {
        return true;
    }
    if (!cmi_jinja_add_c(&s->b, "\n")) {
        return false;
    }
    for (size_t i = 0; i < s->level; i++) {
        if (!cmi_jinja_add_str(&s->b, s->indent)) {
            return false;
        }
    }
    return true;
}

/* What stands before item number i: a bracket or a separator, and the line break. */
static bool begin_item(json_style *s, size_t i)
{
    return (i == 0 || cmi_jinja_add_str(&s->b, s->item_separator)) && new_line(s);
}

static bool add_json_items(json_style *s, const cmi_jinja_seq *seq)
{
    if (seq->n == 0) {
        return cmi_jinja_add_c(&s->b, "[]");
    }
    if (!cmi_jinja_add_c(&s->b, "[")) {
        return false;
    }
    s->level++;
    for (size_t i = 0; i < seq->n; i++) {
        if (!begin_item(s, i) || !add_json(s, &seq->items[i])) {
            return false;
        }
    }
    s->level--;
    return new_line(s) && cmi_jinja_add_c(&s->b, "]");
}

static bool add_json_key(json_style *s, const cmi_jinja_value *key)
{
    if (key->kind == CMI_JINJA_STR) {
        return add_json_text(s, key->str);
    }
    if (key->kind != CMI_JINJA_NONE && !cmi_jinja_is_number(key)) {
        return cmi_jinja_misfit(s->b.r, "%s cannot be a key in JSON", cmi_jinja_type_name(key));
    }
    return cmi_jinja_add_c(&s->b, "\"") && add_json_word(s, key) && cmi_jinja_add_c(&s->b, "\"");
}

static bool add_json_dict(json_style *s, const cmi_jinja_dict *d)
{
    if (d->n == 0) {
        return cmi_jinja_add_c(&s->b, "{}");
    }
    const size_t *order = NULL;
    if (s->sort_keys &&
        !cmi_jinja_sorted_order(s->b.r, &(cmi_jinja_seq){d->keys, d->n}, false, &order)) {
        return false;
    }
    if (!cmi_jinja_add_c(&s->b, "{")) {
        return false;
    }
    s->level++;
    for (size_t i = 0; i < d->n; i++) {
        size_t at = order == NULL ? i : order[i];
        if (!begin_item(s, i) || !add_json_key(s, &d->keys[at]) ||
            !cmi_jinja_add_str(&s->b, s->key_separator) || !add_json(s, &d->values[at])) {
            return false;
        }
    }
    s->level--;
    return new_line(s) && cmi_jinja_add_c(&s->b, "}");
}

static bool add_json(json_style *s, const cmi_jinja_value *v)
{
    if (v->kind == CMI_JINJA_STR) {
        return add_json_text(s, v->str);
    }
    if (v->kind == CMI_JINJA_NONE || cmi_jinja_is_number(v)) {
        return add_json_word(s, v);
    }
    bool is_items = v->kind == CMI_JINJA_LIST || v->kind == CMI_JINJA_TUPLE;
    if (!is_items && v->kind != CMI_JINJA_DICT) {
        return cmi_jinja_misfit(s->b.r, "%s cannot be written as JSON", cmi_jinja_type_name(v));
    }
    if (!cmi_jinja_descend(s->b.r)) {
        return false;
    }
    bool ok = cmi_jinja_charge(s->b.r, 1) &&
              (is_items ? add_json_items(s, v->seq) : add_json_dict(s, v->dict));
    cmi_jinja_ascend(s->b.r);
    return ok;
}

/* indent: a number of spaces or the text itself; none for one line. */
static bool set_indent(json_style *s, const cmi_jinja_value *indent)
{
    cmi_jinja_run *r = s->b.r;
    s->has_indent = indent->kind != CMI_JINJA_UNSET && indent->kind != CMI_JINJA_NONE;
    if (!s->has_indent) {
        return true;
    }
    if (indent->kind == CMI_JINJA_STR) {
        s->indent = indent->str;
        return true;
    }
    cmi_jinja_value one = cmi_jinja_text(&space);
    cmi_jinja_value spaces;
    int64_t n;
    if (!cmi_jinja_want_int(r, indent, "the indent of tojson", &n) ||
        !cmi_jinja_binary(r, CMI_JINJA_MUL, &one, indent, &spaces)) {
        return false;
    }
    s->indent = spaces.str;
    return true;
}

static bool set_separators(json_style *s, const cmi_jinja_value *separators)
{
    s->item_separator = s->has_indent ? &comma : &comma_space;
    s->key_separator = &colon_space;
    if (separators->kind == CMI_JINJA_UNSET || separators->kind == CMI_JINJA_NONE) {
        return true;
    }
    cmi_jinja_seq pair;
    if (!cmi_jinja_collect(s->b.r, separators, &pair)) {
        return false;
    }
    if (pair.n != 2) {
        return cmi_jinja_misfit(s->b.r, "tojson takes two separators");
    }
    return cmi_jinja_want_str(s->b.r, &pair.items[0], "a separator", &s->item_separator) &&
           cmi_jinja_want_str(s->b.r, &pair.items[1], "a separator", &s->key_separator);
}

bool cmi_jinja_to_json(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { ENSURE_ASCII, INDENT, SEPARATORS, SORT_KEYS };
    json_style s = {.b = {.r = r},
                    .ensure_ascii = cmi_jinja_truth(&call->argv[ENSURE_ASCII]),
                    .sort_keys = cmi_jinja_truth(&call->argv[SORT_KEYS])};
    return set_indent(&s, &call->argv[INDENT]) && set_separators(&s, &call->argv[SEPARATORS]) &&
           add_json(&s, &call->self) && cmi_jinja_built(&s.b, out);
}
