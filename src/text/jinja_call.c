/* text/jinja_call.c - binding arguments to what is called, and the global functions. */
#include <string.h>
#include <time.h>

#include "text/jinja_run.h"

const cmi_jinja_builtin *cmi_jinja_find_builtin(const cmi_jinja_builtin *table, size_t n,
                                                const cmi_jinja_str *name)
{
    for (size_t i = 0; i < n; i++) {
        if (cmi_jinja_str_is(name, table[i].name)) {
            return &table[i];
        }
    }
    return NULL;
}

static size_t count_params(const cmi_jinja_builtin *builtin)
{
    size_t n = 0;
    while (n < CMI_JINJA_PARAMS_MAX && builtin->params[n] != NULL) {
        n++;
    }
    return n;
}

static bool bind_keyword(cmi_jinja_run *r, const cmi_jinja_builtin *builtin,
                         const cmi_jinja_named *keyword, cmi_jinja_value *argv)
{
    size_t n = count_params(builtin);
    for (size_t i = 0; i < n; i++) {
        if (!cmi_jinja_str_is(keyword->name, builtin->params[i])) {
            continue;
        }
        if (argv[i].kind != CMI_JINJA_UNSET) {
            return cmi_jinja_misfit(r, "%s got the argument '%s' twice", builtin->name,
                                    builtin->params[i]);
        }
        argv[i] = keyword->value;
        return true;
    }
    return cmi_jinja_misfit(r, "%s has no argument '%.*s'", builtin->name,
                            (int)CMI_MIN(keyword->name->n_bytes, (size_t)80), keyword->name->bytes);
}

static bool bind(cmi_jinja_run *r, const cmi_jinja_builtin *builtin, const cmi_jinja_args *args,
                 cmi_jinja_value *argv)
{
    size_t n = count_params(builtin);
    if (args->n_positional > n) {
        return cmi_jinja_misfit(r, "%s takes at most %zu arguments, not %zu", builtin->name, n,
                                args->n_positional);
    }
    for (size_t i = 0; i < args->n_positional; i++) {
        argv[i] = args->positional[i];
    }
    for (size_t i = 0; i < args->n_keywords; i++) {
        if (!bind_keyword(r, builtin, &args->keywords[i], argv)) {
            return false;
        }
    }
    for (size_t i = 0; i < builtin->n_required; i++) {
        if (argv[i].kind == CMI_JINJA_UNSET) {
            return cmi_jinja_misfit(r, "%s needs the argument '%s'", builtin->name,
                                    builtin->params[i]);
        }
    }
    return true;
}

bool cmi_jinja_apply(cmi_jinja_run *r, const cmi_jinja_builtin *builtin,
                     const cmi_jinja_value *self, const cmi_jinja_args *args, cmi_jinja_value *out)
{
    cmi_jinja_call call = {.args = args};
    if (self != NULL) {
        call.self = *self;
    }
    if (builtin->self_is_text) {
        const cmi_jinja_str *text;
        if (!cmi_jinja_to_str(r, &call.self, &text)) {
            return false;
        }
        call.self = cmi_jinja_text(text);
    }
    return (builtin->variadic || bind(r, builtin, args, call.argv)) && builtin->fn(r, &call, out);
}

bool cmi_jinja_call_value(cmi_jinja_run *r, const cmi_jinja_value *callee,
                          const cmi_jinja_args *args, cmi_jinja_value *out)
{
    bool ok;
    switch ((cmi_jinja_kind)callee->kind) {
    case CMI_JINJA_FUNCTION:
        return cmi_jinja_apply(r, callee->function, NULL, args, out);
    case CMI_JINJA_METHOD:
        return cmi_jinja_apply(r, callee->method->builtin, &callee->method->self, args, out);
    case CMI_JINJA_MACRO:
        if (!cmi_jinja_descend(r)) {
            return false;
        }
        ok = cmi_jinja_call_macro(r, callee->macro, args, out);
        cmi_jinja_ascend(r);
        return ok;
    case CMI_JINJA_UNDEFINED:
        return cmi_jinja_undefined_used(r, callee);
    default:
        return cmi_jinja_misfit(r, "%s cannot be called", cmi_jinja_type_name(callee));
    }
}

/* ---- global functions ---- */

/* range(stop), range(start, stop) or range(start, stop, step). */
static bool call_range(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_args *args = call->args;
    int64_t bounds[3] = {0, 0, 1};
    if (args->n_keywords > 0 || args->n_positional == 0 || args->n_positional > 3) {
        return cmi_jinja_misfit(r, "range takes one to three numbers");
    }
    for (size_t i = 0; i < args->n_positional; i++) {
        size_t at = args->n_positional == 1 ? 1 : i;
        if (!cmi_jinja_want_int(r, &args->positional[i], "a bound of range", &bounds[at])) {
            return false;
        }
    }
    if (bounds[2] == 0) {
        return cmi_jinja_misfit(r, "the step of range cannot be 0");
    }
    bool back = bounds[2] < 0;
    uint64_t low = (uint64_t)(back ? bounds[1] : bounds[0]);
    uint64_t high = (uint64_t)(back ? bounds[0] : bounds[1]);
    bool is_empty = (int64_t)low >= (int64_t)high;
    uint64_t stride = back ? 0 - (uint64_t)bounds[2] : (uint64_t)bounds[2];
    uint64_t n = is_empty ? 0 : (high - low - 1) / stride + 1;
    if (n > CMI_JINJA_RANGE_MAX) {
        return cmi_jinja_fail(r, CMI_ERR_TOO_LARGE, "a range has more than %d numbers",
                              CMI_JINJA_RANGE_MAX);
    }
    cmi_jinja_range *range = cmi_jinja_alloc(r, 1, sizeof *range);
    if (range == NULL) {
        return false;
    }
    *range = (cmi_jinja_range){.start = bounds[0], .step = bounds[2], .n = (size_t)n};
    *out = (cmi_jinja_value){.kind = CMI_JINJA_RANGE, .range = range};
    return true;
}

