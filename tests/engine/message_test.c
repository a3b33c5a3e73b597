#include "tests/test.h"

#include <math.h>

#include "base/alloc.h"
#include "engine/message.h"

static const uint32_t prompt[] = {5, 6, 7};
static const uint32_t stops[] = {1, 2};
static const cmi_logit_bias biases[] = {{9, -1.5f}, {10, 100.0f}};

static cmi_request *make_request(void)
{
    cmi_request head = cmi_request_defaults();
    head.request_id = 42;
    head.max_tokens = 8;
    return cmi_request_create(&head, prompt, 3, stops, 2, biases, 2);
}

static void a_request_carries_its_arrays(void **state)
{
    (void)state;
    cmi_request *r = make_request();
    assert_int_equal(r->n_bytes, sizeof *r + sizeof prompt + sizeof stops + sizeof biases);
    assert_int_equal(r->request_id, 42);
    assert_int_equal(r->max_drafts, UINT32_MAX);
    assert_int_equal(r->tpot_target_us | r->ttft_target_us | r->timeout_ms, 0);
    assert_memory_equal(cmi_request_prompt(r), prompt, sizeof prompt);
    assert_memory_equal(cmi_request_stop_token_ids(r), stops, sizeof stops);
    assert_memory_equal(cmi_request_logit_bias(r), biases, sizeof biases);
    cmi_error err = {0};
    assert_int_equal(cmi_request_check(r, r->n_bytes, &err), CMI_OK);
    cmi_free(r);
}

static void empty_arrays_may_be_null(void **state)
{
    (void)state;
    cmi_request head = cmi_request_defaults();
    cmi_request *r = cmi_request_create(&head, prompt, 1, NULL, 0, NULL, 0);
    cmi_error err = {0};
    assert_int_equal(cmi_request_check(r, r->n_bytes, &err), CMI_OK);
    assert_int_equal(r->n_bytes, sizeof *r + 4);
    cmi_free(r);
}

static void a_grammar_stands_behind_the_arrays(void **state)
{
    (void)state;
    static const char tree[] = "{\"text\":\"a\"}", other[] = "{\"text\":\"longer\"}";
    cmi_request *bare = make_request();
    bare->n_grammar_start_ids = 1;
    bare->grammar_start_ids[0] = 77;
    cmi_request *first = cmi_request_with_grammar(bare, other, sizeof other - 1);
    cmi_request *r = cmi_request_with_grammar(first, tree, sizeof tree - 1);
    cmi_error err = {0};
    assert_int_equal(cmi_request_check(bare, bare->n_bytes, &err), CMI_ERR_INVALID);
    assert_int_equal(cmi_request_check(first, first->n_bytes, &err), CMI_OK);
    assert_int_equal(cmi_request_check(r, r->n_bytes, &err), CMI_OK);
    assert_int_equal(r->n_bytes, bare->n_bytes + sizeof tree - 1);
    assert_int_equal(r->n_grammar_bytes, sizeof tree - 1);
    assert_memory_equal(cmi_request_grammar(r), tree, sizeof tree - 1);
    assert_memory_equal(cmi_request_logit_bias(r), biases, sizeof biases);
    assert_int_equal(r->grammar_start_ids[0], 77);
    assert_int_equal(cmi_request_check(r, r->n_bytes - 1, &err), CMI_ERR_INVALID);
    cmi_free(r);
    cmi_free(first);
    cmi_free(bare);
}

