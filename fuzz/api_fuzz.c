/* Any bytes as the body of a request to every endpoint, then an engine that answers at random: an
 * error in OpenAI's terms, or requests that an engine accepts, with a grammar whose form is right
 * whatever its schemas are, and an answer that is JSON. */
#include "server/api.h"
#include "text/chat_template.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "grammar/grammar.h"

enum { VOCAB_SIZE = 2048, MAX_EVENTS = 200, MAX_OUT_BYTES = 1 << 26, JOB_NUMBER = 3 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static cmi_tokenizer *tokenizer;

static const cmi_api *shared_api(void)
{
    static cmi_api *api;
    static cmi_chat_template *chat_template;
    if (api != NULL) {
        return api;
    }
    static const char *const names[] = {"matrix-tiny"};
    cmi_error err = {0};
    if (cmi_tokenizer_load(&tokenizer, CMI_MODELS_DIR "/matrix-tiny", &err) != CMI_OK ||
        cmi_chat_template_load(&chat_template, CMI_MODELS_DIR "/matrix-tiny", &err) != CMI_OK) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    const cmi_api_options opt = {
        .model_names = names,
        .n_model_names = 1,
        .tokenizer = tokenizer,
        .chat_template = chat_template,
        .engine = {.vocab_size = VOCAB_SIZE, .max_model_len = 2048},
    };
    if (cmi_api_create(&api, &opt, &err) != CMI_OK) {
        abort();
    }
    return api;
}

/* The tree compiles, or something inside its schemas and expressions does not. */
static void check_grammar(const cmi_request *r)
{
    static cmi_vocab *vocab;
    const uint32_t end = 1;
    cmi_error err = {0};
    if (vocab == NULL &&
        cmi_vocab_from_tokenizer(&vocab, tokenizer, VOCAB_SIZE, &end, 1, &err) != CMI_OK) {
        abort();
    }
    cmi_grammar *g = NULL;
    const cmi_grammar_source source = {.kind = CMI_GRAMMAR_TREE,
                                       .text = cmi_request_grammar(r),
                                       .n_bytes = r->n_grammar_bytes,
                                       .max_states = 3000,
                                       .max_work = 300000,
                                       .max_cache_bytes = 1};
    cmi_status st = cmi_grammar_compile(&g, vocab, &source, &err);
    assert(st == CMI_OK || strncmp(err.text, "tree: ", 6) != 0);
    assert(st == CMI_OK || strncmp(err.text, "the tree", 8) != 0);
    for (uint32_t i = 0; i < r->n_grammar_start_ids; i++) {
        assert(cmi_vocab_is_marker(vocab, r->grammar_start_ids[i]));
    }
    cmi_grammar_destroy(g);
}

static void check_error(cmi_status st, const cmi_api_error *err)
{
    assert(st < CMI_OK);
    assert(err->http_status >= 400 && err->http_status < 600);
    assert(err->type[0] != '\0' && err->message[0] != '\0');
    cmi_buf out;
    cmi_buf_init(&out, MAX_OUT_BYTES);
    cmi_api_error_write(err, &out);
    json_t *json = json_loadb(out.data, out.len, JSON_ALLOW_NUL, NULL);
    assert(json != NULL);
    json_decref(json);
    cmi_buf_deinit(&out);
}

static void check_json(const char *text, size_t n)
{
    json_error_t why;
    json_t *json = json_loadb(text, n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &why);
    /* the token "\0" is a key that jansson does not read, though it is JSON */
    assert(json_is_object(json) || json_error_code(&why) == json_error_null_byte_in_key);
    json_decref(json);
}

static void check_stream(const cmi_buf *out, bool complete)
{
    static const char done[] = "data: [DONE]\n\n";
    const char *at = cmi_buf_cstr(out);
    const char *end = at + out->len;
    bool is_done = false;
    while (at < end) {
        const char *stop = strstr(at, "\n\n"); /* and no NUL before it */
        assert(!is_done && stop != NULL && strncmp(at, "data: ", 6) == 0);
        is_done = strncmp(at, done, sizeof done - 1) == 0;
        if (!is_done) {
            check_json(at + 6, (size_t)(stop - at - 6));
        }
        at = stop + 2;
    }
    assert(is_done == complete);
}

/* One event of a request that is still open; markup and the end token come often. */
static cmi_event random_event(const cmi_request *r, uint32_t idx, const uint32_t w[4])
{
    cmi_event e = {.version = CMI_MESSAGE_VERSION, .request_id = r->request_id, .index = idx};
    if (w[0] % 16 == 0) {
        e.type = CMI_EVENT_FINISHED;
        e.finish_reason = CMI_FINISH_STOP + w[1] % 4;
        e.stop_token_id = w[2] % 16;
        e.status = -(int32_t)(w[3] % 10);
        e.n_cached_tokens = w[3];
        return e;
    }
    e.type = w[0] % 16 == 1 ? CMI_EVENT_PROMPT_TOKEN : CMI_EVENT_TOKEN;
    e.token_id = w[1] % 4 == 0 ? 2035 + w[2] % 13 : w[2] % (VOCAB_SIZE + 8);
    e.finish_reason = w[1] % 32 == 1 ? CMI_FINISH_STOP : CMI_FINISH_NONE;
    e.logprob = -(float)(w[3] % 1000) / 7.0f;
    e.n_top = r->n_top_logprobs;
    for (uint32_t i = 0; i < e.n_top; i++) {
        e.top[i] = (cmi_top_logprob){(w[3] + i) % VOCAB_SIZE, -(float)i};
    }
    return e;
}

static void answer(cmi_api_job *job, uint64_t seed)
{
    uint32_t n = cmi_api_job_n_requests(job);
    cmi_buf out;
    cmi_buf_init(&out, MAX_OUT_BYTES);
    cmi_status st = CMI_IN_PROGRESS;
    cmi_api_error err = {0};
    for (uint32_t i = 0; st == CMI_IN_PROGRESS && i < MAX_EVENTS + n; i++) {
        uint32_t w[4];
        cmi_philox4x32(seed, i, 0, w);
        /* at last every request finishes */
        uint32_t choice = i < MAX_EVENTS ? w[3] % n : i - MAX_EVENTS;
        w[0] = i < MAX_EVENTS ? w[0] : 0;
        cmi_event e = random_event(cmi_api_job_request(job, choice), i, w);
        bool cancel;
        size_t before = out.len;
        st = cmi_api_job_event(job, &e, &out, &cancel, &err);
        assert(st >= CMI_OK || out.len == before);
    }
    assert(st != CMI_IN_PROGRESS);
    if (st < CMI_OK) {
        check_error(st, &err);
    }
    if (cmi_api_job_is_stream(job)) {
        check_stream(&out, st == CMI_OK);
    } else if (st == CMI_OK) {
        check_json(out.data, out.len);
    }
    cmi_buf_deinit(&out);
}

static void run_job(cmi_api_endpoint endpoint, const char *body, size_t n_bytes)
{
    cmi_api_job *job = NULL;
    cmi_api_error err = {0};
    cmi_status st =
        cmi_api_job_create(&job, shared_api(), endpoint, body, n_bytes, JOB_NUMBER, 0, &err);
    if (st != CMI_OK) {
        check_error(st, &err);
        return;
    }
    for (uint32_t i = 0; i < cmi_api_job_n_requests(job); i++) {
        const cmi_request *r = cmi_api_job_request(job, i);
        cmi_error why;
        st = cmi_request_check(r, r->n_bytes, &why);
        assert(st == CMI_OK);
        if (i == 0 && r->n_grammar_bytes > 0) {
            check_grammar(r);
        }
        for (uint32_t j = 0; j < r->n_prompt_tokens; j++) {
            assert(cmi_request_prompt(r)[j] < VOCAB_SIZE);
        }
    }
    uint64_t seed = n_bytes;
    for (size_t i = 0; i < n_bytes; i++) {
        seed = seed * 31 + (unsigned char)body[i];
    }
    answer(job, seed);
    cmi_api_job_destroy(job);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const char *body = (const char *)data;
    run_job(CMI_API_CHAT_COMPLETIONS, body, n_bytes);
    run_job(CMI_API_COMPLETIONS, body, n_bytes);

    cmi_buf out;
    cmi_buf_init(&out, MAX_OUT_BYTES);
    cmi_api_error err = {0};
    cmi_status st = cmi_api_tokenize(shared_api(), body, n_bytes, 0, &out, &err);
    if (st == CMI_OK) {
        check_json(out.data, out.len);
    } else {
        check_error(st, &err);
    }
    cmi_buf_clear(&out);
    st = cmi_api_detokenize(shared_api(), body, n_bytes, &out, &err);
    if (st == CMI_OK) {
        check_json(out.data, out.len);
    } else {
        check_error(st, &err);
    }
    cmi_buf_deinit(&out);
    return 0;
}
