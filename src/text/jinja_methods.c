/* text/jinja_methods.c - the methods of texts, lists, tuples and dicts. */
#include "text/jinja_text.h"

static bool dict_items(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return cmi_jinja_dict_view(r, call->self.dict, CMI_JINJA_ITEMS, out);
}

static bool dict_keys(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return cmi_jinja_dict_view(r, call->self.dict, CMI_JINJA_KEYS, out);
}

static bool dict_values(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return cmi_jinja_dict_view(r, call->self.dict, CMI_JINJA_VALUES, out);
}

static bool dict_get(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    if (!cmi_jinja_dict_get(r, call->self.dict, &call->argv[0], out)) {
        return false;
    }
    if (out->kind == CMI_JINJA_UNSET) {
        *out = call->argv[1].kind == CMI_JINJA_UNSET ? cmi_jinja_none() : call->argv[1];
    }
    return true;
}

/* Nothing can change it, so that a copy is the same. */
static bool same(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    (void)r;
    *out = call->self;
    return true;
}

/* The first place of the argument and the number of its places. */
static bool look_through(cmi_jinja_run *r, const cmi_jinja_call *call, size_t *first, int64_t *n)
{
    const cmi_jinja_seq *seq = call->self.seq;
    *first = seq->n;
    *n = 0;
    for (size_t i = 0; i < seq->n; i++) {
        bool found;
        if (!cmi_jinja_charge(r, 1) ||
            !cmi_jinja_equal(r, &seq->items[i], &call->argv[0], &found)) {
            return false;
        }
        *first = found && *n == 0 ? i : *first;
        *n += found;
    }
    return true;
}

static bool items_index(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    size_t first;
    int64_t n;
    if (!look_through(r, call, &first, &n)) {
        return false;
    }
    *out = cmi_jinja_int((int64_t)first);
    return n > 0 || cmi_jinja_misfit(r, "the value that index looks for is not there");
}

static bool items_count(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    size_t first;
    int64_t n = 0;
    bool ok = look_through(r, call, &first, &n);
    *out = cmi_jinja_int(n);
    return ok;
}

static const cmi_jinja_builtin str_methods[] = {
    {.name = "capitalize", .fn = cmi_jinja_text_capitalize},
    {.name = "count",
     .fn = cmi_jinja_text_count,
     .params = {"sub", "start", "end"},
     .n_required = 1},
    {.name = "endswith",
     .fn = cmi_jinja_text_endswith,
     .params = {"suffix", "start", "end"},
     .n_required = 1},
    {.name = "find", .fn = cmi_jinja_text_find, .params = {"sub", "start", "end"}, .n_required = 1},
    {.name = "format", .fn = cmi_jinja_str_format, .variadic = true},
    {.name = "index",
     .fn = cmi_jinja_text_index,
     .params = {"sub", "start", "end"},
     .n_required = 1},
    {.name = "isdigit", .fn = cmi_jinja_text_isdigit},
    {.name = "islower", .fn = cmi_jinja_text_islower},
    {.name = "isspace", .fn = cmi_jinja_text_isspace},
    {.name = "isupper", .fn = cmi_jinja_text_isupper},
    {.name = "join", .fn = cmi_jinja_text_join, .params = {"iterable"}, .n_required = 1},
    {.name = "lower", .fn = cmi_jinja_text_lower},
    {.name = "lstrip", .fn = cmi_jinja_text_lstrip, .params = {"chars"}},
    {.name = "partition", .fn = cmi_jinja_text_partition, .params = {"sep"}, .n_required = 1},
    {.name = "removeprefix",
     .fn = cmi_jinja_text_removeprefix,
     .params = {"prefix"},
     .n_required = 1},
    {.name = "removesuffix",
     .fn = cmi_jinja_text_removesuffix,
     .params = {"suffix"},
     .n_required = 1},
    {.name = "replace",
     .fn = cmi_jinja_text_replace,
     .params = {"old", "new", "count"},
     .n_required = 2},
    {.name = "rfind",
     .fn = cmi_jinja_text_rfind,
     .params = {"sub", "start", "end"},
     .n_required = 1},
    {.name = "rindex",
     .fn = cmi_jinja_text_rindex,
     .params = {"sub", "start", "end"},
     .n_required = 1},
    {.name = "rpartition", .fn = cmi_jinja_text_rpartition, .params = {"sep"}, .n_required = 1},
    {.name = "rsplit", .fn = cmi_jinja_text_rsplit, .params = {"sep", "maxsplit"}},
    {.name = "rstrip", .fn = cmi_jinja_text_rstrip, .params = {"chars"}},
    {.name = "split", .fn = cmi_jinja_text_split, .params = {"sep", "maxsplit"}},
    {.name = "splitlines", .fn = cmi_jinja_text_splitlines, .params = {"keepends"}},
    {.name = "startswith",
     .fn = cmi_jinja_text_startswith,
     .params = {"prefix", "start", "end"},
     .n_required = 1},
    {.name = "strip", .fn = cmi_jinja_text_strip, .params = {"chars"}},
    {.name = "title", .fn = cmi_jinja_text_title},
    {.name = "upper", .fn = cmi_jinja_text_upper},
};

static const cmi_jinja_builtin dict_methods[] = {
    {.name = "copy", .fn = same},
    {.name = "get", .fn = dict_get, .params = {"key", "default"}, .n_required = 1},
    {.name = "items", .fn = dict_items},
    {.name = "keys", .fn = dict_keys},
    {.name = "values", .fn = dict_values},
    {.name = "clear"},
    {.name = "pop"},
    {.name = "popitem"},
    {.name = "setdefault"},
    {.name = "update"},
};

static const cmi_jinja_builtin list_methods[] = {
    {.name = "copy", .fn = same},
    {.name = "count", .fn = items_count, .params = {"value"}, .n_required = 1},
    {.name = "index", .fn = items_index, .params = {"value"}, .n_required = 1},
    {.name = "append"},
    {.name = "clear"},
    {.name = "extend"},
    {.name = "insert"},
    {.name = "pop"},
    {.name = "remove"},
    {.name = "reverse"},
    {.name = "sort"},
};

static const cmi_jinja_builtin tuple_methods[] = {
    {.name = "count", .fn = items_count, .params = {"value"}, .n_required = 1},
    {.name = "index", .fn = items_index, .params = {"value"}, .n_required = 1},
};

const cmi_jinja_builtin *cmi_jinja_find_method(cmi_jinja_kind of, const cmi_jinja_str *name)
{
    static const struct {
        const cmi_jinja_builtin *rows;
        size_t n;
    } tables[CMI_JINJA_N_KINDS] = {
        [CMI_JINJA_STR] = {str_methods, CMI_LEN(str_methods)},
        [CMI_JINJA_DICT] = {dict_methods, CMI_LEN(dict_methods)},
        [CMI_JINJA_LIST] = {list_methods, CMI_LEN(list_methods)},
        [CMI_JINJA_TUPLE] = {tuple_methods, CMI_LEN(tuple_methods)},
    };
    return cmi_jinja_find_builtin(tables[of].rows, tables[of].n, name);
}
