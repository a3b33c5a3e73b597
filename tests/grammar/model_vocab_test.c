/* The bundled model's tokens: what they spell is accepted, and masks say so. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "grammar/matcher.h"

static void a_tokenized_text_is_accepted_token_by_token(void **state)
{
    (void)state;
    char dir[512];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    cmi_tokenizer *tokenizer = NULL;
    cmi_vocab *vocab = NULL;
    cmi_grammar *g = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_tokenizer_load(&tokenizer, dir, &err), CMI_OK);
    uint32_t n_ids = cmi_tokenizer_n_ids(tokenizer), end = cmi_tokenizer_eos_id(tokenizer);
    assert_int_equal(cmi_vocab_from_tokenizer(&vocab, tokenizer, n_ids + 40, &end, 1, &err),
                     CMI_OK);
    assert_int_equal(cmi_vocab_n_ids(vocab), n_ids + 40);
    static const char schema[] =
        "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, \"n\": "
        "{\"type\": \"integer\"}}, \"required\": [\"name\", \"n\"]}";
    static const char text[] =
        "{\"name\": \"The matrix, \xC3\xA9\xE4\xBD\xA0 \\\"x\\\"\", \"n\": 42}";
    cmi_grammar_source source = {
        .kind = CMI_GRAMMAR_JSON_SCHEMA, .text = schema, .n_bytes = sizeof schema - 1};
    assert_int_equal(cmi_grammar_compile(&g, vocab, &source, &err), CMI_OK);
    cmi_ids ids = {0};
    assert_int_equal(cmi_tokenizer_encode(tokenizer, text, sizeof text - 1, 0, &ids, &err), CMI_OK);
    uint32_t *mask = cmi_alloc(cmi_vocab_mask_words(vocab), sizeof *mask);
    cmi_matcher m;
    cmi_matcher_init(&m, g);
    cmi_ids_push(&ids, end);
    for (size_t i = 0; i < ids.len; i++) {
        assert_true(cmi_matcher_mask(&m, mask));
        assert_true((mask[ids.data[i] / 32] >> ids.data[i] % 32 & 1) != 0);
        for (uint32_t id = 0; id < n_ids + 40; id++) {
            cmi_matcher copy;
            cmi_matcher_copy(&copy, &m);
            bool allowed = (mask[id / 32] >> id % 32 & 1) != 0;
            assert_int_equal(cmi_matcher_accept(&copy, id), allowed);
            assert_false(allowed && id >= n_ids);
            assert_false(allowed && id != end && cmi_tokenizer_is_special(tokenizer, id));
        }
        assert_true(cmi_matcher_accept(&m, ids.data[i]));
    }
    assert_true(m.ended);
    cmi_ids_deinit(&ids);
    cmi_free(mask);
    cmi_grammar_destroy(g);
    cmi_vocab_destroy(vocab);
    cmi_tokenizer_destroy(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tokenized_text_is_accepted_token_by_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
