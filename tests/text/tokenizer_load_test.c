#include "tests/text/tokenizer_build.h"

/* Sets the value at a path like "model.vocab" to the JSON text, or deletes it when that is NULL. */
static void set_field(json_t *root, const char *path, const char *value)
{
    char key[128];
    snprintf(key, sizeof key, "%s", path);
    char *dot;
    char *name = key;
    while ((dot = strchr(name, '.')) != NULL) {
        *dot = '\0';
        root = json_object_get(root, name);
        name = dot + 1;
    }
    if (value == NULL) {
        json_object_del(root, name);
        return;
    }
    json_t *parsed = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(parsed);
    json_object_set_new(root, name, parsed);
}

typedef struct load_case {
    const char *path, *value;
    cmi_status want;
    const char *line; /* part of the error line */
} load_case;

static void check_cases(const load_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        json_t *root = small_json();
        set_field(root, cases[i].path, cases[i].value);
        cmi_tokenizer *t;
        cmi_error err = {0};
        cmi_status st = try_load(&t, root, NULL, &err);
        bool named = cases[i].line == NULL || (strstr(err.text, "tokenizer.json: ") == err.text &&
                                               strstr(err.text, cases[i].line) != NULL);
        if (st != cases[i].want || !named || strchr(err.text, '\n') != NULL) {
            fail_msg("%s = %s: status %d, \"%s\"", cases[i].path, cases[i].value, st, err.text);
        }
        cmi_tokenizer_destroy(t);
    }
}

static void a_malformed_vocabulary_is_named(void **state)
{
    (void)state;
    const load_case cases[] = {
        {"model", NULL, CMI_ERR_BAD_DATA, "model:"},
        {"model", "[]", CMI_ERR_BAD_DATA, "model:"},
        {"model.vocab", "[]", CMI_ERR_BAD_DATA, "model.vocab:"},
        {"model.vocab", "{}", CMI_ERR_BAD_DATA, "model.vocab: no token for the byte 0x00"},
        {"model.vocab.a", NULL, CMI_ERR_BAD_DATA, "byte 0x61"},
        {"model.vocab.a", "98", CMI_ERR_BAD_DATA, "id 98"},
        {"model.vocab.a", "-1", CMI_ERR_BAD_DATA, "model.vocab[\"a\"]"},
        {"model.vocab.a", "4194304", CMI_ERR_BAD_DATA, "model.vocab[\"a\"]"},
        {"model.vocab.a", "4194303", CMI_OK, NULL},
        {"model.vocab.a", "\"x\"", CMI_ERR_BAD_DATA, "model.vocab[\"a\"]"},
        {"model.vocab.a", "1.5", CMI_ERR_BAD_DATA, "model.vocab[\"a\"]"},
        {"model.merges", NULL, CMI_ERR_BAD_DATA, "model.merges:"},
        {"model.merges", "{}", CMI_ERR_BAD_DATA, "model.merges:"},
        {"model.merges", "[\"ab\"]", CMI_ERR_BAD_DATA, "model.merges[0]"},
        {"model.merges", "[\"a b c\"]", CMI_ERR_BAD_DATA, "model.merges[0]"},
        {"model.merges", "[\"a b\"]", CMI_ERR_BAD_DATA, "model.merges[0]: \"a\", \"b\""},
        {"model.merges", "[[\"a\"]]", CMI_ERR_BAD_DATA, "model.merges[0]"},
        {"model.merges", "[[\"a\", 1]]", CMI_ERR_BAD_DATA, "model.merges[0]"},
        {"model.merges", "[null]", CMI_ERR_BAD_DATA, "model.merges[0]"},
        {"model.merges", "[\"日 本\"]", CMI_ERR_BAD_DATA, "model.merges[0]"},
    };
    check_cases(cases, CMI_LEN(cases));
}

