/* server/trace_context.h - the header `traceparent` of W3C Trace Context. Pure; any thread. */
#ifndef CMI_SERVER_TRACE_CONTEXT_H
#define CMI_SERVER_TRACE_CONTEXT_H

#include "base/compiler.h"

typedef struct cmi_trace_context {
    char trace_id[32 + 1];  /* small hexadecimal digits, not all zeros; "": there is none */
    char parent_id[16 + 1]; /* the caller's span; the same */
    bool is_sampled;
} cmi_trace_context;

/* Reads "00-TRACE-PARENT-FLAGS", or what a later version has put behind that. False, with empty ids
 * in *out, when it is not valid, which the standard wants to be taken for no header. */
bool cmi_trace_context_parse(cmi_trace_context *out, const char *text, size_t n_bytes);

#endif