static bool put_pairs(cmi_jinja_run *r, cmi_jinja_dict_builder *b, const cmi_jinja_value *pairs)
{
    cmi_jinja_walk w;
    if (!cmi_jinja_walk_begin(r, &w, pairs)) {
        return false;
    }
    for (;;) {
        cmi_jinja_value item;
        cmi_jinja_seq pair;
        if (!cmi_jinja_walk_next(r, &w, &item)) {
            return false;
        }
        if (item.kind == CMI_JINJA_UNSET) {
            return true;
        }
        if (!cmi_jinja_collect(r, &item, &pair)) {
            return false;
        }
        if (pair.n != 2) {
            return cmi_jinja_misfit(r, "a dict is made of pairs, not of %zu values", pair.n);
        }
        if (!cmi_jinja_dict_put(r, b, &pair.items[0], &pair.items[1])) {
            return false;
        }
    }
}

/* dict(mapping or pairs, name=value ...) */
static bool call_dict(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_args *args = call->args;
    cmi_jinja_dict_builder b = {0};
    if (args->n_positional > 1) {
        return cmi_jinja_misfit(r, "a dict is made of at most one other");
    }
    if (args->n_positional == 1) {
        cmi_jinja_value pairs = args->positional[0];
        if (pairs.kind == CMI_JINJA_UNDEFINED) {
            return cmi_jinja_undefined_used(r, &pairs);
        }
        if (pairs.kind == CMI_JINJA_DICT &&
            !cmi_jinja_dict_view(r, pairs.dict, CMI_JINJA_ITEMS, &pairs)) {
            return false;
        }
        if (!put_pairs(r, &b, &pairs)) {
            return false;
        }
    }
    for (size_t i = 0; i < args->n_keywords; i++) {
        cmi_jinja_value name = cmi_jinja_text(args->keywords[i].name);
        if (!cmi_jinja_dict_put(r, &b, &name, &args->keywords[i].value)) {
            return false;
        }
    }
    return cmi_jinja_dict_built(r, &b, out);
}

/* namespace(mapping, name=value ...) */
static bool call_namespace(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_value dict;
    cmi_jinja_namespace *ns = cmi_jinja_alloc(r, 1, sizeof *ns);
    if (ns == NULL || !call_dict(r, call, &dict)) {
        return false;
    }
    for (size_t i = 0; i < dict.dict->n; i++) {
        const cmi_jinja_str *name;
        if (!cmi_jinja_want_str(r, &dict.dict->keys[i], "the name of an attribute", &name) ||
            !cmi_jinja_ns_set(r, ns, name, &dict.dict->values[i])) {
            return false;
        }
    }
    *out = (cmi_jinja_value){.kind = CMI_JINJA_NAMESPACE, .ns = ns};
    return true;
}

/* The template refuses the conversation: its own words, without a line number, are the error. */
static bool call_raise_exception(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_str *message;
    (void)out;
    if (!cmi_jinja_to_str(r, &call->argv[0], &message)) {
        return false;
    }
    cmi_error_set(&r->error, CMI_ERR_INVALID, "%.*s",
                  (int)CMI_MIN(message->n_bytes, sizeof r->error.text), message->bytes);
    return false;
}

static bool call_strftime_now(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { FORMAT_BYTES_MAX = 200, TEXT_BYTES_MAX = 4000 };
    const cmi_jinja_str *format;
    char c_format[FORMAT_BYTES_MAX + 1];
    char text[TEXT_BYTES_MAX];
    time_t now = (time_t)r->options->now_unix_s;
    struct tm local;
    if (!cmi_jinja_want_str(r, &call->argv[0], "the format of strftime_now", &format)) {
        return false;
    }
    if (format->n_bytes > FORMAT_BYTES_MAX ||
        memchr(format->bytes, '\0', format->n_bytes) != NULL || localtime_r(&now, &local) == NULL) {
        return cmi_jinja_misfit(r, "strftime_now takes a format of at most %d bytes, without NUL",
                                FORMAT_BYTES_MAX);
    }
    memcpy(c_format, format->bytes, format->n_bytes);
    c_format[format->n_bytes] = '\0';
    const cmi_jinja_str *made =
        cmi_jinja_str_copy(r, text, strftime(text, sizeof text, c_format, &local));
    *out = cmi_jinja_text(made);
    return made != NULL;
}

const cmi_jinja_builtin *cmi_jinja_global(size_t row)
{
    static const cmi_jinja_builtin globals[] = {
        {.name = "range", .fn = call_range, .variadic = true},
        {.name = "dict", .fn = call_dict, .variadic = true},
        {.name = "namespace", .fn = call_namespace, .variadic = true},
        {.name = "raise_exception",
         .fn = call_raise_exception,
         .params = {"message"},
         .n_required = 1},
        {.name = "strftime_now", .fn = call_strftime_now, .params = {"format"}, .n_required = 1},
    };
    return row < CMI_LEN(globals) ? &globals[row] : NULL;
}
