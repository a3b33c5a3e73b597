/* text/jinja_parse_postfix.c - what stands behind an operand: items, calls, filters and tests. */
#include <string.h>

#include "text/jinja_builtin.h"
#include "text/jinja_parser.h"

enum { KEYWORDS_MAX = 255 };

typedef struct args_under_way {
    cmi_jinja_node_list positional, keywords;
    const cmi_jinja_node *star, *star_star;
} args_under_way;

static bool is_new_keyword(cmi_jinja_parser *p, const args_under_way *a)
{
    for (size_t i = 0; i < a->keywords.nodes.n; i++) {
        const cmi_jinja_str *name = a->keywords.nodes.items[i]->attr.name;
        if (name->n_bytes == p->token.n_bytes &&
            memcmp(name->bytes, p->token.text, name->n_bytes) == 0) {
            return cmi_jinja_parser_fail(p, p->token.line, "a keyword argument is given twice");
        }
    }
    return a->keywords.nodes.n < KEYWORDS_MAX ||
           cmi_jinja_parser_fail(p, p->token.line, "a call has more than %d keyword arguments",
                                 KEYWORDS_MAX);
}

/* name=value, at the name. */
static bool parse_keyword(cmi_jinja_parser *p, args_under_way *a)
{
    if (!is_new_keyword(p, a)) {
        return false;
    }
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_KEYWORD, p->token.line);
    if (node == NULL) {
        return false;
    }
    node->attr.name = cmi_jinja_token_str(p, &p->token);
    if (node->attr.name == NULL || !cmi_jinja_parser_next(p) || !cmi_jinja_expect_op(p, "=")) {
        return false;
    }
    node->attr.object = cmi_jinja_parse_expression(p);
    return node->attr.object != NULL && cmi_jinja_node_adopt(p, node, node->attr.object) &&
           cmi_jinja_node_list_add(p, &a->keywords, node);
}

/* One argument. After a keyword no positional one may follow, and nothing after **kwargs. */
static bool parse_arg(cmi_jinja_parser *p, args_under_way *a)
{
    if (a->star_star != NULL) {
        return cmi_jinja_parser_expected(p, "')' behind **");
    }
    bool is_star = cmi_jinja_at_op(p, "*");
    if (is_star || cmi_jinja_at_op(p, "**")) {
        const cmi_jinja_node **star = is_star ? &a->star : &a->star_star;
        if (*star != NULL) {
            return cmi_jinja_parser_expected(p, "one * only");
        }
        if (!cmi_jinja_parser_next(p)) {
            return false;
        }
        *star = cmi_jinja_parse_expression(p);
        return *star != NULL;
    }
    if (p->token.kind == CMI_JINJA_T_NAME) {
        if (!cmi_jinja_parser_look(p)) {
            return false;
        }
        if (cmi_jinja_token_is(&p->ahead, CMI_JINJA_T_OPERATOR, "=")) {
            return parse_keyword(p, a);
        }
    }
    if (a->star != NULL || a->keywords.nodes.n > 0) {
        return cmi_jinja_parser_expected(p, "a keyword argument");
    }
    const cmi_jinja_node *arg = cmi_jinja_parse_expression(p);
    return arg != NULL && cmi_jinja_node_list_add(p, &a->positional, arg);
}

static const cmi_jinja_call_args *finish_args(cmi_jinja_parser *p, const args_under_way *a)
{
    cmi_jinja_call_args *args = cmi_jinja_parser_alloc(p, 1, sizeof *args);
    if (args != NULL) {
        *args = (cmi_jinja_call_args){.positional = a->positional.nodes,
                                      .keywords = a->keywords.nodes,
                                      .star = a->star,
                                      .star_star = a->star_star};
    }
    return args;
}

/* "(...)", at the opening parenthesis. */
static const cmi_jinja_call_args *parse_call_args(cmi_jinja_parser *p)
{
    args_under_way a = {0};
    if (!cmi_jinja_expect_op(p, "(")) {
        return NULL;
    }
    bool is_first = true;
    while (!cmi_jinja_at_op(p, ")")) {
        if (!is_first && !cmi_jinja_expect_op(p, ",")) {
            return NULL;
        }
        if (!is_first && cmi_jinja_at_op(p, ")")) {
            break;
        }
        is_first = false;
        if (!parse_arg(p, &a)) {
            return NULL;
        }
    }
    return cmi_jinja_parser_next(p) ? finish_args(p, &a) : NULL;
}

static bool adopt_args(cmi_jinja_parser *p, cmi_jinja_node *node, const cmi_jinja_call_args *args)
{
    return cmi_jinja_node_adopt_all(p, node, &args->positional) &&
           cmi_jinja_node_adopt_all(p, node, &args->keywords) &&
           cmi_jinja_node_adopt(p, node, args->star) &&
           cmi_jinja_node_adopt(p, node, args->star_star);
}

