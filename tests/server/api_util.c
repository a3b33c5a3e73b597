#include "tests/server/api_util.h"

#include <math.h>
#include <stdlib.h>

#include "text/chat_template.h"

api_world world;

enum { END_TOKEN = 1, MAX_OUT_BYTES = 1 << 28 };

int api_world_setup(void **state)
{
    (void)state;
    const char *models = getenv("CMI_MODELS");
    assert_non_null(models);
    char dir[4096];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", models);
    cmi_error err = {0};
    if (cmi_tokenizer_load(&world.tokenizer, dir, &err) != CMI_OK ||
        cmi_chat_template_load(&world.chat_template, dir, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    static const char *const names[] = {"matrix-tiny", "alias"};
    const cmi_api_options opt = {
        .model_names = names,
        .n_model_names = CMI_LEN(names),
        .model_root = "/models/matrix-tiny",
        .created_unix_s = API_CREATED,
        .sampling = {.temperature = 0.6, .top_p = 0.95, .repetition_penalty = NAN},
        .tokenizer = world.tokenizer,
        .chat_template = world.chat_template,
        .engine = {.vocab_size = 2048, .max_model_len = API_MAX_MODEL_LEN},
        .id_seed = 7,
    };
    assert_int_equal(cmi_api_create(&world.api, &opt, &err), CMI_OK);
    return 0;
}

int api_world_teardown(void **state)
{
    (void)state;
    cmi_api_destroy(world.api);
    cmi_chat_template_destroy(world.chat_template);
    cmi_tokenizer_destroy(world.tokenizer);
    world = (api_world){0};
    return 0;
}

const char *api_json(const char *text)
{
    static char buffers[4][16384];
    static int next;
    char *to = buffers[next++ % 4];
    size_t n = strlen(text);
    assert_true(n < sizeof buffers[0]);
    for (size_t i = 0; i <= n; i++) {
        to[i] = text[i] == '\'' ? '"' : text[i];
    }
    return to;
}

cmi_ids api_ids(const char *text, size_t n_bytes)
{
    cmi_ids ids = {0};
    cmi_error err;
    assert_int_equal(
        cmi_tokenizer_encode(world.tokenizer, text, n_bytes, CMI_ENCODE_ADDED_TOKENS, &ids, &err),
        CMI_OK);
    return ids;
}

cmi_ids api_byte_ids(const char *text, size_t n_bytes)
{
    cmi_ids ids = {0};
    for (size_t i = 0; i < n_bytes; i++) {
        cmi_ids_push(&ids, cmi_tokenizer_find(world.tokenizer, text + i, 1));
    }
    return ids;
}

float api_logprob(uint32_t token_id)
{
    return token_id == API_IMPOSSIBLE_TOKEN ? -INFINITY : -(float)(token_id % 8) / 4.0f;
}

static cmi_event token_event(const cmi_request *request, cmi_event_type type, uint32_t idx,
                             uint32_t id)
{
    cmi_event e = {
        .version = CMI_MESSAGE_VERSION,
        .type = type,
        .request_id = request->request_id,
        .index = idx,
        .token_id = id,
        .logprob = NAN,
    };
    if ((request->flags & CMI_REQUEST_LOGPROBS) != 0 && (type == CMI_EVENT_TOKEN || idx > 0)) {
        e.logprob = api_logprob(id);
        e.n_top = request->n_top_logprobs;
        for (uint32_t i = 0; i < e.n_top; i++) {
            e.top[i] = (cmi_top_logprob){(id + i) % 2000, api_logprob(id) - (float)i};
        }
    }
    return e;
}

static cmi_event finished_event(const cmi_request *request, const api_script *s, uint32_t n_output,
                                bool cancelled)
{
    cmi_event e = {
        .version = CMI_MESSAGE_VERSION,
        .type = CMI_EVENT_FINISHED,
        .request_id = request->request_id,
        .finish_reason = s->finish == CMI_FINISH_NONE ? CMI_FINISH_STOP : s->finish,
        .stop_token_id = s->stop_token_id == 0 ? END_TOKEN : s->stop_token_id,
        .status = s->status,
        .n_prompt_tokens = request->n_prompt_tokens,
        .n_cached_tokens = s->n_cached,
        .n_output_tokens = n_output,
    };
    if (cancelled) {
        e.finish_reason = CMI_FINISH_ABORT;
    }
    return e;
}

/* Gives an event to the job; false when the job is over. */
static bool give(api_run *run, const cmi_event *event, bool *cancel)
{
    run->status = cmi_api_job_event(run->job, event, &run->out, cancel, &run->err);
    run->cancelled = run->cancelled || *cancel;
    return run->status == CMI_IN_PROGRESS;
}

static void play(api_run *run, const api_script *s, const uint32_t *ids, size_t n_ids)
{
    enum { DONE = 1, CANCELLED = 2 };
    uint8_t state[CMI_API_MAX_CHOICES] = {0};
    bool stops = s->finish == CMI_FINISH_NONE || s->finish == CMI_FINISH_STOP;
    uint32_t n = cmi_api_job_n_requests(run->job);
    bool cancel = false;
    for (uint32_t c = 0; c < n; c++) {
        const cmi_request *r = cmi_api_job_request(run->job, c);
        bool wanted = (r->flags & CMI_REQUEST_PROMPT_LOGPROBS) != 0;
        for (uint32_t i = 0; wanted && i < r->n_prompt_tokens; i++) {
            cmi_event e = token_event(r, CMI_EVENT_PROMPT_TOKEN, i, cmi_request_prompt(r)[i]);
            assert_true(give(run, &e, &cancel));
        }
    }
    for (uint32_t i = 0; i <= n_ids + 1; i++) {
        for (uint32_t c = 0; c < n; c++) {
            const cmi_request *r = cmi_api_job_request(run->job, c);
            bool last = i == n_ids && stops;
            if ((state[c] & DONE) != 0) {
                continue;
            }
            if ((state[c] & CANCELLED) == 0 && (i < n_ids || last)) {
                uint32_t stop_id = s->stop_token_id == 0 ? END_TOKEN : s->stop_token_id;
                cmi_event e = token_event(r, CMI_EVENT_TOKEN, i, last ? stop_id : ids[i]);
                e.finish_reason = last ? CMI_FINISH_STOP : CMI_FINISH_NONE;
                assert_true(give(run, &e, &cancel));
                state[c] |= cancel ? CANCELLED : 0;
                continue;
            }
            bool cancelled = (state[c] & CANCELLED) != 0;
            if (cancelled) { /* a token that was under way */
                cmi_event late = token_event(r, CMI_EVENT_TOKEN, i, API_IMPOSSIBLE_TOKEN);
                assert_true(give(run, &late, &cancel));
                assert_false(cancel);
            }
            cmi_event e = finished_event(r, s, i, cancelled);
            state[c] |= DONE;
            if (!give(run, &e, &cancel)) {
                return;
            }
        }
    }
}

api_run api_play_bytes(cmi_api_endpoint endpoint, const char *body, size_t n_bytes,
                       const api_script *script)
{
    api_run run = {0};
    cmi_buf_init(&run.out, MAX_OUT_BYTES);
    run.status = cmi_api_job_create(&run.job, world.api, endpoint, body, n_bytes, API_JOB_NUMBER,
                                    API_CREATED, &run.err);
    if (run.status != CMI_OK || script == NULL) {
        return run;
    }
    for (uint32_t i = 0; i < cmi_api_job_n_requests(run.job); i++) {
        const cmi_request *request = cmi_api_job_request(run.job, i);
        cmi_error err;
        assert_int_equal(cmi_request_check(request, request->n_bytes, &err), CMI_OK);
    }
    cmi_ids ids = {0};
    if (script->text != NULL) {
        ids = api_ids(script->text, strlen(script->text));
    } else {
        cmi_ids_append(&ids, script->ids, script->n_ids);
    }
    play(&run, script, ids.data, ids.len);
    cmi_ids_deinit(&ids);
    run.usage = cmi_api_job_usage(run.job);
    return run;
}

api_run api_play(cmi_api_endpoint endpoint, const char *body, const api_script *script)
{
    const char *json = api_json(body);
    return api_play_bytes(endpoint, json, strlen(json), script);
}

void api_run_end(api_run *run)
{
    cmi_api_job_destroy(run->job);
    cmi_buf_deinit(&run->out);
}

json_t *api_chunks(const api_run *run)
{
    json_t *chunks = json_array();
    const char *at = cmi_buf_cstr(&run->out);
    const char *const end = at + run->out.len;
    static const char done[] = "data: [DONE]\n\n";
    while (strcmp(at, done) != 0) {
        assert_memory_equal(at, "data: ", 6);
        const char *stop = strstr(at, "\n\n");
        assert_non_null(stop);
        json_error_t why;
        json_t *chunk = json_loadb(at + 6, (size_t)(stop - at - 6), JSON_ALLOW_NUL, &why);
        if (chunk == NULL) {
            fail_msg("%s: %s", why.text, at);
        }
        json_array_append_new(chunks, chunk);
        at = stop + 2;
        assert_true(at < end);
    }
    return chunks;
}

json_t *api_body(const api_run *run)
{
    json_error_t why;
    json_t *body = json_loadb(run->out.data, run->out.len, JSON_ALLOW_NUL, &why);
    if (body == NULL) {
        fail_msg("%s: %s", why.text, cmi_buf_cstr(&run->out));
    }
    return body;
}

void api_assert_json(const json_t *value, const char *expected)
{
    json_error_t why;
    const char *json = api_json(expected);
    json_t *want = json_loads(json, JSON_DECODE_ANY, &why);
    if (want == NULL) {
        fail_msg("the test's JSON, column %d: %s", why.column, why.text);
    }
    if (!json_equal((json_t *)value, want)) {
        static char got[1 << 16];
        json_dumpb(value, got, sizeof got - 1, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        fail_msg("got  %s\nwant %s", got, json);
    }
    json_decref(want);
}

typedef struct description {
    cmi_buf reasoning, content, calls;
    char last[32]; /* heading of the last part of calls */
} description;

static void describe_begin(description *d)
{
    *d = (description){0};
    cmi_buf_init(&d->reasoning, MAX_OUT_BYTES);
    cmi_buf_init(&d->content, MAX_OUT_BYTES);
    cmi_buf_init(&d->calls, MAX_OUT_BYTES);
}

static void append_string(cmi_buf *b, const json_t *text)
{
    cmi_buf_append(b, json_string_value(text), json_string_length(text));
}

/* Pieces of arguments are joined under one heading. */
static void describe_call(description *d, const json_t *call, size_t idx)
{
    const json_t *function = json_object_get(call, "function");
    const json_t *arguments = json_object_get(function, "arguments");
    if (json_object_get(call, "id") != NULL) {
        cmi_buf_printf(&d->calls, "%sT%zu{", d->last[0] == '\0' ? "" : "}", idx);
        append_string(&d->calls, json_object_get(function, "name"));
        snprintf(d->last, sizeof d->last, "T%zu", idx);
    }
    char heading[32];
    snprintf(heading, sizeof heading, "A%zu", idx);
    if (json_string_length(arguments) > 0) {
        if (strcmp(heading, d->last) != 0) {
            cmi_buf_printf(&d->calls, "}%s{", heading);
            memcpy(d->last, heading, sizeof heading);
        }
        append_string(&d->calls, arguments);
    }
}

/* A delta, a message, or a choice of completions. */
static void describe_part(description *d, const json_t *part)
{
    const json_t *reasoning = json_object_get(part, "reasoning_content");
    const json_t *other_name = json_object_get(part, "reasoning");
    assert_true(reasoning == other_name || json_equal((json_t *)reasoning, (json_t *)other_name));
    append_string(&d->reasoning, reasoning);
    append_string(&d->content, json_object_get(part, "content"));
    append_string(&d->content, json_object_get(part, "text"));
    const json_t *calls = json_object_get(part, "tool_calls");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i);
        const json_t *idx = json_object_get(call, "index");
        describe_call(d, call, idx == NULL ? i : (size_t)json_integer_value(idx));
    }
}

static void describe_end(description *d, const json_t *choice, cmi_buf *out)
{
    if (d->reasoning.len > 0) {
        cmi_buf_printf(out, "R{%s}", d->reasoning.data);
    }
    if (d->content.len > 0) {
        cmi_buf_printf(out, "C{%s}", d->content.data);
    }
    cmi_buf_printf(out, "%s%s", cmi_buf_cstr(&d->calls), d->calls.len > 0 ? "}" : "");
    char stop[256] = "";
    json_dumpb(json_object_get(choice, "stop_reason"), stop, sizeof stop - 1, JSON_ENCODE_ANY);
    cmi_buf_printf(out, " %s %s", json_string_value(json_object_get(choice, "finish_reason")),
                   stop);
    cmi_buf_deinit(&d->reasoning);
    cmi_buf_deinit(&d->content);
    cmi_buf_deinit(&d->calls);
}

void api_describe_stream(const api_run *run, uint32_t choice, cmi_buf *out)
{
    json_t *chunks = api_chunks(run);
    bool finished = false;
    description d;
    describe_begin(&d);
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        const json_t *choices = json_object_get(json_array_get(chunks, i), "choices");
        const json_t *one = json_array_get(choices, 0);
        if (one == NULL || json_integer_value(json_object_get(one, "index")) != choice) {
            continue;
        }
        assert_false(finished);
        const json_t *delta = json_object_get(one, "delta");
        describe_part(&d, delta == NULL ? one : delta);
        if (!json_is_null(json_object_get(one, "finish_reason"))) {
            finished = true;
            describe_end(&d, one, out);
        }
    }
    assert_true(finished);
    json_decref(chunks);
}

void api_describe_body(const api_run *run, uint32_t choice, cmi_buf *out)
{
    json_t *body = api_body(run);
    const json_t *one = json_array_get(json_object_get(body, "choices"), choice);
    assert_int_equal(json_integer_value(json_object_get(one, "index")), choice);
    const json_t *message = json_object_get(one, "message");
    description d;
    describe_begin(&d);
    describe_part(&d, message == NULL ? one : message);
    describe_end(&d, one, out);
    json_decref(body);
}