static void output_stands_behind_the_prompt(void **state)
{
    (void)state;
    static const char tree[] = "{\"text\":\"a\"}";
    static const uint32_t said[] = {50, 51, 52, 53}, less[] = {60};
    cmi_request *bare = make_request();
    cmi_request *bound = cmi_request_with_grammar(bare, tree, sizeof tree - 1);
    cmi_request *longer = cmi_request_with_output(bound, said, 4, 0);
    cmi_request *shorter = cmi_request_with_output(longer, less, 1, 0);
    cmi_request *none = cmi_request_with_output(shorter, NULL, 0, 0);
    cmi_error err = {0};
    assert_int_equal(longer->n_bytes, bound->n_bytes + sizeof said);
    assert_int_equal(cmi_request_check(longer, longer->n_bytes, &err), CMI_OK);
    assert_memory_equal(cmi_request_output(longer), said, sizeof said);
    assert_int_equal(cmi_request_check(shorter, shorter->n_bytes, &err), CMI_OK);
    assert_int_equal(shorter->n_output_tokens, 1);
    assert_memory_equal(cmi_request_prompt(shorter), prompt, sizeof prompt);
    assert_memory_equal(cmi_request_output(shorter), less, sizeof less);
    assert_memory_equal(cmi_request_stop_token_ids(shorter), stops, sizeof stops);
    assert_memory_equal(cmi_request_logit_bias(shorter), biases, sizeof biases);
    assert_memory_equal(cmi_request_grammar(shorter), tree, sizeof tree - 1);
    assert_int_equal(none->n_bytes, bound->n_bytes);
    assert_memory_equal(none, bound, bound->n_bytes);
    cmi_free(none);
    cmi_free(shorter);
    cmi_free(longer);
    cmi_free(bound);
    cmi_free(bare);
}

/* Those of the prompt are all there before the first token. */
static void prompt_events_fit_the_output(void **state)
{
    (void)state;
    static const uint32_t said[] = {50};
    const struct {
        uint32_t flags, n_output, n_events;
        cmi_status status;
    } cases[] = {
        {CMI_REQUEST_PROMPT_LOGPROBS, 0, 0, CMI_OK},
        {CMI_REQUEST_PROMPT_LOGPROBS, 0, 2, CMI_OK},
        {CMI_REQUEST_PROMPT_LOGPROBS, 0, 3, CMI_OK},
        {CMI_REQUEST_PROMPT_LOGPROBS, 0, 4, CMI_ERR_INVALID},
        {CMI_REQUEST_PROMPT_LOGPROBS, 1, 3, CMI_OK},
        {CMI_REQUEST_PROMPT_LOGPROBS, 1, 2, CMI_ERR_INVALID},
        {0, 1, 0, CMI_OK},
        {0, 1, 3, CMI_ERR_INVALID},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_request *bare = make_request();
        bare->flags = cases[i].flags;
        cmi_request *r = cmi_request_with_output(bare, said, cases[i].n_output, cases[i].n_events);
        cmi_error err = {0};
        assert_int_equal(cmi_request_check(r, r->n_bytes, &err), cases[i].status);
        cmi_free(r);
        cmi_free(bare);
    }
}

static void a_message_need_not_be_aligned(void **state)
{
    (void)state;
    cmi_request *r = make_request();
    char bytes[1 + 256];
    memcpy(bytes + 1, r, r->n_bytes);
    cmi_error err = {0};
    assert_int_equal(cmi_request_check(bytes + 1, r->n_bytes, &err), CMI_OK);
    cmi_free(r);
}

static void every_short_or_long_message_is_refused(void **state)
{
    (void)state;
    cmi_request *r = make_request();
    cmi_error err = {0};
    for (size_t n = 0; n < r->n_bytes; n++) {
        assert_int_equal(cmi_request_check(r, n, &err), CMI_ERR_INVALID);
    }
    char longer[512] = {0};
    memcpy(longer, r, r->n_bytes);
    assert_int_equal(cmi_request_check(longer, r->n_bytes + 1, &err), CMI_ERR_INVALID);
    cmi_free(r);
}

typedef struct break_case {
    const char *field;
    size_t offset;
    uint32_t bits; /* written over the 4 bytes at offset */
} break_case;

