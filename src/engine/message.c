#include "engine/message.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* The arrays begin right behind the head, the one with the strictest alignment last; nothing
 * between them is padding, so equal requests are equal bytes. */
_Static_assert(sizeof(cmi_request) == 168, "a change of the message needs a new version");
_Static_assert(sizeof(cmi_logit_bias) == 8, "a change of the message needs a new version");
_Static_assert(_Alignof(cmi_logit_bias) == _Alignof(uint32_t), "biases follow ids of any count");

/* Without the grammar, which stands last and needs no alignment. */
static uint64_t message_bytes(uint64_t n_tokens, uint32_t n_stop_token_ids, uint32_t n_bias)
{
    return sizeof(cmi_request) + (n_tokens + n_stop_token_ids) * sizeof(uint32_t) +
           (uint64_t)n_bias * sizeof(cmi_logit_bias);
}

/* Of prompt and output. */
static uint64_t n_tokens(const cmi_request *request)
{
    return (uint64_t)request->n_prompt_tokens + request->n_output_tokens;
}

uint64_t cmi_request_max_bytes(uint32_t n)
{
    return message_bytes(n, CMI_MAX_STOP_TOKEN_IDS, CMI_MAX_LOGIT_BIAS) + CMI_MAX_GRAMMAR_BYTES;
}

static void *append(void *to, const void *items, size_t n_bytes)
{
    if (n_bytes > 0) {
        memcpy(to, items, n_bytes);
    }
    return (char *)to + n_bytes;
}

cmi_request *cmi_request_create(const cmi_request *head, const uint32_t *prompt, uint32_t n_prompt,
                                const uint32_t *stop_token_ids, uint32_t n_stop_token_ids,
                                const cmi_logit_bias *bias, uint32_t n_bias)
{
    assert(n_prompt <= CMI_MAX_PROMPT_TOKENS && n_stop_token_ids <= CMI_MAX_STOP_TOKEN_IDS &&
           n_bias <= CMI_MAX_LOGIT_BIAS);
    uint64_t n_bytes = message_bytes(n_prompt, n_stop_token_ids, n_bias);
    cmi_request *request = cmi_alloc(1, n_bytes);
    *request = *head;
    request->version = CMI_MESSAGE_VERSION;
    request->n_bytes = (uint32_t)n_bytes;
    request->n_prompt_tokens = n_prompt;
    request->n_stop_token_ids = n_stop_token_ids;
    request->n_logit_bias = n_bias;
    request->n_grammar_bytes = 0;
    request->n_output_tokens = request->n_prompt_events = 0;
    void *to = append(request + 1, prompt, n_prompt * sizeof *prompt);
    to = append(to, stop_token_ids, n_stop_token_ids * sizeof *stop_token_ids);
    append(to, bias, n_bias * sizeof *bias);
    return request;
}

cmi_request *cmi_request_with_grammar(const cmi_request *from, const char *grammar, size_t n_bytes)
{
    assert(n_bytes >= 1 && n_bytes <= CMI_MAX_GRAMMAR_BYTES);
    const size_t n_before = from->n_bytes - from->n_grammar_bytes;
    cmi_request *request = cmi_alloc(1, n_before + n_bytes);
    append(append(request, from, n_before), grammar, n_bytes);
    request->n_bytes = (uint32_t)(n_before + n_bytes);
    request->n_grammar_bytes = (uint32_t)n_bytes;
    return request;
}

cmi_request *cmi_request_with_output(const cmi_request *from, const uint32_t *tokens, uint32_t n,
                                     uint32_t n_prompt_events)
{
    assert(n <= CMI_MAX_GIVEN_TOKENS && n <= from->max_tokens);
    const size_t n_before = sizeof *from + from->n_prompt_tokens * sizeof *tokens;
    const size_t n_own = from->n_output_tokens * sizeof *tokens;
    const size_t n_new = n * sizeof *tokens;
    cmi_request *request = cmi_alloc(1, from->n_bytes - n_own + n_new);
    void *to = append(request, from, n_before);
    to = append(to, tokens, n_new);
    append(to, (const char *)from + n_before + n_own, from->n_bytes - n_before - n_own);
    request->n_bytes = (uint32_t)(from->n_bytes - n_own + n_new);
    request->n_output_tokens = n;
    request->n_prompt_events = n_prompt_events;
    return request;
}

cmi_request cmi_request_defaults(void)
{
    return (cmi_request){
        .version = CMI_MESSAGE_VERSION,
        .max_tokens = 1,
        .max_drafts = UINT32_MAX,
        .temperature = 1.0f,
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
    };
}

static cmi_status bad_field(cmi_error *err, const char *field)
{
    return cmi_error_set(err, CMI_ERR_INVALID, "request: %s is out of range", field);
}

/* Comparisons are written so that NaN fails them. */
static cmi_status check_sampling(const cmi_request *r, cmi_error *err)
{
    if (!(r->temperature >= 0.0f && r->temperature < INFINITY)) {
        return bad_field(err, "temperature");
    }
    if (!(r->top_p > 0.0f && r->top_p <= 1.0f)) {
        return bad_field(err, "top_p");
    }
    if (!(r->min_p >= 0.0f && r->min_p <= 1.0f)) {
        return bad_field(err, "min_p");
    }
    if (!(r->repetition_penalty > 0.0f && r->repetition_penalty < INFINITY)) {
        return bad_field(err, "repetition_penalty");
    }
    if (!(r->frequency_penalty >= -2.0f && r->frequency_penalty <= 2.0f)) {
        return bad_field(err, "frequency_penalty");
    }
    if (!(r->presence_penalty >= -2.0f && r->presence_penalty <= 2.0f)) {
        return bad_field(err, "presence_penalty");
    }
    return CMI_OK;
}

