/* text/jinja_parser.c - tokens, nodes and limits for the two parsers. */
#include "text/jinja_parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool cmi_jinja_parser_fail(cmi_jinja_parser *p, uint32_t line, const char *fmt, ...)
{
    char text[sizeof p->err->text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return cmi_jinja_lexer_fail(&p->lexer, CMI_ERR_BAD_DATA, line, "%s", text);
}

void *cmi_jinja_parser_alloc(cmi_jinja_parser *p, size_t n, size_t size)
{
    void *memory = cmi_arena_alloc(&p->jinja->arena, n * size);
    if (memory == NULL) {
        cmi_jinja_lexer_fail(&p->lexer, CMI_ERR_TOO_LARGE, p->token.line,
                             "the template takes more than %zu bytes when parsed",
                             p->jinja->arena.max);
    }
    return memory;
}

bool cmi_jinja_parser_next(cmi_jinja_parser *p)
{
    if (p->has_ahead) {
        p->has_ahead = false;
        p->token = p->ahead;
        return true;
    }
    return cmi_jinja_lexer_next(&p->lexer, &p->token);
}

bool cmi_jinja_parser_look(cmi_jinja_parser *p)
{
    if (!p->has_ahead && !cmi_jinja_lexer_next(&p->lexer, &p->ahead)) {
        return false;
    }
    p->has_ahead = true;
    return true;
}

bool cmi_jinja_token_is(const cmi_jinja_token *token, cmi_jinja_token_kind kind, const char *text)
{
    return token->kind == kind && token->n_bytes == strlen(text) &&
           memcmp(token->text, text, token->n_bytes) == 0;
}

bool cmi_jinja_at_name(const cmi_jinja_parser *p, const char *name)
{
    return cmi_jinja_token_is(&p->token, CMI_JINJA_T_NAME, name);
}

bool cmi_jinja_at_op(const cmi_jinja_parser *p, const char *op)
{
    return cmi_jinja_token_is(&p->token, CMI_JINJA_T_OPERATOR, op);
}

bool cmi_jinja_parser_expected(cmi_jinja_parser *p, const char *what)
{
    static const char *const names[] = {
        [CMI_JINJA_T_EOF] = "the end of the template",
        [CMI_JINJA_T_DATA] = "text",
        [CMI_JINJA_T_VARIABLE_BEGIN] = "'{{'",
        [CMI_JINJA_T_VARIABLE_END] = "'}}'",
        [CMI_JINJA_T_BLOCK_BEGIN] = "'{%'",
        [CMI_JINJA_T_BLOCK_END] = "'%}'",
        [CMI_JINJA_T_STRING] = "a string",
    };
    const cmi_jinja_token *t = &p->token;
    if (t->kind < CMI_LEN(names) && names[t->kind] != NULL) {
        return cmi_jinja_parser_fail(p, t->line, "expected %s, got %s", what, names[t->kind]);
    }
    int n = (int)CMI_MIN(t->n_bytes, (size_t)80);
    return cmi_jinja_parser_fail(p, t->line, "expected %s, got '%.*s'", what, n, t->text);
}

bool cmi_jinja_skip_op(cmi_jinja_parser *p, const char *op, bool *was_there)
{
    *was_there = cmi_jinja_at_op(p, op);
    return !*was_there || cmi_jinja_parser_next(p);
}

bool cmi_jinja_skip_name(cmi_jinja_parser *p, const char *name, bool *was_there)
{
    *was_there = cmi_jinja_at_name(p, name);
    return !*was_there || cmi_jinja_parser_next(p);
}

bool cmi_jinja_expect_op(cmi_jinja_parser *p, const char *op)
{
    if (!cmi_jinja_at_op(p, op)) {
        char what[8];
        snprintf(what, sizeof what, "'%s'", op);
        return cmi_jinja_parser_expected(p, what);
    }
    return cmi_jinja_parser_next(p);
}

static bool too_deep(cmi_jinja_parser *p)
{
    return cmi_jinja_lexer_fail(&p->lexer, CMI_ERR_TOO_LARGE, p->token.line,
                                "the template is nested deeper than %d levels",
                                CMI_JINJA_TREE_HEIGHT_MAX);
}

bool cmi_jinja_enter(cmi_jinja_parser *p)
{
    if (p->depth == CMI_JINJA_TREE_HEIGHT_MAX) {
        return too_deep(p);
    }
    p->depth++;
    return true;
}

void cmi_jinja_leave(cmi_jinja_parser *p)
{
    p->depth--;
}

cmi_jinja_node *cmi_jinja_node_new(cmi_jinja_parser *p, cmi_jinja_node_kind kind, uint32_t line)
{
    cmi_jinja_node *node = cmi_jinja_parser_alloc(p, 1, sizeof *node);
    if (node != NULL) {
        node->kind = (uint8_t)kind;
        node->line = line;
        node->height = 1;
    }
    return node;
}

bool cmi_jinja_node_adopt(cmi_jinja_parser *p, cmi_jinja_node *node, const cmi_jinja_node *child)
{
    if (child == NULL || child->height < node->height) {
        return true;
    }
    if (child->height == CMI_JINJA_TREE_HEIGHT_MAX) {
        return too_deep(p);
    }
    node->height = (uint16_t)(child->height + 1);
    return true;
}

bool cmi_jinja_node_adopt_all(cmi_jinja_parser *p, cmi_jinja_node *node,
                              const cmi_jinja_nodes *children)
{
    for (size_t i = 0; i < children->n; i++) {
        if (!cmi_jinja_node_adopt(p, node, children->items[i])) {
            return false;
        }
    }
    return true;
}

bool cmi_jinja_node_list_add(cmi_jinja_parser *p, cmi_jinja_node_list *list,
                             const cmi_jinja_node *node)
{
    if (list->nodes.n == list->cap) {
        size_t cap = list->cap == 0 ? 4 : list->cap * 2;
        const cmi_jinja_node **items = cmi_jinja_parser_alloc(p, cap, sizeof *items);
        if (items == NULL) {
            return false;
        }
        if (list->nodes.n > 0) {
            memcpy(items, list->nodes.items, list->nodes.n * sizeof *items);
        }
        list->nodes.items = items;
        list->cap = cap;
    }
    list->nodes.items[list->nodes.n++] = node;
    return true;
}

const cmi_jinja_str *cmi_jinja_token_str(cmi_jinja_parser *p, const cmi_jinja_token *token)
{
    cmi_jinja_str *s = cmi_jinja_parser_alloc(p, 1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    *s = (cmi_jinja_str){.bytes = token->text, .n_bytes = token->n_bytes};
    for (size_t i = 0; i < s->n_bytes; i++) {
        s->n_chars += ((unsigned char)s->bytes[i] & 0xC0) != 0x80;
    }
    return s;
}

bool cmi_jinja_name_id(cmi_jinja_parser *p, const cmi_jinja_token *token, uint32_t *id_out)
{
    cmi_jinja *jinja = p->jinja;
    if (cmi_strmap_get(&jinja->name_ids, token->text, token->n_bytes, id_out)) {
        return true;
    }
    if (jinja->n_names == CMI_JINJA_NAMES_MAX) {
        return cmi_jinja_lexer_fail(&p->lexer, CMI_ERR_TOO_LARGE, token->line,
                                    "the template has more than %d variable names",
                                    CMI_JINJA_NAMES_MAX);
    }
    const cmi_jinja_str *name = cmi_jinja_token_str(p, token);
    if (name == NULL) {
        return false;
    }
    if (jinja->n_names == jinja->cap_names) {
        size_t cap = jinja->cap_names == 0 ? 32 : jinja->cap_names * 2;
        const cmi_jinja_str **names = cmi_jinja_parser_alloc(p, cap, sizeof *names);
        if (names == NULL) {
            return false;
        }
        if (jinja->n_names > 0) {
            memcpy(names, jinja->names, jinja->n_names * sizeof *names);
        }
        jinja->names = names;
        jinja->cap_names = cap;
    }
    *id_out = (uint32_t)jinja->n_names;
    jinja->names[jinja->n_names++] = name;
    return cmi_strmap_put(&jinja->name_ids, name->bytes, name->n_bytes, *id_out);
}

cmi_jinja_node *cmi_jinja_new_binary(cmi_jinja_parser *p, cmi_jinja_node_kind kind,
                                     const cmi_jinja_node *left, const cmi_jinja_node *right)
{
    if (left == NULL || right == NULL) {
        return NULL;
    }
    cmi_jinja_node *node = cmi_jinja_node_new(p, kind, left->line);
    if (node == NULL || !cmi_jinja_node_adopt(p, node, left) ||
        !cmi_jinja_node_adopt(p, node, right)) {
        return NULL;
    }
    node->binary.left = left;
    node->binary.right = right;
    return node;
}

cmi_jinja_node *cmi_jinja_new_unary(cmi_jinja_parser *p, cmi_jinja_node_kind kind, uint32_t line,
                                    const cmi_jinja_node *operand)
{
    cmi_jinja_node *node = operand == NULL ? NULL : cmi_jinja_node_new(p, kind, line);
    if (node == NULL || !cmi_jinja_node_adopt(p, node, operand)) {
        return NULL;
    }
    node->operand = operand;
    return node;
}

cmi_jinja_node *cmi_jinja_new_items(cmi_jinja_parser *p, cmi_jinja_node_kind kind, uint32_t line,
                                    const cmi_jinja_node_list *list)
{
    cmi_jinja_node *node = cmi_jinja_node_new(p, kind, line);
    if (node == NULL) {
        return NULL;
    }
    node->items = list->nodes;
    return cmi_jinja_node_adopt_all(p, node, &node->items) ? node : NULL;
}
