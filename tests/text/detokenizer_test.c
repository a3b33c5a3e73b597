#include "tests/text/tokenizer_build.h"

#include "base/rng.h"
#include "text/detokenizer.h"

#define FFFD "\xEF\xBF\xBD"

/* In small_json's tokenizer an id below 256 is its byte. */
static cmi_buf stream(const cmi_tokenizer *t, const uint32_t *ids, size_t n, bool skip_special)
{
    cmi_buf out;
    cmi_buf_init(&out, 1 << 20);
    cmi_detokenizer d = cmi_detokenizer_start(t, skip_special);
    for (size_t i = 0; i < n; i++) {
        cmi_detokenizer_push(&d, ids[i], &out);
        assert_int_equal(cmi_utf8_valid_prefix(cmi_buf_cstr(&out), out.len), out.len);
    }
    cmi_detokenizer_finish(&d, &out);
    return out;
}

static void bytes_are_replaced_as_python_replaces_them(void **state)
{
    (void)state;
    const struct {
        const char *bytes, *want;
    } cases[] = {
        {"abc", "abc"},
        {"\xE4\xBD\xA0\xE5\xA5\xBD", "你好"},
        {"\xF0\x9F\x98\x80", "😀"},
        /* The Unicode Standard, chapter 3, "U+FFFD Substitution of Maximal Subparts". */
        {"a\xF1\x80\x80\xE1\x80\xC2"
         "b\x80"
         "c\x80\xBF"
         "d",
         "a" FFFD FFFD FFFD "b" FFFD "c" FFFD FFFD "d"},
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", FFFD FFFD FFFD FFFD FFFD "A" FFFD FFFD "B"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", FFFD FFFD FFFD FFFD "A"},
        /* Tails that never end. */
        {"x\xF0\x9F\x98", "x" FFFD},
        {"x\xE4", "x" FFFD},
        {"\xE4\xE4\xE4", FFFD FFFD FFFD},
        {"\xF0\x9F\xF0\x9F\x98\x80", FFFD "😀"},
    };
    cmi_tokenizer *t = load(small_json());
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        uint32_t ids[32];
        size_t n = strlen(cases[i].bytes);
        for (size_t k = 0; k < n; k++) {
            ids[k] = (unsigned char)cases[i].bytes[k];
        }
        cmi_buf out = stream(t, ids, n, false);
        assert_string_equal(cmi_buf_cstr(&out), cases[i].want);
        cmi_buf_deinit(&out);
    }
    cmi_tokenizer_destroy(t);
}

static void an_unfinished_character_is_held_back(void **state)
{
    (void)state;
    cmi_tokenizer *t = load(small_json());
    cmi_detokenizer d = cmi_detokenizer_start(t, false);
    cmi_buf out;
    cmi_buf_init(&out, 64);
    const uint32_t ids[] = {'a', 0xF0, 0x9F, 0x98, 0x80, 'b'};
    const size_t lengths[] = {1, 1, 1, 1, 5, 6};
    for (size_t i = 0; i < CMI_LEN(ids); i++) {
        cmi_detokenizer_push(&d, ids[i], &out);
        assert_int_equal(out.len, lengths[i]);
    }
    cmi_detokenizer_finish(&d, &out);
    assert_string_equal(cmi_buf_cstr(&out), "a😀b");
    cmi_buf_deinit(&out);
    cmi_tokenizer_destroy(t);
}

static void special_and_unknown_tokens_may_stand_within_a_character(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_token(root, "<s>", 256, "{\"special\":true}");
    add_token(root, "<u>", 257, NULL);
    cmi_tokenizer *t = load(root);
    const uint32_t ids[] = {0xE4, 256, 0xBD, 99999, UINT32_MAX, 0xA0, 257, 256};
    cmi_buf skipped = stream(t, ids, CMI_LEN(ids), true);
    assert_string_equal(cmi_buf_cstr(&skipped), "你<u>");
    cmi_buf all = stream(t, ids, CMI_LEN(ids), false);
    assert_string_equal(cmi_buf_cstr(&all), FFFD "<s>" FFFD FFFD "<u><s>");
    cmi_buf_deinit(&skipped);
    cmi_buf_deinit(&all);
    cmi_tokenizer_destroy(t);
}

/* Replaces in the whole text at once, written apart from the detokenizer. */
static void replace_all(const char *p, size_t n, cmi_buf *out)
{
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        int length = cmi_utf8_next(p + at, n - at, &cp);
        if (length > 0) {
            cmi_buf_append(out, p + at, (size_t)length);
            at += (size_t)length;
            continue;
        }
        size_t part = 1;
        for (size_t k = 2; k <= 3 && at + k <= n; k++) {
            part = cmi_utf8_next(p + at, k, &cp) == 0 ? k : part;
        }
        cmi_buf_str(out, FFFD);
        at += part;
    }
}

static void any_stream_of_tokens_gives_the_text_of_all_its_bytes(void **state)
{
    (void)state;
    static const char *const pieces[] = {"\xE4\xBD", "\xA0",      "\xF0\x9F",         "\x98\x80",
                                         "\x80\x80", "a\xF0\x9F", "\xED\xA0\x80\xE4", "ü\xC3"};
    json_t *root = small_json();
    for (size_t i = 0; i < CMI_LEN(pieces); i++) {
        add_vocab(root, pieces[i], FIRST_FREE_ID + (int)i);
    }
    cmi_tokenizer *t = load(root);
    for (uint64_t seed = 0; seed < 2000; seed++) {
        uint32_t ids[24], r[4];
        cmi_buf bytes, want;
        cmi_buf_init(&bytes, 1024);
        cmi_buf_init(&want, 4096);
        for (size_t i = 0; i < CMI_LEN(ids); i++) {
            cmi_philox4x32(seed, i, 0, r);
            /* Mostly the pieces and the bytes of multi-byte sequences. */
            ids[i] = r[0] % 2 == 0 ? FIRST_FREE_ID + r[1] % CMI_LEN(pieces) : 0x70 + r[1] % 0x90;
            size_t n;
            const char *token = cmi_tokenizer_token_bytes(t, ids[i], &n);
            cmi_buf_append(&bytes, token, n);
        }
        replace_all(bytes.data, bytes.len, &want);
        cmi_buf got = stream(t, ids, CMI_LEN(ids), false);
        cmi_buf at_once;
        cmi_buf_init(&at_once, 4096);
        cmi_tokenizer_decode(t, ids, CMI_LEN(ids), false, &at_once);
        if (strcmp(got.data, want.data) != 0 || strcmp(at_once.data, want.data) != 0) {
            fail_msg("seed %d: \"%s\", not \"%s\"", (int)seed, got.data, want.data);
        }
        cmi_buf_deinit(&bytes);
        cmi_buf_deinit(&want);
        cmi_buf_deinit(&got);
        cmi_buf_deinit(&at_once);
    }
    cmi_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_replaced_as_python_replaces_them),
        cmocka_unit_test(an_unfinished_character_is_held_back),
        cmocka_unit_test(special_and_unknown_tokens_may_stand_within_a_character),
        cmocka_unit_test(any_stream_of_tokens_gives_the_text_of_all_its_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
