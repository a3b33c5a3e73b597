/* text/jinja_run.h - one render under way, and what its parts offer each other.
 *
 * Unless said otherwise a function that returns bool or a pointer returns false or NULL after an
 * error, which then stands in the run; nobody goes on after that. All memory comes from the run's
 * arena, so nothing is ever released on its own. */
#ifndef CMI_TEXT_JINJA_RUN_H
#define CMI_TEXT_JINJA_RUN_H

#include "base/arena.h"
#include "text/jinja.h"
#include "text/jinja_ast.h"
#include "text/jinja_builtin.h"

enum {
    CMI_JINJA_RUN_DEPTH_MAX = 1000, /* of functions here that call themselves; bounds the stack */
    CMI_JINJA_RANGE_MAX = 100000,   /* as in Jinja2's sandbox */
};

typedef struct cmi_jinja_slot {
    uint32_t name_id;
    cmi_jinja_value value;
} cmi_jinja_slot;

/* The variables of a loop body, macro call or caught block. The outermost ones are in run.root. */
typedef struct cmi_jinja_frame cmi_jinja_frame;
struct cmi_jinja_frame {
    cmi_jinja_frame *parent; /* NULL: the root is next */
    cmi_jinja_slot *slots;
    size_t n, cap;
};

struct cmi_jinja_macro {
    const cmi_jinja_macro_def *def;
    cmi_jinja_frame *frame; /* where it was defined */
};

struct cmi_jinja_run {
    const cmi_jinja *jinja;
    const cmi_jinja_options *options;
    cmi_arena arena;
    cmi_buf *out;
    cmi_error error;
    uint32_t line; /* of the node under evaluation */
    uint32_t depth;
    uint64_t steps_left;
    cmi_jinja_value *root; /* by name_id; UNSET when there is none */
    cmi_jinja_frame *frame;
};

/* ---- limits and errors (jinja_run.c) ---- */

/* Writes "line N: ..." and returns false. */
CMI_PRINTF(3, 4)
bool cmi_jinja_fail(cmi_jinja_run *r, cmi_status st, const char *fmt, ...);
/* The same as CMI_ERR_BAD_DATA: the template and the values do not fit. */
CMI_PRINTF(2, 3) bool cmi_jinja_misfit(cmi_jinja_run *r, const char *fmt, ...);

CMI_NODISCARD void *cmi_jinja_alloc(cmi_jinja_run *r, size_t n, size_t size);
/* Accounts for work on n bytes of text, or the like. */
CMI_NODISCARD bool cmi_jinja_charge(cmi_jinja_run *r, size_t n_bytes);
CMI_NODISCARD bool cmi_jinja_descend(cmi_jinja_run *r); /* each true needs a cmi_jinja_ascend */
void cmi_jinja_ascend(cmi_jinja_run *r);

/* ---- text (jinja_str.c) ---- */

/* A text of the n bytes at p, which are valid UTF-8 and stay where they are. */
CMI_NODISCARD const cmi_jinja_str *cmi_jinja_str_borrow(cmi_jinja_run *r, const char *p, size_t n);
CMI_NODISCARD const cmi_jinja_str *cmi_jinja_str_copy(cmi_jinja_run *r, const char *p, size_t n);
CMI_NODISCARD const cmi_jinja_str *cmi_jinja_concat(cmi_jinja_run *r, const cmi_jinja_str *a,
                                                    const cmi_jinja_str *b);
/* The byte at which code point number i begins; n_bytes for the one behind the last. O(i), or O(1)
 * for ASCII. */
size_t cmi_jinja_str_offset(const cmi_jinja_str *s, size_t i);
size_t cmi_jinja_count_chars(const char *p, size_t n);
bool cmi_jinja_str_equal(const cmi_jinja_str *a, const cmi_jinja_str *b);
bool cmi_jinja_str_is(const cmi_jinja_str *s, const char *text);

/* Text that grows at its end. */
typedef struct cmi_jinja_builder {
    cmi_jinja_run *r;
    char *bytes;
    size_t n, cap;
} cmi_jinja_builder;

CMI_NODISCARD bool cmi_jinja_add(cmi_jinja_builder *b, const char *p, size_t n);
CMI_NODISCARD bool cmi_jinja_add_str(cmi_jinja_builder *b, const cmi_jinja_str *s);
CMI_NODISCARD bool cmi_jinja_add_c(cmi_jinja_builder *b, const char *text);
CMI_NODISCARD bool cmi_jinja_add_char(cmi_jinja_builder *b, uint32_t cp);
/* An escape: a backslash, the letter, and value with n_digits hexadecimal digits. */
CMI_NODISCARD bool cmi_jinja_add_hex(cmi_jinja_builder *b, char letter, uint32_t value,
                                     int n_digits);
/* The text as a value; the builder is then done with. */
CMI_NODISCARD bool cmi_jinja_built(cmi_jinja_builder *b, cmi_jinja_value *out);

