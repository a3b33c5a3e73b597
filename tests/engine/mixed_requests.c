#include "tests/engine/mixed_requests.h"

#include <poll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "tests/test.h"

uint32_t draw(uint64_t request, uint64_t what, uint32_t n)
{
    return (uint32_t)(cmi_philox_uniform(request, what, 7) * (float)n) % n;
}

cmi_request *make_request(uint32_t i, uint32_t vocab_size)
{
    uint32_t prompt[MAX_PROMPT], n_prompt = 1 + draw(i, 0, MAX_PROMPT);
    for (uint32_t k = 0; k < n_prompt; k++) {
        prompt[k] = draw(i % 5, 100 + k, vocab_size); /* some share their beginning */
    }
    cmi_request head = cmi_request_defaults();
    head.request_id = i;
    head.seed = i * 11;
    head.max_tokens = 1 + draw(i, 1, MAX_OUTPUT);
    head.temperature = (float)draw(i, 2, 4) * 0.5f;
    head.top_k = draw(i, 3, 3) * 20;
    head.top_p = draw(i, 4, 2) == 0 ? 1.0f : 0.9f;
    head.repetition_penalty = draw(i, 5, 3) == 0 ? 1.3f : 1.0f;
    head.frequency_penalty = draw(i, 6, 3) == 0 ? 0.5f : 0.0f;
    head.flags = CMI_REQUEST_LOGPROBS | (draw(i, 7, 2) == 0 ? CMI_REQUEST_IGNORE_EOS : 0) |
                 (draw(i, 8, 4) == 0 ? CMI_REQUEST_PROMPT_LOGPROBS : 0);
    head.n_top_logprobs = 2;
    return cmi_request_create(&head, prompt, n_prompt, NULL, 0, NULL, 0);
}

static void take(answer *answers, const cmi_event *event)
{
    answer *a = &answers[event->request_id];
    assert_int_equal(a->n_ends, 0); /* nothing follows the end */
    switch (event->type) {
    case CMI_EVENT_PROMPT_TOKEN:
        a->prompt_logprob_sum += event->index == 0 ? 0 : event->logprob;
        break;
    case CMI_EVENT_TOKEN:
        assert_int_equal(event->index, a->n_tokens);
        a->tokens[a->n_tokens] = event->token_id;
        a->top_ids[a->n_tokens] = event->top[1].token_id;
        a->logprobs[a->n_tokens++] = event->logprob;
        break;
    default:
        a->n_ends++;
        a->finish_reason = event->finish_reason;
        a->n_prompt_tokens = event->n_prompt_tokens;
        assert_int_equal(event->n_output_tokens, a->n_tokens);
    }
}

void collect(cmi_engine *engine, answer *answers, uint32_t n)
{
    uint32_t n_ended = 0;
    while (n_ended < n) {
        cmi_event event;
        if (cmi_engine_poll(engine, &event, 1) == 1) {
            take(answers, &event);
            n_ended += event.type == CMI_EVENT_FINISHED ? 1 : 0;
            continue;
        }
        struct pollfd readable = {.fd = cmi_engine_event_fd(engine), .events = POLLIN};
        assert_int_equal(poll(&readable, 1, DEADLINE_MS), 1);
        uint64_t count;
        assert_int_equal(read(readable.fd, &count, sizeof count), sizeof count);
    }
}

void submit_all(cmi_engine *engine, uint32_t n, uint32_t vocab_size, bool backwards)
{
    cmi_error err = {0};
    for (uint32_t k = 0; k < n; k++) {
        cmi_request *request = make_request(backwards ? n - 1 - k : k, vocab_size);
        assert_int_equal(cmi_engine_submit(engine, request, &err), CMI_OK);
        cmi_free(request);
    }
}
