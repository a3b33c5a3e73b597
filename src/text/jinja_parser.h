/* text/jinja_parser.h - what the parsers of statements and of expressions share.
 *
 * Every function that returns a node or bool reports an error with NULL or false; the line is then
 * in p->err. The token under consideration is p->token. */
#ifndef CMI_TEXT_JINJA_PARSER_H
#define CMI_TEXT_JINJA_PARSER_H

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

typedef struct cmi_jinja_parser {
    cmi_jinja *jinja;
    cmi_error *err;
    cmi_jinja_lexer lexer;
    cmi_jinja_token token;
    cmi_jinja_token ahead; /* the token after it, when has_ahead */
    bool has_ahead;
    uint32_t depth;   /* of parser functions that call themselves */
    uint32_t n_loops; /* around the token, within the same macro */
} cmi_jinja_parser;

CMI_PRINTF(3, 4)
bool cmi_jinja_parser_fail(cmi_jinja_parser *p, uint32_t line, const char *fmt, ...);

/* Memory of the template; NULL, with the error set, when it has too much. */
CMI_NODISCARD void *cmi_jinja_parser_alloc(cmi_jinja_parser *p, size_t n, size_t size);

CMI_NODISCARD bool cmi_jinja_parser_next(cmi_jinja_parser *p);
CMI_NODISCARD bool cmi_jinja_parser_look(cmi_jinja_parser *p); /* fills p->ahead */

bool cmi_jinja_token_is(const cmi_jinja_token *token, cmi_jinja_token_kind kind, const char *text);
bool cmi_jinja_at_name(const cmi_jinja_parser *p, const char *name);
bool cmi_jinja_at_op(const cmi_jinja_parser *p, const char *op);

/* Steps over the operator or fails. */
CMI_NODISCARD bool cmi_jinja_expect_op(cmi_jinja_parser *p, const char *op);
/* Steps over the operator or name when it is there; *was_there says so. False only on error. */
CMI_NODISCARD bool cmi_jinja_skip_op(cmi_jinja_parser *p, const char *op, bool *was_there);
CMI_NODISCARD bool cmi_jinja_skip_name(cmi_jinja_parser *p, const char *name, bool *was_there);
/* Fails with "expected ..., got ...". */
bool cmi_jinja_parser_expected(cmi_jinja_parser *p, const char *what);

/* Refuses to go deeper than the limit; every true needs a cmi_jinja_leave. */
CMI_NODISCARD bool cmi_jinja_enter(cmi_jinja_parser *p);
void cmi_jinja_leave(cmi_jinja_parser *p);

CMI_NODISCARD cmi_jinja_node *cmi_jinja_node_new(cmi_jinja_parser *p, cmi_jinja_node_kind kind,
                                                 uint32_t line);
/* Makes the node higher than the child (NULL is fine); false when that is over the limit. */
CMI_NODISCARD bool cmi_jinja_node_adopt(cmi_jinja_parser *p, cmi_jinja_node *node,
                                        const cmi_jinja_node *child);

CMI_NODISCARD bool cmi_jinja_node_adopt_all(cmi_jinja_parser *p, cmi_jinja_node *node,
                                            const cmi_jinja_nodes *children);

/* A list that grows while its items are parsed. */
typedef struct cmi_jinja_node_list {
    cmi_jinja_nodes nodes;
    size_t cap;
} cmi_jinja_node_list;

CMI_NODISCARD bool cmi_jinja_node_list_add(cmi_jinja_parser *p, cmi_jinja_node_list *list,
                                           const cmi_jinja_node *node);

/* The text of the current name, string or data token, and the number of a variable. */
CMI_NODISCARD const cmi_jinja_str *cmi_jinja_token_str(cmi_jinja_parser *p,
                                                       const cmi_jinja_token *token);
CMI_NODISCARD bool cmi_jinja_name_id(cmi_jinja_parser *p, const cmi_jinja_token *token,
                                     uint32_t *id_out);

/* Nodes of a kind that uses `binary`, `operand` or `items`. NULL when a child is NULL. */
CMI_NODISCARD cmi_jinja_node *cmi_jinja_new_binary(cmi_jinja_parser *p, cmi_jinja_node_kind kind,
                                                   const cmi_jinja_node *left,
                                                   const cmi_jinja_node *right);
CMI_NODISCARD cmi_jinja_node *cmi_jinja_new_unary(cmi_jinja_parser *p, cmi_jinja_node_kind kind,
                                                  uint32_t line, const cmi_jinja_node *operand);
CMI_NODISCARD cmi_jinja_node *cmi_jinja_new_items(cmi_jinja_parser *p, cmi_jinja_node_kind kind,
                                                  uint32_t line, const cmi_jinja_node_list *list);

/* The grammar, from the outside in. */
/* One expression, or several with commas between them as a tuple; with_cond: `a if b` is allowed.
 */
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_tuple(cmi_jinja_parser *p, bool with_cond);
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_expression(cmi_jinja_parser *p);
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_or(cmi_jinja_parser *p); /* no `a if b` */
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_primary(cmi_jinja_parser *p);
/* What follows node: NULL when node is NULL. */
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_postfix(cmi_jinja_parser *p, cmi_jinja_node *node);
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_filters_and_tests(cmi_jinja_parser *p,
                                                                cmi_jinja_node *node);
/* The filters at the token ("| a | b(1)", or without the first bar) on object (may be NULL). */
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_filters(cmi_jinja_parser *p, cmi_jinja_node *object,
                                                      bool first_has_bar);

/* Statements, at the name of their tag; they end at the "%}" of their last tag. */
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_macro(cmi_jinja_parser *p);
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_call_block(cmi_jinja_parser *p);
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_filter_block(cmi_jinja_parser *p);
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_generation(cmi_jinja_parser *p);
/* The body of node, from the "%}" of its tag on, up to the "%}" of the tag that ends it. */
CMI_NODISCARD bool cmi_jinja_parse_whole_body(cmi_jinja_parser *p, cmi_jinja_node *node,
                                              const char *end, cmi_jinja_nodes *body_out);
/* A name to assign to, with_namespace also name.attribute. */
CMI_NODISCARD cmi_jinja_node *cmi_jinja_parse_target_name(cmi_jinja_parser *p, bool with_namespace);

#endif
