#include "cli/bench/load_answer.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

enum { MAX_TEXT_BYTES = 64 << 20, MAX_ERROR_BODY_BYTES = 64 << 10 };

void cmi_load_reason_name(char *name_out, size_t size, cmi_load_outcome outcome, int http_status)
{
    static const char *const names[] = {
        [CMI_LOAD_OPEN] = "open",
        [CMI_LOAD_COMPLETED] = "completed",
        [CMI_LOAD_CANCELLED] = "cancelled",
        [CMI_LOAD_HTTP_ERROR] = "http",
        [CMI_LOAD_CONNECTION] = "connection",
        [CMI_LOAD_TIMEOUT] = "timeout",
        [CMI_LOAD_ERROR_EVENT] = "error_event",
        [CMI_LOAD_MALFORMED] = "malformed",
        [CMI_LOAD_INCOMPLETE] = "incomplete",
    };
    if (outcome == CMI_LOAD_HTTP_ERROR) {
        snprintf(name_out, size, "http_%d", http_status);
    } else {
        snprintf(name_out, size, "%s", names[outcome]);
    }
}

void cmi_load_record_deinit(cmi_load_record *record)
{
    cmi_free(record->chunk_ns);
    cmi_free(record->error);
    cmi_buf_deinit(&record->text);
}

void cmi_load_record_fail(cmi_load_record *record, cmi_load_outcome outcome, const char *line)
{
    if (record->outcome == CMI_LOAD_OPEN) {
        cmi_error clean = {0};
        cmi_error_set(&clean, CMI_ERR_INVALID, "%s", line); /* one line of valid UTF-8 */
        record->outcome = outcome;
        record->error = cmi_strndup(clean.text, strlen(clean.text));
    }
}

void cmi_load_answer_init(cmi_load_answer *answer)
{
    *answer = (cmi_load_answer){0};
    cmi_load_http_init(&answer->http);
    cmi_load_sse_init(&answer->sse);
    cmi_buf_init(&answer->body, SIZE_MAX / 2); /* an error's is cut, a stream's is taken at once */
}

void cmi_load_answer_deinit(cmi_load_answer *answer)
{
    cmi_load_http_deinit(&answer->http);
    cmi_load_sse_deinit(&answer->sse);
    cmi_buf_deinit(&answer->body);
}

void cmi_load_answer_begin(cmi_load_answer *answer, cmi_load_record *record, bool keeps_text)
{
    cmi_load_http_reset(&answer->http);
    cmi_load_sse_reset(&answer->sse);
    cmi_buf_clear(&answer->body);
    answer->keeps_text = keeps_text;
    answer->has_choice = answer->has_finish = answer->has_done = answer->is_complete = false;
    answer->record = record;
    if (keeps_text) {
        cmi_buf_init(&record->text, MAX_TEXT_BYTES);
    }
}

static void add_chunk(cmi_load_record *record, uint64_t now_ns)
{
    if (record->n_chunks == record->chunk_cap) {
        record->chunk_cap = record->chunk_cap > 0 ? record->chunk_cap * 2 : 32;
        record->chunk_ns =
            cmi_realloc(record->chunk_ns, record->chunk_cap, sizeof *record->chunk_ns);
    }
    record->chunk_ns[record->n_chunks++] = now_ns;
}

static bool is_filled(const json_t *value)
{
    return json_string_length(value) > 0 || json_array_size(value) > 0;
}

/* Whether the choice has a token: false for a role alone, and for an end alone. */
static bool holds_token(const json_t *choice, bool is_first, bool is_last)
{
    static const char *const filled[] = {
        "content", "reasoning_content", "reasoning", "tool_calls", "refusal", "text", "token_ids"};
    const json_t *delta = json_object_get(choice, "delta");
    for (size_t i = 0; i < CMI_LEN(filled); i++) {
        if (is_filled(json_object_get(delta, filled[i])) ||
            is_filled(json_object_get(choice, filled[i]))) {
            return true;
        }
    }
    bool is_role = is_first && json_object_get(delta, "role") != NULL;
    return !is_role && !is_last; /* else a token whose text is held back, or has none */
}

