#include "tests/grammar/fixture.h"

#include "base/alloc.h"
#include "base/rng.h"

/* Grammars that between them use every kind of state: strings with and without counts, patterns,
 * numbers, calls that nest, alternatives that stay open for long. */
static const char *const schemas[] = {
    "{}",
    "{\"type\": \"string\", \"maxLength\": 20}",
    "{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 400}",
    "{\"type\": \"string\", \"pattern\": \"[a-z ]{2,}\"}",
    "{\"type\": \"string\", \"pattern\": \".{0,80}\"}",
    "{\"type\": \"string\", \"format\": \"date-time\"}",
    "{\"type\": \"integer\", \"minimum\": -5, \"maximum\": 1234}",
    "{\"type\": \"array\", \"items\": {\"type\": \"string\", \"maxLength\": 3}, \"minItems\": 2, "
    "\"maxItems\": 5}",
    "{\"type\": \"array\", \"items\": {\"$ref\": \"#\"}}",
    "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, \"age\": {\"type\": "
    "\"integer\"}, \"id\": {\"enum\": [\"a\", \"ab\", \"abc\"]}}, \"required\": [\"name\"]}",
    "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"null\"}, \"na\": {\"type\": "
    "\"integer\"}}, \"additionalProperties\": {\"type\": [\"string\", \"boolean\"]}}",
    "{\"$defs\": {\"e\": {\"anyOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": "
    "\"#/$defs/e\"}, \"b\": {\"const\": 1}}, \"required\": [\"a\", \"b\"]}, {\"type\": \"object\", "
    "\"properties\": {\"a\": {\"$ref\": \"#/$defs/f\"}, \"b\": {\"const\": 2}}, \"required\": "
    "[\"a\", \"b\"]}, {\"type\": \"string\"}]}, \"f\": {\"anyOf\": [{\"type\": \"object\", "
    "\"properties\": {\"a\": {\"$ref\": \"#/$defs/e\"}}, \"required\": [\"a\"]}, {\"type\": "
    "\"string\", \"maxLength\": 5}]}}, \"$ref\": \"#/$defs/e\"}",
};

static const char *const expressions[] = {"(the|a|ab|abc| )*", ".*",       "[a-z]{0,300}",
                                          "(.{3})*x",          "[^\"]*\"", "(a|b)*abb"};

