/* The bundled tokenizer against the ids that its maker wrote down (models/making/tokenizer.py). */
#include "tests/test.h"

#include <jansson.h>
#include <stdlib.h>

#include "text/detokenizer.h"

static cmi_tokenizer *tokenizer;

static json_t *read_golden(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/matrix-tiny/%s", getenv("CMI_MODELS"), name);
    json_error_t where;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &where);
    if (root == NULL) {
        fail_msg("%s: %s", path, where.text);
    }
    return root;
}

static void check_text(const json_t *item)
{
    const json_t *text = json_object_get(item, "text"), *want = json_object_get(item, "ids");
    const char *bytes = json_string_value(text);
    size_t n_bytes = json_string_length(text);
    cmi_ids ids = {0};
    cmi_error err = {0};
    assert_int_equal(
        cmi_tokenizer_encode(tokenizer, bytes, n_bytes, CMI_ENCODE_ADDED_TOKENS, &ids, &err),
        CMI_OK);
    assert_int_equal(ids.len, json_array_size(want));
    for (size_t i = 0; i < ids.len; i++) {
        if (ids.data[i] != json_integer_value(json_array_get(want, i))) {
            fail_msg("token %d of \"%s\" is %u", (int)i, bytes, ids.data[i]);
        }
    }
    cmi_buf decoded;
    cmi_buf_init(&decoded, 1 << 20);
    cmi_tokenizer_decode(tokenizer, ids.data, ids.len, false, &decoded);
    assert_int_equal(decoded.len, n_bytes);
    assert_memory_equal(cmi_buf_cstr(&decoded), bytes, n_bytes);
    cmi_buf_deinit(&decoded);
    cmi_ids_deinit(&ids);
}

static void check_list(const json_t *list, size_t at_least)
{
    assert_true(json_array_size(list) >= at_least);
    for (size_t i = 0; i < json_array_size(list); i++) {
        check_text(json_array_get(list, i));
    }
}

static void texts_have_their_golden_ids(void **state)
{
    (void)state;
    json_t *root = read_golden("tokenizer_golden.json");
    check_list(root, 100);
    json_decref(root);
}

static void rendered_chats_have_their_golden_ids(void **state)
{
    (void)state;
    json_t *root = read_golden("chat_golden.json");
    check_list(root, 10);
    json_decref(root);
}

static void prompts_of_the_model_have_their_golden_ids(void **state)
{
    (void)state;
    json_t *root = read_golden("golden.json");
    check_list(json_object_get(root, "prompts"), 10);
    json_decref(root);
}

static void the_special_tokens_are_the_models(void **state)
{
    (void)state;
    assert_int_equal(cmi_tokenizer_bos_id(tokenizer), 0);
    assert_int_equal(cmi_tokenizer_eos_id(tokenizer), 1);
    assert_int_equal(cmi_tokenizer_pad_id(tokenizer), 2);
    assert_int_equal(cmi_tokenizer_max_length_tokens(tokenizer), 2048);
    cmi_ids ids = {0};
    assert_int_equal(cmi_tokenizer_encode(tokenizer, "a", 1, CMI_ENCODE_BEGIN, &ids, NULL), CMI_OK);
    assert_int_equal(ids.len, 2);
    assert_int_equal(ids.data[0], 0);
    cmi_ids_deinit(&ids);
}

static int load_tokenizer(void **state)
{
    (void)state;
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    return cmi_tokenizer_load(&tokenizer, dir, NULL) == CMI_OK ? 0 : -1;
}

static int destroy_tokenizer(void **state)
{
    (void)state;
    cmi_tokenizer_destroy(tokenizer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_have_their_golden_ids),
        cmocka_unit_test(rendered_chats_have_their_golden_ids),
        cmocka_unit_test(prompts_of_the_model_have_their_golden_ids),
        cmocka_unit_test(the_special_tokens_are_the_models),
    };
    return cmocka_run_group_tests(tests, load_tokenizer, destroy_tokenizer);
}
