/* text/jinja_parse.c - statements, and the whole template.
 *
 * Each statement has a row in the table at the end. A statement's parser begins at the tag's name
 * and ends with the token at the closing "%}" of the statement's last tag. */
#include <string.h>

#include "base/alloc.h"
#include "text/jinja_parser.h"

enum {
    TREE_BYTES_MAX = 256 << 20, /* a source of 2 MiB in the tightest spelling takes about this */
    N_ENDS = 3,
};

static cmi_jinja_node *parse_statement(cmi_jinja_parser *p);

static bool at_any_name(const cmi_jinja_parser *p, const char *const ends[N_ENDS])
{
    for (size_t i = 0; i < N_ENDS && ends[i] != NULL; i++) {
        if (cmi_jinja_at_name(p, ends[i])) {
            return true;
        }
    }
    return false;
}

static bool skip_block_end(cmi_jinja_parser *p)
{
    if (p->token.kind != CMI_JINJA_T_BLOCK_END) {
        return cmi_jinja_parser_expected(p, "'%}'");
    }
    return cmi_jinja_parser_next(p);
}

static cmi_jinja_node *parse_data(cmi_jinja_parser *p)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_DATA, p->token.line);
    if (node == NULL) {
        return NULL;
    }
    node->data = cmi_jinja_token_str(p, &p->token);
    return node->data != NULL && cmi_jinja_parser_next(p) ? node : NULL;
}

static cmi_jinja_node *parse_print(cmi_jinja_parser *p)
{
    uint32_t line = p->token.line;
    const cmi_jinja_node *operand =
        cmi_jinja_parser_next(p) ? cmi_jinja_parse_tuple(p, true) : NULL;
    cmi_jinja_node *node = cmi_jinja_new_unary(p, CMI_JINJA_PRINT, line, operand);
    if (node != NULL && p->token.kind != CMI_JINJA_T_VARIABLE_END) {
        cmi_jinja_parser_expected(p, "'}}'");
        return NULL;
    }
    return node != NULL && cmi_jinja_parser_next(p) ? node : NULL;
}

/* Statements until a tag with one of the names in `ends`, at which the parser then stands; `line`
 * is where the tag before them is. Without names: until the end of the template. */
static bool parse_statements(cmi_jinja_parser *p, uint32_t line, const char *const ends[N_ENDS],
                             cmi_jinja_nodes *nodes_out)
{
    cmi_jinja_node_list list = {0};
    while (p->token.kind != CMI_JINJA_T_EOF) {
        cmi_jinja_node *node;
        if (p->token.kind == CMI_JINJA_T_BLOCK_BEGIN) {
            if (!cmi_jinja_parser_next(p)) {
                return false;
            }
            if (at_any_name(p, ends)) {
                *nodes_out = list.nodes;
                return true;
            }
            node = parse_statement(p);
            if (node != NULL && !skip_block_end(p)) {
                return false;
            }
        } else {
            node = p->token.kind == CMI_JINJA_T_DATA ? parse_data(p) : parse_print(p);
        }
        if (node == NULL || !cmi_jinja_node_list_add(p, &list, node)) {
            return false;
        }
    }
    *nodes_out = list.nodes;
    return ends[0] == NULL ||
           cmi_jinja_parser_fail(p, line, "a block that begins here is not closed by {%% %s %%}",
                                 ends[0]);
}

/* The body behind a tag, from the tag's "%}" on; a colon before that is allowed, as in Python. */
static bool parse_body(cmi_jinja_parser *p, cmi_jinja_node *node, const char *const ends[N_ENDS],
                       cmi_jinja_nodes *body_out)
{
    bool had_colon = false;
    if (!cmi_jinja_skip_op(p, ":", &had_colon) || !cmi_jinja_enter(p)) {
        return false;
    }
    bool ok = skip_block_end(p) && parse_statements(p, node->line, ends, body_out) &&
              cmi_jinja_node_adopt_all(p, node, body_out);
    cmi_jinja_leave(p);
    return ok;
}

