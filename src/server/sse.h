/* server/sse.h - server-sent events as OpenAI's streams use them: one "data:" line an event. */
#ifndef CMI_SERVER_SSE_H
#define CMI_SERVER_SSE_H

#include "base/buf.h"

/* Around one JSON object, which holds no newline. */
void cmi_sse_begin(cmi_buf *out);
void cmi_sse_end(cmi_buf *out);

void cmi_sse_done(cmi_buf *out); /* the "[DONE]" that ends a stream */
void cmi_sse_ping(cmi_buf *out); /* a comment, which every client ignores, to keep a stream open */

#endif
