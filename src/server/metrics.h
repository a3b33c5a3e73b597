/* server/metrics.h - what the server counts, in Prometheus' text format under vLLM's
 * names, or SGLang's (metrics_sglang.c).
 *
 * Every metric and every label value is known when the process starts, so an observation is one or
 * two relaxed atomic additions: no lock, no allocation, any thread. What the engine counts itself
 * (running, waiting, tokens) is not kept here but read from its stats when a scrape comes.
 * Left out because it would not be true: vllm:iteration_tokens_total (the engine keeps a sum, no
 * distribution). */
#ifndef CMI_SERVER_METRICS_H
#define CMI_SERVER_METRICS_H

#include <stdatomic.h>

#include "base/buf.h"
#include "engine/engine.h"
#include "server/http_route.h"

/* Those in seconds are observed in nanoseconds, so that their sums are exact. */
typedef enum cmi_histogram_id {
    CMI_HISTOGRAM_TTFT, /* seconds: from the arrival to the first token */
    CMI_HISTOGRAM_ITL,  /* seconds: between two tokens */
    CMI_HISTOGRAM_TPOT, /* seconds: mean per output token but the first */
    CMI_HISTOGRAM_E2E,
    CMI_HISTOGRAM_QUEUE,
    CMI_HISTOGRAM_INFERENCE,
    CMI_HISTOGRAM_PREFILL,
    CMI_HISTOGRAM_DECODE,
    CMI_HISTOGRAM_PROMPT_TOKENS, /* from here on counts */
    CMI_HISTOGRAM_GENERATION_TOKENS,
    CMI_HISTOGRAM_MAX_GENERATION_TOKENS,
    CMI_HISTOGRAM_PARAMS_N,
    CMI_HISTOGRAM_PARAMS_MAX_TOKENS,
    CMI_N_HISTOGRAMS,
} cmi_histogram_id;

enum {
    CMI_HISTOGRAM_MAX_BUCKETS = 24,
    CMI_N_FINISH_REASONS = CMI_FINISH_ERROR + 1,
    CMI_N_STATUS_CLASSES = 5, /* 1xx .. 5xx */
};

typedef struct cmi_histogram {
    _Atomic uint64_t cells[CMI_HISTOGRAM_MAX_BUCKETS + 1]; /* not cumulative; last: +Inf */
    _Atomic uint64_t sum;                                  /* ns or tokens: exact */
} cmi_histogram;

/* Whose names. Those of nobody else (http_requests_total, cminfer:...) are always there. */
typedef enum cmi_metrics_names {
    CMI_METRICS_VLLM,
    CMI_METRICS_SGLANG,
    CMI_METRICS_BOTH,
} cmi_metrics_names;

typedef struct cmi_metrics {
    const char *model_name;  /* borrowed */
    cmi_metrics_names names; /* CMI_METRICS_VLLM; may be set before the first scrape */
    cmi_histogram histograms[CMI_N_HISTOGRAMS];
    _Atomic uint64_t slow_clients; /* connections ended at a deadline (http_deadline.h) */
    _Atomic uint64_t finished[CMI_N_FINISH_REASONS];
    _Atomic uint64_t http[CMI_N_HTTP_METHODS][CMI_N_HTTP_ROUTES][CMI_N_STATUS_CLASSES];
} cmi_metrics;

void cmi_metrics_init(cmi_metrics *m, const char *model_name); /* nothing to release */

/* value: nanoseconds where the metric is in seconds, else a count. */
void cmi_metrics_observe(cmi_metrics *m, cmi_histogram_id id, uint64_t value);

/* One engine request ended; a stop string counts as CMI_FINISH_STOP. */
void cmi_metrics_finished(cmi_metrics *m, cmi_finish_reason reason);

/* One HTTP request ended with this status (100 .. 599). */
void cmi_metrics_http(cmi_metrics *m, cmi_http_method method, cmi_http_route_id route, int status);

/* The text of one scrape. info and stats are NULL until an engine is there; its metrics are then
 * left out. */
void cmi_metrics_write(const cmi_metrics *m, const cmi_engine_info *info,
                       const cmi_engine_stats *stats, cmi_buf *out);

/* Of the ranks of an instance [n], behind the rest of a scrape; none are left out. */
void cmi_metrics_write_ranks(const cmi_metrics *m, const cmi_engine_rank *ranks, uint32_t n,
                             cmi_buf *out);

/* The finish reason as labels and logs show it. Static text. */
const char *cmi_finish_reason_name(cmi_finish_reason reason);

#endif