static cmi_jinja_node *parse_call(cmi_jinja_parser *p, const cmi_jinja_node *callee)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_CALL, p->token.line);
    if (node == NULL) {
        return NULL;
    }
    node->call.callee = callee;
    node->call.args = parse_call_args(p);
    bool ok = node->call.args != NULL && cmi_jinja_node_adopt(p, node, callee) &&
              adopt_args(p, node, node->call.args);
    return ok ? node : NULL;
}

/* a.b or a.0, at the dot. */
static cmi_jinja_node *parse_dotted(cmi_jinja_parser *p, const cmi_jinja_node *object)
{
    uint32_t line = p->token.line;
    if (!cmi_jinja_parser_next(p)) {
        return NULL;
    }
    if (p->token.kind == CMI_JINJA_T_INTEGER) {
        const cmi_jinja_node *index = cmi_jinja_parse_primary(p);
        cmi_jinja_node *node = cmi_jinja_new_binary(p, CMI_JINJA_ITEM, object, index);
        if (node != NULL) {
            node->line = line;
            node->item.object = object;
            node->item.index = index;
        }
        return node;
    }
    if (p->token.kind != CMI_JINJA_T_NAME) {
        cmi_jinja_parser_expected(p, "a name or number");
        return NULL;
    }
    cmi_jinja_node *node = cmi_jinja_new_unary(p, CMI_JINJA_ATTR, line, object);
    if (node == NULL) {
        return NULL;
    }
    node->attr.object = object;
    node->attr.name = cmi_jinja_token_str(p, &p->token);
    return node->attr.name != NULL && cmi_jinja_parser_next(p) ? node : NULL;
}

/* The bounds of a slice, of which the first (or NULL) has been read; at the first colon. */
static cmi_jinja_node *parse_slice_bounds(cmi_jinja_parser *p, const cmi_jinja_node *start)
{
    const cmi_jinja_node *bounds[3] = {start, NULL, NULL};
    for (size_t i = 1; i < 3 && cmi_jinja_at_op(p, ":"); i++) {
        if (!cmi_jinja_parser_next(p)) {
            return NULL;
        }
        if (!cmi_jinja_at_op(p, ":") && !cmi_jinja_at_op(p, "]")) {
            bounds[i] = cmi_jinja_parse_expression(p);
            if (bounds[i] == NULL) {
                return NULL;
            }
        }
    }
    cmi_jinja_node_list list = {0};
    for (size_t i = 0; i < 3; i++) {
        if (bounds[i] == NULL) {
            cmi_jinja_node *none = cmi_jinja_node_new(p, CMI_JINJA_CONST, p->token.line);
            if (none == NULL) {
                return NULL;
            }
            none->constant = cmi_jinja_none();
            bounds[i] = none;
        }
        if (!cmi_jinja_node_list_add(p, &list, bounds[i])) {
            return NULL;
        }
    }
    return cmi_jinja_new_items(p, CMI_JINJA_NEW_TUPLE, p->token.line, &list);
}

/* a[b] or a[b:c:d], at the opening bracket. */
static cmi_jinja_node *parse_subscript(cmi_jinja_parser *p, const cmi_jinja_node *object)
{
    uint32_t line = p->token.line;
    if (!cmi_jinja_parser_next(p)) {
        return NULL;
    }
    const cmi_jinja_node *index = NULL;
    if (!cmi_jinja_at_op(p, ":")) {
        index = cmi_jinja_parse_expression(p);
        if (index == NULL) {
            return NULL;
        }
    }
    bool is_slice = cmi_jinja_at_op(p, ":");
    if (is_slice) {
        index = parse_slice_bounds(p, index);
    }
    cmi_jinja_node *node =
        cmi_jinja_new_binary(p, is_slice ? CMI_JINJA_SLICE : CMI_JINJA_ITEM, object, index);
    if (node == NULL) {
        return NULL;
    }
    node->line = line;
    if (is_slice) {
        node->slice.object = object;
        node->slice.bounds = index;
    } else {
        node->item.object = object;
        node->item.index = index;
    }
    return cmi_jinja_expect_op(p, "]") ? node : NULL;
}

cmi_jinja_node *cmi_jinja_parse_postfix(cmi_jinja_parser *p, cmi_jinja_node *node)
{
    while (node != NULL) {
        if (cmi_jinja_at_op(p, ".")) {
            node = parse_dotted(p, node);
        } else if (cmi_jinja_at_op(p, "[")) {
            node = parse_subscript(p, node);
        } else if (cmi_jinja_at_op(p, "(")) {
            node = parse_call(p, node);
        } else {
            break;
        }
    }
    return node;
}