/* ---- values (jinja_value.c) ---- */

const char *cmi_jinja_type_name(const cmi_jinja_value *v); /* as Python calls it */
bool cmi_jinja_truth(const cmi_jinja_value *v);            /* cannot fail */
bool cmi_jinja_is_number(const cmi_jinja_value *v);        /* also a bool, as in Python */
/* The same number as an integer or a float; v is a number. */
cmi_jinja_value cmi_jinja_plain_number(const cmi_jinja_value *v);
double cmi_jinja_as_double(const cmi_jinja_value *v); /* v is a number */

CMI_NODISCARD bool cmi_jinja_new_seq(cmi_jinja_run *r, cmi_jinja_kind kind,
                                     const cmi_jinja_value *items, size_t n, cmi_jinja_value *out);
CMI_NODISCARD bool cmi_jinja_new_iterator(cmi_jinja_run *r, const cmi_jinja_value *items, size_t n,
                                          cmi_jinja_value *out);
CMI_NODISCARD bool cmi_jinja_new_pair(cmi_jinja_run *r, const cmi_jinja_value *a,
                                      const cmi_jinja_value *b, cmi_jinja_value *out);

/* A dict from pairs of which later ones win, as in Python. */
typedef struct cmi_jinja_dict_builder {
    cmi_jinja_value *keys, *values;
    size_t n, cap;
} cmi_jinja_dict_builder;

CMI_NODISCARD bool cmi_jinja_dict_put(cmi_jinja_run *r, cmi_jinja_dict_builder *b,
                                      const cmi_jinja_value *key, const cmi_jinja_value *value);
CMI_NODISCARD bool cmi_jinja_dict_built(cmi_jinja_run *r, const cmi_jinja_dict_builder *b,
                                        cmi_jinja_value *out);
/* *out is UNSET when the key is not there. An unhashable key is an error. O(n). */
CMI_NODISCARD bool cmi_jinja_dict_get(cmi_jinja_run *r, const cmi_jinja_dict *d,
                                      const cmi_jinja_value *key, cmi_jinja_value *out);
/* items(), keys() or values(). */
CMI_NODISCARD bool cmi_jinja_dict_view(cmi_jinja_run *r, const cmi_jinja_dict *d, uint8_t which,
                                       cmi_jinja_value *out);

CMI_NODISCARD bool cmi_jinja_ns_set(cmi_jinja_run *r, cmi_jinja_namespace *ns,
                                    const cmi_jinja_str *name, const cmi_jinja_value *value);

cmi_jinja_value cmi_jinja_range_at(const cmi_jinja_range *range, size_t i);

/* Number of items; false without an error when the value has no length. */
bool cmi_jinja_length(const cmi_jinja_value *v, size_t *n_out);

/* A walk over anything that can be iterated. */
typedef struct cmi_jinja_walk {
    cmi_jinja_value over;
    size_t at; /* items so far; of a text: bytes */
} cmi_jinja_walk;

bool cmi_jinja_is_iterable(const cmi_jinja_value *v);
CMI_NODISCARD bool cmi_jinja_walk_begin(cmi_jinja_run *r, cmi_jinja_walk *w,
                                        const cmi_jinja_value *over);
/* *out is UNSET at the end. */
CMI_NODISCARD bool cmi_jinja_walk_next(cmi_jinja_run *r, cmi_jinja_walk *w, cmi_jinja_value *out);
/* All items at once. */
CMI_NODISCARD bool cmi_jinja_collect(cmi_jinja_run *r, const cmi_jinja_value *over,
                                     cmi_jinja_seq *out);

/* ---- operators (jinja_compare.c, jinja_arith.c, jinja_access.c) ---- */

CMI_NODISCARD bool cmi_jinja_equal(cmi_jinja_run *r, const cmi_jinja_value *a,
                                   const cmi_jinja_value *b, bool *out);
/* *out is below, at or above 0. Values that have no order are an error; NaN is above everything. */
CMI_NODISCARD bool cmi_jinja_order(cmi_jinja_run *r, const cmi_jinja_value *a,
                                   const cmi_jinja_value *b, int *out);
CMI_NODISCARD bool cmi_jinja_contains(cmi_jinja_run *r, const cmi_jinja_value *container,
                                      const cmi_jinja_value *item, bool *out);
CMI_NODISCARD bool cmi_jinja_compare(cmi_jinja_run *r, cmi_jinja_op op, const cmi_jinja_value *a,
                                     const cmi_jinja_value *b, bool *out);
CMI_NODISCARD bool cmi_jinja_binary(cmi_jinja_run *r, cmi_jinja_op op, const cmi_jinja_value *a,
                                    const cmi_jinja_value *b, cmi_jinja_value *out);
CMI_NODISCARD bool cmi_jinja_negate(cmi_jinja_run *r, const cmi_jinja_value *v,
                                    cmi_jinja_value *out);

