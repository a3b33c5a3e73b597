#include "tests/text/tokenizer_build.h"

#include <pthread.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "text/tokenizer_internal.h"

/* What the pieces of "the-final--countdown" may be, as tokens, so that whole pieces show. */
static json_t *countdown_json(void)
{
    static const char *const pieces[] = {"the",    "final",      "countdown", "the-",   "final-",
                                         "-final", "-countdown", "--",        "final--"};
    json_t *root = small_json();
    for (size_t i = 0; i < CMI_LEN(pieces); i++) {
        add_vocab(root, pieces[i], FIRST_FREE_ID + (int)i);
    }
    json_object_set_new(json_object_get(root, "model"), "ignore_merges", json_true());
    return root;
}

static void every_split_behavior_cuts_as_documented(void **state)
{
    (void)state;
    const struct {
        const char *split, *want;
    } cases[] = {
        {"'pattern':{'String':'-'},'behavior':'Isolated','invert':false",
         "the|-|final|-|-|countdown"},
        {"'pattern':{'String':'-'},'behavior':'Removed','invert':false", "the|final|countdown"},
        {"'pattern':{'String':'-'},'behavior':'MergedWithPrevious','invert':false",
         "the-|final-|-|countdown"},
        {"'pattern':{'String':'-'},'behavior':'MergedWithNext','invert':false",
         "the|-final|-|-countdown"},
        {"'pattern':{'String':'-'},'behavior':'Contiguous','invert':false",
         "the|-|final|--|countdown"},
        {"'pattern':{'Regex':'[a-z]+'},'behavior':'Removed','invert':true", "the|final|countdown"},
        {"'pattern':{'Regex':'[a-z]+'},'behavior':'Isolated','invert':true",
         "the|-|final|--|countdown"},
        {"'pattern':{'Regex':'[a-z]+'},'behavior':'MergedWithNext','invert':false",
         "the-|final--|countdown"},
        {"'pattern':{'String':'.'},'behavior':'Removed'",
         "t|h|e|-|f|i|n|a|l|-|-|c|o|u|n|t|d|o|w|n"},
        {"'pattern':{'Regex':'-*'},'behavior':'Removed'", "t|h|e|f|i|n|a|l|c|o|u|n|t|d|o|w|n"},
        {"'pattern':{'Regex':'(?=-)'},'behavior':'Isolated'", "the|-final|-|-countdown"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        char split[256];
        snprintf(split, sizeof split, "[{'type':'Split',%s}]", cases[i].split);
        for (char *c = split; *c != '\0'; c++) {
            *c = *c == '\'' ? '"' : *c;
        }
        json_t *root = countdown_json();
        set_splits(root, split);
        cmi_tokenizer *t = load(root);
        assert_string_equal(tokens_of(t, "the-final--countdown", 0), cases[i].want);
        cmi_tokenizer_destroy(t);
    }
}

static void digits_stand_alone_or_together(void **state)
{
    (void)state;
    static const char *const want[] = {"a|12|½|b|3", "a|1|2|½|b|3"};
    for (int individual = 0; individual < 2; individual++) {
        json_t *root = small_json();
        add_merge(root, "a", "1", 256);
        add_merge(root, "1", "2", 257);
        add_merge(root, "\xC2", "\xBD", 258);
        add_merge(root, "½", "b", 259);
        set_splits(root, individual ? "[{\"type\":\"Digits\",\"individual_digits\":true}]"
                                    : "[{\"type\":\"Digits\",\"individual_digits\":false}]");
        cmi_tokenizer *t = load(root);
        assert_string_equal(tokens_of(t, "a12½b3", 0), want[individual]);
        cmi_tokenizer_destroy(t);
    }
}

static void a_lone_byte_level_step_uses_gpt2s_pattern_and_adds_a_space(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_vocab(root, " we", 256);
    add_vocab(root, "'re", 257);
    add_vocab(root, " 42", 258);
    add_vocab(root, "  ", 259);
    add_vocab(root, "we", 260);
    json_object_set_new(json_object_get(root, "model"), "ignore_merges", json_true());
    json_object_set_new(json_object_get(root, "pre_tokenizer"), "use_regex", json_true());
    json_object_set_new(json_object_get(root, "pre_tokenizer"), "add_prefix_space", json_true());
    add_token(root, "<x>", 261, NULL);
    cmi_tokenizer *t = load(root);
    assert_string_equal(tokens_of(t, "we're 42   we", 0), " we|'re| 42|  | we");
    assert_string_equal(tokens_of(t, " we", 0), " we");
    assert_string_equal(tokens_of(t, "we<x>we", CMI_ENCODE_ADDED_TOKENS), " we|<x>| we");
    assert_string_equal(tokens_of(t, "", 0), "");
    cmi_tokenizer_destroy(t);
}

static void the_longest_of_the_leftmost_added_tokens_wins(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_token(root, "<a", 256, NULL);
    add_token(root, "<a>", 257, NULL);
    add_token(root, "a><b>", 258, NULL);
    add_token(root, "<aa", 259, NULL);
    cmi_tokenizer *t = load(root);
    const unsigned added = CMI_ENCODE_ADDED_TOKENS;
    assert_string_equal(tokens_of(t, "<a><b>", added), "<a>|<|b|>");
    assert_string_equal(tokens_of(t, "<aa>", added), "<aa|>");
    assert_string_equal(tokens_of(t, "<<ab", added), "<|<a|b");
    assert_string_equal(tokens_of(t, "xa><b><", added), "x|a><b>|<");
    assert_string_equal(tokens_of(t, "<a>", 0), "<|a|>");
    cmi_tokenizer_destroy(t);
}

static void normalized_added_tokens_are_searched_in_what_the_others_leave(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_token(root, "ab", 256, "{\"normalized\":true}");
    add_token(root, "bc", 257, NULL);
    cmi_tokenizer *t = load(root);
    assert_string_equal(tokens_of(t, "abcab", CMI_ENCODE_ADDED_TOKENS), "a|bc|ab");
    cmi_tokenizer_destroy(t);
}

static void added_tokens_take_white_space_along(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_token(root, "<l>", 256, "{\"lstrip\":true}");
    add_token(root, "<r>", 257, "{\"rstrip\":true}");
    add_token(root, "<b>", 258, "{\"lstrip\":true,\"rstrip\":true}");
    cmi_tokenizer *t = load(root);
    const unsigned added = CMI_ENCODE_ADDED_TOKENS;
    assert_string_equal(tokens_of(t, "x \t\n<l> y", added), "x|<l>| |y");
    assert_string_equal(tokens_of(t, "x <r>\u3000\u00A0 y", added), "x| |<r>|y");
    assert_string_equal(tokens_of(t, "x <b> y", added), "x|<b>|y");
    assert_string_equal(tokens_of(t, " <r> <l> ", added), " |<r>|<l>| ");
    assert_string_equal(tokens_of(t, "<l>", added), "<l>");
    cmi_tokenizer_destroy(t);
}

static void an_added_word_counts_only_alone(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_token(root, "no", 256, "{\"single_word\":true}");
    cmi_tokenizer *t = load(root);
    const unsigned added = CMI_ENCODE_ADDED_TOKENS;
    assert_string_equal(tokens_of(t, "no", added), "no");
    assert_string_equal(tokens_of(t, "-no!", added), "-|no|!");
    assert_string_equal(tokens_of(t, "not no", added), "n|o|t| |no");
    assert_string_equal(tokens_of(t, "_no", added), "_|n|o");
    assert_string_equal(tokens_of(t, "éno", added), "\xC3|\xA9|n|o");
    cmi_tokenizer_destroy(t);
}

static void the_begin_token_comes_once(void **state)
{
    (void)state;
    const char *const config = "{\"add_bos_token\":true,\"bos_token\":{\"content\":\"<s>\"},"
                               "\"eos_token\":\"</s>\",\"pad_token\":\"<nowhere>\","
                               "\"model_max_length\":1000000000000000019884624838656}";
    json_t *root = small_json();
    add_token(root, "<s>", 256, "{\"special\":true}");
    add_token(root, "</s>", 257, "{\"special\":true}");
    cmi_tokenizer *t = load_with_config(root, config);
    const unsigned both = CMI_ENCODE_ADDED_TOKENS | CMI_ENCODE_BEGIN;
    assert_string_equal(tokens_of(t, "a", both), "<s>|a");
    assert_string_equal(tokens_of(t, "<s>a", both), "<s>|a");
    assert_string_equal(tokens_of(t, "<s><s>", both), "<s>|<s>");
    assert_string_equal(tokens_of(t, "", both), "<s>");
    assert_string_equal(tokens_of(t, "a", CMI_ENCODE_ADDED_TOKENS), "a");
    assert_string_equal(tokens_of(t, "<s>", CMI_ENCODE_BEGIN), "<s>|<|s|>");
    assert_int_equal(cmi_tokenizer_bos_id(t), 256);
    assert_int_equal(cmi_tokenizer_eos_id(t), 257);
    assert_int_equal(cmi_tokenizer_pad_id(t), CMI_TOKEN_NONE);
    assert_true(cmi_tokenizer_max_length_tokens(t) == UINT64_MAX);
    cmi_tokenizer_destroy(t);
}

static void a_template_names_the_begin_token_when_the_config_does_not(void **state)
{
    (void)state;
    const char *const post = "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
                             "{\"type\":\"TemplateProcessing\",\"single\":["
                             "{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
                             "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":"
                             "{\"<s>\":{\"id\":\"<s>\",\"ids\":[256],\"tokens\":[\"<s>\"]}}}]}";
    const struct {
        const char *config, *want;
    } cases[] = {
        {NULL, "<s>|a"},
        {"{\"model_max_length\":4096}", "<s>|a"},
        {"{\"add_bos_token\":false}", "a"},
        {"{\"add_bos_token\":true}", "<s>|a"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        json_t *root = small_json();
        add_token(root, "<s>", 256, "{\"special\":true}");
        json_object_set_new(root, "post_processor", json_loads(post, 0, NULL));
        cmi_tokenizer *t = load_with_config(root, cases[i].config);
        assert_string_equal(tokens_of(t, "a", CMI_ENCODE_BEGIN), cases[i].want);
        assert_int_equal(cmi_tokenizer_bos_id(t), 256);
        assert_true(cmi_tokenizer_max_length_tokens(t) == (i == 1 ? 4096 : UINT64_MAX));
        cmi_tokenizer_destroy(t);
    }
}

static void a_nul_is_text(void **state)
{
    (void)state;
    cmi_tokenizer *t = load(small_json());
    cmi_ids ids = {0};
    assert_int_equal(cmi_tokenizer_encode(t, "a\0b", 3, 0, &ids, NULL), CMI_OK);
    const uint32_t want[] = {'a', 0, 'b'};
    assert_int_equal(ids.len, 3);
    assert_memory_equal(ids.data, want, sizeof want);
    cmi_ids_deinit(&ids);
    cmi_tokenizer_destroy(t);
}

static void broken_utf8_is_refused_and_nothing_is_appended(void **state)
{
    (void)state;
    static const char *const broken[] = {"a\x80", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                                         "ab\xE4\xBD"};
    cmi_tokenizer *t = load(small_json());
    cmi_ids ids = {0};
    cmi_ids_push(&ids, 7);
    for (size_t i = 0; i < CMI_LEN(broken); i++) {
        cmi_error err = {0};
        assert_int_equal(cmi_tokenizer_encode(t, broken[i], strlen(broken[i]), 0, &ids, &err),
                         CMI_ERR_INVALID);
        assert_non_null(strstr(err.text, "UTF-8"));
        assert_int_equal(ids.len, 1);
    }
    cmi_ids_deinit(&ids);
    cmi_tokenizer_destroy(t);
}

static void ids_are_looked_up_both_ways(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_merge(root, " ", "a", 256);
    add_token(root, " a", 300, NULL);
    add_token(root, "<s>", 301, "{\"special\":true}");
    cmi_tokenizer *t = load(root);
    size_t n;
    assert_int_equal(cmi_tokenizer_n_ids(t), 302);
    assert_int_equal(cmi_tokenizer_find(t, " a", 2), 300);
    assert_int_equal(cmi_tokenizer_find(t, "\xFF", 1), 255);
    assert_int_equal(cmi_tokenizer_find(t, "<s>", 3), 301);
    assert_int_equal(cmi_tokenizer_find(t, "<s", 2), CMI_TOKEN_NONE);
    assert_int_equal(cmi_tokenizer_find(t, "", 0), CMI_TOKEN_NONE);
    assert_memory_equal(cmi_tokenizer_token_bytes(t, 256, &n), " a", 2);
    assert_int_equal(n, 2);
    assert_null(cmi_tokenizer_token_bytes(t, 299, &n)); /* a hole */
    assert_int_equal(n, 0);
    assert_null(cmi_tokenizer_token_bytes(t, 302, &n));
    assert_null(cmi_tokenizer_token_bytes(t, UINT32_MAX, &n));
    assert_true(cmi_tokenizer_is_special(t, 301));
    assert_false(cmi_tokenizer_is_special(t, 300));
    assert_false(cmi_tokenizer_is_special(t, UINT32_MAX));
    cmi_tokenizer_destroy(t);
}

static void remembered_pieces_give_the_ids_of_new_ones(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_merge(root, "a", "b", 256);
    set_splits(root, "[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[^ ]+\"},"
                     "\"behavior\":\"Isolated\",\"invert\":false}]");
    cmi_tokenizer *t = load(root);
    enum { WORDS = 1000 };
    cmi_buf text;
    cmi_buf_init(&text, 1 << 20);
    cmi_ids want = {0}, got = {0};
    for (uint32_t i = 0; i < WORDS; i++) {
        char word[8];
        uint32_t r[4];
        cmi_philox4x32(1, i, 0, r);
        int n = snprintf(word, sizeof word, "%.*s ", 1 + (int)(r[0] % 5), &"ababab"[r[1] % 2]);
        cmi_buf_append(&text, word, (size_t)n);
        assert_int_equal(cmi_tokenizer_encode(t, word, (size_t)n, 0, &want, NULL), CMI_OK);
    }
    assert_int_equal(cmi_tokenizer_encode(t, text.data, text.len, 0, &got, NULL), CMI_OK);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.data, want.data, want.len * sizeof *want.data);
    cmi_ids_deinit(&want);
    cmi_ids_deinit(&got);
    cmi_buf_deinit(&text);
    cmi_tokenizer_destroy(t);
}

/* Patterns that take exponential or quadratic time, and one that needs endless stack. */
static void a_hostile_pattern_ends_with_an_error(void **state)
{
    (void)state;
    /* They end in classes: a required letter that the text lacks would settle it at once. */
    static const char *const patterns[] = {
        "(?:a+)+[bc]",         "a[^x]*[xy]",          "a*a*a*a*[bc]",
        "(?:(?=[^x]*)a)*[bc]", "(?:a|(?:a|a))*?[bc]", "(?:(?:a?){1,20}){1,20}[bc]",
        "a(?=[^x]*)",
    };
    enum { TEXT_BYTES = 100000 };
    char *text = cmi_alloc(TEXT_BYTES, 1);
    memset(text, 'a', TEXT_BYTES);
    for (size_t i = 0; i < CMI_LEN(patterns); i++) {
        char split[256];
        snprintf(split, sizeof split,
                 "[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"Isolated\"}]",
                 patterns[i]);
        json_t *root = small_json();
        set_splits(root, split);
        cmi_tokenizer *t = load(root);
        t->timeout_ns = 0;
        cmi_ids ids = {0};
        cmi_error err = {0};
        cmi_status st = cmi_tokenizer_encode(t, text, TEXT_BYTES, 0, &ids, &err);
        assert_true(st == CMI_ERR_TIMEOUT || st == CMI_ERR_TOO_LARGE);
        assert_non_null(strstr(err.text, "pre_tokenizer.pretokenizers[0]"));
        assert_int_equal(ids.len, 0);
        cmi_ids_deinit(&ids);
        cmi_tokenizer_destroy(t);
    }
    cmi_free(text);
}

static const char shared_text[] = "we share one tokenizer, we do, we share it; 1234 5678\n\n  end";

static void *encode_often(void *tokenizer)
{
    cmi_ids first = {0};
    bool same = cmi_tokenizer_encode(tokenizer, shared_text, sizeof shared_text - 1, 0, &first,
                                     NULL) == CMI_OK;
    for (int i = 0; same && i < 200; i++) {
        cmi_ids ids = {0};
        same = cmi_tokenizer_encode(tokenizer, shared_text, sizeof shared_text - 1, 0, &ids,
                                    NULL) == CMI_OK &&
               ids.len == first.len &&
               memcmp(ids.data, first.data, first.len * sizeof *first.data) == 0;
        cmi_ids_deinit(&ids);
    }
    cmi_ids_deinit(&first);
    return same ? tokenizer : NULL;
}

static void many_threads_share_a_tokenizer(void **state)
{
    (void)state;
    json_t *root = small_json();
    add_merge(root, "w", "e", 256);
    json_object_set_new(json_object_get(root, "pre_tokenizer"), "use_regex", json_true());
    cmi_tokenizer *t = load(root);
    pthread_t threads[4];
    for (size_t i = 0; i < CMI_LEN(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, t), 0);
    }
    for (size_t i = 0; i < CMI_LEN(threads); i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, t);
    }
    cmi_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_behavior_cuts_as_documented),
        cmocka_unit_test(digits_stand_alone_or_together),
        cmocka_unit_test(a_lone_byte_level_step_uses_gpt2s_pattern_and_adds_a_space),
        cmocka_unit_test(the_longest_of_the_leftmost_added_tokens_wins),
        cmocka_unit_test(normalized_added_tokens_are_searched_in_what_the_others_leave),
        cmocka_unit_test(added_tokens_take_white_space_along),
        cmocka_unit_test(an_added_word_counts_only_alone),
        cmocka_unit_test(the_begin_token_comes_once),
        cmocka_unit_test(a_template_names_the_begin_token_when_the_config_does_not),
        cmocka_unit_test(a_nul_is_text),
        cmocka_unit_test(broken_utf8_is_refused_and_nothing_is_appended),
        cmocka_unit_test(ids_are_looked_up_both_ways),
        cmocka_unit_test(remembered_pieces_give_the_ids_of_new_ones),
        cmocka_unit_test(a_hostile_pattern_ends_with_an_error),
        cmocka_unit_test(many_threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