/* A filter or test on object, at its name. */
static cmi_jinja_node *new_apply(cmi_jinja_parser *p, cmi_jinja_node_kind kind,
                                 const cmi_jinja_node *object)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, kind, p->token.line);
    if (node == NULL || !cmi_jinja_node_adopt(p, node, object)) {
        return NULL;
    }
    if (p->token.kind != CMI_JINJA_T_NAME) {
        cmi_jinja_parser_expected(p, kind == CMI_JINJA_FILTER ? "a filter" : "a test");
        return NULL;
    }
    node->apply.object = object;
    node->apply.name = cmi_jinja_token_str(p, &p->token);
    if (node->apply.name == NULL) {
        return NULL;
    }
    node->apply.builtin = kind == CMI_JINJA_FILTER ? cmi_jinja_find_filter(node->apply.name)
                                                   : cmi_jinja_find_test(node->apply.name);
    return cmi_jinja_parser_next(p) ? node : NULL;
}

cmi_jinja_node *cmi_jinja_parse_filters(cmi_jinja_parser *p, cmi_jinja_node *object,
                                        bool first_has_bar)
{
    cmi_jinja_node *node = object;
    bool needs_bar = first_has_bar;
    while (!needs_bar || cmi_jinja_at_op(p, "|")) {
        if (needs_bar && !cmi_jinja_parser_next(p)) {
            return NULL;
        }
        needs_bar = true;
        node = new_apply(p, CMI_JINJA_FILTER, node);
        if (node == NULL) {
            return NULL;
        }
        args_under_way none = {0};
        node->apply.args = cmi_jinja_at_op(p, "(") ? parse_call_args(p) : finish_args(p, &none);
        if (node->apply.args == NULL || !adopt_args(p, node, node->apply.args)) {
            return NULL;
        }
    }
    return node;
}

/* Whether an argument without parentheses stands here: `x is divisibleby 3`. */
static bool at_test_arg(const cmi_jinja_parser *p)
{
    if (p->token.kind == CMI_JINJA_T_NAME) {
        return !cmi_jinja_at_name(p, "else") && !cmi_jinja_at_name(p, "or") &&
               !cmi_jinja_at_name(p, "and");
    }
    return p->token.kind == CMI_JINJA_T_STRING || p->token.kind == CMI_JINJA_T_INTEGER ||
           p->token.kind == CMI_JINJA_T_FLOAT || cmi_jinja_at_op(p, "[") || cmi_jinja_at_op(p, "{");
}

static const cmi_jinja_call_args *parse_test_args(cmi_jinja_parser *p)
{
    if (cmi_jinja_at_op(p, "(")) {
        return parse_call_args(p);
    }
    args_under_way a = {0};
    if (at_test_arg(p)) {
        if (cmi_jinja_at_name(p, "is")) {
            cmi_jinja_parser_fail(p, p->token.line, "tests cannot be chained with 'is'");
            return NULL;
        }
        const cmi_jinja_node *arg = cmi_jinja_parse_postfix(p, cmi_jinja_parse_primary(p));
        if (arg == NULL || !cmi_jinja_node_list_add(p, &a.positional, arg)) {
            return NULL;
        }
    }
    return finish_args(p, &a);
}

/* `is name`, `is not name`, at the `is`. */
static cmi_jinja_node *parse_test(cmi_jinja_parser *p, const cmi_jinja_node *object)
{
    uint32_t line = p->token.line;
    bool negated = false;
    if (!cmi_jinja_parser_next(p) || !cmi_jinja_skip_name(p, "not", &negated)) {
        return NULL;
    }
    cmi_jinja_node *node = new_apply(p, CMI_JINJA_TEST, object);
    if (node == NULL) {
        return NULL;
    }
    node->apply.args = parse_test_args(p);
    if (node->apply.args == NULL || !adopt_args(p, node, node->apply.args)) {
        return NULL;
    }
    return negated ? cmi_jinja_new_unary(p, CMI_JINJA_NOT, line, node) : node;
}

cmi_jinja_node *cmi_jinja_parse_filters_and_tests(cmi_jinja_parser *p, cmi_jinja_node *node)
{
    while (node != NULL) {
        if (cmi_jinja_at_op(p, "|")) {
            node = cmi_jinja_parse_filters(p, node, true);
        } else if (cmi_jinja_at_name(p, "is")) {
            node = parse_test(p, node);
        } else if (cmi_jinja_at_op(p, "(")) {
            node = parse_call(p, node);
        } else {
            break;
        }
    }
    return node;
}