bool cmi_jinja_parse_whole_body(cmi_jinja_parser *p, cmi_jinja_node *node, const char *end,
                                cmi_jinja_nodes *body_out)
{
    const char *const ends[N_ENDS] = {end};
    return parse_body(p, node, ends, body_out) && cmi_jinja_parser_next(p);
}

/* ---- assignment ---- */

cmi_jinja_node *cmi_jinja_parse_target_name(cmi_jinja_parser *p, bool with_namespace)
{
    cmi_jinja_token name = p->token;
    cmi_jinja_node *node = cmi_jinja_parse_primary(p);
    if (node == NULL || node->kind != CMI_JINJA_NAME) {
        if (node != NULL) {
            cmi_jinja_parser_fail(p, name.line, "'%.*s' cannot be assigned to",
                                  (int)CMI_MIN(name.n_bytes, (size_t)80), name.text);
        }
        return NULL;
    }
    bool has_dot = false;
    if (!with_namespace) {
        return node;
    }
    if (!cmi_jinja_skip_op(p, ".", &has_dot)) {
        return NULL;
    }
    if (!has_dot) {
        return node;
    }
    if (p->token.kind != CMI_JINJA_T_NAME) {
        cmi_jinja_parser_expected(p, "the name of an attribute");
        return NULL;
    }
    uint32_t name_id = node->name_id;
    node->kind = CMI_JINJA_NS_ATTR;
    node->ns_attr.name_id = name_id;
    node->ns_attr.attr = cmi_jinja_token_str(p, &p->token);
    return node->ns_attr.attr != NULL && cmi_jinja_parser_next(p) ? node : NULL;
}

static cmi_jinja_node *parse_target(cmi_jinja_parser *p, bool with_namespace);

static cmi_jinja_node *parse_target_item(cmi_jinja_parser *p, bool with_namespace)
{
    if (p->token.kind == CMI_JINJA_T_NAME) {
        return cmi_jinja_parse_target_name(p, with_namespace);
    }
    if (!cmi_jinja_at_op(p, "(")) {
        cmi_jinja_parser_expected(p, "a name to assign to");
        return NULL;
    }
    if (!cmi_jinja_parser_next(p) || !cmi_jinja_enter(p)) {
        return NULL;
    }
    cmi_jinja_node *node = parse_target(p, with_namespace);
    cmi_jinja_leave(p);
    return node != NULL && cmi_jinja_expect_op(p, ")") ? node : NULL;
}

/* One name, or several with commas between them. */
static cmi_jinja_node *parse_target(cmi_jinja_parser *p, bool with_namespace)
{
    uint32_t line = p->token.line;
    cmi_jinja_node_list list = {0};
    cmi_jinja_node *item = parse_target_item(p, with_namespace);
    if (item == NULL || !cmi_jinja_at_op(p, ",")) {
        return item;
    }
    if (!cmi_jinja_node_list_add(p, &list, item)) {
        return NULL;
    }
    bool has_comma = true;
    while (cmi_jinja_skip_op(p, ",", &has_comma)) {
        bool at_item = p->token.kind == CMI_JINJA_T_NAME && !cmi_jinja_at_name(p, "in");
        if (!has_comma || !(at_item || cmi_jinja_at_op(p, "("))) {
            return cmi_jinja_new_items(p, CMI_JINJA_NEW_TUPLE, line, &list);
        }
        item = parse_target_item(p, with_namespace);
        if (item == NULL || !cmi_jinja_node_list_add(p, &list, item)) {
            return NULL;
        }
    }
    return NULL;
}

