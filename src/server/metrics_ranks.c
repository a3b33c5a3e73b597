/* server/metrics_ranks.c - a sample for each rank of an instance, so that a straggler stands out,
 * and how evenly experts are asked. */
#include "server/metrics_internal.h"

#include <inttypes.h>

typedef double value_fn(const cmi_engine_rank *rank);

static double is_up(const cmi_engine_rank *r)
{
    return r->is_up;
}

static double passes(const cmi_engine_rank *r)
{
    return (double)r->n_passes;
}

static double pass_seconds(const cmi_engine_rank *r)
{
    return (double)r->passes_ns / 1e9;
}

static double wait_seconds(const cmi_engine_rank *r)
{
    return (double)r->waited_ns / 1e9;
}

static double expert_rows(const cmi_engine_rank *r)
{
    return (double)r->n_expert_rows;
}

static double experts_moved(const cmi_engine_rank *r)
{
    return (double)r->n_moves;
}

static double experts_adopted(const cmi_engine_rank *r)
{
    return (double)r->n_adopted;
}

static const struct {
    const char *name, *type, *help;
    value_fn *value;
} of_each[] = {
    {"cminfer:rank_up", "gauge", "Whether the rank takes requests.", is_up},
    {"cminfer:rank_passes_total", "counter", "Passes of the main model.", passes},
    {"cminfer:rank_pass_seconds_total", "counter", "Their durations, together.", pass_seconds},
    {"cminfer:rank_wait_seconds_total", "counter",
     "Of that waiting for rows and results of other ranks; the slowest rank waits the least.",
     wait_seconds},
    {"cminfer:rank_expert_rows_total", "counter",
     "Rows that the rank's routed experts have computed.", expert_rows},
    {"cminfer:rank_experts_moved_total", "counter",
     "Experts that have come to the rank while it ran (EPLB).", experts_moved},
    {"cminfer:rank_experts_adopted", "gauge", "Experts held for ranks that are dead.",
     experts_adopted},
};

/* All ranks come to the same plans; who has lived longest has counted them all. */
static const cmi_engine_rank *oldest(const cmi_engine_rank *ranks, uint32_t n)
{
    const cmi_engine_rank *best = &ranks[0];
    for (uint32_t i = 1; i < n; i++) {
        best = ranks[i].n_plans > best->n_plans ? &ranks[i] : best;
    }
    return best;
}

static void write_eplb(const cmi_metrics *m, const cmi_engine_rank *rank, cmi_buf *out)
{
    static const char NAME[] = "cminfer:expert_imbalance";
    if (rank->n_windows == 0) {
        return;
    }
    cmi_metrics_write_value(m, "cminfer:eplb_plans_total", "counter",
                            "Placements of experts that were computed from counted load.",
                            (double)rank->n_plans, out);
    if (rank->imbalance == 0) {
        return;
    }
    cmi_metrics_write_head(NAME, "gauge",
                           "Load of the busiest rank by the mean, of all layers, as counted at the "
                           "last plan, and as planned then.",
                           out);
    cmi_metrics_write_labels(m, NAME, "", out);
    cmi_buf_printf(out, ",state=\"measured\"} %.17g\n", rank->imbalance);
    cmi_metrics_write_labels(m, NAME, "", out);
    cmi_buf_printf(out, ",state=\"planned\"} %.17g\n", rank->planned);
}

void cmi_metrics_write_ranks(const cmi_metrics *m, const cmi_engine_rank *ranks, uint32_t n,
                             cmi_buf *out)
{
    for (size_t k = 0; n > 0 && k < CMI_LEN(of_each); k++) {
        cmi_metrics_write_head(of_each[k].name, of_each[k].type, of_each[k].help, out);
        for (uint32_t i = 0; i < n; i++) {
            cmi_metrics_write_labels(m, of_each[k].name, "", out);
            cmi_buf_printf(out, ",rank=\"%" PRIu32 "\"} %.17g\n", i, of_each[k].value(&ranks[i]));
        }
    }
    if (n > 0) {
        write_eplb(m, oldest(ranks, n), out);
    }
}
