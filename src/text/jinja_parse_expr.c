/* text/jinja_parse_expr.c - expressions, with the precedence of Jinja2, loosest first:
 *
 *     a if b else c      or      and      not      == != < <= > >= in      + -
 *     ~      * / // %      **      unary + -      a.b a[b] a(b)      a|filter a is test
 *
 * Two habits of Jinja2 differ from Python's: `**` groups from the left, and a unary sign binds
 * tighter than `**` and looser than a call, so that -1|abs is (-1)|abs. */
#include "text/jinja_parser.h"

static cmi_jinja_node *parse_unary(cmi_jinja_parser *p, bool with_filters);

typedef struct op_name {
    const char *text;
    cmi_jinja_op op;
} op_name;

enum { N_LEVELS = 3, OPS_OF_LEVEL = 5 };

/* Binary operators that group from the left; `~` stands between the first row and the second. */
static const op_name levels[N_LEVELS][OPS_OF_LEVEL] = {
    {{"+", CMI_JINJA_ADD}, {"-", CMI_JINJA_SUB}},
    {{"*", CMI_JINJA_MUL}, {"/", CMI_JINJA_DIV}, {"//", CMI_JINJA_FLOORDIV}, {"%", CMI_JINJA_MOD}},
    {{"**", CMI_JINJA_POW}},
};

static const op_name compare_ops[] = {
    {"==", CMI_JINJA_EQ}, {"!=", CMI_JINJA_NE}, {"<", CMI_JINJA_LT},
    {"<=", CMI_JINJA_LE}, {">", CMI_JINJA_GT},  {">=", CMI_JINJA_GE},
};

static const op_name *find_op(const cmi_jinja_parser *p, const op_name *ops, size_t n)
{
    for (size_t i = 0; i < n && ops[i].text != NULL; i++) {
        if (cmi_jinja_at_op(p, ops[i].text)) {
            return &ops[i];
        }
    }
    return NULL;
}

static cmi_jinja_node *parse_signed(cmi_jinja_parser *p)
{
    uint32_t line = p->token.line;
    cmi_jinja_op op = cmi_jinja_at_op(p, "-") ? CMI_JINJA_NEG : CMI_JINJA_POS;
    if (!cmi_jinja_parser_next(p) || !cmi_jinja_enter(p)) {
        return NULL;
    }
    cmi_jinja_node *node = cmi_jinja_new_unary(p, CMI_JINJA_UNARY, line, parse_unary(p, false));
    cmi_jinja_leave(p);
    if (node != NULL) {
        node->op = (uint8_t)op;
    }
    return node;
}

static cmi_jinja_node *parse_unary(cmi_jinja_parser *p, bool with_filters)
{
    bool is_signed = cmi_jinja_at_op(p, "-") || cmi_jinja_at_op(p, "+");
    cmi_jinja_node *node =
        cmi_jinja_parse_postfix(p, is_signed ? parse_signed(p) : cmi_jinja_parse_primary(p));
    return with_filters ? cmi_jinja_parse_filters_and_tests(p, node) : node;
}

static cmi_jinja_node *parse_level(cmi_jinja_parser *p, size_t level);

static cmi_jinja_node *parse_concat(cmi_jinja_parser *p)
{
    uint32_t line = p->token.line;
    cmi_jinja_node *first = parse_level(p, 1);
    cmi_jinja_node_list list = {0};
    if (first == NULL || !cmi_jinja_at_op(p, "~")) {
        return first;
    }
    if (!cmi_jinja_node_list_add(p, &list, first)) {
        return NULL;
    }
    while (cmi_jinja_at_op(p, "~")) {
        if (!cmi_jinja_parser_next(p)) {
            return NULL;
        }
        cmi_jinja_node *item = parse_level(p, 1);
        if (item == NULL || !cmi_jinja_node_list_add(p, &list, item)) {
            return NULL;
        }
    }
    return cmi_jinja_new_items(p, CMI_JINJA_CONCAT, line, &list);
}

static cmi_jinja_node *parse_level(cmi_jinja_parser *p, size_t level)
{
    if (level == N_LEVELS) {
        return parse_unary(p, true);
    }
    cmi_jinja_node *left = level == 0 ? parse_concat(p) : parse_level(p, level + 1);
    const op_name *op;
    while (left != NULL && (op = find_op(p, levels[level], OPS_OF_LEVEL)) != NULL) {
        if (!cmi_jinja_parser_next(p)) {
            return NULL;
        }
        cmi_jinja_node *right = level == 0 ? parse_concat(p) : parse_level(p, level + 1);
        left = cmi_jinja_new_binary(p, CMI_JINJA_BINARY, left, right);
        if (left != NULL) {
            left->op = (uint8_t)op->op;
        }
    }
    return left;
}

