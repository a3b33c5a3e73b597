#include "tests/test.h"

#include "base/rng.h"
#include "server/stop_strings.h"

typedef struct stop_case {
    const char *stops[4];
    const char *text;
    const char *shown;
    int found;
} stop_case;

static void make_set(cmi_stop_set *set, const char *const *stops)
{
    *set = (cmi_stop_set){0};
    for (int i = 0; i < 4 && stops[i] != NULL; i++) {
        assert_true(cmi_stop_set_add(set, stops[i], strlen(stops[i])));
    }
}

/* Feeds text in pieces whose sizes come from seed; returns which string was found. */
static int run(const cmi_stop_set *set, const char *text, size_t n, uint64_t seed, bool keep,
               cmi_buf *out)
{
    cmi_stop_matcher m;
    cmi_stop_matcher_init(&m, set);
    int found = -1;
    size_t at = 0;
    for (uint64_t i = 0; at < n && found < 0; i++) {
        uint32_t words[4];
        cmi_philox4x32(seed, i, 0, words);
        size_t piece = seed == 0 ? n : CMI_MIN(n - at, words[0] % 4);
        found = cmi_stop_matcher_feed(&m, text + at, piece, keep, out);
        at += piece;
    }
    if (found < 0) {
        cmi_stop_matcher_flush(&m, out);
    }
    cmi_stop_matcher_deinit(&m);
    return found;
}

static void the_first_complete_stop_string_wins(void **state)
{
    (void)state;
    static const stop_case cases[] = {
        {{"END"}, "some text END more", "some text ", 0},
        {{"END"}, "EEND", "E", 0},
        {{"END"}, "EN", "EN", -1},
        {{"aab"}, "aaaab!", "aa", 0},
        {{"abab", "x"}, "abaabab", "aba", 0},
        {{"abcd", "bc"}, "abcd", "a", 1},
        {{"c", "abc"}, "zabc", "z", 1}, /* both end here: the longest */
        {{"\n\n"}, "a\nb\n\nc", "a\nb", 0},
        {{"\xC3\xA9"}, "\xC3\xA8\xC3\xA9", "\xC3\xA8", 0},
        {{"never"}, "", "", -1},
        {{NULL}, "all of it", "all of it", -1},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_stop_set set;
        make_set(&set, cases[i].stops);
        for (uint64_t seed = 0; seed < 50; seed++) {
            cmi_buf out;
            cmi_buf_init(&out, 1000);
            int found = run(&set, cases[i].text, strlen(cases[i].text), seed, false, &out);
            assert_int_equal(found, cases[i].found);
            assert_string_equal(cmi_buf_cstr(&out), cases[i].shown);
            cmi_buf_deinit(&out);
        }
        cmi_stop_set_deinit(&set);
    }
}

static void a_stop_string_may_be_kept(void **state)
{
    (void)state;
    const char *const stops[4] = {"END"};
    cmi_stop_set set;
    make_set(&set, stops);
    cmi_buf out;
    cmi_buf_init(&out, 1000);
    assert_int_equal(run(&set, "one END two", 11, 3, true, &out), 0);
    assert_string_equal(cmi_buf_cstr(&out), "one END");
    cmi_buf_deinit(&out);
    cmi_stop_set_deinit(&set);
}

static void only_a_possible_beginning_is_held_back(void **state)
{
    (void)state;
    const char *const stops[4] = {"\nUser:"};
    cmi_stop_set set;
    make_set(&set, stops);
    cmi_stop_matcher m;
    cmi_stop_matcher_init(&m, &set);
    cmi_buf out;
    cmi_buf_init(&out, 1000);
    assert_int_equal(cmi_stop_matcher_feed(&m, "Hello\nUs", 8, false, &out), -1);
    assert_string_equal(cmi_buf_cstr(&out), "Hello");
    assert_int_equal(cmi_stop_matcher_feed(&m, "e it", 4, false, &out), -1);
    assert_string_equal(cmi_buf_cstr(&out), "Hello\nUse it");
    cmi_stop_matcher_deinit(&m);
    cmi_buf_deinit(&out);
    cmi_stop_set_deinit(&set);
}

static void the_set_has_limits(void **state)
{
    (void)state;
    static char text[CMI_MAX_STOP_STRING_BYTES + 1];
    memset(text, 'a', sizeof text);
    cmi_stop_set set = {0};
    assert_false(cmi_stop_set_add(&set, "", 0));
    assert_false(cmi_stop_set_add(&set, text, sizeof text));
    for (int i = 0; i < CMI_MAX_STOP_STRINGS; i++) {
        assert_true(cmi_stop_set_add(&set, text, sizeof text - 1));
    }
    assert_false(cmi_stop_set_add(&set, "a", 1));
    cmi_stop_set_deinit(&set);
}

/* What the header promises, in the slowest and plainest way. */
static int plain_search(const cmi_stop_set *set, const char *text, size_t n, size_t *start_out)
{
    for (size_t end = 1; end <= n; end++) {
        int found = -1;
        for (uint32_t i = 0; i < set->n; i++) {
            const cmi_stop_string *s = &set->strings[i];
            if (s->n_bytes <= end && memcmp(text + end - s->n_bytes, s->text, s->n_bytes) == 0 &&
                (found < 0 || s->n_bytes > set->strings[found].n_bytes)) {
                found = (int)i;
            }
        }
        if (found >= 0) {
            *start_out = end - set->strings[found].n_bytes;
            return found;
        }
    }
    *start_out = n;
    return -1;
}

static void random_texts_agree_with_a_plain_search(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        uint32_t r[4];
        cmi_stop_set set = {0};
        for (uint64_t i = 0; i < 3; i++) {
            char stop[8];
            cmi_philox4x32(seed, i, 1, r);
            size_t n = 1 + r[0] % 6;
            for (size_t j = 0; j < n; j++) {
                stop[j] = (char)('a' + (r[1] >> j & 1));
            }
            assert_true(cmi_stop_set_add(&set, stop, n));
        }
        char text[32];
        cmi_philox4x32(seed, 9, 1, r);
        size_t n = r[2] % (sizeof text + 1);
        for (size_t j = 0; j < n; j++) {
            text[j] = (char)('a' + (r[0] >> j & 1));
        }
        size_t start;
        int expected = plain_search(&set, text, n, &start);
        cmi_buf out;
        cmi_buf_init(&out, 1000);
        int found = run(&set, text, n, seed, false, &out);
        if (found != expected || out.len != start || memcmp(cmi_buf_cstr(&out), text, start) != 0) {
            fail_msg("seed %llu: found %d, expected %d", (unsigned long long)seed, found, expected);
        }
        cmi_buf_deinit(&out);
        cmi_stop_set_deinit(&set);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_complete_stop_string_wins),
        cmocka_unit_test(a_stop_string_may_be_kept),
        cmocka_unit_test(only_a_possible_beginning_is_held_back),
        cmocka_unit_test(the_set_has_limits),
        cmocka_unit_test(random_texts_agree_with_a_plain_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
