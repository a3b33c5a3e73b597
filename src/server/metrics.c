#include "server/metrics_internal.h"

#include <inttypes.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define S (1000 * MS)

/* One engine in this process; vLLM numbers them. SGLang tells the ranks of one apart. */
#define VLLM_LABELS "\",engine=\"0\""
#define SGLANG_LABELS "\",engine_type=\"unified\",tp_rank=\"0\",pp_rank=\"0\",moe_ep_rank=\"0\""

/* vLLM's buckets, so that its dashboards show the same steps. Inclusive upper bounds. */
static const uint64_t FIRST_TOKEN_NS[] = {
    1 * MS,   5 * MS,   10 * MS,  20 * MS, 40 * MS,   60 * MS,  80 * MS,   100 * MS,
    250 * MS, 500 * MS, 750 * MS, 1 * S,   2500 * MS, 5 * S,    7500 * MS, 10 * S,
    20 * S,   40 * S,   80 * S,   160 * S, 640 * S,   2560 * S,
};
static const uint64_t TOKEN_NS[] = {
    10 * MS,   25 * MS,  50 * MS,  75 * MS,  100 * MS, 150 * MS,  200 * MS,
    300 * MS,  400 * MS, 500 * MS, 750 * MS, 1 * S,    2500 * MS, 5 * S,
    7500 * MS, 10 * S,   20 * S,   40 * S,   80 * S,
};
static const uint64_t REQUEST_NS[] = {
    300 * MS, 500 * MS, 800 * MS, 1 * S,   1500 * MS, 2 * S,    2500 * MS,
    5 * S,    10 * S,   15 * S,   20 * S,  30 * S,    40 * S,   50 * S,
    60 * S,   120 * S,  240 * S,  480 * S, 960 * S,   1920 * S, 7680 * S,
};
static const uint64_t TOKENS[] = {
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000,
};
static const uint64_t CHOICES[] = {1, 2, 5, 10, 20};

_Static_assert(CMI_LEN(FIRST_TOKEN_NS) <= CMI_HISTOGRAM_MAX_BUCKETS, "the longest table");

typedef struct histogram_def {
    const char *name, *help;
    const uint64_t *bounds;
    size_t n_bounds;
    uint64_t unit; /* what is 1 in the text */
} histogram_def;

static const histogram_def HISTOGRAMS[CMI_N_HISTOGRAMS] = {
    [CMI_HISTOGRAM_TTFT] = {"vllm:time_to_first_token_seconds",
                            "Time from the arrival of a request to its first token.",
                            FIRST_TOKEN_NS, CMI_LEN(FIRST_TOKEN_NS), S},
    [CMI_HISTOGRAM_ITL] = {"vllm:inter_token_latency_seconds",
                           "Time between two tokens of a request.", TOKEN_NS, CMI_LEN(TOKEN_NS), S},
    [CMI_HISTOGRAM_TPOT] = {"vllm:request_time_per_output_token_seconds",
                            "Mean time per output token of a request, its first token left out.",
                            TOKEN_NS, CMI_LEN(TOKEN_NS), S},
    [CMI_HISTOGRAM_E2E] = {"vllm:e2e_request_latency_seconds",
                           "Time from the arrival of a request to its end.", REQUEST_NS,
                           CMI_LEN(REQUEST_NS), S},
    [CMI_HISTOGRAM_QUEUE] = {"vllm:request_queue_time_seconds",
                             "Time a request waited for its turn.", REQUEST_NS, CMI_LEN(REQUEST_NS),
                             S},
    [CMI_HISTOGRAM_INFERENCE] = {"vllm:request_inference_time_seconds",
                                 "Time from a request's first step to its end.", REQUEST_NS,
                                 CMI_LEN(REQUEST_NS), S},
    [CMI_HISTOGRAM_PREFILL] = {"vllm:request_prefill_time_seconds",
                               "Time from a request's first step to its first token.", REQUEST_NS,
                               CMI_LEN(REQUEST_NS), S},
    [CMI_HISTOGRAM_DECODE] = {"vllm:request_decode_time_seconds",
                              "Time from a request's first token to its end.", REQUEST_NS,
                              CMI_LEN(REQUEST_NS), S},
    [CMI_HISTOGRAM_PROMPT_TOKENS] = {"vllm:request_prompt_tokens", "Prompt tokens of a request.",
                                     TOKENS, CMI_LEN(TOKENS), 1},
    [CMI_HISTOGRAM_GENERATION_TOKENS] = {"vllm:request_generation_tokens",
                                         "Output tokens of a request.", TOKENS, CMI_LEN(TOKENS), 1},
    [CMI_HISTOGRAM_MAX_GENERATION_TOKENS] = {"vllm:request_max_num_generation_tokens",
                                             "Output tokens of a request's longest choice.", TOKENS,
                                             CMI_LEN(TOKENS), 1},
    [CMI_HISTOGRAM_PARAMS_N] = {"vllm:request_params_n", "The parameter n of a request.", CHOICES,
                                CMI_LEN(CHOICES), 1},
    [CMI_HISTOGRAM_PARAMS_MAX_TOKENS] = {"vllm:request_params_max_tokens",
                                         "The parameter max_tokens, or what the context left.",
                                         TOKENS, CMI_LEN(TOKENS), 1},
};

