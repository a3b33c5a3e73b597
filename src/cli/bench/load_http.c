#include "cli/bench/load_http.h"

#include <string.h>
#include <strings.h>

void cmi_load_http_init(cmi_load_http *http)
{
    *http = (cmi_load_http){0};
    cmi_buf_init(&http->line, CMI_LOAD_HTTP_MAX_HEAD_BYTES);
}

void cmi_load_http_deinit(cmi_load_http *http)
{
    cmi_buf_deinit(&http->line);
}

void cmi_load_http_reset(cmi_load_http *http)
{
    cmi_buf line = http->line;
    *http = (cmi_load_http){.line = line};
    cmi_buf_clear(&http->line);
}

/* Moves *at behind the line's end, or to end. True: http->line holds a line, without its end. */
static bool take_line(cmi_load_http *http, const char **at, const char *end)
{
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    const char *stop = newline != NULL ? newline : end;
    http->head_bytes += (size_t)(stop - *at) + 1;
    cmi_buf_append(&http->line, *at, (size_t)(stop - *at));
    *at = newline != NULL ? newline + 1 : end;
    if (newline != NULL && http->line.len > 0 && http->line.data[http->line.len - 1] == '\r') {
        cmi_buf_truncate(&http->line, http->line.len - 1);
    }
    return newline != NULL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Decimal digits and nothing else, at most max. */
static bool parse_decimal(const char *text, uint64_t max, uint64_t *value_out)
{
    uint64_t value = 0;
    for (const char *at = text; *at != '\0'; at++) {
        if (!is_digit(*at) || value > max / 10) {
            return false;
        }
        value = value * 10 + (uint64_t)(*at - '0');
    }
    *value_out = value;
    return text[0] != '\0' && value <= max;
}

/* "HTTP/1.1 200 OK" */
static cmi_status take_status_line(cmi_load_http *http, cmi_error *err)
{
    const char *line = cmi_buf_cstr(&http->line);
    bool is_status = strncmp(line, "HTTP/1.", 7) == 0 && is_digit(line[7]) && line[8] == ' ' &&
                     is_digit(line[9]) && is_digit(line[10]) && is_digit(line[11]) &&
                     (line[12] == ' ' || line[12] == '\0');
    int status = is_status ? (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0') : 0;
    if (status < 100) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "no HTTP status line: \"%.60s\"", line);
    }
    http->status = status;
    http->keeps_alive = line[7] != '0';
    http->state = CMI_LOAD_HTTP_HEADERS;
    return CMI_IN_PROGRESS;
}

/* The value of a header with this name, or NULL. */
static const char *value_of(const char *line, const char *name)
{
    size_t n = strlen(name);
    if (strncasecmp(line, name, n) != 0 || line[n] != ':') {
        return NULL;
    }
    return line + n + 1 + strspn(line + n + 1, " \t");
}

static cmi_status take_length(cmi_load_http *http, const char *value, cmi_error *err)
{
    uint64_t length;
    if (!parse_decimal(value, CMI_LOAD_HTTP_MAX_BODY_BYTES, &length) ||
        (http->has_length && http->left != length)) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "unusable Content-Length: \"%.60s\"", value);
    }
    http->has_length = true;
    http->left = length;
    return CMI_IN_PROGRESS;
}

static cmi_status take_header(cmi_load_http *http, cmi_error *err)
{
    size_t end = http->line.len;
    while (end > 0 && (http->line.data[end - 1] == ' ' || http->line.data[end - 1] == '\t')) {
        end--;
    }
    cmi_buf_truncate(&http->line, end);
    const char *line = cmi_buf_cstr(&http->line);
    const char *value;
    if ((value = value_of(line, "Content-Length")) != NULL) {
        return take_length(http, value, err);
    }
    if ((value = value_of(line, "Transfer-Encoding")) != NULL) {
        if (strcasecmp(value, "chunked") != 0) {
            return cmi_error_set(err, CMI_ERR_BAD_DATA, "unknown Transfer-Encoding: \"%.60s\"",
                                 value);
        }
        http->is_chunked = true;
    } else if ((value = value_of(line, "Connection")) != NULL) {
        http->keeps_alive = strcasestr(value, "close") == NULL;
    } else if ((value = value_of(line, "Content-Type")) != NULL) {
        http->has_type = true;
        http->is_events = strncasecmp(value, "text/event-stream", 17) == 0;
    } else if ((value = value_of(line, "Retry-After")) != NULL) {
        uint64_t seconds = 0;
        http->has_retry = true;
        http->retry_s = parse_decimal(value, UINT32_MAX, &seconds) ? (uint32_t)seconds : 0;
    }
    return CMI_IN_PROGRESS;
}

