/* text/jinja_builtin.h - how filters, tests, methods and global functions are described: rows of
 * tables, so that the names, arguments and code of each stand in one place. */
#ifndef CMI_TEXT_JINJA_BUILTIN_H
#define CMI_TEXT_JINJA_BUILTIN_H

#include "text/jinja_value.h"

typedef struct cmi_jinja_run cmi_jinja_run;

typedef struct cmi_jinja_named {
    const cmi_jinja_str *name;
    cmi_jinja_value value;
} cmi_jinja_named;

/* The arguments of one call, evaluated. */
typedef struct cmi_jinja_args {
    const cmi_jinja_value *positional;
    size_t n_positional;
    const cmi_jinja_named *keywords;
    size_t n_keywords;
} cmi_jinja_args;

enum { CMI_JINJA_PARAMS_MAX = 5 };

typedef struct cmi_jinja_call {
    cmi_jinja_value self; /* what is filtered or tested, or whose method it is */
    cmi_jinja_value argv[CMI_JINJA_PARAMS_MAX]; /* by parameter; UNSET when not given */
    const cmi_jinja_args *args;                 /* as they came, for variadic functions */
} cmi_jinja_call;

/* False after an error, which then stands in the run. */
typedef bool cmi_jinja_fn(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out);

struct cmi_jinja_builtin {
    const char *name;
    cmi_jinja_fn *fn; /* NULL: it is refused, since it would change a list or dict */
    const char *params[CMI_JINJA_PARAMS_MAX];
    uint8_t n_required; /* of the parameters, from the left */
    bool variadic;      /* takes any arguments; argv is not filled */
    bool self_is_text;  /* self is turned into text first, as str() does */
};

/* NULL: there is none of this name. Any thread. */
const cmi_jinja_builtin *cmi_jinja_find_filter(const cmi_jinja_str *name);
const cmi_jinja_builtin *cmi_jinja_find_test(const cmi_jinja_str *name);
const cmi_jinja_builtin *cmi_jinja_find_method(cmi_jinja_kind of, const cmi_jinja_str *name);

/* The functions every template can call, by row; NULL behind the last. */
const cmi_jinja_builtin *cmi_jinja_global(size_t row);

/* A row of a table of n by its name, or NULL. */
const cmi_jinja_builtin *cmi_jinja_find_builtin(const cmi_jinja_builtin *table, size_t n,
                                                const cmi_jinja_str *name);

#endif