static cmi_jinja_node *parse_set(cmi_jinja_parser *p)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_SET, p->token.line);
    if (node == NULL || !cmi_jinja_parser_next(p)) {
        return NULL;
    }
    node->set.target = parse_target(p, true);
    bool has_value = false;
    if (node->set.target == NULL || !cmi_jinja_node_adopt(p, node, node->set.target) ||
        !cmi_jinja_skip_op(p, "=", &has_value)) {
        return NULL;
    }
    if (has_value) {
        node->set.value = cmi_jinja_parse_tuple(p, true);
        bool ok = node->set.value != NULL && cmi_jinja_node_adopt(p, node, node->set.value);
        return ok ? node : NULL;
    }
    node->kind = CMI_JINJA_SET_BLOCK;
    if (cmi_jinja_at_op(p, "|")) {
        node->set.value = cmi_jinja_parse_filters(p, NULL, true);
        if (node->set.value == NULL || !cmi_jinja_node_adopt(p, node, node->set.value)) {
            return NULL;
        }
    }
    return cmi_jinja_parse_whole_body(p, node, "endset", &node->set.body) ? node : NULL;
}

/* ---- control flow ---- */

static cmi_jinja_node *parse_if(cmi_jinja_parser *p)
{
    static const char *const ends[N_ENDS] = {"endif", "elif", "else"};
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_IF, p->token.line);
    cmi_jinja_node_list branches = {0};
    if (node == NULL) {
        return NULL;
    }
    do {
        cmi_jinja_node *branch = cmi_jinja_node_new(p, CMI_JINJA_BRANCH, p->token.line);
        if (branch == NULL || !cmi_jinja_parser_next(p)) {
            return NULL;
        }
        branch->branch.test = cmi_jinja_parse_tuple(p, false);
        if (branch->branch.test == NULL || !cmi_jinja_node_adopt(p, branch, branch->branch.test) ||
            !parse_body(p, branch, ends, &branch->branch.body) ||
            !cmi_jinja_node_list_add(p, &branches, branch) ||
            !cmi_jinja_node_adopt(p, node, branch)) {
            return NULL;
        }
    } while (cmi_jinja_at_name(p, "elif"));
    node->cond_block.branches = branches.nodes;
    bool has_else = cmi_jinja_at_name(p, "else");
    if (!cmi_jinja_parser_next(p)) {
        return NULL;
    }
    if (has_else && !cmi_jinja_parse_whole_body(p, node, "endif", &node->cond_block.otherwise)) {
        return NULL;
    }
    return node;
}

/* `target in iterable if test`, at the target. */
static bool parse_for_head(cmi_jinja_parser *p, cmi_jinja_node *node, cmi_jinja_for *loop)
{
    loop->target = parse_target(p, false);
    if (loop->target == NULL) {
        return false;
    }
    bool found = false;
    if (!cmi_jinja_skip_name(p, "in", &found)) {
        return false;
    }
    if (!found) {
        return cmi_jinja_parser_expected(p, "'in'");
    }
    loop->iterable = cmi_jinja_parse_tuple(p, false);
    if (loop->iterable == NULL || !cmi_jinja_skip_name(p, "if", &found)) {
        return false;
    }
    if (found) {
        loop->test = cmi_jinja_parse_expression(p);
        if (loop->test == NULL) {
            return false;
        }
    }
    if (cmi_jinja_at_name(p, "recursive")) {
        return cmi_jinja_parser_fail(p, p->token.line, "recursive loops are not supported");
    }
    return cmi_jinja_node_adopt(p, node, loop->target) &&
           cmi_jinja_node_adopt(p, node, loop->iterable) &&
           cmi_jinja_node_adopt(p, node, loop->test);
}

