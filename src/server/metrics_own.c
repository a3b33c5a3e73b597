/* server/metrics_own.c - what neither vLLM nor SGLang has a name for. */
#include "server/metrics_internal.h"

#include <inttypes.h>

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

void cmi_metrics_write_own(const cmi_metrics *m, const cmi_engine_info *info,
                           const cmi_engine_stats *stats, cmi_buf *out)
{
    if (info != NULL && stats != NULL) {
        write_prefix(m, info, stats, out);
    }
    cmi_metrics_write_value(m, "cminfer:slow_clients_total", "counter",
                            "Connections ended because their clients were too slow.",
                            (double)atomic_load_explicit(&m->slow_clients, memory_order_relaxed),
                            out);
}
