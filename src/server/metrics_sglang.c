/* server/metrics_sglang.c - what vLLM's names tell, under SGLang's.
 *
 * SGLang's gauges of rates are of its last few steps; here cache_hit_rate, spec_accept_length and
 * spec_accept_rate are of all requests since the start. Left out because they would not be true:
 * gen_throughput (no window is kept), num_retracted_reqs (a sum is kept, no gauge), and the stages,
 * whose names are those of SGLang's own code. */
#include "server/metrics_internal.h"

#include <inttypes.h>

static double share(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : (double)part / (double)whole;
}

static void write_load(const cmi_metrics *m, const cmi_engine_info *info,
                       const cmi_engine_stats *stats, cmi_buf *out)
{
    double page = info->kv_page_tokens;
    double n_free = info->n_kv_pages - (double)stats->n_kv_pages_used;
    cmi_metrics_write_value(m, "sglang:num_running_reqs", "gauge", "Requests in the running batch.",
                            stats->n_running, out);
    cmi_metrics_write_value(m, "sglang:num_queue_reqs", "gauge", "Requests in the queue.",
                            stats->n_waiting, out);
    cmi_metrics_write_value(m, "sglang:token_usage", "gauge",
                            "Share of the KV pages in use; 1 is all.",
                            share(stats->n_kv_pages_used, info->n_kv_pages), out);
    cmi_metrics_write_value(m, "sglang:num_used_tokens", "gauge", "Tokens of the KV pages in use.",
                            stats->n_kv_pages_used * page, out);
    cmi_metrics_write_value(m, "sglang:kv_available_tokens", "gauge",
                            "Tokens of the KV pages that are free or hold idle prefixes.",
                            n_free * page, out);
    cmi_metrics_write_value(m, "sglang:cache_hit_rate", "gauge",
                            "Share of the prompt tokens that were cached, since the start.",
                            share(stats->n_prefix_hits, stats->n_prefix_queried), out);
}

static void write_counters(const cmi_metrics *m, const cmi_engine_info *info,
                           const cmi_engine_stats *stats, cmi_buf *out)
{
    cmi_metrics_write_value(m, "sglang:prompt_tokens_total", "counter",
                            "Prompt tokens of admitted requests, cached ones too.",
                            (double)stats->n_prefix_queried, out);
    cmi_metrics_write_value(m, "sglang:generation_tokens_total", "counter", "Tokens generated.",
                            (double)stats->n_generation_tokens, out);
    static const char NAME[] = "sglang:cached_tokens_total";
    cmi_metrics_write_head(NAME, "counter", "Prompt tokens that were cached.", out);
    cmi_metrics_write_labels(m, NAME, "", out);
    cmi_buf_printf(out, ",cache_source=\"device\"} %" PRIu64 "\n", stats->n_prefix_hits);
    if (info->max_drafts > 0) {
        cmi_metrics_write_value(m, "sglang:spec_accept_length", "gauge",
                                "Tokens of a step with drafts, since the start.",
                                share(stats->n_drafts + stats->n_accepted_tokens, stats->n_drafts),
                                out);
        cmi_metrics_write_value(m, "sglang:spec_accept_rate", "gauge",
                                "Share of the draft tokens that were right, since the start.",
                                share(stats->n_accepted_tokens, stats->n_draft_tokens), out);
    }
}

void cmi_metrics_write_sglang(const cmi_metrics *m, const cmi_engine_info *info,
                              const cmi_engine_stats *stats, cmi_buf *out)
{
    if (info != NULL && stats != NULL) {
        write_load(m, info, stats, out);
        write_counters(m, info, stats, out);
    }
    uint64_t n_ended = 0;
    for (cmi_finish_reason r = CMI_FINISH_STOP; r <= CMI_FINISH_ERROR; r++) {
        n_ended += cmi_metrics_n_finished(m, r);
    }
    cmi_metrics_write_value(m, "sglang:num_requests_total", "counter", "Requests that ended.",
                            (double)n_ended, out);
    cmi_metrics_write_value(m, "sglang:num_aborted_requests_total", "counter",
                            "Requests that were cancelled.",
                            (double)cmi_metrics_n_finished(m, CMI_FINISH_ABORT), out);
    cmi_metrics_write_histogram(m, CMI_HISTOGRAM_TTFT, "sglang:time_to_first_token_seconds", out);
    cmi_metrics_write_histogram(m, CMI_HISTOGRAM_ITL, "sglang:inter_token_latency_seconds", out);
    cmi_metrics_write_histogram(m, CMI_HISTOGRAM_E2E, "sglang:e2e_request_latency_seconds", out);
    cmi_metrics_write_histogram(m, CMI_HISTOGRAM_QUEUE, "sglang:queue_time_seconds", out);
}
