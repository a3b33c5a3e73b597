/* grammar/grammar.h - what an answer must look like, compiled to an automaton over bytes, and the
 * masks of the tokens that it allows.
 *
 * A grammar is compiled once for a request and a vocabulary, and never changes: any number of
 * threads may use it at once. A matcher is where one sequence stands in it: a plain value that its
 * owner copies as it likes, for one thread at a time. The same grammar and tokens always give the
 * same masks.
 *
 * JSON. Properties come in the order of the schema; optional ones may be left out. Space is allowed
 * where people and models put it, but bounded, so that an answer cannot be padded for ever: behind
 * { [ and , and before } and ] one space, or a newline and up to 64 spaces or 16 tabs; behind : one
 * space. Numbers have at most 18 digits before and 20 behind the point and 2 in the exponent.
 * Strings are UTF-8 with JSON's escapes, but U+0000; those that a pattern, a format, an enum or a
 * const prescribes, and property names of the schema, have each character spelled in one way.
 *
 * Schemas. type (also a list), enum, const; properties, required, additionalProperties,
 * minProperties and maxProperties (of objects without properties); items, prefixItems,
 * additionalItems, minItems, maxItems; minLength, maxLength, pattern, format (date, time,
 * date-time, duration, uuid, email, hostname, ipv4); minimum, maximum, exclusiveMinimum,
 * exclusiveMaximum; anyOf, oneOf (any alternative, without a check that no other fits), allOf,
 * $ref within the schema, also recursive, nullable. Annotations are ignored. Everything else is an
 * error that names it and where it stands. Where JSON Schema allows more than anybody wants, less
 * is allowed, never more: an object with properties has no others unless additionalProperties says
 * so, a schema without type but with an object's keywords is an object, a pattern must match the
 * whole string.
 *
 * Regular expressions match the whole text: characters, . (not a newline), classes, \d \w \s and
 * their opposites (ASCII, as in ECMAScript), groups, |, * + ? {n} {n,} {n,m}, lazy or not. ^ and $
 * are allowed where they change nothing. Look-around, back-references, \b and \p are errors.
 *
 * Trees put parts together. A tree is a JSON text of nodes, each an object with one of
 *     "text": "..."                  these characters; perhaps none
 *     "token": ID                    this marker (grammar/vocab.h), as a token
 *     "json": SCHEMA                 a JSON value that fits; "name" beside it is what errors call
 * it "regex": "..."                 a text that the whole expression matches "sequence": [NODE, ..]
 * one behind the other "any": [NODE, ..]              one of them "list": NODE, "between": NODE the
 * first once or more, with the second between two of them */
#ifndef CMI_GRAMMAR_GRAMMAR_H
#define CMI_GRAMMAR_GRAMMAR_H

#include "grammar/vocab.h"

typedef struct cmi_grammar cmi_grammar;

enum {
    CMI_GRAMMAR_MAX_SOURCE_BYTES = 1 << 18,
    CMI_GRAMMAR_MAX_STATES = 60000,
    CMI_GRAMMAR_MAX_WORK = 20000000,       /* steps of compiling; about half a second */
    CMI_GRAMMAR_MAX_CACHE_BYTES = 8 << 20, /* of masks that are made beforehand, */
    CMI_GRAMMAR_MAX_CACHE_WORK = 6000000,  /* and steps of making them; about 60 ms */
    /* Values around a value. Nothing deeper is allowed, and nothing that would have to end deeper:
     * a text that has begun can always be finished. */
    CMI_GRAMMAR_MAX_DEPTH = 64,
    /* Alternatives that agree with the text so far and differ in what must follow. Further ones are
     * dropped, so that fewer texts are allowed, never wrong ones. */
    CMI_GRAMMAR_MAX_ALTERNATIVES = 16,
    CMI_GRAMMAR_MAX_TREE_DEPTH = 32, /* nodes inside each other; a schema counts as one */
};

typedef enum cmi_grammar_kind {
    CMI_GRAMMAR_JSON_OBJECT, /* any JSON object; no source */
    CMI_GRAMMAR_JSON_SCHEMA, /* text: the schema */
    CMI_GRAMMAR_REGEX,       /* text: the expression, in UTF-8 */
    CMI_GRAMMAR_CHOICE,      /* choices: the texts, one of them */
    CMI_GRAMMAR_TREE,        /* text: the tree */
} cmi_grammar_kind;

typedef struct cmi_grammar_choice {
    const char *text; /* UTF-8, not empty */
    size_t n_bytes;
} cmi_grammar_choice;

typedef struct cmi_grammar_source {
    cmi_grammar_kind kind;
    const char *text; /* what is borrowed here is not used after compiling */
    size_t n_bytes;
    const cmi_grammar_choice *choices;
    size_t n_choices;
    /* Lower limits than those above; 0: those above. */
    uint32_t max_states;
    uint32_t max_work;
    uint32_t max_cache_bytes;
} cmi_grammar_source;

/* The caller destroys *grammar_out, which is set only on success; vocab must outlive it. Takes up
 * to half a second and 150 MB for a hostile source, a millisecond or two for a usual one; and, with
 * 128,815 tokens, 3 ms for masks, up to 100 where patterns have hundreds of states.
 * The error line says what is wrong and where. CMI_ERR_BAD_DATA: malformed, or no text fits.
 * CMI_ERR_UNSUPPORTED: valid, but something this compiler does not do. CMI_ERR_TOO_LARGE: over a
 * limit. */
CMI_NODISCARD cmi_status cmi_grammar_compile(cmi_grammar **grammar_out, const cmi_vocab *vocab,
                                             const cmi_grammar_source *source, cmi_error *err);

void cmi_grammar_destroy(cmi_grammar *grammar); /* NULL is fine; after its last matcher */

const cmi_vocab *cmi_grammar_vocab(const cmi_grammar *grammar);
uint32_t cmi_grammar_n_states(const cmi_grammar *grammar);
size_t cmi_grammar_n_bytes(const cmi_grammar *grammar); /* of memory */

#endif