static cmi_jinja_node *parse_for(cmi_jinja_parser *p)
{
    static const char *const ends[N_ENDS] = {"endfor", "else"};
    cmi_jinja_node *node = cmi_jinja_node_new(p, CMI_JINJA_FOR, p->token.line);
    cmi_jinja_for *loop = cmi_jinja_parser_alloc(p, 1, sizeof *loop);
    if (node == NULL || loop == NULL || !cmi_jinja_parser_next(p) ||
        !parse_for_head(p, node, loop)) {
        return NULL;
    }
    node->loop = loop;
    p->n_loops++;
    bool ok = parse_body(p, node, ends, &loop->body);
    p->n_loops--;
    if (!ok) {
        return NULL;
    }
    bool has_else = cmi_jinja_at_name(p, "else");
    if (!cmi_jinja_parser_next(p)) {
        return NULL;
    }
    if (has_else && !cmi_jinja_parse_whole_body(p, node, "endfor", &loop->otherwise)) {
        return NULL;
    }
    return node;
}

static cmi_jinja_node *parse_jump(cmi_jinja_parser *p)
{
    bool is_break = cmi_jinja_at_name(p, "break");
    if (p->n_loops == 0) {
        cmi_jinja_parser_fail(p, p->token.line, "'%s' stands outside a loop",
                              is_break ? "break" : "continue");
        return NULL;
    }
    cmi_jinja_node *node =
        cmi_jinja_node_new(p, is_break ? CMI_JINJA_BREAK : CMI_JINJA_CONTINUE, p->token.line);
    return node != NULL && cmi_jinja_parser_next(p) ? node : NULL;
}

static const struct {
    const char *tag;
    cmi_jinja_node *(*parse)(cmi_jinja_parser *p);
} statements[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", cmi_jinja_parse_macro},
    {"call", cmi_jinja_parse_call_block},
    {"filter", cmi_jinja_parse_filter_block},
    {"break", parse_jump},
    {"continue", parse_jump},
    {"generation", cmi_jinja_parse_generation},
};

static cmi_jinja_node *parse_statement(cmi_jinja_parser *p)
{
    if (p->token.kind != CMI_JINJA_T_NAME) {
        cmi_jinja_parser_expected(p, "the name of a tag");
        return NULL;
    }
    for (size_t i = 0; i < CMI_LEN(statements); i++) {
        if (cmi_jinja_at_name(p, statements[i].tag)) {
            return statements[i].parse(p);
        }
    }
    int n = (int)CMI_MIN(p->token.n_bytes, (size_t)80);
    if (n > 3 && memcmp(p->token.text, "end", 3) == 0) {
        cmi_jinja_parser_fail(p, p->token.line, "'%.*s' has no block to close", n, p->token.text);
    } else {
        cmi_jinja_parser_fail(p, p->token.line, "the tag '%.*s' is not supported here", n,
                              p->token.text);
    }
    return NULL;
}

cmi_status cmi_jinja_parse(cmi_jinja **jinja_out, const char *source, size_t n, cmi_error *err)
{
    if (n > CMI_JINJA_SOURCE_BYTES_MAX) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE,
                             "the template has %zu bytes; at most %d are read", n,
                             CMI_JINJA_SOURCE_BYTES_MAX);
    }
    static const char *const no_ends[N_ENDS] = {NULL};
    cmi_error error = {.status = CMI_OK};
    cmi_jinja *jinja = cmi_alloc(1, sizeof *jinja);
    cmi_arena_init(&jinja->arena, TREE_BYTES_MAX);
    cmi_strmap_init(&jinja->name_ids, 64);
    cmi_jinja_parser p = {.jinja = jinja, .err = &error};
    if (cmi_jinja_lexer_init(&p.lexer, &jinja->arena, source, n, &error) == CMI_OK &&
        cmi_jinja_parser_next(&p) && parse_statements(&p, 1, no_ends, &jinja->body)) {
        *jinja_out = jinja;
        return CMI_OK;
    }
    cmi_jinja_destroy(jinja);
    return cmi_error_set(err, error.status, "%s", error.text);
}

void cmi_jinja_destroy(cmi_jinja *jinja)
{
    if (jinja != NULL) {
        cmi_strmap_deinit(&jinja->name_ids);
        cmi_arena_deinit(&jinja->arena);
        cmi_free(jinja);
    }
}
