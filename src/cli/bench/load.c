#include "cli/bench/load.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/bench/load_client.h"
#include "cli/bench/load_random.h"
#include "os/clock.h"
#include "os/file.h"
#include "os/open_files.h"

enum { DEFAULT_RANDOM_PROMPTS = 1000, OTHER_FILES = 64, SETUP_TIMEOUT_S = 30 };

typedef struct load_run {
    const cmi_load_options *opt;
    cmi_load_target target;
    cmi_tokenizer *tokenizer;
    cmi_buf model;
    cmi_load_data data;
    cmi_load_prompts prompts;
    cmi_load_record *records;
    cmi_load_client_result result;
    uint32_t max_concurrency;
} load_run;

static cmi_status read_data(load_run *run, cmi_error *err)
{
    const cmi_load_options *opt = run->opt;
    cmi_buf text;
    cmi_status st = cmi_file_read(&text, opt->dataset_path, CMI_LOAD_MAX_FILE_BYTES, err);
    if (st == CMI_OK) {
        st = (opt->dataset == CMI_LOAD_MOONCAKE ? cmi_load_data_mooncake
              : opt->dataset == CMI_LOAD_AZURE  ? cmi_load_data_azure
                                                : cmi_load_data_custom)(
            &run->data, cmi_buf_cstr(&text), text.len, opt->num_prompts, opt->dataset_path, err);
    }
    cmi_buf_deinit(&text);
    return st;
}

static cmi_status make_data(load_run *run, cmi_error *err)
{
    const cmi_load_options *opt = run->opt;
    cmi_load_data *data = &run->data;
    cmi_status st = CMI_OK;
    if (opt->dataset == CMI_LOAD_RANDOM) {
        cmi_load_random_sizes sizes = opt->random;
        sizes.n = opt->num_prompts > 0 ? opt->num_prompts : (size_t)DEFAULT_RANDOM_PROMPTS;
        cmi_load_data_random(data, &sizes, opt->seed);
    } else {
        st = read_data(run, err);
    }
    if (st == CMI_OK && opt->dataset == CMI_LOAD_CUSTOM) {
        cmi_load_data_repeat(data, opt->num_prompts);
    }
    for (size_t i = 0; st == CMI_OK && i < data->n; i++) {
        cmi_load_request *request = &data->requests[i];
        if (request->text_is_chat && !opt->is_chat) {
            st = cmi_error_set(err, CMI_ERR_INVALID,
                               "%s has messages, which /v1/completions does not take; add "
                               "--backend openai-chat",
                               opt->dataset_path);
        }
        if (opt->dataset == CMI_LOAD_CUSTOM && !request->has_output) {
            request->output_tokens = opt->random.output_tokens;
        }
    }
    if (opt->max_model_len > 0) {
        cmi_load_data_clip(data, opt->max_model_len);
    }
    return st;
}

static void set_times(load_run *run)
{
    const cmi_load_options *opt = run->opt;
    cmi_load_data *data = &run->data;
    if (data->has_times && !opt->has_rate) {
        for (size_t i = 0; i < data->n; i++) {
            double due_ns = (double)data->requests[i].due_ns / opt->trace_scale;
            data->requests[i].due_ns = (uint64_t)due_ns;
        }
        return;
    }
    uint64_t *times = cmi_alloc(data->n, sizeof *times);
    cmi_load_arrivals(times, data->n, opt->request_rate, opt->burstiness, opt->seed);
    for (size_t i = 0; i < data->n; i++) {
        data->requests[i].due_ns = times[i];
    }
    cmi_free(times);
}

/* As many connections as the system lets this process have. */
static cmi_status limit_connections(load_run *run, cmi_error *err)
{
    size_t wanted = run->data.n;
    if (run->opt->max_concurrency > 0) {
        wanted = CMI_MIN(wanted, (size_t)run->opt->max_concurrency);
    }
    uint64_t limit = cmi_open_files_raise(wanted + OTHER_FILES);
    if (limit <= OTHER_FILES) {
        return cmi_error_set(err, CMI_ERR_IO, "only %llu open files are allowed; raise ulimit -n",
                             (unsigned long long)limit);
    }
    run->max_concurrency = (uint32_t)CMI_MIN((uint64_t)wanted, limit - OTHER_FILES);
    if (run->max_concurrency < wanted) {
        fprintf(stderr,
                "cminfer: at most %u requests are open at once, since this process may not open "
                "more files (ulimit -n)\n",
                run->max_concurrency);
    }
    return CMI_OK;
}

