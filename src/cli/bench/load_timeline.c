/* cli/bench/load_timeline.c - sums over time, for plots. */
#include "cli/bench/load_stats.h"

#include "base/alloc.h"

static void add_tokens(cmi_load_timeline *timeline, const cmi_load_record *record)
{
    double tokens_a_chunk = (double)record->output_tokens / record->n_chunks;
    for (uint32_t k = 0; k < record->n_chunks; k++) {
        size_t bin = (size_t)((double)record->chunk_ns[k] * 1e-9 / timeline->bin_s);
        timeline->tokens[CMI_MIN(bin, timeline->n_bins - 1)] += tokens_a_chunk;
    }
}

static void add_running(cmi_load_timeline *timeline, const cmi_load_record *record)
{
    double from = (double)record->start_ns * 1e-9 / timeline->bin_s;
    double to = (double)record->last_ns * 1e-9 / timeline->bin_s;
    for (size_t bin = (size_t)from; bin < timeline->n_bins && (double)bin < to; bin++) {
        double begin = CMI_MAX(from, (double)bin);
        double end = CMI_MIN(to, (double)bin + 1);
        timeline->running[bin] += end - begin;
    }
}

void cmi_load_timeline_init(cmi_load_timeline *timeline, const cmi_load_record *records, size_t n,
                            double bin_s, double duration_s)
{
    *timeline = (cmi_load_timeline){.bin_s = bin_s, .n_bins = (size_t)(duration_s / bin_s) + 1};
    timeline->tokens = cmi_alloc(timeline->n_bins, sizeof *timeline->tokens);
    timeline->running = cmi_alloc(timeline->n_bins, sizeof *timeline->running);
    for (size_t i = 0; i < n; i++) {
        if (records[i].outcome == CMI_LOAD_COMPLETED) {
            add_tokens(timeline, &records[i]);
            add_running(timeline, &records[i]);
        }
    }
}

void cmi_load_timeline_deinit(cmi_load_timeline *timeline)
{
    cmi_free(timeline->tokens);
    cmi_free(timeline->running);
    *timeline = (cmi_load_timeline){0};
}
