#include "cli/chat.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cli/open_apart.h"
#include "os/clock.h"

enum { MAX_PROMPT_BYTES = 64 << 20, EVENTS_A_POLL = 64 };

cmi_status cmi_chat_open_texts(cmi_chat *chat, const char *dir, const char *chat_template,
                               const cmi_model_config *config, cmi_error *err)
{
    cmi_status st = cmi_tokenizer_load(&chat->tokenizer, dir, err);
    if (st == CMI_OK) {
        st = chat_template == NULL
                 ? cmi_chat_template_load(&chat->chat_template, dir, err)
                 : cmi_chat_template_load_choice(&chat->chat_template, dir, chat_template, err);
    }
    if (st == CMI_OK && config->n_eos_token_ids > 0) {
        st = cmi_vocab_from_tokenizer(&chat->vocab, chat->tokenizer, config->vocab_size,
                                      config->eos_token_ids, config->n_eos_token_ids, err);
    }
    return st;
}

cmi_status cmi_chat_open(cmi_chat *chat, const cmi_model_options *opt, const char *chat_template,
                         const cmi_engine_options *engine, cmi_error *err)
{
    cmi_buf dir;
    *chat = (cmi_chat){0};
    const bool is_apart = opt->n_prefill_threads > 0;
    cmi_status st = is_apart ? cmi_cli_open_apart(chat, &dir, opt, err)
                             : cmi_cli_open_model(&chat->instance, &dir, opt, false, err);
    if (st == CMI_OK) {
        chat->generation = chat->instance->generation;
        st = cmi_chat_open_texts(chat, cmi_buf_cstr(&dir), chat_template, &chat->instance->config,
                                 err);
    }
    if (st == CMI_OK) {
        cmi_engine_options opt_with_vocab = *engine;
        opt_with_vocab.vocab = chat->vocab;
        st = is_apart ? cmi_cli_start_apart(chat, &dir, opt, &opt_with_vocab, err)
                      : cmi_engine_start(&chat->engine, chat->instance, &opt_with_vocab, err);
    }
    cmi_buf_deinit(&dir);
    if (st != CMI_OK) {
        cmi_chat_close(chat);
    }
    return st;
}

void cmi_chat_close(cmi_chat *chat)
{
    if (chat->apart != NULL) {
        cmi_disaggregation_destroy(chat->apart);
    } else {
        cmi_engine_stop(chat->engine);
        cmi_instance_close(chat->instance);
    }
    cmi_chat_template_destroy(chat->chat_template);
    cmi_vocab_destroy(chat->vocab);
    cmi_tokenizer_destroy(chat->tokenizer);
    *chat = (cmi_chat){0};
}

static bool ends_with(const cmi_buf *text, const char *tail)
{
    size_t n = strlen(tail);
    return text->len >= n && memcmp(text->data + text->len - n, tail, n) == 0;
}

/* The conversation as token ids. */
static cmi_status make_prompt(const cmi_chat *chat, const cmi_chat_question *q, cmi_ids *ids,
                              bool *in_reasoning_out, cmi_error *err)
{
    cmi_buf text;
    cmi_buf_init(&text, MAX_PROMPT_BYTES);
    cmi_chat_template_input input = {.messages = q->messages,
                                     .tools = q->tools,
                                     .kwargs = q->kwargs,
                                     .add_generation_prompt = true,
                                     .now_unix_s = (int64_t)(cmi_clock_unix_ns() / 1000000000u)};
    cmi_status st = cmi_chat_template_render(chat->chat_template, &input, &text, err);
    if (st == CMI_OK) {
        *in_reasoning_out = ends_with(&text, "<think>\n") || ends_with(&text, "<think>");
        st = cmi_tokenizer_encode(chat->tokenizer, cmi_buf_cstr(&text), text.len,
                                  CMI_ENCODE_ADDED_TOKENS, ids, err);
    }
    cmi_buf_deinit(&text);
    if (st == CMI_OK && ids->len + 1 > chat->instance->max_model_len) {
        st = cmi_error_set(err, CMI_ERR_TOO_LARGE,
                           "the conversation has %zu tokens, the context holds %u", ids->len,
                           chat->instance->max_model_len);
    }
    return st;
}

/* Takes events until the request's FINISHED. */
static cmi_status collect(cmi_chat *chat, const cmi_chat_question *q, uint64_t request_id,
                          cmi_chat_answer *answer, cmi_error *err)
{
    cmi_event events[EVENTS_A_POLL];
    struct pollfd readable = {.fd = cmi_engine_event_fd(chat->engine), .events = POLLIN};
    for (;;) {
        size_t n = cmi_engine_poll(chat->engine, events, EVENTS_A_POLL);
        for (size_t i = 0; i < n; i++) {
            const cmi_event *event = &events[i];
            if (event->type == CMI_EVENT_TOKEN) {
                cmi_ids_push(&answer->ids, event->token_id);
                if (q->on_token != NULL && !q->on_token(q->on_token_arg, event->token_id)) {
                    cmi_engine_cancel(chat->engine, request_id);
                }
            } else if (event->type == CMI_EVENT_FINISHED) {
                answer->finish_reason = (cmi_finish_reason)event->finish_reason;
                answer->started_ns = event->started_ns;
                answer->first_token_ns = event->first_token_ns;
                answer->finished_ns = event->now_ns;
                return event->status == CMI_OK
                           ? CMI_OK
                           : cmi_error_set(err, (cmi_status)event->status, "the engine failed: %s",
                                           cmi_status_text((cmi_status)event->status));
            }
        }
        if (n == 0 && poll(&readable, 1, -1) > 0) {
            uint64_t count;
            ssize_t got = read(readable.fd, &count, sizeof count);
            (void)got;
        }
    }
}

cmi_status cmi_chat_ask(cmi_chat *chat, const cmi_chat_question *q, cmi_chat_answer *answer,
                        cmi_error *err)
{
    cmi_ids ids = {0};
    *answer = (cmi_chat_answer){0};
    cmi_status st = make_prompt(chat, q, &ids, &answer->in_reasoning, err);
    if (st == CMI_OK) {
        cmi_request head = q->head;
        head.request_id = ++chat->n_requests;
        head.max_tokens =
            CMI_MIN(head.max_tokens, chat->instance->max_model_len - (uint32_t)ids.len);
        answer->n_prompt_tokens = (uint32_t)ids.len;
        cmi_request *request =
            cmi_request_create(&head, ids.data, (uint32_t)ids.len, NULL, 0, NULL, 0);
        st = cmi_engine_submit(chat->engine, request, err);
        cmi_free(request);
        if (st == CMI_OK) {
            st = collect(chat, q, head.request_id, answer, err);
        }
    }
    cmi_ids_deinit(&ids);
    return st;
}
