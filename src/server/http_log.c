/* server/http_log.c - the one line that a request leaves in the log when it ends.
 *
 * docs/SERVER.md says what the fields mean. A value that a client chose is in it only if it cannot
 * be taken for anything else: its request id has no blanks, its trace id is hexadecimal. */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "os/clock.h"
#include "server/server_internal.h"

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

void cmi_http_log_request(const cmi_http_request *req, int status, const cmi_exchange_summary *s)
{
    const cmi_http_route *route = cmi_http_route_get(req->route);
    cmi_log_level level = route->probe ? CMI_LOG_DEBUG : CMI_LOG_INFO;
    char head[320];
    snprintf(head, sizeof head, "request id=%s%s%s %s %s status=%d", req->id,
             req->trace.trace_id[0] != '\0' ? " trace_id=" : "", req->trace.trace_id,
             cmi_http_method_name(req->method), route->path, status);
    double total_ms = ms(cmi_clock_monotonic_ns() - req->arrival_ns);
    if (s->usage.n_prompt_tokens == 0) { /* nothing of the engine's */
        cmi_log(level, "%s total_ms=%.1f", head, total_ms);
        return;
    }
    bool aborted = s->finish == CMI_FINISH_NONE && status == CMI_HTTP_CLIENT_LEFT;
    char error[32] = "";
    if (s->error_status != 0) {
        snprintf(error, sizeof error, " error=%d", s->error_status);
    }
    cmi_log(level,
            "%s%s finish=%s prompt_tokens=%" PRIu32 " cached_tokens=%" PRIu32
            " output_tokens=%" PRIu32 " queue_ms=%.1f prefill_ms=%.1f decode_ms=%.1f ttft_ms=%.1f "
            "total_ms=%.1f",
            head, error, cmi_finish_reason_name(aborted ? CMI_FINISH_ABORT : s->finish),
            s->usage.n_prompt_tokens, s->usage.n_cached_tokens, s->usage.n_output_tokens,
            ms(s->queue_ns), ms(s->prefill_ns), ms(s->decode_ns), ms(s->ttft_ns), total_ms);
}