static void take_choice(cmi_load_answer *answer, const json_t *choice, uint64_t now_ns)
{
    cmi_load_record *record = answer->record;
    bool is_last = json_is_string(json_object_get(choice, "finish_reason"));
    if (holds_token(choice, !answer->has_choice, is_last) || (is_last && record->n_chunks == 0)) {
        add_chunk(record, now_ns);
    }
    record->last_ns = now_ns;
    answer->has_choice = true;
    answer->has_finish = answer->has_finish || is_last;
    if (answer->keeps_text) {
        const json_t *text = json_object_get(choice, "text");
        const json_t *delta = json_object_get(choice, "delta");
        text = text != NULL ? text : json_object_get(delta, "content");
        cmi_buf_append(&record->text, json_string_value(text), json_string_length(text));
    }
}

static uint32_t count_of(const json_t *value)
{
    json_int_t count = json_integer_value(value);
    return count < 0 ? 0 : count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

static void take_usage(cmi_load_record *record, const json_t *usage)
{
    const json_t *output = json_object_get(usage, "completion_tokens");
    if (json_is_integer(output)) {
        const json_t *details = json_object_get(usage, "prompt_tokens_details");
        record->has_usage = true;
        record->output_tokens = count_of(output);
        record->prompt_tokens = count_of(json_object_get(usage, "prompt_tokens"));
        record->cached_tokens = count_of(json_object_get(details, "cached_tokens"));
    }
}

/* The message of OpenAI's {"error": {"message": ..}}, of a flat {"object": "error", ..}, or of
 * {"error": ".."}; NULL when there is no error. */
static const char *error_message(const json_t *json)
{
    const json_t *error = json_object_get(json, "error");
    const char *object = json_string_value(json_object_get(json, "object"));
    bool is_flat = object != NULL && strcmp(object, "error") == 0;
    if (!is_flat && (error == NULL || json_is_null(error))) {
        return NULL;
    }
    const json_t *message = json_object_get(is_flat ? json : error, "message");
    const char *text = json_string_value(json_is_string(error) ? error : message);
    return text != NULL ? text : "an error without a message";
}

static void take_json(cmi_load_answer *answer, const json_t *json, uint64_t now_ns)
{
    const char *error = error_message(json);
    if (error != NULL) {
        cmi_load_record_fail(answer->record, CMI_LOAD_ERROR_EVENT, error);
        return;
    }
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);
    if (choice != NULL) {
        take_choice(answer, choice, now_ns);
    }
    take_usage(answer->record, json_object_get(json, "usage"));
}

static void take_event(cmi_load_answer *answer, uint64_t now_ns)
{
    static const char done[] = "[DONE]";
    const cmi_buf *data = &answer->sse.data;
    if (data->len == sizeof done - 1 && memcmp(data->data, done, data->len) == 0) {
        answer->has_done = true;
        return;
    }
    json_error_t why;
    json_t *json = json_loadb(cmi_buf_cstr(data), data->len, JSON_ALLOW_NUL, &why);
    if (json_is_object(json)) {
        take_json(answer, json, now_ns);
    } else {
        char line[256];
        snprintf(line, sizeof line, "an event that is no JSON object: \"%.100s\"",
                 cmi_buf_cstr(data));
        cmi_load_record_fail(answer->record, CMI_LOAD_MALFORMED, line);
    }
    json_decref(json);
}

static bool is_ok(const cmi_load_http *http)
{
    return http->status >= 200 && http->status < 300;
}

/* A body that is an error's, or no stream, is kept to be quoted. */
static bool is_stream(const cmi_load_http *http)
{
    return http->has_head && is_ok(http) && (http->is_events || !http->has_type);
}

static void take_body(cmi_load_answer *answer, uint64_t now_ns)
{
    cmi_buf *body = &answer->body;
    if (!is_stream(&answer->http)) {
        cmi_buf_truncate(body, CMI_MIN(body->len, (size_t)MAX_ERROR_BODY_BYTES));
        return;
    }
    const char *at = cmi_buf_cstr(body);
    const char *end = at + body->len;
    while (answer->record->outcome == CMI_LOAD_OPEN && cmi_load_sse_next(&answer->sse, &at, end)) {
        take_event(answer, now_ns);
    }
    if (answer->sse.is_too_large) {
        cmi_load_record_fail(answer->record, CMI_LOAD_MALFORMED, "an event over the limit of size");
    }
    cmi_buf_clear(body);
}

