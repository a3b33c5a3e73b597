/* text/jinja_parse_atom.c - names, literals and whatever stands in brackets. */
#include <string.h>

#include "text/jinja_parser.h"

static cmi_jinja_node *parse_string(cmi_jinja_parser *p)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_CONST, p->token.line);
    cmi_jinja_token whole = p->token;
    if (node == NULL || !cmi_jinja_parser_next(p)) {
        return NULL;
    }
    while (p->token.kind == CMI_JINJA_T_STRING) { /* "a" "b" is "ab" */
        char *joined = cmi_jinja_parser_alloc(p, whole.n_bytes + p->token.n_bytes, 1);
        if (joined == NULL) {
            return NULL;
        }
        memcpy(joined, whole.text, whole.n_bytes);
        memcpy(joined + whole.n_bytes, p->token.text, p->token.n_bytes);
        whole.text = joined;
        whole.n_bytes += p->token.n_bytes;
        if (!cmi_jinja_parser_next(p)) {
            return NULL;
        }
    }
    const cmi_jinja_str *s = cmi_jinja_token_str(p, &whole);
    node->constant = cmi_jinja_text(s);
    return s == NULL ? NULL : node;
}

static cmi_jinja_node *parse_number(cmi_jinja_parser *p)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_CONST, p->token.line);
    if (node != NULL) {
        node->constant = p->token.kind == CMI_JINJA_T_INTEGER ? cmi_jinja_int(p->token.integer)
                                                              : cmi_jinja_float(p->token.real);
    }
    return node != NULL && cmi_jinja_parser_next(p) ? node : NULL;
}

/* A constant that is spelled as a name; UNSET when it is none. */
static cmi_jinja_value named_constant(const cmi_jinja_parser *p)
{
    if (cmi_jinja_at_name(p, "true") || cmi_jinja_at_name(p, "True")) {
        return cmi_jinja_bool(true);
    }
    if (cmi_jinja_at_name(p, "false") || cmi_jinja_at_name(p, "False")) {
        return cmi_jinja_bool(false);
    }
    if (cmi_jinja_at_name(p, "none") || cmi_jinja_at_name(p, "None")) {
        return cmi_jinja_none();
    }
    return (cmi_jinja_value){.kind = CMI_JINJA_UNSET};
}

static cmi_jinja_node *parse_name(cmi_jinja_parser *p)
{
    cmi_jinja_value constant = named_constant(p);
    bool is_constant = constant.kind != CMI_JINJA_UNSET;
    cmi_jinja_node *node =
        cmi_jinja_node_new(p, is_constant ? CMI_JINJA_CONST : CMI_JINJA_NAME, p->token.line);
    if (node == NULL) {
        return NULL;
    }
    if (is_constant) {
        node->constant = constant;
    } else if (!cmi_jinja_name_id(p, &p->token, &node->name_id)) {
        return NULL;
    }
    return cmi_jinja_parser_next(p) ? node : NULL;
}

/* Items up to the closing bracket: expressions, or with `pairs` expressions by two with a colon. */
static cmi_jinja_node *parse_bracketed(cmi_jinja_parser *p, cmi_jinja_node_kind kind,
                                       const char *close, bool pairs)
{
    uint32_t line = p->token.line;
    cmi_jinja_node_list list = {0};
    if (!cmi_jinja_parser_next(p)) {
        return NULL;
    }
    while (!cmi_jinja_at_op(p, close)) {
        if (list.nodes.n > 0 && !cmi_jinja_expect_op(p, ",")) {
            return NULL;
        }
        if (cmi_jinja_at_op(p, close)) {
            break;
        }
        for (int i = 0; i < (pairs ? 2 : 1); i++) {
            if (i == 1 && !cmi_jinja_expect_op(p, ":")) {
                return NULL;
            }
            const cmi_jinja_node *item = cmi_jinja_parse_expression(p);
            if (item == NULL || !cmi_jinja_node_list_add(p, &list, item)) {
                return NULL;
            }
        }
    }
    cmi_jinja_node *node = cmi_jinja_new_items(p, kind, line, &list);
    return node != NULL && cmi_jinja_parser_next(p) ? node : NULL;
}

static bool at_tuple_end(const cmi_jinja_parser *p)
{
    return p->token.kind == CMI_JINJA_T_VARIABLE_END || p->token.kind == CMI_JINJA_T_BLOCK_END ||
           cmi_jinja_at_op(p, ")") || cmi_jinja_at_name(p, "recursive");
}

static cmi_jinja_node *parse_tuple_items(cmi_jinja_parser *p, bool with_cond, bool may_be_empty)
{
    uint32_t line = p->token.line;
    cmi_jinja_node_list list = {0};
    bool is_tuple = may_be_empty && at_tuple_end(p);
    while (!at_tuple_end(p)) {
        cmi_jinja_node *item = with_cond ? cmi_jinja_parse_expression(p) : cmi_jinja_parse_or(p);
        if (item == NULL || !cmi_jinja_node_list_add(p, &list, item)) {
            return NULL;
        }
        if (!cmi_jinja_at_op(p, ",")) {
            if (!is_tuple) {
                return item;
            }
            break;
        }
        is_tuple = true;
        if (!cmi_jinja_parser_next(p)) {
            return NULL;
        }
    }
    if (!is_tuple) {
        cmi_jinja_parser_expected(p, "an expression");
        return NULL;
    }
    return cmi_jinja_new_items(p, CMI_JINJA_NEW_TUPLE, line, &list);
}

cmi_jinja_node *cmi_jinja_parse_tuple(cmi_jinja_parser *p, bool with_cond)
{
    return parse_tuple_items(p, with_cond, false);
}

static cmi_jinja_node *parse_parenthesized(cmi_jinja_parser *p)
{
    if (!cmi_jinja_parser_next(p)) {
        return NULL;
    }
    cmi_jinja_node *node = parse_tuple_items(p, true, true);
    return node != NULL && cmi_jinja_expect_op(p, ")") ? node : NULL;
}

cmi_jinja_node *cmi_jinja_parse_primary(cmi_jinja_parser *p)
{
    switch (p->token.kind) {
    case CMI_JINJA_T_NAME:
        return parse_name(p);
    case CMI_JINJA_T_STRING:
        return parse_string(p);
    case CMI_JINJA_T_INTEGER:
    case CMI_JINJA_T_FLOAT:
        return parse_number(p);
    default:
        break;
    }
    if (cmi_jinja_at_op(p, "(")) {
        return parse_parenthesized(p);
    }
    if (cmi_jinja_at_op(p, "[")) {
        return parse_bracketed(p, CMI_JINJA_NEW_LIST, "]", false);
    }
    if (cmi_jinja_at_op(p, "{")) {
        return parse_bracketed(p, CMI_JINJA_NEW_DICT, "}", true);
    }
    cmi_jinja_parser_expected(p, "an expression");
    return NULL;
}
