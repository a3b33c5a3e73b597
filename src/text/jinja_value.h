/* text/jinja_value.h - what a template computes with: Python's values, as far as templates go.
 *
 * All of it lies in the arena of one render (or, for constants, of the template) and ends with it.
 * Nothing changes once made, except a namespace and the position of an iterator. Text is valid
 * UTF-8, may contain U+0000, and is counted in code points, as in Python. */
#ifndef CMI_TEXT_JINJA_VALUE_H
#define CMI_TEXT_JINJA_VALUE_H

#include "base/compiler.h"

typedef enum cmi_jinja_kind {
    CMI_JINJA_UNSET, /* no value at all: an argument or name that was not given */
    CMI_JINJA_UNDEFINED,
    CMI_JINJA_NONE,
    CMI_JINJA_BOOL,
    CMI_JINJA_INT,
    CMI_JINJA_FLOAT,
    CMI_JINJA_STR,
    CMI_JINJA_LIST,
    CMI_JINJA_TUPLE,
    CMI_JINJA_DICT,
    CMI_JINJA_RANGE,
    CMI_JINJA_VIEW,     /* keys(), values() or items() of a dict */
    CMI_JINJA_ITERATOR, /* Python's generators: gone through once, always true, without length */
    CMI_JINJA_NAMESPACE,
    CMI_JINJA_LOOP,
    CMI_JINJA_MACRO,
    CMI_JINJA_FUNCTION,
    CMI_JINJA_METHOD,
    CMI_JINJA_N_KINDS,
} cmi_jinja_kind;

/* The room behind a text that was put together: `a + b + c` appends in place as long as the left
 * side ends where the room's content ends, so that building a prompt piece by piece is linear. */
typedef struct cmi_jinja_room {
    char *end; /* of the content */
    size_t n_free;
} cmi_jinja_room;

typedef struct cmi_jinja_str {
    const char *bytes;
    size_t n_bytes;
    size_t n_chars;
    cmi_jinja_room *room; /* NULL: none */
} cmi_jinja_str;

/* The initializer of a constant text; ASCII only. */
#define CMI_JINJA_STR(text)                                                                        \
    {                                                                                              \
        .bytes = (text), .n_bytes = sizeof(text) - 1, .n_chars = sizeof(text) - 1                  \
    }

typedef struct cmi_jinja_value cmi_jinja_value;
typedef struct cmi_jinja_builtin cmi_jinja_builtin;
typedef struct cmi_jinja_loop cmi_jinja_loop;
typedef struct cmi_jinja_macro cmi_jinja_macro;

typedef struct cmi_jinja_seq {
    const cmi_jinja_value *items;
    size_t n;
} cmi_jinja_seq;

typedef struct cmi_jinja_dict {
    const cmi_jinja_value *keys; /* in the order they were given, each once */
    const cmi_jinja_value *values;
    size_t n;
} cmi_jinja_dict;

typedef struct cmi_jinja_range {
    int64_t start, step;
    size_t n;
} cmi_jinja_range;

typedef struct cmi_jinja_iterator {
    const cmi_jinja_seq *seq;
    size_t at;
} cmi_jinja_iterator;

typedef struct cmi_jinja_namespace {
    const cmi_jinja_str **names;
    cmi_jinja_value *values;
    size_t n, cap;
} cmi_jinja_namespace;

typedef struct cmi_jinja_method cmi_jinja_method;

struct cmi_jinja_value {
    uint8_t kind; /* cmi_jinja_kind */
    uint8_t of;   /* UNDEFINED: what lacked it, see below; VIEW: which of the three */
    union {
        bool boolean;
        int64_t integer;
        double real;
        const cmi_jinja_str *str; /* also UNDEFINED: the missing name, or NULL for an index */
        const char *reason;       /* UNDEFINED, OF_REASON */
        const cmi_jinja_seq *seq; /* LIST, TUPLE, VIEW */
        const cmi_jinja_dict *dict;
        const cmi_jinja_range *range;
        cmi_jinja_iterator *iterator;
        cmi_jinja_namespace *ns;
        cmi_jinja_loop *loop;
        const cmi_jinja_macro *macro;
        const cmi_jinja_builtin *function;
        const cmi_jinja_method *method;
    };
};

struct cmi_jinja_method {
    cmi_jinja_value self;
    const cmi_jinja_builtin *builtin;
};

/* `of` of an undefined value, beside the kinds: a value of that kind has no such attribute. */
enum {
    CMI_JINJA_OF_CONTEXT = CMI_JINJA_UNSET,  /* there is no variable of this name */
    CMI_JINJA_OF_REASON = CMI_JINJA_N_KINDS, /* `reason` says it */
};

/* `of` of a view. */
enum {
    CMI_JINJA_KEYS,
    CMI_JINJA_VALUES,
    CMI_JINJA_ITEMS,
};

static inline cmi_jinja_value cmi_jinja_none(void)
{
    return (cmi_jinja_value){.kind = CMI_JINJA_NONE};
}

static inline cmi_jinja_value cmi_jinja_bool(bool b)
{
    return (cmi_jinja_value){.kind = CMI_JINJA_BOOL, .boolean = b};
}

static inline cmi_jinja_value cmi_jinja_int(int64_t i)
{
    return (cmi_jinja_value){.kind = CMI_JINJA_INT, .integer = i};
}

static inline cmi_jinja_value cmi_jinja_float(double d)
{
    return (cmi_jinja_value){.kind = CMI_JINJA_FLOAT, .real = d};
}

static inline cmi_jinja_value cmi_jinja_text(const cmi_jinja_str *s)
{
    return (cmi_jinja_value){.kind = CMI_JINJA_STR, .str = s};
}

/* reason: static text. */
static inline cmi_jinja_value cmi_jinja_undefined(const char *reason)
{
    return (cmi_jinja_value){
        .kind = CMI_JINJA_UNDEFINED, .of = CMI_JINJA_OF_REASON, .reason = reason};
}

#endif