static void malformed_added_tokens_are_named(void **state)
{
    (void)state;
    const load_case cases[] = {
        {"added_tokens", "{}", CMI_ERR_BAD_DATA, "added_tokens:"},
        {"added_tokens", "[{\"id\":300}]", CMI_ERR_BAD_DATA, "added_tokens[0].content"},
        {"added_tokens", "[{\"content\":\"x\"}]", CMI_ERR_BAD_DATA, "added_tokens[0].id"},
        {"added_tokens", "[7]", CMI_ERR_BAD_DATA, "added_tokens[0]"},
        {"added_tokens", "[{\"id\":1e9,\"content\":\"x\"}]", CMI_ERR_BAD_DATA,
         "added_tokens[0].id"},
        {"added_tokens", "[{\"id\":300,\"content\":\"<x>\",\"lstrip\":1}]", CMI_ERR_BAD_DATA,
         "added_tokens[0].lstrip"},
        {"added_tokens", "[{\"id\":97,\"content\":\"<x>\"}]", CMI_ERR_BAD_DATA, "id 97"},
        {"added_tokens", "[{\"id\":300,\"content\":\"a\"}]", CMI_ERR_BAD_DATA, "id 300"},
        {"added_tokens", "[{\"id\":300,\"content\":\"<x>\"},{\"id\":300,\"content\":\"<y>\"}]",
         CMI_ERR_BAD_DATA, "added_tokens[1]"},
        {"added_tokens", "[{\"id\":300,\"content\":\"<x>\"},{\"id\":300,\"content\":\"<x>\"}]",
         CMI_OK, NULL},
        {"added_tokens", "[{\"id\":97,\"content\":\"a\"},{\"id\":5,\"content\":\"\"}]", CMI_OK,
         NULL},
        {"added_tokens", NULL, CMI_OK, NULL},
    };
    check_cases(cases, CMI_LEN(cases));
    json_t *root = small_json();
    char content[514];
    memset(content, 'x', sizeof content - 1);
    content[sizeof content - 1] = '\0';
    add_token(root, content, 300, NULL);
    cmi_tokenizer *t;
    cmi_error err = {0};
    assert_int_equal(try_load(&t, root, NULL, &err), CMI_ERR_BAD_DATA);
    assert_non_null(strstr(err.text, "added_tokens[0].content: more than 512"));
}

static void what_is_not_supported_is_named(void **state)
{
    (void)state;
    const cmi_status no = CMI_ERR_UNSUPPORTED;
    const load_case cases[] = {
        {"model.type", "\"Unigram\"", no, "model.type: \"Unigram\""},
        {"model.dropout", "0.1", no, "model.dropout"},
        {"model.dropout", "null", CMI_OK, NULL},
        {"model.end_of_word_suffix", "\"</w>\"", no, "model.end_of_word_suffix"},
        {"model.continuing_subword_prefix", "\"\"", CMI_OK, NULL},
        {"normalizer", "{\"type\":\"NFC\"}", no, "normalizer.type: \"NFC\""},
        {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[]}", CMI_OK, NULL},
        {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}", no,
         "normalizer.normalizers[0].type: \"Lowercase\""},
        {"pre_tokenizer", "null", no, "pre_tokenizer.type"},
        {"pre_tokenizer", "{\"type\":\"Metaspace\"}", no, "pre_tokenizer.type: \"Metaspace\""},
        {"pre_tokenizer", "{\"type\":\"Sequence\",\"pretokenizers\":[]}", no, "no ByteLevel"},
        {"pre_tokenizer",
         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}"
         "]}",
         no, "pre_tokenizer.pretokenizers[1]: a step behind ByteLevel"},
        {"pre_tokenizer", "{\"type\":\"Split\",\"behavior\":\"Isolated\"}", CMI_ERR_BAD_DATA,
         "pre_tokenizer.pattern"},
        {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"}}", no,
         "pre_tokenizer.behavior"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\w\"},\"behavior\":\"Isolated\"}", no,
         "pre_tokenizer: the escape \\w"},
        {"pre_tokenizer.use_regex", "7", CMI_ERR_BAD_DATA, "pre_tokenizer.use_regex"},
        {"decoder", "null", no, "decoder.type"},
        {"decoder", "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\"}]}", CMI_OK,
         NULL},
        {"decoder", "{\"type\":\"Sequence\",\"decoders\":[]}", no, "decoder.type"},
        {"decoder", "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Strip\"}]}", no,
         "decoder.decoders[].type: \"Strip\""},
        {"post_processor", "{\"type\":\"BertProcessing\"}", no, "post_processor.type"},
        {"post_processor", "{\"type\":\"TemplateProcessing\",\"single\":[]}", no,
         "post_processor.single"},
        {"post_processor",
         "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},"
         "{\"SpecialToken\":{\"id\":\"a\"}}]}",
         no, "post_processor.single"},
        {"post_processor",
         "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}},"
         "{\"Sequence\":{\"id\":\"A\"}}]}",
         CMI_ERR_BAD_DATA, "post_processor.special_tokens"},
        {"post_processor",
         "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}}]}", CMI_OK,
         NULL},
    };
    check_cases(cases, CMI_LEN(cases));
}

