/* cli/bench/load_answer.h - what became of one request: read from the bytes of its answer and the
 * times at which they came.
 *
 * A chunk is an event with a choice. One that only opens the answer (the role) or only ends it (the
 * finish reason) holds no token: it is neither the first token nor the end of a gap, unless there
 * is no other chunk. No I/O and no clock. */
#ifndef CMI_CLI_BENCH_LOAD_ANSWER_H
#define CMI_CLI_BENCH_LOAD_ANSWER_H

#include "cli/bench/load_http.h"
#include "cli/bench/load_sse.h"

typedef enum cmi_load_outcome {
    CMI_LOAD_OPEN, /* not started, or not over */
    CMI_LOAD_COMPLETED,
    CMI_LOAD_CANCELLED,   /* by ourselves; not a failure */
    CMI_LOAD_HTTP_ERROR,  /* a status that is not 2xx: http_status */
    CMI_LOAD_CONNECTION,  /* refused, reset, or closed in the middle */
    CMI_LOAD_TIMEOUT,     /* ours */
    CMI_LOAD_ERROR_EVENT, /* an error in the stream */
    CMI_LOAD_MALFORMED,   /* not HTTP, not a stream of events, not JSON */
    CMI_LOAD_INCOMPLETE,  /* the stream ended without tokens, or without saying that it is complete
                           */
} cmi_load_outcome;

/* "connection", "http_503": the name of a failure in results, in name_out of 32 bytes or more. */
enum { CMI_LOAD_REASON_BYTES = 32 };
typedef struct cmi_load_record cmi_load_record;
void cmi_load_reason_name(char *name_out, size_t size, cmi_load_outcome outcome, int http_status);

struct cmi_load_record {
    uint64_t due_ns;    /* when it was to be sent; all times are since the run's start */
    uint64_t start_ns;  /* when it was sent */
    uint64_t last_ns;   /* the last chunk */
    uint64_t end_ns;    /* when it was over */
    uint64_t *chunk_ns; /* when each chunk with a token came */
    uint32_t n_chunks, chunk_cap;
    cmi_load_outcome outcome;
    int http_status; /* 0: none came */
    bool has_retry_after;
    uint32_t retry_after_s;
    bool waited;    /* for another request to end, because of the limit of concurrency */
    bool has_usage; /* and so the three below */
    uint32_t prompt_tokens, output_tokens, cached_tokens;
    char *error;  /* one line, or NULL */
    cmi_buf text; /* empty unless it was asked for */
};

void cmi_load_record_deinit(cmi_load_record *record); /* zeroed is fine */

/* Ends a request that is still open; the line may be "". */
void cmi_load_record_fail(cmi_load_record *record, cmi_load_outcome outcome, const char *line);

typedef struct cmi_load_answer {
    cmi_load_http http;
    cmi_load_sse sse;
    cmi_buf body;     /* bytes of it that no one has looked at */
    bool keeps_text;  /* in the record */
    bool has_choice;  /* a chunk came */
    bool has_finish;  /* a finish reason came */
    bool has_done;    /* "[DONE]" came */
    bool is_complete; /* the response is over and nothing came behind it */
    cmi_load_record *record;
} cmi_load_answer;

void cmi_load_answer_init(cmi_load_answer *answer);
void cmi_load_answer_deinit(cmi_load_answer *answer); /* zeroed is fine */

/* The answer to the next request. */
void cmi_load_answer_begin(cmi_load_answer *answer, cmi_load_record *record, bool keeps_text);

/* Bytes that came at now_ns since the run's start. True: the request is over, and the record says
 * how; the connection can be used again if cmi_load_answer_keeps_alive. */
CMI_NODISCARD bool cmi_load_answer_feed(cmi_load_answer *answer, const char *bytes, size_t n,
                                        uint64_t now_ns);

/* The server closed the connection: the request is over. */
void cmi_load_answer_end(cmi_load_answer *answer, uint64_t now_ns);

bool cmi_load_answer_keeps_alive(const cmi_load_answer *answer);

/* "[DONE]" has come behind tokens: the answer is complete, whatever the connection does. */
bool cmi_load_answer_is_done(const cmi_load_answer *answer);

#endif