const char *cmi_finish_reason_name(cmi_finish_reason reason)
{
    switch (reason) {
    case CMI_FINISH_STOP:
        return "stop";
    case CMI_FINISH_LENGTH:
        return "length";
    case CMI_FINISH_ABORT:
        return "abort";
    case CMI_FINISH_ERROR:
        return "error";
    case CMI_FINISH_NONE:
        break;
    }
    return "none";
}

void cmi_metrics_init(cmi_metrics *m, const char *model_name)
{
    memset(m, 0, sizeof *m);
    m->model_name = model_name;
}

static void add(_Atomic uint64_t *cell, uint64_t n)
{
    atomic_fetch_add_explicit(cell, n, memory_order_relaxed); /* read by cmi_metrics_write */
}

static uint64_t get(const _Atomic uint64_t *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

void cmi_metrics_observe(cmi_metrics *m, cmi_histogram_id id, uint64_t value)
{
    const histogram_def *def = &HISTOGRAMS[id];
    size_t i = 0;
    while (i < def->n_bounds && value > def->bounds[i]) {
        i++;
    }
    add(&m->histograms[id].cells[i], 1);
    add(&m->histograms[id].sum, value);
}

void cmi_metrics_finished(cmi_metrics *m, cmi_finish_reason reason)
{
    add(&m->finished[reason], 1);
}

uint64_t cmi_metrics_n_finished(const cmi_metrics *m, cmi_finish_reason reason)
{
    return get(&m->finished[reason]);
}

void cmi_metrics_http(cmi_metrics *m, cmi_http_method method, cmi_http_route_id route, int status)
{
    add(&m->http[method][route][status / 100 - 1], 1);
}

/* A label value may hold anything but these three as they are. */
static void write_label(const char *value, cmi_buf *out)
{
    for (const char *p = value; *p != '\0'; p++) {
        switch (*p) {
        case '\\':
            cmi_buf_str(out, "\\\\");
            break;
        case '"':
            cmi_buf_str(out, "\\\"");
            break;
        case '\n':
            cmi_buf_str(out, "\\n");
            break;
        default:
            cmi_buf_char(out, *p);
        }
    }
}

void cmi_metrics_write_head(const char *name, const char *type, const char *help, cmi_buf *out)
{
    cmi_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void cmi_metrics_write_labels(const cmi_metrics *m, const char *name, const char *suffix,
                              cmi_buf *out)
{
    bool is_sglang = strncmp(name, "sglang:", sizeof "sglang:" - 1) == 0;
    cmi_buf_printf(out, "%s%s{model_name=\"", name, suffix);
    write_label(m->model_name, out);
    cmi_buf_str(out, is_sglang ? SGLANG_LABELS : VLLM_LABELS);
}

void cmi_metrics_write_histogram(const cmi_metrics *m, cmi_histogram_id id, const char *name,
                                 cmi_buf *out)
{
    const histogram_def *def = &HISTOGRAMS[id];
    name = name != NULL ? name : def->name;
    const cmi_histogram *h = &m->histograms[id];
    cmi_metrics_write_head(name, "histogram", def->help, out);
    uint64_t n = 0; /* the sum of the cells read here, so that +Inf and _count never disagree */
    for (size_t i = 0; i <= def->n_bounds; i++) {
        n += get(&h->cells[i]);
        cmi_metrics_write_labels(m, name, "_bucket", out);
        if (i < def->n_bounds) {
            cmi_buf_printf(out, ",le=\"%g\"} %" PRIu64 "\n",
                           (double)def->bounds[i] / (double)def->unit, n);
        } else {
            cmi_buf_printf(out, ",le=\"+Inf\"} %" PRIu64 "\n", n);
        }
    }
    uint64_t sum = get(&h->sum);
    cmi_metrics_write_labels(m, name, "_sum", out);
    if (def->unit == S) {
        cmi_buf_printf(out, "} %" PRIu64 ".%09" PRIu64 "\n", sum / S, sum % S);
    } else {
        cmi_buf_printf(out, "} %" PRIu64 "\n", sum);
    }
    cmi_metrics_write_labels(m, name, "_count", out);
    cmi_buf_printf(out, "} %" PRIu64 "\n", n);
}

static void write_finished(const cmi_metrics *m, cmi_buf *out)
{
    static const char NAME[] = "vllm:request_success_total";
    cmi_metrics_write_head(NAME, "counter", "Requests that ended, by reason.", out);
    for (cmi_finish_reason r = CMI_FINISH_STOP; r <= CMI_FINISH_ERROR; r++) {
        cmi_metrics_write_labels(m, NAME, "", out);
        cmi_buf_printf(out, ",finished_reason=\"%s\"} %" PRIu64 "\n", cmi_finish_reason_name(r),
                       get(&m->finished[r]));
    }
}

/* Only what has happened: all combinations would be hundreds of zeros. */
static void write_http(const cmi_metrics *m, cmi_buf *out)
{
    cmi_metrics_write_head("http_requests_total", "counter",
                           "HTTP requests by method, path and status.", out);
    for (int method = 0; method < CMI_N_HTTP_METHODS; method++) {
        for (int route = 0; route < CMI_N_HTTP_ROUTES; route++) {
            for (int status = 0; status < CMI_N_STATUS_CLASSES; status++) {
                uint64_t n = get(&m->http[method][route][status]);
                if (n != 0) {
                    cmi_buf_printf(
                        out,
                        "http_requests_total{method=\"%s\",handler=\"%s\",status=\"%dxx\"} %" PRIu64
                        "\n",
                        cmi_http_method_name((cmi_http_method)method),
                        cmi_http_route_get((cmi_http_route_id)route)->path, status + 1, n);
                }
            }
        }
    }
}

void cmi_metrics_write_value(const cmi_metrics *m, const char *name, const char *type,
                             const char *help, double value, cmi_buf *out)
{
    cmi_metrics_write_head(name, type, help, out);
    cmi_metrics_write_labels(m, name, "", out);
    cmi_buf_printf(out, "} %.17g\n", value); /* %.17g writes integers below 2^53 as integers */
}

static void write_drafts(const cmi_metrics *m, const cmi_engine_info *info,
                         const cmi_engine_stats *stats, cmi_buf *out)
{
    cmi_metrics_write_value(m, "vllm:spec_decode_num_drafts_total", "counter",
                            "Times that drafts were tried.", (double)stats->n_drafts, out);
    cmi_metrics_write_value(m, "vllm:spec_decode_num_draft_tokens_total", "counter",
                            "Draft tokens tried.", (double)stats->n_draft_tokens, out);
    cmi_metrics_write_value(m, "vllm:spec_decode_num_accepted_tokens_total", "counter",
                            "Draft tokens that were right.", (double)stats->n_accepted_tokens, out);
    static const char NAME[] = "vllm:spec_decode_num_accepted_tokens_per_pos_total";
    cmi_metrics_write_head(NAME, "counter", "Draft tokens that were right, by their place.", out);
    for (uint32_t i = 0; i < info->max_drafts; i++) {
        cmi_metrics_write_labels(m, NAME, "", out);
        cmi_buf_printf(out, ",position=\"%" PRIu32 "\"} %" PRIu64 "\n", i, stats->n_accepted_at[i]);
    }
}

static void write_engine(const cmi_metrics *m, const cmi_engine_info *info,
                         const cmi_engine_stats *stats, cmi_buf *out)
{
    cmi_metrics_write_value(m, "vllm:num_requests_running", "gauge",
                            "Requests in the running batch.", stats->n_running, out);
    cmi_metrics_write_value(m, "vllm:num_requests_waiting", "gauge", "Requests in the queue.",
                            stats->n_waiting, out);
    cmi_metrics_write_value(m, "vllm:kv_cache_usage_perc", "gauge",
                            "Share of the KV pages in use; 1 is all.",
                            (double)stats->n_kv_pages_used / CMI_MAX(info->n_kv_pages, 1), out);
    cmi_metrics_write_value(m, "vllm:num_preemptions_total", "counter",
                            "Requests set back to the queue to free KV pages.",
                            (double)stats->n_preemptions, out);
    cmi_metrics_write_value(m, "vllm:prefix_cache_queries_total", "counter",
                            "Prompt tokens of admitted requests.", (double)stats->n_prefix_queried,
                            out);
    cmi_metrics_write_value(m, "vllm:prefix_cache_hits_total", "counter",
                            "Of them found in the prefix cache.", (double)stats->n_prefix_hits,
                            out);
    cmi_metrics_write_value(m, "vllm:prompt_tokens_total", "counter", "Prompt tokens computed.",
                            (double)stats->n_prompt_tokens, out);
    cmi_metrics_write_value(m, "vllm:generation_tokens_total", "counter", "Tokens generated.",
                            (double)stats->n_generation_tokens, out);
    if (info->max_drafts > 0) {
        write_drafts(m, info, stats, out);
    }
    static const char NAME[] = "vllm:cache_config_info";
    cmi_metrics_write_head(NAME, "gauge", "The KV cache: pages and tokens a page. Always 1.", out);
    cmi_metrics_write_labels(m, NAME, "", out);
    cmi_buf_printf(out, ",block_size=\"%" PRIu32 "\",num_gpu_blocks=\"%" PRIu32 "\"} 1\n",
                   info->kv_page_tokens, info->n_kv_pages);
}

static void write_vllm(const cmi_metrics *m, const cmi_engine_info *info,
                       const cmi_engine_stats *stats, cmi_buf *out)
{
    if (info != NULL && stats != NULL) {
        write_engine(m, info, stats, out);
    }
    write_finished(m, out);
    for (int id = 0; id < CMI_N_HISTOGRAMS; id++) {
        cmi_metrics_write_histogram(m, (cmi_histogram_id)id, NULL, out);
    }
}

void cmi_metrics_write(const cmi_metrics *m, const cmi_engine_info *info,
                       const cmi_engine_stats *stats, cmi_buf *out)
{
    if (m->names != CMI_METRICS_SGLANG) {
        write_vllm(m, info, stats, out);
    }
    if (m->names != CMI_METRICS_VLLM) {
        cmi_metrics_write_sglang(m, info, stats, out);
    }
    cmi_metrics_write_own(m, info, stats, out);
    write_http(m, out);
}