static cmi_grammar *nth_grammar(const cmi_vocab *vocab, size_t i, uint32_t max_cache_bytes)
{
    bool schema = i < CMI_LEN(schemas);
    const char *text = schema ? schemas[i] : expressions[i - CMI_LEN(schemas)];
    cmi_grammar_source source = {.kind = schema ? CMI_GRAMMAR_JSON_SCHEMA : CMI_GRAMMAR_REGEX,
                                 .text = text,
                                 .n_bytes = strlen(text),
                                 .max_cache_bytes = max_cache_bytes};
    cmi_grammar *g = NULL;
    cmi_error err = {0};
    if (cmi_grammar_compile(&g, vocab, &source, &err) != CMI_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    return g;
}

enum { N_GRAMMARS = CMI_LEN(schemas) + CMI_LEN(expressions), WALKS = 12, TOKENS = 60 };

static bool is_set(const uint32_t *mask, uint32_t id)
{
    return (mask[id / 32] >> id % 32 & 1) != 0;
}

/* Any allowed token, the multi-byte ones more often, for they do more. */
static uint32_t pick(const uint32_t *mask, uint32_t n_ids, uint64_t seed, uint64_t position)
{
    uint32_t chosen = UINT32_MAX, n = 0;
    for (uint32_t id = 0; id < n_ids; id++) {
        uint32_t weight = !is_set(mask, id) ? 0 : id >= WORDS_ID ? 8 : 1;
        n += weight;
        if (weight > 0 && cmi_philox_uniform(seed, position, id) < (float)weight / (float)n) {
            chosen = id;
        }
    }
    return chosen;
}

/* The mask against trying every token by its bytes. */
static void check_mask(const cmi_vocab *vocab, const cmi_matcher *m, const uint32_t *mask,
                       size_t grammar, uint64_t seed)
{
    for (uint32_t id = 0; id < cmi_vocab_n_ids(vocab); id++) {
        size_t n;
        const char *bytes = small_vocab_bytes(id, &n);
        cmi_matcher copy;
        cmi_matcher_copy(&copy, m);
        bool allowed = id == END_ID       ? cmi_matcher_is_complete(m)
                       : id == SPECIAL_ID ? false
                                          : cmi_matcher_accept_bytes(&copy, bytes, n);
        if (allowed != is_set(mask, id)) {
            fail_msg("grammar %zu, seed %d: token %u is %s", grammar, (int)seed, id,
                     allowed ? "missing" : "allowed");
        }
        cmi_matcher_copy(&copy, m);
        assert_int_equal(cmi_matcher_accept(&copy, id), allowed);
    }
}

static void masks_are_what_each_token_alone_says(void **state)
{
    const cmi_vocab *vocab = *state;
    uint32_t *mask = cmi_alloc(cmi_vocab_mask_words(vocab), sizeof *mask);
    for (size_t i = 0; i < N_GRAMMARS; i++) {
        cmi_grammar *g = nth_grammar(vocab, i, 0);
        for (uint64_t seed = 0; seed < WALKS; seed++) {
            cmi_matcher m;
            cmi_matcher_init(&m, g);
            for (uint64_t t = 0; t < TOKENS && !m.ended; t++) {
                assert_true(cmi_matcher_mask(&m, mask));
                check_mask(vocab, &m, mask, i, seed);
                assert_true(cmi_matcher_accept(&m, pick(mask, cmi_vocab_n_ids(vocab), seed, t)));
            }
        }
        cmi_grammar_destroy(g);
    }
    cmi_free(mask);
}

static void masks_made_beforehand_change_nothing(void **state)
{
    const cmi_vocab *vocab = *state;
    size_t n_bytes = cmi_vocab_mask_words(vocab) * sizeof(uint32_t);
    uint32_t *mask = cmi_alloc(n_bytes, 1), *other = cmi_alloc(n_bytes, 1);
    for (size_t i = 0; i < N_GRAMMARS; i++) {
        cmi_grammar *g = nth_grammar(vocab, i, 0), *without = nth_grammar(vocab, i, 1);
        assert_true(cmi_grammar_n_bytes(g) >= cmi_grammar_n_bytes(without));
        for (uint64_t seed = 0; seed < WALKS; seed++) {
            cmi_matcher m, n;
            cmi_matcher_init(&m, g);
            cmi_matcher_init(&n, without);
            for (uint64_t t = 0; t < TOKENS && !m.ended; t++) {
                assert_true(cmi_matcher_mask(&m, mask));
                assert_true(cmi_matcher_mask(&n, other));
                assert_memory_equal(mask, other, n_bytes);
                uint32_t id = pick(mask, cmi_vocab_n_ids(vocab), seed, t);
                assert_true(cmi_matcher_accept(&m, id));
                assert_true(cmi_matcher_accept(&n, id));
            }
        }
        cmi_grammar_destroy(g);
        cmi_grammar_destroy(without);
    }
    cmi_free(mask);
    cmi_free(other);
}

/* A text by a walk; how many bytes. */
static size_t walk_text(const cmi_vocab *vocab, const cmi_grammar *g, uint64_t seed, char *text,
                        uint32_t *mask)
{
    size_t n_text = 0, n;
    cmi_matcher m;
    cmi_matcher_init(&m, g);
    for (uint64_t t = 0; t < TOKENS; t++) {
        assert_true(cmi_matcher_mask(&m, mask));
        uint32_t id = pick(mask, cmi_vocab_n_ids(vocab), seed, t);
        assert_true(cmi_matcher_accept(&m, id));
        if (m.ended) {
            break;
        }
        const char *bytes = small_vocab_bytes(id, &n);
        memcpy(text + n_text, bytes, n);
        n_text += n;
    }
    return n_text;
}

/* Another token that the text goes on with, one of those that fit. */
static uint32_t other_token(const cmi_vocab *vocab, const char *text, size_t n_text, uint64_t seed,
                            uint64_t position)
{
    uint32_t chosen = (unsigned char)*text, n_found = 1;
    for (uint32_t id = WORDS_ID; id < cmi_vocab_n_ids(vocab); id++) {
        size_t n;
        const char *bytes = small_vocab_bytes(id, &n);
        if (n <= n_text && memcmp(bytes, text, n) == 0) {
            n_found++;
            if (cmi_philox_uniform(seed, position, n_found) < 1.0f / (float)n_found) {
                chosen = id;
            }
        }
    }
    return chosen;
}

static void a_text_is_accepted_however_it_is_cut_into_tokens(void **state)
{
    const cmi_vocab *vocab = *state;
    static char text[TOKENS * 100];
    size_t n_bytes = cmi_vocab_mask_words(vocab) * sizeof(uint32_t);
    uint32_t *mask = cmi_alloc(n_bytes, 1), *first = cmi_alloc(n_bytes, 1);
    for (size_t i = 0; i < N_GRAMMARS; i++) {
        cmi_grammar *g = nth_grammar(vocab, i, 0);
        for (uint64_t seed = 100; seed < 100 + WALKS; seed++) {
            size_t n_text = walk_text(vocab, g, seed, text, mask), n;
            cmi_matcher m;
            for (uint64_t cut = 0; cut < 4; cut++) {
                cmi_matcher_init(&m, g);
                for (size_t at = 0; at < n_text; at += n) {
                    uint32_t id = other_token(vocab, text + at, n_text - at, seed + cut * 1000, at);
                    small_vocab_bytes(id, &n);
                    assert_true(cmi_matcher_mask(&m, mask));
                    assert_true(is_set(mask, id));
                    assert_true(cmi_matcher_accept(&m, id));
                }
                cmi_matcher_mask(&m, cut == 0 ? first : mask);
                assert_true(cut == 0 || memcmp(mask, first, n_bytes) == 0);
            }
        }
        cmi_grammar_destroy(g);
    }
    cmi_free(mask);
    cmi_free(first);
}

static void a_copy_goes_on_where_it_was_taken(void **state)
{
    const cmi_vocab *vocab = *state;
    size_t n_bytes = cmi_vocab_mask_words(vocab) * sizeof(uint32_t);
    uint32_t *mask = cmi_alloc(n_bytes, 1), *before = cmi_alloc(n_bytes, 1);
    cmi_grammar *g = nth_grammar(vocab, 9, 0);
    cmi_matcher m, saved;
    cmi_matcher_init(&m, g);
    assert_true(cmi_matcher_accept_bytes(&m, "{\"name\": \"", 10));
    cmi_matcher_copy(&saved, &m);
    cmi_matcher_mask(&m, before);
    assert_true(cmi_matcher_accept_bytes(&m, "x\", \"age\": 12, \"id\": \"ab", 24));
    cmi_matcher_mask(&m, mask);
    assert_memory_not_equal(mask, before, n_bytes);
    m = saved;
    cmi_matcher_mask(&m, mask);
    assert_memory_equal(mask, before, n_bytes);
    assert_false(cmi_matcher_accept_bytes(&m, "x\"}]", 4)); /* a refusal changes nothing */
    cmi_matcher_mask(&m, mask);
    assert_memory_equal(mask, before, n_bytes);
    cmi_grammar_destroy(g);
    cmi_free(mask);
    cmi_free(before);
}

static void end_tokens_end_a_complete_text_only(void **state)
{
    const cmi_vocab *vocab = *state;
    uint32_t *mask = cmi_alloc(cmi_vocab_mask_words(vocab), sizeof *mask);
    cmi_grammar *g = compile_regex(vocab, "a{1,2}");
    cmi_matcher m;
    cmi_matcher_init(&m, g);
    assert_true(cmi_matcher_mask(&m, mask));
    assert_false(is_set(mask, END_ID));
    assert_false(cmi_matcher_accept(&m, END_ID));
    assert_false(cmi_matcher_accept(&m, SPECIAL_ID));
    assert_false(cmi_matcher_accept(&m, cmi_vocab_n_ids(vocab)));
    assert_true(cmi_matcher_accept(&m, 'a'));
    assert_true(cmi_matcher_mask(&m, mask));
    assert_true(is_set(mask, END_ID) && is_set(mask, 'a') && !is_set(mask, 'b'));
    assert_true(cmi_matcher_accept(&m, END_ID));
    assert_true(cmi_matcher_is_complete(&m));
    assert_false(cmi_matcher_mask(&m, mask));
    assert_false(is_set(mask, END_ID));
    assert_false(cmi_matcher_accept(&m, 'a'));
    assert_false(cmi_matcher_accept(&m, END_ID));
    cmi_grammar_destroy(g);
    cmi_free(mask);
}

static void a_vocabulary_without_the_bytes_allows_nothing(void **state)
{
    (void)state;
    const cmi_vocab_token tokens[] = {{"a", 1}, {"b", 1}, {NULL, 0}};
    const uint32_t end = 2, none = 3;
    cmi_vocab *vocab = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_vocab_create(&vocab, tokens, 3, &none, 1, &err), CMI_ERR_INVALID);
    assert_string_equal(err.text, "end token 3 is none of the 3 tokens");
    assert_int_equal(cmi_vocab_create(&vocab, tokens, 3, &end, 1, &err), CMI_OK);
    cmi_grammar *g = compile_regex(vocab, "ac");
    cmi_matcher m;
    uint32_t mask;
    cmi_matcher_init(&m, g);
    assert_true(cmi_matcher_mask(&m, &mask));
    assert_int_equal(mask, 1);
    assert_true(cmi_matcher_accept(&m, 0));
    assert_false(cmi_matcher_mask(&m, &mask));
    assert_int_equal(mask, 0);
    cmi_grammar_destroy(g);
    cmi_vocab_destroy(vocab);
    cmi_vocab_destroy(NULL);
    cmi_grammar_destroy(NULL);
}

