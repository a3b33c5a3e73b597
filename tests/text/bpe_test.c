#include "tests/text/tokenizer_build.h"

#include "base/alloc.h"
#include "base/rng.h"
#include "text/tokenizer_internal.h"

/* The definition, word for word: merge the best pair, the leftmost of equals, until none is left.
 */
static void merge_by_definition(const cmi_bpe *bpe, const char *piece, size_t n, cmi_ids *out)
{
    cmi_ids ids = {0};
    for (size_t i = 0; i < n; i++) {
        cmi_ids_push(&ids, bpe->byte_ids[(unsigned char)piece[i]]);
    }
    for (;;) {
        uint32_t best = UINT32_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < ids.len; i++) {
            uint32_t rank = cmi_pair_map_get(
                &bpe->ranks, cmi_bpe_pair(ids.data[i], ids.data[i + 1]), UINT32_MAX);
            if (rank < best) {
                best = rank;
                at = i;
            }
        }
        if (best == UINT32_MAX) {
            break;
        }
        ids.data[at] = bpe->merged_ids[best];
        memmove(&ids.data[at + 1], &ids.data[at + 2], (ids.len - at - 2) * sizeof *ids.data);
        ids.len--;
    }
    cmi_ids_append(out, ids.data, ids.len);
    cmi_ids_deinit(&ids);
}

static uint32_t random_below(uint64_t seed, uint64_t *counter, uint32_t n)
{
    uint32_t r[4];
    cmi_philox4x32(seed, (*counter)++, 0, r);
    return r[0] % n;
}

/* Random merges over the letters a to c, in an order that no training would give. */
static cmi_tokenizer *random_tokenizer(uint64_t seed)
{
    enum { TOKENS = 40 };
    char tokens[3 + TOKENS][16] = {"a", "b", "c"};
    uint64_t counter = 0;
    json_t *root = small_json();
    size_t n = 3;
    for (int tries = 0; tries < 1000 && n < 3 + TOKENS; tries++) {
        const char *left = tokens[random_below(seed, &counter, (uint32_t)n)];
        const char *right = tokens[random_below(seed, &counter, (uint32_t)n)];
        char both[32];
        snprintf(both, sizeof both, "%s%s", left, right);
        bool is_new = strlen(both) < sizeof tokens[0];
        for (size_t i = 0; i < n; i++) {
            is_new = is_new && strcmp(both, tokens[i]) != 0;
        }
        if (is_new) {
            add_merge(root, left, right, FIRST_FREE_ID + (int)n);
            memcpy(tokens[n++], both, strlen(both) + 1);
        }
    }
    return load(root);
}

static void every_piece_is_merged_as_the_definition_says(void **state)
{
    (void)state;
    cmi_bpe_scratch scratch = {0};
    for (uint64_t seed = 0; seed < 100; seed++) {
        cmi_tokenizer *t = random_tokenizer(seed);
        uint64_t counter = 1 << 20;
        for (int round = 0; round < 30; round++) {
            char piece[200];
            size_t n = random_below(seed, &counter, sizeof piece);
            for (size_t i = 0; i < n; i++) {
                piece[i] = (char)('a' + random_below(seed, &counter, 3));
            }
            cmi_ids want = {0}, got = {0};
            merge_by_definition(&t->bpe, piece, n, &want);
            assert_true(cmi_bpe_encode(&t->bpe, &scratch, piece, n, &got));
            if (got.len != want.len ||
                (n > 0 && memcmp(got.data, want.data, got.len * sizeof *got.data) != 0)) {
                fail_msg("seed %d, piece %.*s", (int)seed, (int)n, piece);
            }
            cmi_ids_deinit(&want);
            cmi_ids_deinit(&got);
        }
        cmi_tokenizer_destroy(t);
    }
    cmi_bpe_scratch_deinit(&scratch);
}

static void of_two_equal_merges_the_later_one_counts(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_merge(root, "a", "b", 256);
    add_merge(root, "b", "c", 257);
    add_merge(root, "a", "b", 256);
    cmi_tokenizer *t = load(root);
    assert_string_equal(tokens_of(t, "abc", 0), "a|bc");
    cmi_tokenizer_destroy(t);
}

/* A quadratic merge would need hours for it. */
static void a_piece_of_a_megabyte_takes_no_time(void **state)
{
    (void)state;
    enum { PIECE_BYTES = 1 << 20 };
    json_t *root = small_json();
    char left[65] = "";
    for (size_t n = 1, id = FIRST_FREE_ID; n <= 32; n *= 2, id++) {
        memset(left, 'a', n);
        left[n] = '\0';
        add_merge(root, left, left, (int)id);
    }
    cmi_tokenizer *t = load(root);
    char *piece = cmi_alloc(PIECE_BYTES, 1);
    memset(piece, 'a', PIECE_BYTES);
    cmi_ids ids = {0};
    assert_int_equal(cmi_tokenizer_encode(t, piece, PIECE_BYTES, 0, &ids, NULL), CMI_OK);
    assert_int_equal(ids.len, PIECE_BYTES / 64);
    cmi_ids_deinit(&ids);
    cmi_free(piece);
    cmi_tokenizer_destroy(t);
}

static void bytes_that_no_utf8_holds_may_lack_a_token(void **state)
{
    (void)state;
    json_t *root = small_json();
    char letter[3];
    spell("\xFF", 1, letter);
    json_object_del(json_object_get(json_object_get(root, "model"), "vocab"), letter);
    cmi_tokenizer *t = load(root);
    cmi_bpe_scratch scratch = {0};
    cmi_ids ids = {0};
    assert_true(cmi_bpe_encode(&t->bpe, &scratch, "a\xFFz\xFF", 4, &ids));
    assert_int_equal(ids.len, 2);
    assert_true(cmi_bpe_encode(&t->bpe, &scratch, "\xFF", 1, &ids));
    assert_int_equal(ids.len, 2);
    cmi_ids_deinit(&ids);
    cmi_bpe_scratch_deinit(&scratch);
    cmi_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_is_merged_as_the_definition_says),
        cmocka_unit_test(of_two_equal_merges_the_later_one_counts),
        cmocka_unit_test(a_piece_of_a_megabyte_takes_no_time),
        cmocka_unit_test(bytes_that_no_utf8_holds_may_lack_a_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
