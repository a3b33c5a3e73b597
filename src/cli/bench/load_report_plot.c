/* cli/bench/load_report_plot.c - the plot of a run: above, how the latencies are distributed;
 * below, output tokens a second and open requests over time. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "cli/bench/load_plot.h"
#include "cli/bench/load_report.h"

enum { WIDTH = 1080, HEIGHT = 800, N_QUANTILES = 200, N_BINS = 100 };

static const char *const blue = "#2563eb";
static const char *const orange = "#c2410c";
static const char *const green = "#15803d";

/* How far the axis goes: to the largest value, but not far behind the 99th percentile. */
static double reach(const cmi_load_values *values)
{
    if (values->n == 0) {
        return 0;
    }
    double p99 = cmi_load_percentile(values->sorted, values->n, 99);
    return CMI_MIN(values->sorted[values->n - 1], 1.5 * p99);
}

/* The share of values up to each latency. */
static void draw_distribution(FILE *to, cmi_plot_panel *panel, const cmi_load_values *values,
                              const char *colour, const char *name)
{
    double x[N_QUANTILES + 1];
    double y[N_QUANTILES + 1];
    for (int i = 0; i <= N_QUANTILES; i++) {
        y[i] = 100.0 * i / N_QUANTILES;
        x[i] = cmi_load_percentile(values->sorted, values->n, y[i]);
    }
    if (values->n > 0) {
        cmi_plot_curve(to, panel, x, y, N_QUANTILES + 1, false, colour, name);
    }
}

static void draw_mark(FILE *to, const cmi_plot_panel *panel, const cmi_load_values *values, int p,
                      int row)
{
    char text[48];
    double ms = cmi_load_percentile(values->sorted, values->n, p);
    snprintf(text, sizeof text, ms < 100 ? "p%d %.3g" : "p%d %.0f", p, ms);
    cmi_plot_mark(to, panel, ms, row, blue, text);
}

static void draw_latencies(FILE *to, const cmi_load_summary *summary)
{
    const cmi_load_values *metrics = summary->metrics;
    const struct {
        const char *title, *name;
        cmi_load_metric metric;
    } panels[] = {
        {"Time to first token", "TTFT (ms)", CMI_LOAD_TTFT},
        {"Between tokens", "TPOT, ITL (ms)", CMI_LOAD_TPOT},
        {"End-to-end latency", "E2EL (ms)", CMI_LOAD_E2EL},
    };
    for (size_t i = 0; i < CMI_LEN(panels); i++) {
        const cmi_load_values *values = &metrics[panels[i].metric];
        bool is_tpot = panels[i].metric == CMI_LOAD_TPOT;
        double x_max = reach(values);
        x_max = is_tpot ? CMI_MAX(x_max, reach(&metrics[CMI_LOAD_ITL])) : x_max;
        cmi_plot_panel panel = {.left = 76 + 345 * (double)i,
                                .top = 96,
                                .width = 270,
                                .height = 210,
                                .x_max = x_max > 0 ? x_max * 1.02 : 1,
                                .y_max = 100,
                                .title = panels[i].title,
                                .x_label = panels[i].name,
                                .y_label =
                                    is_tpot ? "share of values (%)" : "share of requests (%)"};
        cmi_plot_panel_begin(to, &panel);
        if (is_tpot) {
            draw_distribution(to, &panel, &metrics[CMI_LOAD_ITL], orange, "ITL");
        }
        draw_distribution(to, &panel, values, blue, is_tpot ? "TPOT" : NULL);
        if (values->n > 0) {
            draw_mark(to, &panel, values, 50, 0);
            draw_mark(to, &panel, values, 99, 1);
        }
    }
}

static double largest(const double *values, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        most = CMI_MAX(most, values[i]);
    }
    return most;
}

/* Draws values over time, scaled in place, one for each bin. */
static void draw_over_time(FILE *to, cmi_plot_panel *panel, const cmi_load_timeline *timeline,
                           double *values, double scale, const char *colour)
{
    double x[2 * N_BINS + 2];
    size_t n = CMI_MIN(timeline->n_bins, CMI_LEN(x));
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)i * timeline->bin_s;
        values[i] *= scale;
    }
    double y_max = largest(values, n);
    panel->y_max = y_max > 0 ? y_max * 1.08 : 1;
    cmi_plot_panel_begin(to, panel);
    cmi_plot_curve(to, panel, x, values, n, true, colour, NULL);
}

static void draw_timeline(FILE *to, const cmi_load_report *r)
{
    double duration_s = CMI_MAX(r->summary->duration_s, 1e-3);
    cmi_load_timeline timeline;
    cmi_load_timeline_init(&timeline, r->records, r->summary->n, cmi_plot_step(duration_s, N_BINS),
                           duration_s);
    char title[64];
    snprintf(title, sizeof title, "Output throughput, averaged over %g s", timeline.bin_s);
    cmi_plot_panel panel = {.left = 76,
                            .top = 396,
                            .width = 960,
                            .height = 150,
                            .x_max = duration_s,
                            .title = title,
                            .x_label = "time (s)",
                            .y_label = "tokens/s"};
    draw_over_time(to, &panel, &timeline, timeline.tokens, 1 / timeline.bin_s, green);
    panel.top = 622;
    panel.height = 120;
    panel.title = "Open requests";
    panel.y_label = "requests";
    draw_over_time(to, &panel, &timeline, timeline.running, 1, blue);
    cmi_load_timeline_deinit(&timeline);
}

static void draw(FILE *to, const cmi_load_report *r)
{
    const cmi_load_summary *s = r->summary;
    char title[256];
    char subtitle[256];
    char rate[64] = "all at once";
    double seconds = CMI_MAX(s->duration_s, 1e-9);
    if (r->request_rate <= 0) {
        snprintf(rate, sizeof rate, "at the times of the trace");
    } else if (isfinite(r->request_rate)) {
        snprintf(rate, sizeof rate, "%g a second", r->request_rate);
    }
    snprintf(title, sizeof title, "%.100s at %.100s", r->model, r->base_url);
    snprintf(subtitle, sizeof subtitle,
             "%s: %zu requests, %s; %zu completed, %zu failed, %zu cancelled; "
             "%.1f output tokens/s, %.2f requests/s",
             r->dataset, s->n, rate, s->completed, s->failed, s->cancelled,
             (double)s->output_tokens / seconds, (double)s->completed / seconds);
    cmi_plot_begin(to, WIDTH, HEIGHT, title, subtitle);
    draw_latencies(to, s);
    draw_timeline(to, r);
    cmi_plot_end(to);
}

cmi_status cmi_load_report_plot(const cmi_load_report *r, const char *path, cmi_error *err)
{
    FILE *file = fopen(path, "w");
    if (file != NULL) {
        draw(file, r);
    }
    if (file == NULL || fflush(file) != 0 || ferror(file) != 0) {
        cmi_status st =
            cmi_error_set(err, CMI_ERR_IO, "cannot write %s: %s", path, strerror(errno));
        if (file != NULL) {
            (void)fclose(file);
        }
        return st;
    }
    (void)fclose(file);
    return CMI_OK;
}
