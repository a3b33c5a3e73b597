/* server/metrics_own.c - what neither vLLM nor SGLang has a name for. */
#include "server/metrics_internal.h"

#include <inttypes.h>

static const double NS_PER_S = 1e9;

/* Of each prompt token: was it looked for, was it here, did it come from elsewhere, was it used,
 * and if not, why not. prompt == used + the sum of lost. */
static void write_prefix(const cmi_metrics *m, const cmi_engine_info *info,
                         const cmi_engine_stats *stats, cmi_buf *out)
{
    static const char NAME[] = "cminfer:prefix_cache_tokens_total";
    const struct {
        const char *what;
        uint64_t n;
    } rows[] = {
        {"prompt", stats->n_prefix_queried},      {"looked_up", stats->n_prefix_looked_up},
        {"available", stats->n_prefix_available}, {"loaded", stats->n_prefix_loaded},
        {"used", stats->n_prefix_hits},
    };
    cmi_metrics_write_head(NAME, "counter",
                           "Prompt tokens of admitted requests: all, in blocks that the prefix "
                           "cache was asked for, that it had, that came from elsewhere, and that "
                           "were not computed.",
                           out);
    for (size_t i = 0; i < CMI_LEN(rows); i++) {
        cmi_metrics_write_labels(m, NAME, "", out);
        cmi_buf_printf(out, ",stage=\"%s\"} %" PRIu64 "\n", rows[i].what, rows[i].n);
    }
    static const char LOST[] = "cminfer:prefix_cache_lost_tokens_total";
    cmi_metrics_write_head(LOST, "counter", "Prompt tokens that were computed, by why.", out);
    for (int i = 0; i < CMI_ENGINE_PREFIX_LOSSES && info->prefix_losses[i] != NULL; i++) {
        cmi_metrics_write_labels(m, LOST, "", out);
        cmi_buf_printf(out, ",reason=\"%s\"} %" PRIu64 "\n", info->prefix_losses[i],
                       stats->n_prefix_lost[i]);
    }
}

static void write_refused(const cmi_metrics *m, const cmi_engine_stats *stats, cmi_buf *out)
{
    static const char NAME[] = "cminfer:requests_refused_total";
    static const char *const REASONS[] = {
#define REASON_NAME(id, name) [CMI_ADMISSION_##id] = (name),
        CMI_ADMISSION_REASON_TABLE(REASON_NAME)
#undef REASON_NAME
    };
    cmi_metrics_write_head(NAME, "counter", "Requests that were not taken, by the reason.", out);
    for (int r = CMI_ADMISSION_OK + 1; r < CMI_ADMISSION_N_REASONS; r++) {
        cmi_metrics_write_labels(m, NAME, "", out);
        cmi_buf_printf(out, ",reason=\"%s\"} %" PRIu64 "\n", REASONS[r], stats->n_refused[r]);
    }
    cmi_metrics_write_value(m, "cminfer:num_tokens_waiting", "gauge", "Prompt tokens in the queue.",
                            (double)stats->n_waiting_tokens, out);
}

static void write_durations(const cmi_metrics *m, const cmi_engine_stats *s, cmi_buf *out)
{
    const struct {
        const char *name, *help;
        double value;
    } counters[] = {
        {"cminfer:predicted_steps_total", "Steps whose duration was predicted.",
         (double)s->n_predicted_steps},
        {"cminfer:step_predicted_seconds_total", "Their durations as predicted, together.",
         (double)s->predicted_ns / NS_PER_S},
        {"cminfer:step_measured_seconds_total", "Their durations as measured, together.",
         (double)s->measured_ns / NS_PER_S},
        {"cminfer:step_misjudged_seconds_total", "What lay between, together, either way.",
         (double)s->misjudged_ns / NS_PER_S},
        {"cminfer:ttft_targets_total", "Requests with a TTFT target that got a token.",
         (double)s->n_ttft_targets},
        {"cminfer:ttft_targets_missed_total", "Of them those that got it too late.",
         (double)s->n_ttft_missed},
        {"cminfer:tpot_targets_total", "Requests with a TPOT target that got two tokens.",
         (double)s->n_tpot_targets},
        {"cminfer:requests_timed_out_total", "Requests ended because their time was up.",
         (double)s->n_timed_out},
        {"cminfer:requests_given_up_total", "Requests that waited twice their TTFT target.",
         (double)s->n_given_up},
        {"cminfer:tpot_targets_missed_total", "Of them those whose tokens came too slowly.",
         (double)s->n_tpot_missed},
    };
    for (size_t i = 0; i < CMI_LEN(counters); i++) {
        cmi_metrics_write_value(m, counters[i].name, "counter", counters[i].help, counters[i].value,
                                out);
    }
}

static void write_ranks(const cmi_metrics *m, const cmi_engine_stats *s, cmi_buf *out)
{
    if (s->n_ranks == 0) {
        return;
    }
    cmi_metrics_write_value(m, "cminfer:ranks", "gauge", "Ranks that the experts are spread over.",
                            s->n_ranks, out);
    cmi_metrics_write_value(m, "cminfer:ranks_up", "gauge", "Of them those that take requests.",
                            s->n_ranks_up, out);
    cmi_metrics_write_value(m, "cminfer:ranks_lost_total", "counter", "Times that a rank was lost.",
                            (double)s->n_ranks_lost, out);
    cmi_metrics_write_value(m, "cminfer:requests_moved_total", "counter",
                            "Requests that went on at another rank.", (double)s->n_moved, out);
}

void cmi_metrics_write_own(const cmi_metrics *m, const cmi_engine_info *info,
                           const cmi_engine_stats *stats, cmi_buf *out)
{
    if (info != NULL && stats != NULL) {
        write_prefix(m, info, stats, out);
        write_refused(m, stats, out);
        write_durations(m, stats, out);
        write_ranks(m, stats, out);
    }
    cmi_metrics_write_value(m, "cminfer:slow_clients_total", "counter",
                            "Connections ended because their clients were too slow.",
                            (double)atomic_load_explicit(&m->slow_clients, memory_order_relaxed),
                            out);
}