/* object.name and object[index]; undefined when there is no such thing. */
CMI_NODISCARD bool cmi_jinja_get_attr(cmi_jinja_run *r, const cmi_jinja_value *object,
                                      const cmi_jinja_str *name, cmi_jinja_value *out);
CMI_NODISCARD bool cmi_jinja_get_item(cmi_jinja_run *r, const cmi_jinja_value *object,
                                      const cmi_jinja_value *index, cmi_jinja_value *out);
/* object[start:stop:step], each of which may be none. */
CMI_NODISCARD bool cmi_jinja_slice(cmi_jinja_run *r, const cmi_jinja_value *object,
                                   const cmi_jinja_value bounds[3], cmi_jinja_value *out);
/* Where the code points number start and stop of s begin, in bytes. Either may be UNSET or none,
 * and negative from the end; *from may be behind *to. */
CMI_NODISCARD bool cmi_jinja_char_span(cmi_jinja_run *r, const cmi_jinja_str *s,
                                       const cmi_jinja_value *start, const cmi_jinja_value *stop,
                                       size_t *from, size_t *to);
/* Fails because v is used: "'x' is undefined" and the like. v is undefined. */
bool cmi_jinja_undefined_used(cmi_jinja_run *r, const cmi_jinja_value *v);
/* Integers and bools; anything else is an error that names what the number is for. */
CMI_NODISCARD bool cmi_jinja_want_int(cmi_jinja_run *r, const cmi_jinja_value *v, const char *what,
                                      int64_t *out);
CMI_NODISCARD bool cmi_jinja_want_str(cmi_jinja_run *r, const cmi_jinja_value *v, const char *what,
                                      const cmi_jinja_str **out);

/* ---- printing (jinja_print.c, jinja_json.c, jinja_format.c) ---- */

/* As Python's str() and repr(). */
CMI_NODISCARD bool cmi_jinja_to_str(cmi_jinja_run *r, const cmi_jinja_value *v,
                                    const cmi_jinja_str **out);
CMI_NODISCARD bool cmi_jinja_add_text(cmi_jinja_builder *b, const cmi_jinja_value *v);
CMI_NODISCARD bool cmi_jinja_add_repr(cmi_jinja_builder *b, const cmi_jinja_value *v);
enum { CMI_JINJA_FLOAT_BYTES = 32 };
/* The shortest text that reads back as the same float, in Python's style. */
void cmi_jinja_print_float(double d, char out[CMI_JINJA_FLOAT_BYTES]);

CMI_NODISCARD bool cmi_jinja_from_json(cmi_jinja_run *r, const json_t *json, cmi_jinja_value *out);
cmi_jinja_fn cmi_jinja_to_json; /* the filter */

/* text % value */
CMI_NODISCARD bool cmi_jinja_percent(cmi_jinja_run *r, const cmi_jinja_str *format,
                                     const cmi_jinja_value *value, cmi_jinja_value *out);
cmi_jinja_fn cmi_jinja_str_format; /* the method */

/* ---- calls (jinja_call.c) ---- */

/* Binds the arguments to the parameters of the builtin and runs it. */
CMI_NODISCARD bool cmi_jinja_apply(cmi_jinja_run *r, const cmi_jinja_builtin *builtin,
                                   const cmi_jinja_value *self, const cmi_jinja_args *args,
                                   cmi_jinja_value *out);
CMI_NODISCARD bool cmi_jinja_call_value(cmi_jinja_run *r, const cmi_jinja_value *callee,
                                        const cmi_jinja_args *args, cmi_jinja_value *out);

/* ---- evaluation (jinja_eval.c, jinja_exec.c) ---- */

CMI_NODISCARD bool cmi_jinja_eval(cmi_jinja_run *r, const cmi_jinja_node *node,
                                  cmi_jinja_value *out);
CMI_NODISCARD bool cmi_jinja_eval_args(cmi_jinja_run *r, const cmi_jinja_call_args *call,
                                       cmi_jinja_args *out);
/* A filter node on a value that takes the place of its operand. */
CMI_NODISCARD bool cmi_jinja_eval_filter(cmi_jinja_run *r, const cmi_jinja_node *node,
                                         const cmi_jinja_value *innermost, cmi_jinja_value *out);
CMI_NODISCARD bool cmi_jinja_call_macro(cmi_jinja_run *r, const cmi_jinja_macro *macro,
                                        const cmi_jinja_args *args, cmi_jinja_value *out);
CMI_NODISCARD bool cmi_jinja_set_name(cmi_jinja_run *r, uint32_t name_id,
                                      const cmi_jinja_value *value);
/* The attributes of `loop`; *out is UNSET when there is no such one. */
CMI_NODISCARD bool cmi_jinja_loop_attr(cmi_jinja_run *r, cmi_jinja_loop *loop,
                                       const cmi_jinja_str *name, cmi_jinja_value *out);

#endif
