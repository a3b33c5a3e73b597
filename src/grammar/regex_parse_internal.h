/* grammar/regex_parse_internal.h - a regular expression as a tree. */
#ifndef CMI_GRAMMAR_REGEX_PARSE_INTERNAL_H
#define CMI_GRAMMAR_REGEX_PARSE_INTERNAL_H

#include "grammar/regex_internal.h"

typedef enum cmi_regex_kind {
    CMI_REGEX_SET,    /* one character of a set */
    CMI_REGEX_CAT,    /* its children in a row; nothing, when there are none */
    CMI_REGEX_ALT,    /* one of its children */
    CMI_REGEX_REPEAT, /* its child min .. max times */
    CMI_REGEX_BEGIN,
    CMI_REGEX_END,
} cmi_regex_kind;

#define CMI_REGEX_NONE UINT32_MAX

typedef struct cmi_regex_node {
    cmi_regex_kind kind;
    uint32_t first, next; /* child and sibling, or CMI_REGEX_NONE */
    uint32_t set;
    uint32_t min, max; /* max may be CMI_UNBOUNDED */
} cmi_regex_node;

typedef struct cmi_regex {
    cmi_build *b;
    const char *what;
    const char *begin, *p, *end;
    cmi_regex_node *nodes;
    uint32_t n_nodes, cap_nodes;
    cmi_charset *sets; /* normalized */
    uint32_t n_sets, cap_sets;
    uint32_t nesting;
} cmi_regex;

/* The root node. On failure, which b records, the tree is not to be used but for deinit. */
uint32_t cmi_regex_parse(cmi_regex *r);
void cmi_regex_deinit(cmi_regex *r);

/* ---- regex_class.c ---- */

/* Says what is wrong at the current byte. */
void cmi_regex_refuse(cmi_regex *r, cmi_status st, const char *problem);

/* Behind a backslash: the characters that the escape stands for are added. in_class: between
 * brackets. *single_out is the one character, or UINT32_MAX for \d and the like. */
void cmi_regex_escape(cmi_regex *r, cmi_charset *set, bool in_class, uint32_t *single_out);

/* Behind an opening bracket: up to the closing one. */
void cmi_regex_class(cmi_regex *r, cmi_charset *set);

/* The next character of the expression, which must not be at its end. */
uint32_t cmi_regex_char(cmi_regex *r);

#endif