static cmi_status check_grammar(const cmi_request *r, cmi_error *err)
{
    const uint32_t n = r->n_grammar_start_ids;
    if (r->n_grammar_bytes > CMI_MAX_GRAMMAR_BYTES) {
        return bad_field(err, "n_grammar_bytes");
    }
    if (n > CMI_MAX_GRAMMAR_START_IDS || (n > 0 && r->n_grammar_bytes == 0)) {
        return bad_field(err, "n_grammar_start_ids");
    }
    for (uint32_t i = n; i < CMI_MAX_GRAMMAR_START_IDS; i++) {
        if (r->grammar_start_ids[i] != 0) {
            return bad_field(err, "grammar_start_ids");
        }
    }
    return CMI_OK;
}

/* Events come in order: those of the prompt are through before there is a token. */
static cmi_status check_output(const cmi_request *r, cmi_error *err)
{
    const uint32_t n_events =
        (r->flags & CMI_REQUEST_PROMPT_LOGPROBS) != 0 ? r->n_prompt_tokens : 0;
    if (r->n_output_tokens > CMI_MAX_GIVEN_TOKENS || r->n_output_tokens > r->max_tokens) {
        return bad_field(err, "n_output_tokens");
    }
    if (r->n_prompt_events > n_events ||
        (r->n_output_tokens > 0 && r->n_prompt_events < n_events)) {
        return bad_field(err, "n_prompt_events");
    }
    return CMI_OK;
}

static cmi_status check_counts(const cmi_request *r, size_t n_bytes, cmi_error *err)
{
    const uint32_t known = CMI_REQUEST_LOGPROBS | CMI_REQUEST_PROMPT_LOGPROBS |
                           CMI_REQUEST_IGNORE_EOS |
                           (r->n_grammar_bytes > 0 ? (unsigned)CMI_REQUEST_GRAMMAR_MUST_BEGIN : 0);

    if (r->n_prompt_tokens < 1 || r->n_prompt_tokens > CMI_MAX_PROMPT_TOKENS) {
        return bad_field(err, "n_prompt_tokens");
    }
    if (r->n_stop_token_ids > CMI_MAX_STOP_TOKEN_IDS) {
        return bad_field(err, "n_stop_token_ids");
    }
    if (r->n_logit_bias > CMI_MAX_LOGIT_BIAS) {
        return bad_field(err, "n_logit_bias");
    }
    if (r->max_tokens < 1) {
        return bad_field(err, "max_tokens");
    }
    cmi_status st = check_grammar(r, err);
    if (st == CMI_OK) {
        st = check_output(r, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    if (r->n_bytes != n_bytes ||
        n_bytes !=
            message_bytes(n_tokens(r), r->n_stop_token_ids, r->n_logit_bias) + r->n_grammar_bytes) {
        return bad_field(err, "n_bytes");
    }
    if (r->min_tokens > r->max_tokens) {
        return bad_field(err, "min_tokens");
    }
    if ((r->flags & ~known) != 0) {
        return bad_field(err, "flags");
    }
    if (r->n_top_logprobs > CMI_MAX_TOP_LOGPROBS) {
        return bad_field(err, "n_top_logprobs");
    }
    return CMI_OK;
}

cmi_status cmi_request_check(const void *bytes, size_t n_bytes, cmi_error *err)
{
    cmi_request head;
    if (n_bytes < sizeof head) {
        return bad_field(err, "n_bytes");
    }
    memcpy(&head, bytes, sizeof head);
    if (head.version != CMI_MESSAGE_VERSION) {
        return cmi_error_set(err, CMI_ERR_INVALID, "request: version is %u, this program reads %u",
                             head.version, CMI_MESSAGE_VERSION);
    }
    cmi_status st = check_counts(&head, n_bytes, err);
    if (st == CMI_OK) {
        st = check_sampling(&head, err);
    }
    const char *bias =
        (const char *)bytes + message_bytes(n_tokens(&head), head.n_stop_token_ids, 0);
    for (uint32_t i = 0; st == CMI_OK && i < head.n_logit_bias; i++) {
        cmi_logit_bias one;
        memcpy(&one, bias + i * sizeof one, sizeof one);
        if (!isfinite(one.bias)) {
            st = bad_field(err, "logit_bias");
        }
    }
    return st;
}

const uint32_t *cmi_request_prompt(const cmi_request *request)
{
    return (const uint32_t *)(request + 1);
}

const uint32_t *cmi_request_output(const cmi_request *request)
{
    return cmi_request_prompt(request) + request->n_prompt_tokens;
}

const uint32_t *cmi_request_stop_token_ids(const cmi_request *request)
{
    return cmi_request_output(request) + request->n_output_tokens;
}

const cmi_logit_bias *cmi_request_logit_bias(const cmi_request *request)
{
    return (const cmi_logit_bias *)(cmi_request_stop_token_ids(request) +
                                    request->n_stop_token_ids);
}

const char *cmi_request_grammar(const cmi_request *request)
{
    return (const char *)(cmi_request_logit_bias(request) + request->n_logit_bias);
}