/* The comparison at the token: 1 and the parser behind it, 0 when there is none, -1 on error. */
static int take_compare_op(cmi_jinja_parser *p, cmi_jinja_op *op_out)
{
    const op_name *op = find_op(p, compare_ops, CMI_LEN(compare_ops));
    bool is_not = cmi_jinja_at_name(p, "not");
    if (is_not) {
        if (!cmi_jinja_parser_look(p)) {
            return -1;
        }
        is_not = cmi_jinja_token_is(&p->ahead, CMI_JINJA_T_NAME, "in");
    }
    if (op == NULL && !is_not && !cmi_jinja_at_name(p, "in")) {
        return 0;
    }
    *op_out = op != NULL ? op->op : is_not ? CMI_JINJA_NOT_IN : CMI_JINJA_IN;
    bool ok = cmi_jinja_parser_next(p) && (!is_not || cmi_jinja_parser_next(p));
    return ok ? 1 : -1;
}

static cmi_jinja_node *parse_compare(cmi_jinja_parser *p)
{
    cmi_jinja_node_list items = {0};
    cmi_jinja_node *first = parse_level(p, 0);
    cmi_jinja_op op = CMI_JINJA_EQ;
    int found = 0;
    while (first != NULL && (found = take_compare_op(p, &op)) == 1) {
        if (items.nodes.n == 0 && !cmi_jinja_node_list_add(p, &items, first)) {
            return NULL;
        }
        uint32_t line = p->token.line;
        cmi_jinja_node *link = cmi_jinja_new_unary(p, CMI_JINJA_LINK, line, parse_level(p, 0));
        if (link == NULL || !cmi_jinja_node_list_add(p, &items, link)) {
            return NULL;
        }
        link->op = (uint8_t)op;
    }
    if (first == NULL || found < 0) {
        return NULL;
    }
    return items.nodes.n == 0 ? first
                              : cmi_jinja_new_items(p, CMI_JINJA_COMPARE, first->line, &items);
}

static cmi_jinja_node *parse_not(cmi_jinja_parser *p)
{
    if (!cmi_jinja_at_name(p, "not")) {
        return parse_compare(p);
    }
    uint32_t line = p->token.line;
    if (!cmi_jinja_parser_next(p) || !cmi_jinja_enter(p)) {
        return NULL;
    }
    cmi_jinja_node *node = cmi_jinja_new_unary(p, CMI_JINJA_NOT, line, parse_not(p));
    cmi_jinja_leave(p);
    return node;
}

static cmi_jinja_node *parse_and(cmi_jinja_parser *p)
{
    cmi_jinja_node *left = parse_not(p);
    while (left != NULL && cmi_jinja_at_name(p, "and")) {
        left = cmi_jinja_parser_next(p) ? cmi_jinja_new_binary(p, CMI_JINJA_AND, left, parse_not(p))
                                        : NULL;
    }
    return left;
}

cmi_jinja_node *cmi_jinja_parse_or(cmi_jinja_parser *p)
{
    cmi_jinja_node *left = parse_and(p);
    while (left != NULL && cmi_jinja_at_name(p, "or")) {
        left = cmi_jinja_parser_next(p) ? cmi_jinja_new_binary(p, CMI_JINJA_OR, left, parse_and(p))
                                        : NULL;
    }
    return left;
}

/* `yes if test`, of which yes has been read, and its `else` part if there is one. */
static cmi_jinja_node *parse_cond(cmi_jinja_parser *p, cmi_jinja_node *yes)
{
    const cmi_jinja_node *test = cmi_jinja_parser_next(p) ? cmi_jinja_parse_or(p) : NULL;
    cmi_jinja_node *node = cmi_jinja_new_binary(p, CMI_JINJA_COND, yes, test);
    bool has_else = false;
    if (node == NULL || !cmi_jinja_skip_name(p, "else", &has_else)) {
        return NULL;
    }
    const cmi_jinja_node *no = NULL;
    if (has_else) {
        no = cmi_jinja_parse_expression(p);
        if (no == NULL || !cmi_jinja_node_adopt(p, node, no)) {
            return NULL;
        }
    }
    node->cond.test = test;
    node->cond.yes = yes;
    node->cond.no = no;
    return node;
}

cmi_jinja_node *cmi_jinja_parse_expression(cmi_jinja_parser *p)
{
    if (!cmi_jinja_enter(p)) {
        return NULL;
    }
    cmi_jinja_node *node = cmi_jinja_parse_or(p);
    while (node != NULL && cmi_jinja_at_name(p, "if")) {
        node = parse_cond(p, node);
    }
    cmi_jinja_leave(p);
    return node;
}
