/* Any bytes as a request from another process: refused, or all of it lies within the message, and
 * another output or grammar in the place of its own leaves the rest as it was. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* Reads every byte, so that a sanitizer sees what lies outside. */
static uint32_t sum(const void *bytes, size_t n_bytes)
{
    uint32_t total = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        total += ((const uint8_t *)bytes)[i];
    }
    return total;
}

static uint32_t sum_all(const cmi_request *r)
{
    return sum(r, sizeof *r) + sum(cmi_request_prompt(r), r->n_prompt_tokens * sizeof(uint32_t)) +
           sum(cmi_request_output(r), r->n_output_tokens * sizeof(uint32_t)) +
           sum(cmi_request_stop_token_ids(r), r->n_stop_token_ids * sizeof(uint32_t)) +
           sum(cmi_request_logit_bias(r), r->n_logit_bias * sizeof(cmi_logit_bias)) +
           sum(cmi_request_grammar(r), r->n_grammar_bytes);
}

static void check_rewritten(const cmi_request *r)
{
    cmi_error err = {0};
    cmi_request *bare = cmi_request_with_output(r, NULL, 0, 0);
    cmi_request *again = cmi_request_with_output(bare, cmi_request_output(r), r->n_output_tokens,
                                                 r->n_prompt_events);
    assert(cmi_request_check(bare, bare->n_bytes, &err) == CMI_OK);
    assert(again->n_bytes == r->n_bytes && memcmp(again, r, r->n_bytes) == 0);
    if (r->n_grammar_bytes > 0) {
        cmi_request *bound =
            cmi_request_with_grammar(bare, cmi_request_grammar(r), r->n_grammar_bytes);
        assert(bound->n_bytes == bare->n_bytes && memcmp(bound, bare, bare->n_bytes) == 0);
        cmi_free(bound);
    }
    cmi_free(again);
    cmi_free(bare);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    cmi_error err = {0};
    if (cmi_request_check(data, n_bytes, &err) != CMI_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    cmi_request *r = cmi_alloc(1, n_bytes);
    memcpy(r, data, n_bytes);
    assert(n_bytes <= cmi_request_max_bytes(r->n_prompt_tokens + r->n_output_tokens));
    assert(sum_all(r) == sum(data, n_bytes)); /* nothing lies twice or between */
    check_rewritten(r);
    cmi_free(r);
    return 0;
}
