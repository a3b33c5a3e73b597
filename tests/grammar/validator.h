/* tests/grammar/validator.h - JSON Schema by its text, to compare with.
 *
 * Of the keywords that the tests use; patterns are POSIX extended expressions over ASCII. */
#ifndef CMI_TESTS_GRAMMAR_VALIDATOR_H
#define CMI_TESTS_GRAMMAR_VALIDATOR_H

#include <jansson.h>
#include <stdbool.h>

/* Whether value fits the schema, which is part of root. */
bool schema_allows(const json_t *root, const json_t *schema, const json_t *value);

#endif
