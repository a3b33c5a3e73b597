/* cli/bench/load_sse.h - server-sent events out of a stream of bytes, in pieces of any size.
 *
 * Lines end in CR, LF or both; comments (": ping") and fields other than data are passed over;
 * several data lines of an event are joined by newlines. */
#ifndef CMI_CLI_BENCH_LOAD_SSE_H
#define CMI_CLI_BENCH_LOAD_SSE_H

#include "base/buf.h"

enum { CMI_LOAD_SSE_MAX_EVENT_BYTES = 16 << 20 };

typedef struct cmi_load_sse {
    cmi_buf line;      /* the start of a line whose end has not come */
    cmi_buf data;      /* of the event that cmi_load_sse_next found, or of the one to come */
    bool has_data;     /* a data line has come since the last event */
    bool was_taken;    /* data belongs to an event that is over */
    bool after_cr;     /* a newline now would belong to the carriage return before it */
    bool after_start;  /* a byte order mark can come no more */
    bool is_too_large; /* an event passed the limit: what comes is of no use */
} cmi_load_sse;

void cmi_load_sse_init(cmi_load_sse *sse);
void cmi_load_sse_deinit(cmi_load_sse *sse); /* zeroed is fine */
void cmi_load_sse_reset(cmi_load_sse *sse);  /* for the next stream */

/* Moves *at on, at most to end. True: sse->data is an event's; call it again for what follows.
 * False: all bytes have been taken. */
CMI_NODISCARD bool cmi_load_sse_next(cmi_load_sse *sse, const char **at, const char *end);

/* The stream is over. True: sse->data is an event's that no empty line ended, which the standard
 * would drop; a "[DONE]" at the very end comes so from some servers. */
CMI_NODISCARD bool cmi_load_sse_end(cmi_load_sse *sse);

#endif
