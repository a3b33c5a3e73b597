/* Compiled once, shared, bounded. */
#include "tests/test.h"

#include <pthread.h>
#include <stdio.h>

#include "engine/grammar_cache.h"

enum { END_ID = 256, N_IDS = 257 };

static cmi_vocab *make_vocab(void)
{
    static char bytes[END_ID];
    cmi_vocab_token tokens[N_IDS] = {0};
    cmi_vocab *vocab = NULL;
    const uint32_t end = END_ID;
    for (uint32_t id = 0; id < END_ID; id++) {
        bytes[id] = (char)id;
        tokens[id] = (cmi_vocab_token){.bytes = &bytes[id], .n_bytes = 1};
    }
    assert_int_equal(cmi_vocab_create(&vocab, tokens, N_IDS, &end, 1, NULL), CMI_OK);
    return vocab;
}

static cmi_status take(cmi_grammar_cache *cache, uint32_t k, cmi_shared_grammar **out)
{
    char tree[64];
    cmi_error err = {0};
    int n = snprintf(tree, sizeof tree, "{\"text\":\"%u\"}", k);
    return cmi_grammar_cache_take(cache, tree, (size_t)n, out, &err);
}

static cmi_grammar_cache_stats stats_of(cmi_grammar_cache *cache)
{
    cmi_grammar_cache_stats stats;
    cmi_grammar_cache_stats_get(cache, &stats);
    return stats;
}

static void a_source_is_compiled_once(void **state)
{
    (void)state;
    cmi_vocab *vocab = make_vocab();
    cmi_grammar_cache *cache = cmi_grammar_cache_create(vocab, 0);
    cmi_shared_grammar *a, *b, *c;
    assert_int_equal(take(cache, 1, &a), CMI_OK);
    assert_int_equal(take(cache, 1, &b), CMI_OK);
    assert_int_equal(take(cache, 2, &c), CMI_OK);
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(cmi_shared_grammar_get(a), cmi_shared_grammar_get(c));
    cmi_grammar_cache_give(cache, a);
    cmi_grammar_cache_give(cache, b);
    assert_int_equal(take(cache, 1, &b), CMI_OK); /* still there, though nobody used it */
    assert_ptr_equal(a, b);
    cmi_grammar_cache_stats stats = stats_of(cache);
    assert_int_equal(stats.n_compiled, 2);
    assert_int_equal(stats.n_hits, 2);
    assert_int_equal(stats.n_used, 2);
    cmi_grammar_cache_give(cache, b);
    cmi_grammar_cache_give(cache, c);
    assert_int_equal(stats_of(cache).n_idle, 2);
    cmi_grammar_cache_destroy(cache);
    cmi_vocab_destroy(vocab);
}

static void what_is_idle_is_bounded_and_the_last_used_stay(void **state)
{
    (void)state;
    cmi_vocab *vocab = make_vocab();
    cmi_grammar_cache *cache = cmi_grammar_cache_create(vocab, 0);
    cmi_shared_grammar *kept, *g;
    assert_int_equal(take(cache, 0, &kept), CMI_OK);
    for (uint32_t i = 1; i < 3 * CMI_GRAMMAR_CACHE_IDLE; i++) {
        assert_int_equal(take(cache, i, &g), CMI_OK);
        cmi_grammar_cache_give(cache, g);
        assert_in_range(stats_of(cache).n_idle, 1, CMI_GRAMMAR_CACHE_IDLE + 1);
    }
    const uint64_t n_compiled = stats_of(cache).n_compiled;
    assert_int_equal(take(cache, 3 * CMI_GRAMMAR_CACHE_IDLE - 1, &g), CMI_OK);
    cmi_grammar_cache_give(cache, g);
    assert_int_equal(take(cache, 0, &g), CMI_OK); /* in use all the time */
    assert_ptr_equal(g, kept);
    assert_int_equal(stats_of(cache).n_compiled, n_compiled);
    cmi_grammar_cache_give(cache, g);
    cmi_grammar_cache_give(cache, kept);
    assert_int_equal(take(cache, 1, &g), CMI_OK); /* long gone */
    assert_int_equal(stats_of(cache).n_compiled, n_compiled + 1);
    cmi_grammar_cache_give(cache, g);
    cmi_grammar_cache_destroy(cache);
    cmi_vocab_destroy(vocab);
}

static void those_in_use_have_a_limit_too(void **state)
{
    (void)state;
    cmi_vocab *vocab = make_vocab();
    cmi_grammar_cache *cache = cmi_grammar_cache_create(vocab, 0);
    cmi_shared_grammar *first, *second, *g;
    assert_int_equal(take(cache, 10, &first), CMI_OK);
    const uint64_t n_bytes = stats_of(cache).n_bytes;
    cmi_grammar_cache_give(cache, first);
    cmi_grammar_cache_destroy(cache);

    cache = cmi_grammar_cache_create(vocab, 2 * n_bytes + n_bytes / 2);
    assert_int_equal(take(cache, 10, &first), CMI_OK);
    assert_int_equal(take(cache, 11, &second), CMI_OK);
    assert_int_equal(take(cache, 12, &g), CMI_ERR_NO_CAPACITY);
    assert_int_equal(take(cache, 11, &g), CMI_OK); /* no more memory */
    cmi_grammar_cache_give(cache, g);
    cmi_grammar_cache_give(cache, second);
    assert_int_equal(take(cache, 12, &g), CMI_OK); /* in the place of 11 */
    assert_true(stats_of(cache).n_bytes <= 2 * n_bytes + n_bytes / 2);
    cmi_grammar_cache_give(cache, g);
    cmi_grammar_cache_give(cache, first);
    cmi_grammar_cache_destroy(cache);
    cmi_vocab_destroy(vocab);
}

static void a_bad_source_leaves_nothing(void **state)
{
    (void)state;
    cmi_vocab *vocab = make_vocab();
    cmi_grammar_cache *cache = cmi_grammar_cache_create(vocab, 0);
    cmi_shared_grammar *g;
    cmi_error err = {0};
    assert_int_equal(cmi_grammar_cache_take(cache, "{", 1, &g, &err), CMI_ERR_BAD_DATA);
    assert_int_not_equal(err.text[0], '\0');
    assert_int_equal(stats_of(cache).n_bytes, 0);
    cmi_grammar_cache_destroy(cache);
    cmi_vocab_destroy(vocab);
}

static void *use(void *cache)
{
    for (uint32_t i = 0; i < 500; i++) {
        cmi_shared_grammar *g;
        if (take(cache, i * i % 97, &g) != CMI_OK) {
            return cache;
        }
        cmi_grammar_cache_give(cache, g);
    }
    return NULL;
}

static void many_threads_share_it(void **state)
{
    (void)state;
    cmi_vocab *vocab = make_vocab();
    cmi_grammar_cache *cache = cmi_grammar_cache_create(vocab, 0);
    pthread_t threads[4];
    for (size_t i = 0; i < CMI_LEN(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, use, cache), 0);
    }
    for (size_t i = 0; i < CMI_LEN(threads); i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    cmi_grammar_cache_stats stats = stats_of(cache);
    assert_int_equal(stats.n_used, 0);
    assert_int_equal(stats.n_hits + stats.n_compiled, 4 * 500);
    cmi_grammar_cache_destroy(cache);
    cmi_vocab_destroy(vocab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_source_is_compiled_once),
        cmocka_unit_test(what_is_idle_is_bounded_and_the_last_used_stay),
        cmocka_unit_test(those_in_use_have_a_limit_too),
        cmocka_unit_test(a_bad_source_leaves_nothing),
        cmocka_unit_test(many_threads_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