/* However deep, the rest of the text fits into what depth is left. */
static void what_is_open_at_the_greatest_depth_can_be_closed(void **state)
{
    static const char *const opening[] = {"{\"a\":", "[", "{\"a\":[", "[{\"x\": "};
    cmi_grammar *any = compile_schema(*state, "{}");
    for (size_t i = 0; i < CMI_LEN(opening); i++) {
        cmi_matcher m;
        size_t depth = 0;
        cmi_matcher_init(&m, any);
        while (cmi_matcher_accept_bytes(&m, opening[i], strlen(opening[i]))) {
            assert_true(++depth <= CMI_GRAMMAR_MAX_DEPTH + 1);
        }
        assert_true(depth >= CMI_GRAMMAR_MAX_DEPTH / 2);
        size_t n_closed = 0;
        bool filled = cmi_matcher_accept_bytes(&m, "1", 1);
        assert_true(filled || opening[i][strlen(opening[i]) - 1] == '[');
        while (!cmi_matcher_is_complete(&m)) {
            assert_true(cmi_matcher_accept_bytes(&m, "]", 1) ||
                        cmi_matcher_accept_bytes(&m, "}", 1));
            n_closed++;
        }
        assert_true(n_closed >= depth);
    }
    cmi_grammar_destroy(any);
}