static void a_field_out_of_range_is_named(void **state)
{
    (void)state;
    const uint32_t nan_bits = 0x7FC00000u, minus_one = 0xBF800000u, three = 0x40400000u,
                   inf = 0x7F800000u;
    const break_case cases[] = {
        {"version", offsetof(cmi_request, version), CMI_MESSAGE_VERSION + 1},
        {"n_bytes", offsetof(cmi_request, n_bytes), 1},
        {"n_prompt_tokens", offsetof(cmi_request, n_prompt_tokens), 0},
        {"n_prompt_tokens", offsetof(cmi_request, n_prompt_tokens), UINT32_MAX},
        {"n_bytes", offsetof(cmi_request, n_prompt_tokens), 4},
        {"n_output_tokens", offsetof(cmi_request, n_output_tokens), 9},
        {"n_output_tokens", offsetof(cmi_request, n_output_tokens), UINT32_MAX},
        {"n_bytes", offsetof(cmi_request, n_output_tokens), 1},
        {"n_prompt_events", offsetof(cmi_request, n_prompt_events), 1},
        {"n_stop_token_ids", offsetof(cmi_request, n_stop_token_ids), UINT32_MAX},
        {"n_logit_bias", offsetof(cmi_request, n_logit_bias), UINT32_MAX},
        {"max_tokens", offsetof(cmi_request, max_tokens), 0},
        {"min_tokens", offsetof(cmi_request, min_tokens), 9},
        {"flags", offsetof(cmi_request, flags), 1u << 31},
        {"flags", offsetof(cmi_request, flags), CMI_REQUEST_GRAMMAR_MUST_BEGIN}, /* without one */
        {"n_grammar_bytes", offsetof(cmi_request, n_grammar_bytes), CMI_MAX_GRAMMAR_BYTES + 1},
        {"n_bytes", offsetof(cmi_request, n_grammar_bytes), 1},
        {"n_grammar_start_ids", offsetof(cmi_request, n_grammar_start_ids), 1},
        {"n_grammar_start_ids", offsetof(cmi_request, n_grammar_start_ids), UINT32_MAX},
        {"grammar_start_ids", offsetof(cmi_request, grammar_start_ids), 5},
        {"n_top_logprobs", offsetof(cmi_request, n_top_logprobs), CMI_MAX_TOP_LOGPROBS + 1},
        {"temperature", offsetof(cmi_request, temperature), nan_bits},
        {"temperature", offsetof(cmi_request, temperature), inf},
        {"temperature", offsetof(cmi_request, temperature), minus_one},
        {"top_p", offsetof(cmi_request, top_p), 0},
        {"top_p", offsetof(cmi_request, top_p), three},
        {"min_p", offsetof(cmi_request, min_p), minus_one},
        {"repetition_penalty", offsetof(cmi_request, repetition_penalty), 0},
        {"frequency_penalty", offsetof(cmi_request, frequency_penalty), three},
        {"presence_penalty", offsetof(cmi_request, presence_penalty), nan_bits},
        {"logit_bias", sizeof(cmi_request) + sizeof prompt + sizeof stops + 4, inf},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_request *r = make_request();
        memcpy((char *)r + cases[i].offset, &cases[i].bits, 4);
        size_t n_bytes = sizeof *r + sizeof prompt + sizeof stops + sizeof biases;
        cmi_error err = {0};
        assert_int_equal(cmi_request_check(r, n_bytes, &err), CMI_ERR_INVALID);
        assert_non_null(strstr(err.text, cases[i].field));
        cmi_free(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_carries_its_arrays),
        cmocka_unit_test(empty_arrays_may_be_null),
        cmocka_unit_test(a_grammar_stands_behind_the_arrays),
        cmocka_unit_test(output_stands_behind_the_prompt),
        cmocka_unit_test(prompt_events_fit_the_output),
        cmocka_unit_test(a_message_need_not_be_aligned),
        cmocka_unit_test(every_short_or_long_message_is_refused),
        cmocka_unit_test(a_field_out_of_range_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