/* The empty line behind the headers: where the body's end will be. */
static cmi_status end_head(cmi_load_http *http)
{
    http->head_bytes = 0;
    if (http->status < 200) {
        cmi_load_http_reset(http);
        return CMI_IN_PROGRESS;
    }
    http->has_head = true;
    bool is_empty = http->status == 204 || http->status == 304 ||
                    (http->has_length && !http->is_chunked && http->left == 0);
    if (is_empty) {
        http->state = CMI_LOAD_HTTP_DONE;
    } else if (http->is_chunked) {
        http->state = CMI_LOAD_HTTP_CHUNK_SIZE;
    } else if (http->has_length) {
        http->state = CMI_LOAD_HTTP_BODY;
    } else {
        http->keeps_alive = false;
        http->state = CMI_LOAD_HTTP_BODY_TO_CLOSE;
    }
    return CMI_IN_PROGRESS;
}

static int hex_value(char c)
{
    return is_digit(c)            ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* "1f3" with an extension behind it or not */
static cmi_status take_chunk_size(cmi_load_http *http, cmi_error *err)
{
    const char *line = cmi_buf_cstr(&http->line);
    const char *at = line;
    uint64_t size = 0;
    while (hex_value(*at) >= 0 && size <= CMI_LOAD_HTTP_MAX_BODY_BYTES) {
        size = size * 16 + (uint64_t)hex_value(*at++);
    }
    if (at == line || size > CMI_LOAD_HTTP_MAX_BODY_BYTES || strchr("; \t", *at) == NULL) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "unusable chunk size: \"%.60s\"", line);
    }
    http->head_bytes = 0;
    http->left = size;
    http->state = size > 0 ? CMI_LOAD_HTTP_CHUNK : CMI_LOAD_HTTP_TRAILERS;
    return CMI_IN_PROGRESS;
}

/* What a whole line means where the response is. */
static cmi_status take_whole_line(cmi_load_http *http, cmi_error *err)
{
    bool is_empty = http->line.len == 0;
    switch (http->state) {
    case CMI_LOAD_HTTP_STATUS_LINE:
        return take_status_line(http, err);
    case CMI_LOAD_HTTP_HEADERS:
        return is_empty ? end_head(http) : take_header(http, err);
    case CMI_LOAD_HTTP_CHUNK_SIZE:
        return take_chunk_size(http, err);
    case CMI_LOAD_HTTP_CHUNK_END:
        http->state = CMI_LOAD_HTTP_CHUNK_SIZE;
        return is_empty ? CMI_IN_PROGRESS
                        : cmi_error_set(err, CMI_ERR_BAD_DATA, "bytes behind a chunk's end");
    default: /* trailers say nothing that is wanted here */
        http->state = is_empty ? CMI_LOAD_HTTP_DONE : http->state;
        return CMI_IN_PROGRESS;
    }
}

static bool is_in_body(const cmi_load_http *http)
{
    return http->state == CMI_LOAD_HTTP_BODY || http->state == CMI_LOAD_HTTP_BODY_TO_CLOSE ||
           http->state == CMI_LOAD_HTTP_CHUNK;
}

static void take_body(cmi_load_http *http, const char **at, const char *end, cmi_buf *body)
{
    size_t n = (size_t)(end - *at);
    if (http->state != CMI_LOAD_HTTP_BODY_TO_CLOSE) {
        n = n < http->left ? n : (size_t)http->left;
        http->left -= n;
    }
    cmi_buf_append(body, *at, n);
    *at += n;
    if (http->left == 0 && http->state == CMI_LOAD_HTTP_BODY) {
        http->state = CMI_LOAD_HTTP_DONE;
    } else if (http->left == 0 && http->state == CMI_LOAD_HTTP_CHUNK) {
        http->state = CMI_LOAD_HTTP_CHUNK_END;
    }
}

cmi_status cmi_load_http_feed(cmi_load_http *http, const char *bytes, size_t n, cmi_buf *body,
                              size_t *n_used_out, cmi_error *err)
{
    const char *at = bytes;
    const char *end = bytes + n;
    cmi_status st = CMI_IN_PROGRESS;
    while (st == CMI_IN_PROGRESS && at < end && http->state != CMI_LOAD_HTTP_DONE) {
        if (is_in_body(http)) {
            take_body(http, &at, end, body);
        } else if (take_line(http, &at, end)) {
            st = take_whole_line(http, err);
            cmi_buf_clear(&http->line);
        }
        if (st == CMI_IN_PROGRESS && http->head_bytes > CMI_LOAD_HTTP_MAX_HEAD_BYTES) {
            st = cmi_error_set(err, CMI_ERR_BAD_DATA, "headers of more than %d bytes",
                               CMI_LOAD_HTTP_MAX_HEAD_BYTES);
        }
    }
    *n_used_out = (size_t)(at - bytes);
    return st == CMI_IN_PROGRESS && http->state == CMI_LOAD_HTTP_DONE ? CMI_OK : st;
}

cmi_status cmi_load_http_end(cmi_load_http *http)
{
    if (http->state == CMI_LOAD_HTTP_BODY_TO_CLOSE) {
        http->state = CMI_LOAD_HTTP_DONE;
    }
    return http->state == CMI_LOAD_HTTP_DONE ? CMI_OK : CMI_ERR_CLOSED;
}