static cmi_status find_server(load_run *run, cmi_error *err)
{
    const cmi_load_options *opt = run->opt;
    cmi_status st = cmi_load_target_find(&run->target, SETUP_TIMEOUT_S, err);
    if (st == CMI_OK && opt->model != NULL) {
        cmi_buf_str(&run->model, opt->model);
    } else if (st == CMI_OK) {
        st = cmi_load_target_model(&run->target, opt->headers, SETUP_TIMEOUT_S, &run->model, err);
    }
    return st;
}

static cmi_status prepare(load_run *run, cmi_error *err)
{
    const cmi_load_options *opt = run->opt;
    cmi_status st = make_data(run, err);
    if (st == CMI_OK && opt->tokenizer != NULL) {
        st = cmi_tokenizer_load(&run->tokenizer, opt->tokenizer, err);
    }
    if (st == CMI_OK) {
        st = find_server(run, err);
    }
    if (st == CMI_OK) {
        bool has_prefix = opt->dataset == CMI_LOAD_RANDOM;
        const cmi_load_prompts_options prompts = {
            .tokenizer = run->tokenizer,
            .is_chat = opt->is_chat,
            .token_ids = opt->token_ids,
            .vocab_size = opt->vocab_size,
            .prefix_tokens = has_prefix ? opt->random.prefix_tokens : 0,
            .seed = opt->seed,
            .model = opt->served_name != NULL ? opt->served_name : cmi_buf_cstr(&run->model),
            .ignore_eos = opt->ignore_eos,
            .temperature = opt->temperature,
            .extra_body = opt->extra_body,
        };
        st = cmi_load_prompts_init(&run->prompts, &prompts, err);
    }
    if (st == CMI_OK) {
        set_times(run);
        st = limit_connections(run, err);
    }
    return st;
}

static cmi_load_client_options client_options(const load_run *run)
{
    const cmi_load_options *opt = run->opt;
    return (cmi_load_client_options){
        .target = &run->target,
        .prompts = &run->prompts,
        .data = &run->data,
        .endpoint = opt->endpoint,
        .headers = opt->headers,
        .max_concurrency = run->max_concurrency,
        .timeout_ns = (uint64_t)(opt->timeout_s * 1e9),
        .cancel_rate = opt->cancel_rate,
        .cancel_delay_ns = (uint64_t)(opt->cancel_delay_s * 1e9),
        .seed = opt->seed,
        .keeps_text = opt->is_detailed || run->tokenizer != NULL,
    };
}

static void forget_records(cmi_load_record *records, size_t n)
{
    for (size_t i = 0; records != NULL && i < n; i++) {
        cmi_load_record_deinit(&records[i]);
    }
    cmi_free(records);
}

/* Sends the first request several times before the run, and looks at none of the times. */
static cmi_status warm_up(load_run *run, cmi_error *err)
{
    size_t n = run->opt->num_warmups;
    if (n == 0) {
        return CMI_OK;
    }
    cmi_load_data data = run->data; /* borrows what its requests point to */
    data.requests = cmi_alloc(n, sizeof *data.requests);
    data.n = data.cap = n;
    for (size_t i = 0; i < n; i++) {
        data.requests[i] = run->data.requests[0];
        data.requests[i].due_ns = 0;
    }
    cmi_load_record *records = cmi_alloc(n, sizeof *records);
    cmi_load_client_options client = client_options(run);
    client.data = &data;
    client.cancel_rate = 0;
    cmi_status st = cmi_load_client_run(&client, records, &run->result, err);
    for (size_t i = 0; st == CMI_OK && i < n; i++) {
        if (records[i].outcome != CMI_LOAD_COMPLETED) {
            st = cmi_error_set(err, CMI_ERR_IO, "a request to warm up failed: %s",
                               records[i].error != NULL ? records[i].error : "interrupted");
        }
    }
    forget_records(records, n);
    cmi_free(data.requests);
    return st;
}

/* Where the server did not count tokens: by the tokenizer, or one a chunk, or as asked for. */
static void count_uncounted(load_run *run)
{
    for (size_t i = 0; i < run->data.n; i++) {
        cmi_load_record *record = &run->records[i];
        if (record->has_usage) {
            continue;
        }
        cmi_ids ids = {0};
        record->prompt_tokens = run->data.requests[i].input_tokens;
        record->output_tokens = record->n_chunks;
        if (run->tokenizer != NULL &&
            cmi_tokenizer_encode(run->tokenizer, cmi_buf_cstr(&record->text), record->text.len,
                                 CMI_ENCODE_ADDED_TOKENS, &ids, NULL) == CMI_OK &&
            ids.len > 0) {
            record->output_tokens = (uint32_t)ids.len;
        }
        cmi_ids_deinit(&ids);
    }
}

