/* text/jinja_filters.c - the table of filters, and those on texts and single values. */
#include "text/jinja_filters.h"

#include "text/jinja_text.h"

static const cmi_jinja_str empty = CMI_JINJA_STR("");
static const cmi_jinja_str newline = CMI_JINJA_STR("\n");
static const cmi_jinja_str one_space = CMI_JINJA_STR(" ");
static const cmi_jinja_str four_spaces = CMI_JINJA_STR("    ");

static bool filter_default(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { DEFAULT_VALUE, BOOLEAN };
    (void)r;
    bool also_false = cmi_jinja_truth(&call->argv[BOOLEAN]);
    *out = call->self;
    if (call->self.kind == CMI_JINJA_UNDEFINED || (also_false && !cmi_jinja_truth(&call->self))) {
        bool given = call->argv[DEFAULT_VALUE].kind != CMI_JINJA_UNSET;
        *out = given ? call->argv[DEFAULT_VALUE] : cmi_jinja_text(&empty);
    }
    return true;
}

/* Also `safe`: nothing is escaped here, so that there is nothing to keep from it. */
static bool filter_string(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    (void)r;
    *out = call->self;
    return true;
}

static bool filter_escape(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    static const struct {
        char c;
        const char *text;
    } escapes[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    const cmi_jinja_str *s = call->self.str;
    cmi_jinja_builder b = {.r = r};
    if (!cmi_jinja_charge(r, s->n_bytes * 8)) {
        return false;
    }
    for (size_t i = 0; i < s->n_bytes; i++) {
        const char *text = NULL;
        for (size_t k = 0; k < CMI_LEN(escapes); k++) {
            text = escapes[k].c == s->bytes[i] ? escapes[k].text : text;
        }
        if (!(text == NULL ? cmi_jinja_add(&b, s->bytes + i, 1) : cmi_jinja_add_c(&b, text))) {
            return false;
        }
    }
    return cmi_jinja_built(&b, out);
}

/* Unlike the method it takes anything and turns it into text. */
static bool filter_replace(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_call as_text = *call;
    for (size_t i = 0; i < 2; i++) {
        const cmi_jinja_str *s;
        if (!cmi_jinja_to_str(r, &call->argv[i], &s)) {
            return false;
        }
        as_text.argv[i] = cmi_jinja_text(s);
    }
    return cmi_jinja_text_replace(r, &as_text, out);
}

static bool filter_format(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_value values;
    if (call->args->n_keywords > 0) {
        return cmi_jinja_misfit(r, "format does not support keywords here");
    }
    return cmi_jinja_new_seq(r, CMI_JINJA_TUPLE, call->args->positional, call->args->n_positional,
                             &values) &&
           cmi_jinja_percent(r, call->self.str, &values, out);
}

/* What one line of indent is made of. */
static bool indent_text(cmi_jinja_run *r, const cmi_jinja_value *width, const cmi_jinja_str **out)
{
    cmi_jinja_value space = cmi_jinja_text(&one_space);
    cmi_jinja_value spaces;
    int64_t n;
    if (width->kind == CMI_JINJA_UNSET) {
        *out = &four_spaces;
        return true;
    }
    if (width->kind == CMI_JINJA_STR) {
        *out = width->str;
        return true;
    }
    if (!cmi_jinja_want_int(r, width, "the width of indent", &n) ||
        !cmi_jinja_binary(r, CMI_JINJA_MUL, &space, width, &spaces)) {
        return false;
    }
    *out = spaces.str;
    return true;
}

/* Every line but the first, or with `first` that too; empty lines only with `blank`. */
static bool filter_indent(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { WIDTH, FIRST, BLANK };
    bool first = cmi_jinja_truth(&call->argv[FIRST]);
    bool blank = cmi_jinja_truth(&call->argv[BLANK]);
    const cmi_jinja_str *s;
    const cmi_jinja_str *indent;
    cmi_jinja_seq lines;
    if (!cmi_jinja_want_str(r, &call->self, "what is indented", &s) ||
        !indent_text(r, &call->argv[WIDTH], &indent)) {
        return false;
    }
    /* a newline more, so that an empty last line is one too */
    s = cmi_jinja_concat(r, s, &newline);
    if (s == NULL || !cmi_jinja_lines(r, s, false, &lines)) {
        return false;
    }
    cmi_jinja_builder b = {.r = r};
    for (size_t i = 0; i < lines.n; i++) {
        const cmi_jinja_str *line = lines.items[i].str;
        bool indented = i == 0 ? first : blank || line->n_bytes > 0;
        if ((i > 0 && !cmi_jinja_add_c(&b, "\n")) || (indented && !cmi_jinja_add_str(&b, indent)) ||
            !cmi_jinja_add_str(&b, line)) {
            return false;
        }
    }
    return cmi_jinja_built(&b, out);
}

static const cmi_jinja_builtin filters[] = {
    {.name = "abs", .fn = cmi_jinja_filter_abs},
    {.name = "attr", .fn = cmi_jinja_filter_attr, .params = {"name"}, .n_required = 1},
    {.name = "batch",
     .fn = cmi_jinja_filter_batch,
     .params = {"linecount", "fill_with"},
     .n_required = 1},
    {.name = "capitalize", .fn = cmi_jinja_text_capitalize, .self_is_text = true},
    {.name = "count", .fn = cmi_jinja_filter_length},
    {.name = "d", .fn = filter_default, .params = {"default_value", "boolean"}},
    {.name = "default", .fn = filter_default, .params = {"default_value", "boolean"}},
    {.name = "dictsort",
     .fn = cmi_jinja_filter_dictsort,
     .params = {"case_sensitive", "by", "reverse"}},
    {.name = "e", .fn = filter_escape, .self_is_text = true},
    {.name = "escape", .fn = filter_escape, .self_is_text = true},
    {.name = "first", .fn = cmi_jinja_filter_first},
    {.name = "float", .fn = cmi_jinja_filter_float, .params = {"default"}},
    {.name = "format", .fn = filter_format, .variadic = true, .self_is_text = true},
    {.name = "indent", .fn = filter_indent, .params = {"width", "first", "blank"}},
    {.name = "int", .fn = cmi_jinja_filter_int, .params = {"default", "base"}},
    {.name = "items", .fn = cmi_jinja_filter_items},
    {.name = "join", .fn = cmi_jinja_filter_join, .params = {"d", "attribute"}},
    {.name = "last", .fn = cmi_jinja_filter_last},
    {.name = "length", .fn = cmi_jinja_filter_length},
    {.name = "list", .fn = cmi_jinja_filter_list},
    {.name = "lower", .fn = cmi_jinja_text_lower, .self_is_text = true},
    {.name = "map", .fn = cmi_jinja_filter_map, .variadic = true},
    {.name = "max", .fn = cmi_jinja_filter_max, .params = {"case_sensitive", "attribute"}},
    {.name = "min", .fn = cmi_jinja_filter_min, .params = {"case_sensitive", "attribute"}},
    {.name = "reject", .fn = cmi_jinja_filter_reject, .variadic = true},
    {.name = "rejectattr", .fn = cmi_jinja_filter_rejectattr, .variadic = true},
    {.name = "replace",
     .fn = filter_replace,
     .params = {"old", "new", "count"},
     .n_required = 2,
     .self_is_text = true},
    {.name = "reverse", .fn = cmi_jinja_filter_reverse},
    {.name = "round", .fn = cmi_jinja_filter_round, .params = {"precision", "method"}},
    {.name = "safe", .fn = filter_string, .self_is_text = true},
    {.name = "select", .fn = cmi_jinja_filter_select, .variadic = true},
    {.name = "selectattr", .fn = cmi_jinja_filter_selectattr, .variadic = true},
    {.name = "sort",
     .fn = cmi_jinja_filter_sort,
     .params = {"reverse", "case_sensitive", "attribute"}},
    {.name = "string", .fn = filter_string, .self_is_text = true},
    {.name = "sum", .fn = cmi_jinja_filter_sum, .params = {"attribute", "start"}},
    {.name = "title", .fn = cmi_jinja_text_title_words, .self_is_text = true},
    {.name = "tojson",
     .fn = cmi_jinja_to_json,
     .params = {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {.name = "trim", .fn = cmi_jinja_text_strip, .params = {"chars"}, .self_is_text = true},
    {.name = "unique", .fn = cmi_jinja_filter_unique, .params = {"case_sensitive", "attribute"}},
    {.name = "upper", .fn = cmi_jinja_text_upper, .self_is_text = true},
};

const cmi_jinja_builtin *cmi_jinja_find_filter(const cmi_jinja_str *name)
{
    return cmi_jinja_find_builtin(filters, CMI_LEN(filters), name);
}
