/* text/jinja_ast.h - a parsed template: a tree of nodes that never changes. */
#ifndef CMI_TEXT_JINJA_AST_H
#define CMI_TEXT_JINJA_AST_H

#include "base/arena.h"
#include "base/strmap.h"
#include "text/jinja.h"
#include "text/jinja_value.h"

typedef enum cmi_jinja_node_kind {
    /* expressions */
    CMI_JINJA_CONST,
    CMI_JINJA_NAME,
    CMI_JINJA_NEW_LIST,
    CMI_JINJA_NEW_TUPLE,
    CMI_JINJA_NEW_DICT, /* items: key, value, key, value */
    CMI_JINJA_CONCAT,
    CMI_JINJA_BINARY,
    CMI_JINJA_UNARY,
    CMI_JINJA_AND,
    CMI_JINJA_OR,
    CMI_JINJA_NOT,
    CMI_JINJA_COMPARE, /* items: the first operand, then links */
    CMI_JINJA_LINK,    /* an operator of a comparison and what is right of it */
    CMI_JINJA_COND,
    CMI_JINJA_ATTR,
    CMI_JINJA_ITEM,
    CMI_JINJA_SLICE,
    CMI_JINJA_CALL,
    CMI_JINJA_KEYWORD, /* name=value among the arguments */
    CMI_JINJA_FILTER,
    CMI_JINJA_TEST,
    /* statements */
    CMI_JINJA_DATA,
    CMI_JINJA_PRINT,
    CMI_JINJA_IF,
    CMI_JINJA_BRANCH, /* an if or elif with its body */
    CMI_JINJA_FOR,
    CMI_JINJA_SET,
    CMI_JINJA_SET_BLOCK,
    CMI_JINJA_MACRO_DEF,
    CMI_JINJA_PARAM,
    CMI_JINJA_CALL_BLOCK,
    CMI_JINJA_FILTER_BLOCK,
    CMI_JINJA_SCOPE, /* {% generation %} */
    CMI_JINJA_BREAK,
    CMI_JINJA_CONTINUE,
    /* what a value can be assigned to; also NAME and NEW_TUPLE */
    CMI_JINJA_NS_ATTR,
} cmi_jinja_node_kind;

typedef enum cmi_jinja_op {
    CMI_JINJA_ADD,
    CMI_JINJA_SUB,
    CMI_JINJA_MUL,
    CMI_JINJA_DIV,
    CMI_JINJA_FLOORDIV,
    CMI_JINJA_MOD,
    CMI_JINJA_POW,
    CMI_JINJA_EQ,
    CMI_JINJA_NE,
    CMI_JINJA_LT,
    CMI_JINJA_LE,
    CMI_JINJA_GT,
    CMI_JINJA_GE,
    CMI_JINJA_IN,
    CMI_JINJA_NOT_IN,
    CMI_JINJA_NEG,
    CMI_JINJA_POS,
} cmi_jinja_op;

typedef struct cmi_jinja_node cmi_jinja_node;

typedef struct cmi_jinja_nodes {
    const cmi_jinja_node **items;
    size_t n;
} cmi_jinja_nodes;

typedef struct cmi_jinja_call_args {
    cmi_jinja_nodes positional, keywords;
    const cmi_jinja_node *star;      /* *args, or NULL */
    const cmi_jinja_node *star_star; /* **kwargs, or NULL */
} cmi_jinja_call_args;

typedef struct cmi_jinja_for {
    const cmi_jinja_node *target, *iterable;
    const cmi_jinja_node *test; /* NULL: none */
    cmi_jinja_nodes body, otherwise;
} cmi_jinja_for;

/* A macro, or the anonymous one that a call block makes. */
typedef struct cmi_jinja_macro_def {
    const cmi_jinja_str *name; /* NULL: anonymous */
    uint32_t name_id;
    cmi_jinja_nodes params; /* PARAM */
    cmi_jinja_nodes body;
} cmi_jinja_macro_def;

struct cmi_jinja_node {
    uint8_t kind;    /* cmi_jinja_node_kind */
    uint8_t op;      /* cmi_jinja_op, of BINARY, UNARY and LINK */
    uint16_t height; /* of the tree below, at most CMI_JINJA_TREE_HEIGHT_MAX */
    uint32_t line;
    union {
        cmi_jinja_value constant;
        uint32_t name_id;
        cmi_jinja_nodes items; /* NEW_LIST, NEW_TUPLE, NEW_DICT, CONCAT, COMPARE, SCOPE */
        struct {
            const cmi_jinja_node *left, *right;
        } binary;                      /* also AND, OR */
        const cmi_jinja_node *operand; /* UNARY, NOT, LINK, PRINT */
        struct {
            const cmi_jinja_node *test, *yes;
            const cmi_jinja_node *no; /* NULL: undefined */
        } cond;
        struct {
            const cmi_jinja_node *object;
            const cmi_jinja_str *name;
        } attr; /* also KEYWORD, whose value is the object */
        struct {
            const cmi_jinja_node *object, *index;
        } item;
        struct {
            const cmi_jinja_node *object, *bounds; /* a NEW_TUPLE of start, stop, step */
        } slice;
        struct {
            const cmi_jinja_node *callee;
            const cmi_jinja_call_args *args;
        } call;
        struct {
            const cmi_jinja_node *object;     /* NULL: the text of the block around it */
            const cmi_jinja_builtin *builtin; /* NULL: there is no filter or test of this name */
            const cmi_jinja_str *name;
            const cmi_jinja_call_args *args;
        } apply; /* FILTER, TEST */
        const cmi_jinja_str *data;
        struct {
            cmi_jinja_nodes branches, otherwise;
        } cond_block;
        struct {
            const cmi_jinja_node *test;
            cmi_jinja_nodes body;
        } branch;
        const cmi_jinja_for *loop;
        struct {
            const cmi_jinja_node *target;
            const cmi_jinja_node *value; /* SET_BLOCK: a filter on the text, or NULL */
            cmi_jinja_nodes body;        /* SET_BLOCK, FILTER_BLOCK (its filter is value) */
        } set;
        const cmi_jinja_macro_def *macro;
        struct {
            const cmi_jinja_str *name;
            uint32_t name_id;
            const cmi_jinja_node *otherwise; /* NULL: undefined when it is not given */
        } param;
        struct {
            const cmi_jinja_node *call;
            const cmi_jinja_macro_def *caller;
        } call_block;
        struct {
            uint32_t name_id;
            const cmi_jinja_str *attr;
        } ns_attr;
    };
};

struct cmi_jinja {
    cmi_arena arena; /* the source, the nodes and everything they point to */
    cmi_jinja_nodes body;
    cmi_strmap name_ids; /* every variable name that the source mentions, 0 .. n_names - 1 */
    const cmi_jinja_str **names;
    size_t n_names, cap_names;
};

#endif
