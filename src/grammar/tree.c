/* grammar/tree.c - grammars that are put together from parts, as grammar.h describes.
 *
 * Everything is written into the root rule, so that alternatives which begin alike are one path;
 * schemas are rules of their own. A call is then never deeper than the root, which is what bounds
 * the frames that one byte can add (stacks_internal.h). */
#include <stdio.h>

#include "grammar/regex_internal.h"
#include "grammar/schema_internal.h"
#include "grammar/vocab_internal.h"

static void write_node(cmi_build *b, const json_t *node, uint32_t depth, uint32_t from,
                       uint32_t to);

static void refuse(cmi_build *b, const char *problem)
{
    cmi_build_fail(b, CMI_ERR_BAD_DATA, "tree: %s", problem);
}

static void write_text(cmi_build *b, const json_t *value, uint32_t from, uint32_t to)
{
    if (!json_is_string(value)) {
        refuse(b, "a \"text\" must be a string");
    } else if (json_string_length(value) == 0) {
        cmi_nfa_empty(b, from, to);
    } else if (cmi_build_work(b, json_string_length(value))) {
        cmi_nfa_literal(b, from, to, json_string_value(value), json_string_length(value));
    }
}

static void write_token(cmi_build *b, const json_t *value, uint32_t from, uint32_t to)
{
    uint8_t bytes[CMI_MARKER_BYTES];
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id > UINT32_MAX ||
        !cmi_vocab_is_marker(b->vocab, (uint32_t)id)) {
        refuse(b, "a \"token\" must be the id of a marker of the vocabulary");
        return;
    }
    cmi_marker_spell((uint32_t)id, bytes);
    cmi_nfa_literal(b, from, to, (const char *)bytes, sizeof bytes);
}

static void write_json(cmi_build *b, const json_t *node, const json_t *schema, uint32_t from,
                       uint32_t to)
{
    const char *name = json_string_value(json_object_get(node, "name"));
    snprintf(b->path, sizeof b->path, "%.100s#", name == NULL ? "" : name);
    cmi_schema_call_write(b, schema, from, to);
}

static void write_regex(cmi_build *b, const json_t *value, uint32_t from, uint32_t to)
{
    if (!json_is_string(value)) {
        refuse(b, "a \"regex\" must be a string");
        return;
    }
    cmi_regex_write(b, "regular expression", json_string_value(value), json_string_length(value),
                    CMI_SPELL_UTF8, 0, CMI_UNBOUNDED, from, to);
}

static void write_sequence(cmi_build *b, const json_t *parts, uint32_t depth, uint32_t from,
                           uint32_t to)
{
    const size_t n = json_array_size(parts);
    if (n == 0) {
        refuse(b, "a \"sequence\" must be an array that is not empty");
    }
    for (size_t i = 0; i < n && b->status == CMI_OK; i++) {
        uint32_t next = i + 1 == n ? to : cmi_nfa_state(b);
        write_node(b, json_array_get(parts, i), depth, from, next);
        from = next;
    }
}

static void write_any(cmi_build *b, const json_t *parts, uint32_t depth, uint32_t from, uint32_t to)
{
    if (json_array_size(parts) == 0) {
        refuse(b, "an \"any\" must be an array that is not empty");
    }
    for (size_t i = 0; i < json_array_size(parts) && b->status == CMI_OK; i++) {
        write_node(b, json_array_get(parts, i), depth, from, to);
    }
}

/* States of its own around the loop, so that nothing else goes round in it. */
static void write_list(cmi_build *b, const json_t *node, uint32_t depth, uint32_t from, uint32_t to)
{
    const json_t *between = json_object_get(node, "between");
    uint32_t begin = cmi_nfa_state(b), end = cmi_nfa_state(b);
    cmi_nfa_empty(b, from, begin);
    write_node(b, json_object_get(node, "list"), depth, begin, end);
    if (between == NULL) {
        cmi_nfa_empty(b, end, begin);
    } else {
        write_node(b, between, depth, end, begin);
    }
    cmi_nfa_empty(b, end, to);
}

static void write_node(cmi_build *b, const json_t *node, uint32_t depth, uint32_t from, uint32_t to)
{
    const json_t *value;
    if (!cmi_build_work(b, 1)) {
        return;
    }
    if (depth == CMI_GRAMMAR_MAX_TREE_DEPTH) {
        cmi_build_fail(b, CMI_ERR_TOO_LARGE, "tree: over %d nodes inside each other",
                       CMI_GRAMMAR_MAX_TREE_DEPTH);
    } else if ((value = json_object_get(node, "text")) != NULL) {
        write_text(b, value, from, to);
    } else if ((value = json_object_get(node, "token")) != NULL) {
        write_token(b, value, from, to);
    } else if ((value = json_object_get(node, "json")) != NULL) {
        write_json(b, node, value, from, to);
    } else if ((value = json_object_get(node, "regex")) != NULL) {
        write_regex(b, value, from, to);
    } else if ((value = json_object_get(node, "sequence")) != NULL) {
        write_sequence(b, value, depth + 1, from, to);
    } else if ((value = json_object_get(node, "any")) != NULL) {
        write_any(b, value, depth + 1, from, to);
    } else if (json_object_get(node, "list") != NULL) {
        write_list(b, node, depth + 1, from, to);
    } else {
        refuse(b, "a node must be an object with a part that is known");
    }
}

void cmi_tree_root_write(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    json_error_t error;
    const cmi_grammar_source *source = rule->source;
    b->source = json_loadb(source->text, source->n_bytes,
                           JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (b->source == NULL) {
        cmi_build_fail(b, CMI_ERR_BAD_DATA, "the tree is not JSON: line %d, column %d: %s",
                       error.line, error.column, error.text);
        return;
    }
    write_node(b, b->source, 0, from, to);
}
