/* text/jinja_tests.c - what stands behind `is`. */
#include "text/jinja_text.h"

/* ---- of the kind of a value ---- */

static bool answer(cmi_jinja_value *out, bool yes)
{
    *out = cmi_jinja_bool(yes);
    return true;
}

#define KIND_TEST(name, condition)                                                                 \
    static bool name(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)           \
    {                                                                                              \
        const cmi_jinja_value *v = &call->self;                                                    \
        (void)r;                                                                                   \
        return answer(out, condition);                                                             \
    }

KIND_TEST(is_defined, v->kind != CMI_JINJA_UNDEFINED)
KIND_TEST(is_undefined, v->kind == CMI_JINJA_UNDEFINED)
KIND_TEST(is_none, v->kind == CMI_JINJA_NONE)
KIND_TEST(is_boolean, v->kind == CMI_JINJA_BOOL)
KIND_TEST(is_true, v->kind == CMI_JINJA_BOOL && v->boolean)
KIND_TEST(is_false, v->kind == CMI_JINJA_BOOL && !v->boolean)
KIND_TEST(is_integer, v->kind == CMI_JINJA_INT)
KIND_TEST(is_float, v->kind == CMI_JINJA_FLOAT)
KIND_TEST(is_number, cmi_jinja_is_number(v))
KIND_TEST(is_string, v->kind == CMI_JINJA_STR)
KIND_TEST(is_mapping, v->kind == CMI_JINJA_DICT)
KIND_TEST(is_iterable, cmi_jinja_is_iterable(v))
KIND_TEST(is_sequence,
          cmi_jinja_is_iterable(v) && v->kind != CMI_JINJA_VIEW && v->kind != CMI_JINJA_ITERATOR)
KIND_TEST(is_callable, v->kind == CMI_JINJA_FUNCTION || v->kind == CMI_JINJA_METHOD ||
                           v->kind == CMI_JINJA_MACRO || v->kind == CMI_JINJA_LOOP ||
                           v->kind == CMI_JINJA_UNDEFINED)
KIND_TEST(is_escaped, v->kind == CMI_JINJA_UNSET) /* nothing is marked as escaped here */
KIND_TEST(is_filter, v->kind == CMI_JINJA_STR && cmi_jinja_find_filter(v->str) != NULL)
KIND_TEST(is_test, v->kind == CMI_JINJA_STR && cmi_jinja_find_test(v->str) != NULL)

/* ---- of two values ---- */

static bool compare(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_op op,
                    cmi_jinja_value *out)
{
    bool yes = false;
    bool ok = cmi_jinja_compare(r, op, &call->self, &call->argv[0], &yes);
    *out = cmi_jinja_bool(yes);
    return ok;
}

#define COMPARE_TEST(name, op)                                                                     \
    static bool name(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)           \
    {                                                                                              \
        return compare(r, call, op, out);                                                          \
    }

COMPARE_TEST(is_eq, CMI_JINJA_EQ)
COMPARE_TEST(is_ne, CMI_JINJA_NE)
COMPARE_TEST(is_lt, CMI_JINJA_LT)
COMPARE_TEST(is_le, CMI_JINJA_LE)
COMPARE_TEST(is_gt, CMI_JINJA_GT)
COMPARE_TEST(is_ge, CMI_JINJA_GE)
COMPARE_TEST(is_in, CMI_JINJA_IN)

/* Whether value % divisor == wanted. */
static bool has_remainder(cmi_jinja_run *r, const cmi_jinja_call *call,
                          const cmi_jinja_value *divisor, int64_t wanted, cmi_jinja_value *out)
{
    cmi_jinja_value remainder;
    cmi_jinja_value want = cmi_jinja_int(wanted);
    bool yes = false;
    bool ok = cmi_jinja_binary(r, CMI_JINJA_MOD, &call->self, divisor, &remainder) &&
              cmi_jinja_equal(r, &remainder, &want, &yes);
    *out = cmi_jinja_bool(yes);
    return ok;
}

static bool is_odd(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_value two = cmi_jinja_int(2);
    return has_remainder(r, call, &two, 1, out);
}

static bool is_even(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_value two = cmi_jinja_int(2);
    return has_remainder(r, call, &two, 0, out);
}

static bool is_divisibleby(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return has_remainder(r, call, &call->argv[0], 0, out);
}

/* The same object: for what has no identity of its own here, the same kind and value. */
static bool is_sameas(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_value *a = &call->self;
    const cmi_jinja_value *b = &call->argv[0];
    bool holds_pointer = a->kind >= CMI_JINJA_LIST;
    bool same = a->kind == b->kind && (!holds_pointer || a->seq == b->seq);
    if (same && !holds_pointer && !cmi_jinja_equal(r, a, b, &same)) {
        return false;
    }
    return answer(out, same);
}

#define OF_TWO(test_name, function, param)                                                         \
    {                                                                                              \
        .name = (test_name), .fn = (function), .params = {param}, .n_required = 1                  \
    }

static const cmi_jinja_builtin tests[] = {
    {.name = "boolean", .fn = is_boolean},
    {.name = "callable", .fn = is_callable},
    {.name = "defined", .fn = is_defined},
    {.name = "escaped", .fn = is_escaped},
    {.name = "even", .fn = is_even},
    {.name = "false", .fn = is_false},
    {.name = "filter", .fn = is_filter},
    {.name = "float", .fn = is_float},
    {.name = "integer", .fn = is_integer},
    {.name = "iterable", .fn = is_iterable},
    {.name = "lower", .fn = cmi_jinja_text_islower, .self_is_text = true},
    {.name = "mapping", .fn = is_mapping},
    {.name = "none", .fn = is_none},
    {.name = "number", .fn = is_number},
    {.name = "odd", .fn = is_odd},
    {.name = "sequence", .fn = is_sequence},
    {.name = "string", .fn = is_string},
    {.name = "test", .fn = is_test},
    {.name = "true", .fn = is_true},
    {.name = "undefined", .fn = is_undefined},
    {.name = "upper", .fn = cmi_jinja_text_isupper, .self_is_text = true},
    OF_TWO("!=", is_ne, "other"),
    OF_TWO("<", is_lt, "other"),
    OF_TWO("<=", is_le, "other"),
    OF_TWO("==", is_eq, "other"),
    OF_TWO(">", is_gt, "other"),
    OF_TWO(">=", is_ge, "other"),
    OF_TWO("divisibleby", is_divisibleby, "num"),
    OF_TWO("eq", is_eq, "other"),
    OF_TWO("equalto", is_eq, "other"),
    OF_TWO("ge", is_ge, "other"),
    OF_TWO("greaterthan", is_gt, "other"),
    OF_TWO("gt", is_gt, "other"),
    OF_TWO("in", is_in, "seq"),
    OF_TWO("le", is_le, "other"),
    OF_TWO("lessthan", is_lt, "other"),
    OF_TWO("lt", is_lt, "other"),
    OF_TWO("ne", is_ne, "other"),
    OF_TWO("sameas", is_sameas, "other"),
};

const cmi_jinja_builtin *cmi_jinja_find_test(const cmi_jinja_str *name)
{
    return cmi_jinja_find_builtin(tests, CMI_LEN(tests), name);
}
