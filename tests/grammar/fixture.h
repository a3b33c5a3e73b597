/* tests/grammar/fixture.h - a small vocabulary, grammars from text, and matching whole texts. */
#ifndef CMI_TESTS_GRAMMAR_FIXTURE_H
#define CMI_TESTS_GRAMMAR_FIXTURE_H

#include "tests/test.h"

#include "grammar/matcher.h"

enum {
    END_ID = 256,     /* ids below are the single bytes */
    SPECIAL_ID = 257, /* without bytes */
    WORDS_ID = 258,   /* tokens of several bytes from here on, some of them twice */
};

/* Every byte, pieces of JSON, words, split characters. The caller destroys it. */
cmi_vocab *small_vocab(void);

/* The bytes of a token of small_vocab(); "" for end and special. */
const char *small_vocab_bytes(uint32_t id, size_t *n_out);

/* Compiles, or fails the test with the error's line. The caller destroys it. */
cmi_grammar *compile_schema(const cmi_vocab *vocab, const char *schema);
cmi_grammar *compile_regex(const cmi_vocab *vocab, const char *expression);
cmi_grammar *compile_json_object(const cmi_vocab *vocab);

/* The status of compiling, whose line lies in *err; the grammar is destroyed. */
cmi_status try_compile(const cmi_vocab *vocab, cmi_grammar_kind kind, const char *text,
                       cmi_error *err);

/* Whether it is a whole text of the grammar. */
bool fits(const cmi_grammar *grammar, const char *text);
bool fits_bytes(const cmi_grammar *grammar, const char *text, size_t n_bytes);

/* Lists of texts that end with NULL; what fails is named. */
void check_texts(const cmi_grammar *grammar, const char *name, const char *const *good,
                 const char *const *bad);

#endif
