/* text/jinja_parse_macro.c - statements whose body runs apart: macros, call and filter blocks. */
#include "text/jinja_parser.h"

/* name or name=default. */
static cmi_jinja_node *parse_param(cmi_jinja_parser *p, bool needs_default)
{
    cmi_jinja_token name = p->token;
    if (name.kind != CMI_JINJA_T_NAME) {
        cmi_jinja_parser_expected(p, "a parameter");
        return NULL;
    }
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_PARAM, name.line);
    const cmi_jinja_node *target = cmi_jinja_parse_target_name(p, false);
    bool has_default = false;
    if (node == NULL || target == NULL || !cmi_jinja_skip_op(p, "=", &has_default)) {
        return NULL;
    }
    if (needs_default && !has_default) {
        cmi_jinja_parser_fail(p, name.line,
                              "a parameter without default stands behind one with it");
        return NULL;
    }
    node->param.name_id = target->name_id;
    node->param.name = cmi_jinja_token_str(p, &name);
    if (has_default) {
        node->param.otherwise = cmi_jinja_parse_expression(p);
        if (node->param.otherwise == NULL ||
            !cmi_jinja_node_adopt(p, node, node->param.otherwise)) {
            return NULL;
        }
    }
    return node->param.name != NULL ? node : NULL;
}

static bool parse_params(cmi_jinja_parser *p, cmi_jinja_node *node, cmi_jinja_macro_def *def)
{
    cmi_jinja_node_list list = {0};
    if (!cmi_jinja_expect_op(p, "(")) {
        return false;
    }
    bool needs_default = false;
    while (!cmi_jinja_at_op(p, ")")) {
        if (list.nodes.n > 0 && !cmi_jinja_expect_op(p, ",")) {
            return false;
        }
        const cmi_jinja_node *param = parse_param(p, needs_default);
        if (param == NULL || !cmi_jinja_node_list_add(p, &list, param)) {
            return false;
        }
        needs_default = param->param.otherwise != NULL;
    }
    def->params = list.nodes;
    return cmi_jinja_node_adopt_all(p, node, &def->params) && cmi_jinja_parser_next(p);
}

/* The body of something that runs apart from the loops around it. */
static bool parse_detached_body(cmi_jinja_parser *p, cmi_jinja_node *node, const char *end,
                                cmi_jinja_nodes *body_out)
{
    uint32_t n_loops = p->n_loops;
    p->n_loops = 0;
    bool ok = cmi_jinja_parse_whole_body(p, node, end, body_out);
    p->n_loops = n_loops;
    return ok;
}

cmi_jinja_node *cmi_jinja_parse_macro(cmi_jinja_parser *p)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_MACRO_DEF, p->token.line);
    cmi_jinja_macro_def *def = cmi_jinja_parser_alloc(p, 1, sizeof *def);
    if (node == NULL || def == NULL || !cmi_jinja_parser_next(p)) {
        return NULL;
    }
    node->macro = def;
    if (p->token.kind != CMI_JINJA_T_NAME) {
        cmi_jinja_parser_expected(p, "the name of the macro");
        return NULL;
    }
    def->name = cmi_jinja_token_str(p, &p->token);
    if (def->name == NULL || !cmi_jinja_name_id(p, &p->token, &def->name_id) ||
        !cmi_jinja_parser_next(p) || !parse_params(p, node, def) ||
        !parse_detached_body(p, node, "endmacro", &def->body)) {
        return NULL;
    }
    return node;
}

cmi_jinja_node *cmi_jinja_parse_call_block(cmi_jinja_parser *p)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_CALL_BLOCK, p->token.line);
    cmi_jinja_macro_def *caller = cmi_jinja_parser_alloc(p, 1, sizeof *caller);
    if (node == NULL || caller == NULL || !cmi_jinja_parser_next(p)) {
        return NULL;
    }
    if (cmi_jinja_at_op(p, "(") && !parse_params(p, node, caller)) {
        return NULL;
    }
    const cmi_jinja_node *call = cmi_jinja_parse_expression(p);
    if (call == NULL || call->kind != CMI_JINJA_CALL) {
        if (call != NULL) {
            cmi_jinja_parser_fail(p, node->line, "a call block needs a call of a macro");
        }
        return NULL;
    }
    node->call_block.call = call;
    node->call_block.caller = caller;
    bool ok = cmi_jinja_node_adopt(p, node, call) &&
              parse_detached_body(p, node, "endcall", &caller->body);
    return ok ? node : NULL;
}

cmi_jinja_node *cmi_jinja_parse_filter_block(cmi_jinja_parser *p)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_FILTER_BLOCK, p->token.line);
    if (node == NULL || !cmi_jinja_parser_next(p)) {
        return NULL;
    }
    node->set.value = cmi_jinja_parse_filters(p, NULL, false);
    bool ok = node->set.value != NULL && cmi_jinja_node_adopt(p, node, node->set.value) &&
              cmi_jinja_parse_whole_body(p, node, "endfilter", &node->set.body);
    return ok ? node : NULL;
}

/* What transformers marks as the model's own words: printed like everything else. */
cmi_jinja_node *cmi_jinja_parse_generation(cmi_jinja_parser *p)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_SCOPE, p->token.line);
    bool ok = node != NULL && cmi_jinja_parser_next(p) &&
              parse_detached_body(p, node, "endgeneration", &node->items);
    return ok ? node : NULL;
}