bool cmi_load_answer_is_done(const cmi_load_answer *answer)
{
    return answer->record->n_chunks > 0 && answer->has_done;
}

static void fail_by_status(cmi_load_answer *answer)
{
    const cmi_buf *body = &answer->body;
    char line[512];
    json_t *json = json_loadb(cmi_buf_cstr(body), body->len, JSON_ALLOW_NUL, NULL);
    const char *message = error_message(json);
    snprintf(line, sizeof line, "HTTP %d: %.400s", answer->http.status,
             message != NULL ? message : cmi_buf_cstr(body));
    cmi_load_record_fail(answer->record, CMI_LOAD_HTTP_ERROR, line);
    json_decref(json);
}

/* The response is complete. */
static void judge(cmi_load_answer *answer, uint64_t now_ns)
{
    cmi_load_record *record = answer->record;
    record->end_ns = now_ns;
    if (!is_ok(&answer->http)) {
        fail_by_status(answer);
        return;
    }
    if (!is_stream(&answer->http)) {
        char line[256];
        snprintf(line, sizeof line, "the answer is no stream of events: \"%.100s\"",
                 cmi_buf_cstr(&answer->body));
        cmi_load_record_fail(record, CMI_LOAD_MALFORMED, line);
        return;
    }
    if (record->outcome == CMI_LOAD_OPEN && cmi_load_sse_end(&answer->sse)) {
        take_event(answer, now_ns);
    }
    if (record->outcome == CMI_LOAD_OPEN && record->n_chunks > 0 &&
        (answer->has_done || answer->has_finish)) {
        record->outcome = CMI_LOAD_COMPLETED;
    }
    cmi_load_record_fail(record, CMI_LOAD_INCOMPLETE,
                         record->n_chunks == 0
                             ? "the stream ended without a token"
                             : "the stream ended without a finish reason or [DONE]");
}

bool cmi_load_answer_feed(cmi_load_answer *answer, const char *bytes, size_t n, uint64_t now_ns)
{
    cmi_load_record *record = answer->record;
    cmi_load_http *http = &answer->http;
    cmi_error err = {0};
    size_t n_used;
    cmi_status st = cmi_load_http_feed(http, bytes, n, &answer->body, &n_used, &err);
    record->http_status = http->status;
    record->has_retry_after = http->has_retry;
    record->retry_after_s = http->retry_s;
    take_body(answer, now_ns);
    if (st == CMI_OK) {
        answer->is_complete = n_used == n && record->outcome == CMI_LOAD_OPEN;
        judge(answer, now_ns);
    } else if (st != CMI_IN_PROGRESS) {
        cmi_load_record_fail(record, CMI_LOAD_MALFORMED, err.text);
    }
    record->end_ns = now_ns;
    return record->outcome != CMI_LOAD_OPEN;
}

void cmi_load_answer_end(cmi_load_answer *answer, uint64_t now_ns)
{
    cmi_load_record *record = answer->record;
    record->end_ns = now_ns;
    if (record->outcome != CMI_LOAD_OPEN) {
        return;
    }
    if (cmi_load_http_end(&answer->http) == CMI_OK) {
        judge(answer, now_ns);
    } else if (cmi_load_answer_is_done(answer)) {
        record->outcome = CMI_LOAD_COMPLETED;
    } else if (answer->http.has_head && !is_ok(&answer->http)) {
        fail_by_status(answer);
    } else {
        cmi_load_record_fail(record, CMI_LOAD_CONNECTION,
                             answer->http.status == 0
                                 ? "the server closed the connection without an answer"
                                 : "the server closed the connection in the middle of an answer");
    }
}

bool cmi_load_answer_keeps_alive(const cmi_load_answer *answer)
{
    return answer->is_complete && answer->http.keeps_alive;
}
