/* cli/bench/load_http.h - reads one HTTP/1.1 response, in pieces of any size.
 *
 * Bytes in, bytes of the body out: by Content-Length, in chunks, or up to the connection's end. No
 * I/O and no clock. Lines may end in a bare newline; interim 1xx responses are passed over. */
#ifndef CMI_CLI_BENCH_LOAD_HTTP_H
#define CMI_CLI_BENCH_LOAD_HTTP_H

#include "base/buf.h"
#include "base/error.h"

typedef enum cmi_load_http_state {
    CMI_LOAD_HTTP_STATUS_LINE,
    CMI_LOAD_HTTP_HEADERS,
    CMI_LOAD_HTTP_BODY,          /* `left` bytes of it */
    CMI_LOAD_HTTP_BODY_TO_CLOSE, /* as much as comes */
    CMI_LOAD_HTTP_CHUNK_SIZE,
    CMI_LOAD_HTTP_CHUNK, /* `left` bytes of it */
    CMI_LOAD_HTTP_CHUNK_END,
    CMI_LOAD_HTTP_TRAILERS,
    CMI_LOAD_HTTP_DONE,
} cmi_load_http_state;

enum { CMI_LOAD_HTTP_MAX_HEAD_BYTES = 64 << 10 };
#define CMI_LOAD_HTTP_MAX_BODY_BYTES (UINT64_C(1) << 40)

typedef struct cmi_load_http {
    cmi_load_http_state state;
    int status;        /* 0 until the status line is there */
    bool has_head;     /* all of what follows is known */
    bool keeps_alive;  /* the connection may be used again once the response is done */
    bool is_chunked;   /* Transfer-Encoding */
    bool has_length;   /* Content-Length */
    bool has_type;     /* Content-Type */
    bool is_events;    /* it is text/event-stream */
    bool has_retry;    /* Retry-After */
    uint32_t retry_s;  /* it, in seconds; 0 when it is a date */
    uint64_t left;     /* bytes of the body or of the chunk still to come */
    size_t head_bytes; /* read so far, of head or trailers */
    cmi_buf line;      /* the start of a line whose end has not come */
} cmi_load_http;

void cmi_load_http_init(cmi_load_http *http);
void cmi_load_http_deinit(cmi_load_http *http); /* zeroed is fine */

/* Makes it ready for the next response of the connection. */
void cmi_load_http_reset(cmi_load_http *http);

/* Takes n bytes and appends what they hold of the body to body. CMI_IN_PROGRESS: more is to come.
 * CMI_OK: the response is done; what lies behind it was not looked at, *n_used_out tells from
 * where. CMI_ERR_BAD_DATA: this is not HTTP/1.1; do not go on. */
CMI_NODISCARD cmi_status cmi_load_http_feed(cmi_load_http *http, const char *bytes, size_t n,
                                            cmi_buf *body, size_t *n_used_out, cmi_error *err);

/* The connection was closed. CMI_OK: that ended the response. CMI_ERR_CLOSED: it cut it off. */
CMI_NODISCARD cmi_status cmi_load_http_end(cmi_load_http *http);

#endif
