#include "cli/config_file.h"

#include <string.h>
#include <yaml.h>

#include "base/alloc.h"

enum { MAX_KEYS = 256 };

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one, to be deleted */
    char *keys[MAX_KEYS];
    size_t n_keys;
    cmi_config_fn *fn;
    void *arg;
    cmi_error *err;
} reader;

static cmi_status refuse(const reader *r, const char *what)
{
    return cmi_error_set(r->err, CMI_ERR_BAD_DATA, "line %zu: %s", r->event.start_mark.line + 1,
                         what);
}

/* The next event in r->event. */
static cmi_status next(reader *r)
{
    yaml_event_delete(&r->event);
    if (yaml_parser_parse(&r->parser, &r->event) == 0) {
        memset(&r->event, 0, sizeof r->event);
        return cmi_error_set(r->err, CMI_ERR_BAD_DATA, "line %zu: no YAML: %s",
                             r->parser.problem_mark.line + 1,
                             r->parser.problem != NULL ? r->parser.problem : "out of memory");
    }
    if (r->event.type == YAML_ALIAS_EVENT) {
        return refuse(r, "aliases are not taken");
    }
    return CMI_OK;
}

static bool is_null(const yaml_event_t *event)
{
    const char *value = (const char *)event->data.scalar.value;
    return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (value[0] == '\0' || strcmp(value, "~") == 0 || strcmp(value, "null") == 0);
}

/* The current event is a scalar, a value of the key that came last. */
static cmi_status give(reader *r)
{
    const char *value = (const char *)r->event.data.scalar.value;
    if (strlen(value) != r->event.data.scalar.length) {
        return refuse(r, "a value with a NUL in it");
    }
    return r->fn(r->arg, r->keys[r->n_keys - 1], is_null(&r->event) ? NULL : value,
                 r->event.start_mark.line + 1, r->err);
}

static cmi_status read_value(reader *r)
{
    cmi_status st = next(r);
    if (st != CMI_OK || r->event.type == YAML_SCALAR_EVENT) {
        return st != CMI_OK ? st : give(r);
    }
    if (r->event.type != YAML_SEQUENCE_START_EVENT) {
        return refuse(r, "a key takes a value or a list of values");
    }
    for (;;) {
        st = next(r);
        if (st != CMI_OK || r->event.type == YAML_SEQUENCE_END_EVENT) {
            return st;
        }
        st = r->event.type == YAML_SCALAR_EVENT ? give(r) : refuse(r, "a list takes plain values");
        if (st != CMI_OK) {
            return st;
        }
    }
}

/* The current event is a key. */
static cmi_status read_key(reader *r)
{
    if (r->event.type != YAML_SCALAR_EVENT) {
        return refuse(r, "a key must be the name of an option");
    }
    const char *key = (const char *)r->event.data.scalar.value;
    size_t n = r->event.data.scalar.length;
    if (strlen(key) != n) {
        return refuse(r, "a key with a NUL in it");
    }
    for (size_t i = 0; i < r->n_keys; i++) {
        if (strcmp(r->keys[i], key) == 0) {
            return refuse(r, "a key that was there before");
        }
    }
    if (r->n_keys == MAX_KEYS) {
        return refuse(r, "too many keys");
    }
    r->keys[r->n_keys++] = cmi_strndup(key, n);
    return read_value(r);
}

static cmi_status read_document(reader *r)
{
    cmi_status st;
    do { /* the beginnings of the stream and the document */
        st = next(r);
    } while (st == CMI_OK && (r->event.type == YAML_STREAM_START_EVENT ||
                              r->event.type == YAML_DOCUMENT_START_EVENT));
    if (st != CMI_OK || r->event.type == YAML_STREAM_END_EVENT) {
        return st; /* an empty file */
    }
    if (r->event.type == YAML_SCALAR_EVENT && is_null(&r->event)) {
        return CMI_OK;
    }
    if (r->event.type != YAML_MAPPING_START_EVENT) {
        return refuse(r, "the file must have lines like \"key: value\"");
    }
    while ((st = next(r)) == CMI_OK && r->event.type != YAML_MAPPING_END_EVENT) {
        st = read_key(r);
        if (st != CMI_OK) {
            return st;
        }
    }
    st = st == CMI_OK ? next(r) : st; /* the document's end */
    st = st == CMI_OK ? next(r) : st;
    if (st == CMI_OK && r->event.type != YAML_STREAM_END_EVENT) {
        return refuse(r, "a second document");
    }
    return st;
}

cmi_status cmi_config_parse(const char *text, size_t n_bytes, cmi_config_fn *fn, void *arg,
                            cmi_error *err)
{
    reader r = {.fn = fn, .arg = arg, .err = err};
    if (yaml_parser_initialize(&r.parser) == 0) {
        return cmi_error_set(err, CMI_ERR_NO_MEMORY, "out of memory");
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n_bytes);
    cmi_status st = read_document(&r);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    for (size_t i = 0; i < r.n_keys; i++) {
        cmi_free(r.keys[i]);
    }
    return st;
}