static void steps_within_steps_are_limited(void **state)
{
    (void)state;
    static const char *const keys[][2] = {{"pre_tokenizer", "pretokenizers"},
                                          {"normalizer", "normalizers"},
                                          {"post_processor", "processors"}};
    for (size_t i = 0; i < CMI_LEN(keys); i++) {
        json_t *root = small_json();
        json_t *step = json_pack("{s:s, s:[]}", "type", "Sequence", keys[i][1]);
        for (int depth = 0; depth < 100; depth++) {
            step = json_pack("{s:s, s:[o]}", "type", "Sequence", keys[i][1], step);
        }
        json_object_set_new(root, keys[i][0], step);
        cmi_tokenizer *t;
        cmi_error err = {0};
        assert_int_equal(try_load(&t, root, NULL, &err), CMI_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.text, keys[i][0]));
    }
    json_t *root = small_json();
    json_t *list = json_array();
    for (int i = 0; i < 40; i++) {
        json_array_append_new(list, json_pack("{s:s}", "type", "Digits"));
    }
    json_object_set_new(root, "pre_tokenizer",
                        json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list));
    cmi_tokenizer *t;
    cmi_error err = {0};
    assert_int_equal(try_load(&t, root, NULL, &err), CMI_ERR_BAD_DATA);
    assert_non_null(strstr(err.text, "over 32 steps"));
}

static void text_that_is_no_json_is_refused_with_its_line(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "{", "[]", "7", "{\"a\":1,\n}", "\xFF", "{} {}", "{\"\\u0000\":1}"};
    for (size_t i = 0; i < CMI_LEN(texts); i++) {
        cmi_tokenizer *t;
        cmi_error err = {0};
        assert_int_equal(cmi_tokenizer_load_json(&t, texts[i], strlen(texts[i]), NULL, 0, &err),
                         CMI_ERR_BAD_DATA);
        assert_non_null(strstr(err.text, "tokenizer.json: line "));
    }
    cmi_buf deep;
    cmi_buf_init(&deep, 1 << 20);
    for (int i = 0; i < 100000; i++) {
        cmi_buf_char(&deep, '[');
    }
    cmi_tokenizer *t;
    assert_int_equal(cmi_tokenizer_load_json(&t, deep.data, deep.len, NULL, 0, NULL),
                     CMI_ERR_BAD_DATA);
    cmi_buf_deinit(&deep);
}

static void a_config_that_cannot_be_followed_is_named(void **state)
{
    (void)state;
    const struct {
        const char *config;
        cmi_status want;
        const char *line;
    } cases[] = {
        {"{", CMI_ERR_BAD_DATA, "tokenizer_config.json: line 1"},
        {"[]", CMI_ERR_BAD_DATA, "tokenizer_config.json: line"},
        {"{\"add_bos_token\":true}", CMI_ERR_BAD_DATA, "tokenizer_config.json: bos_token"},
        {"{\"add_bos_token\":true,\"bos_token\":\"<nowhere>\"}", CMI_ERR_BAD_DATA,
         "tokenizer_config.json: bos_token"},
        {"{\"add_eos_token\":true}", CMI_ERR_UNSUPPORTED, "tokenizer_config.json: add_eos_token"},
        {"{\"bos_token\":{\"content\":7},\"eos_token\":[],\"model_max_length\":\"x\"}", CMI_OK, ""},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_tokenizer *t;
        cmi_error err = {0};
        assert_int_equal(try_load(&t, small_json(), cases[i].config, &err), cases[i].want);
        assert_non_null(strstr(err.text, cases[i].line));
        cmi_tokenizer_destroy(t);
    }
}

static void a_folder_without_the_file_is_named(void **state)
{
    (void)state;
    cmi_tokenizer *t;
    cmi_error err = {0};
    assert_int_equal(cmi_tokenizer_load(&t, "/nonexistent", &err), CMI_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/tokenizer.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_malformed_vocabulary_is_named),
        cmocka_unit_test(malformed_added_tokens_are_named),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(steps_within_steps_are_limited),
        cmocka_unit_test(text_that_is_no_json_is_refused_with_its_line),
        cmocka_unit_test(a_config_that_cannot_be_followed_is_named),
        cmocka_unit_test(a_folder_without_the_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