/* Recursion that must go one deeper to end is not begun where there is no room for it. */
static void a_text_is_never_begun_that_cannot_end(void **state)
{
    cmi_grammar *g =
        compile_schema(*state, "{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}, "
                               "\"b\": {\"type\": \"array\", "
                               "\"minItems\": 1, \"items\": {\"type\": \"array\", \"minItems\": 2, "
                               "\"items\": {\"type\": \"string\", \"maxLength\": 3}}}}, "
                               "\"required\": [\"b\"]}");
    cmi_matcher m;
    cmi_matcher_init(&m, g);
    size_t depth = 0;
    while (cmi_matcher_accept_bytes(&m, "{\"a\":", 5)) {
        depth++;
    }
    assert_true(depth > CMI_GRAMMAR_MAX_DEPTH / 2 && depth < CMI_GRAMMAR_MAX_DEPTH);
    static const char last[] = "{\"b\":[[\"\",\"abc\"]]}", outer[] = ",\"b\":[[\"\",\"\"]]}";
    assert_true(cmi_matcher_accept_bytes(&m, last, sizeof last - 1));
    while (!cmi_matcher_is_complete(&m)) {
        assert_true(cmi_matcher_accept_bytes(&m, outer, sizeof outer - 1));
    }
    cmi_grammar_destroy(g);
}

static int set_up(void **state)
{
    *state = small_vocab();
    return 0;
}

static int tear_down(void **state)
{
    cmi_vocab_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_what_each_token_alone_says),
        cmocka_unit_test(masks_made_beforehand_change_nothing),
        cmocka_unit_test(a_text_is_accepted_however_it_is_cut_into_tokens),
        cmocka_unit_test(a_copy_goes_on_where_it_was_taken),
        cmocka_unit_test(end_tokens_end_a_complete_text_only),
        cmocka_unit_test(a_vocabulary_without_the_bytes_allows_nothing),
        cmocka_unit_test(what_is_open_at_the_greatest_depth_can_be_closed),
        cmocka_unit_test(a_text_is_never_begun_that_cannot_end),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