/* FOLDER/openai-10qps-concurrency4-MODEL-DATE.json, or as the user wants it. */
static void name_result(const load_run *run, const cmi_load_report *report, cmi_buf *path)
{
    const cmi_load_options *opt = run->opt;
    char date[32];
    if (opt->result_dir != NULL) {
        cmi_buf_printf(path, "%s/", opt->result_dir);
    }
    if (opt->result_filename != NULL) {
        cmi_buf_str(path, opt->result_filename);
        return;
    }
    const char *slash = strrchr(report->model, '/');
    cmi_load_date(date, sizeof date, report->unix_ns);
    cmi_buf_str(path, opt->label != NULL ? opt->label : opt->backend);
    if (report->request_rate > 0) {
        cmi_buf_printf(path, "-%gqps", report->request_rate);
    } else {
        cmi_buf_str(path, "-trace");
    }
    if (opt->max_concurrency > 0) {
        cmi_buf_printf(path, "-concurrency%u", opt->max_concurrency);
    }
    cmi_buf_printf(path, "-%s-%s.json", slash != NULL ? slash + 1 : report->model, date);
}

static cmi_load_report make_report(const load_run *run, const cmi_load_summary *summary)
{
    const cmi_load_options *opt = run->opt;
    cmi_load_report report = {
        .summary = summary,
        .records = run->records,
        .backend = opt->backend,
        .endpoint = opt->endpoint,
        .base_url = opt->base_url,
        .model = cmi_buf_cstr(&run->model),
        .tokenizer = opt->tokenizer,
        .dataset = opt->dataset_name,
        .dataset_path = opt->dataset_path,
        .label = opt->label,
        .max_concurrency = opt->max_concurrency,
        .request_rate = run->data.has_times && !opt->has_rate ? 0 : opt->request_rate,
        .burstiness = opt->burstiness,
        .trace_scale = opt->trace_scale,
        .seed = opt->seed,
        .cpu_share = (double)run->result.cpu_ns / (double)CMI_MAX(run->result.duration_ns, 1u),
        .is_interrupted = run->result.is_interrupted,
        .has_slo = opt->slo.is_set,
        .n_percentiles = opt->n_percentiles,
        .is_detailed = opt->is_detailed,
        .unix_ns = cmi_clock_unix_ns(),
    };
    memcpy(report.metrics, opt->metrics, sizeof report.metrics);
    memcpy(report.percentiles, opt->percentiles, sizeof report.percentiles);
    return report;
}

static cmi_status tell(load_run *run, cmi_error *err)
{
    const cmi_load_options *opt = run->opt;
    cmi_load_summary summary;
    cmi_load_summarize(&summary, run->records, run->data.n, &opt->slo, run->result.duration_ns);
    cmi_load_report report = make_report(run, &summary);
    cmi_load_report_print(&report);
    cmi_status st = CMI_OK;
    if (opt->saves_result) {
        cmi_buf path;
        cmi_buf_init(&path, 4096);
        name_result(run, &report, &path);
        st = cmi_load_report_save(&report, cmi_buf_cstr(&path), err);
        cmi_buf_deinit(&path);
    }
    if (st == CMI_OK && opt->plot != NULL) {
        st = cmi_load_report_plot(&report, opt->plot, err);
    }
    if (st == CMI_OK && run->result.is_interrupted) {
        st = cmi_error_set(err, CMI_ERR_CANCELLED, "interrupted: %zu requests were not completed",
                           summary.n - summary.completed);
    } else if (st == CMI_OK && summary.completed == 0 && summary.cancelled == 0) {
        const char *why = summary.n_reasons > 0 ? summary.reasons[0].example : NULL;
        st = cmi_error_set(err, CMI_ERR_IO, "no request was completed; the first: %s",
                           why != NULL ? why : "none was started");
    }
    cmi_load_summary_deinit(&summary);
    return st;
}

cmi_status cmi_load_run(const cmi_load_options *opt, cmi_error *err)
{
    load_run run = {.opt = opt, .target = opt->target};
    cmi_progress progress;
    cmi_buf_init(&run.model, 4096);
    cmi_status st = prepare(&run, err);
    if (st == CMI_OK) {
        st = warm_up(&run, err);
    }
    if (st == CMI_OK) {
        run.records = cmi_alloc(run.data.n, sizeof *run.records);
        cmi_load_client_options client = client_options(&run);
        client.progress = &progress;
        cmi_progress_start(&progress, "requests");
        st = cmi_load_client_run(&client, run.records, &run.result, err);
        cmi_progress_end(&progress);
    }
    if (st == CMI_OK) {
        count_uncounted(&run);
        st = tell(&run, err);
    }
    forget_records(run.records, run.data.n);
    cmi_load_prompts_deinit(&run.prompts);
    cmi_load_data_deinit(&run.data);
    cmi_tokenizer_destroy(run.tokenizer);
    cmi_buf_deinit(&run.model);
    return st;
}
