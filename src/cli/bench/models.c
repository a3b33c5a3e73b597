/* `cminfer bench MODEL`: prefill and decode of a whole model, as the engine's steps do them. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cli/bench/bench.h"
#include "model/cost.h"

static const double sample_seconds = 0.3; /* between samples of the limits */
static const uint64_t token_seed = 0x70726F6D707473;

/* One row: batch sequences of n_tokens each behind depth tokens of context. */
typedef struct model_test {
    bool is_prefill;
    uint32_t n_tokens, batch, depth;
} model_test;

typedef struct models_run {
    cmi_bench_rig *rig;
    cmi_bench_out *out;
    cmi_instance *instance;
    const cmi_bench_models_options *opt;
    cmi_cost_model cost_model;
    uint32_t *token_ids;   /* [max_rows] of a step */
    cmi_batch_span *spans; /* [max_rows] */
    cmi_cost_span *costs;  /* [max_rows] */
    uint32_t *page_ids;    /* [pages]: sequence s has those from s * pages_each on */
    uint32_t *head_rows;   /* [max_rows] of a step, those that go through the head */
    float *head_hidden;    /* [CMI_FORWARD_MAX_HEAD_ROWS][hidden] of them */
    cmi_progress progress;
    uint64_t n_done, n_total;
} models_run;

/* What was measured of a row. */
typedef struct measured {
    cmi_bench_samples seconds; /* of a repetition */
    cmi_bench_samples rates[CMI_BENCH_N_LIMIT_KINDS];
    double sampled_at;
} measured;

/* ---- limits beside the steps ---- */

static void sample_limits(models_run *run, measured *m)
{
    cmi_bench_rig *rig = run->rig;
    uint32_t n_threads = cmi_team_size(run->instance->team);
    for (int kind = 0; kind < CMI_BENCH_N_LIMIT_KINDS; kind++) {
        cmi_bench_limit limit = cmi_bench_limit_for(kind, rig->cpu_flags);
        cmi_bench_sample(&m->rates[kind], cmi_bench_limit_sample(rig, limit, n_threads, 0));
    }
    m->sampled_at = cmi_bench_seconds();
}

static cmi_cost_rates rates_of(const measured *m)
{
    return (cmi_cost_rates){.read_bytes = cmi_bench_median(&m->rates[CMI_BENCH_READ]),
                            .i8_ops = cmi_bench_median(&m->rates[CMI_BENCH_I8]),
                            .bf16_ops = cmi_bench_median(&m->rates[CMI_BENCH_BF16]),
                            .f32_ops = cmi_bench_median(&m->rates[CMI_BENCH_F32])};
}

/* ---- steps ---- */

static uint32_t pages_for(uint32_t n_tokens)
{
    return CMI_DIV_UP(n_tokens, (uint32_t)CMI_KV_PAGE_TOKENS);
}

/* A step of a test: what lies in the arrays of models_run. */
typedef struct step {
    uint32_t n_rows, n_spans, n_head;
} step;

static void add_span(models_run *run, step *s, const model_test *test, uint32_t sequence,
                     uint32_t done, uint32_t n)
{
    uint32_t pages_each = pages_for(test->depth + test->n_tokens);
    run->spans[s->n_spans] = (cmi_batch_span){.page_ids = run->page_ids + sequence * pages_each,
                                              .row_idx = s->n_rows,
                                              .n_rows = n,
                                              .position = test->depth + done,
                                              .is_prefill = test->is_prefill};
    run->costs[s->n_spans] = (cmi_cost_span){.n_rows = n,
                                             .position = test->depth + done,
                                             .n_expanded = n + (done == 0 ? test->depth : 0),
                                             .is_prefill = test->is_prefill};
    s->n_spans++;
    s->n_rows += n;
    if (!test->is_prefill || done + n == test->n_tokens) {
        run->head_rows[s->n_head++] = s->n_rows - 1;
    }
}

/* The step that begins after n_done tokens of all sequences together: of a prompt the next rows,
 * packed over sequences; of decode the next token of every sequence. */
static step make_step(models_run *run, const model_test *test, uint64_t n_done)
{
    step s = {0};
    if (!test->is_prefill) {
        for (uint32_t i = 0; i < test->batch; i++) {
            add_span(run, &s, test, i, (uint32_t)(n_done / test->batch), 1);
        }
    }
    while (test->is_prefill && s.n_rows < run->instance->max_num_batched_tokens) {
        uint32_t sequence = (uint32_t)((n_done + s.n_rows) / test->n_tokens);
        uint32_t done = (uint32_t)((n_done + s.n_rows) % test->n_tokens);
        if (sequence == test->batch) {
            break;
        }
        uint32_t room = run->instance->max_num_batched_tokens - s.n_rows;
        add_span(run, &s, test, sequence, done, CMI_MIN(room, test->n_tokens - done));
    }
    for (uint32_t i = 0; i < s.n_rows; i++) {
        uint32_t words[4];
        cmi_philox4x32(token_seed, n_done + i, 0, words);
        run->token_ids[i] = words[0] % run->instance->config.vocab_size;
    }
    return s;
}

static void run_head(models_run *run, const step *s)
{
    cmi_instance *in = run->instance;
    const size_t width = in->config.hidden_size;
    const float *hidden = cmi_forward_hidden(in->forward);
    for (uint32_t at = 0; at < s->n_head; at += CMI_FORWARD_MAX_HEAD_ROWS) {
        uint32_t n = CMI_MIN(s->n_head - at, (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
        for (uint32_t i = 0; i < n; i++) {
            memcpy(run->head_hidden + i * width, hidden + run->head_rows[at + i] * width,
                   width * sizeof *hidden);
        }
        cmi_forward_logits(in->forward, run->head_hidden, n, in->logits);
    }
}

static double run_step(models_run *run, const step *s)
{
    cmi_batch batch = {.token_ids = run->token_ids,
                       .spans = run->spans,
                       .n_rows = s->n_rows,
                       .n_spans = s->n_spans};
    double begin = cmi_bench_seconds();
    cmi_forward_run(run->instance->forward, &batch);
    run_head(run, s);
    return cmi_bench_seconds() - begin;
}

/* ---- one row ---- */

static uint64_t tokens_of(const model_test *test)
{
    return (uint64_t)test->n_tokens * test->batch;
}

static void run_test_once(models_run *run, const model_test *test, measured *m)
{
    double seconds = 0;
    for (uint64_t done = 0; done < tokens_of(test);) {
        step s = make_step(run, test, done);
        seconds += run_step(run, &s);
        done += s.n_rows;
        if (cmi_bench_seconds() - m->sampled_at > sample_seconds) {
            sample_limits(run, m);
        }
    }
    cmi_bench_sample(&m->seconds, seconds);
}

/* The cost of all steps, and their least time. */
static cmi_cost_time cost_of(models_run *run, const model_test *test, const cmi_cost_rates *rates,
                             double *ops_out, double *bytes_out)
{
    cmi_cost_time time = {0};
    *ops_out = *bytes_out = 0;
    for (uint64_t done = 0; done < tokens_of(test);) {
        step s = make_step(run, test, done);
        cmi_cost cost = cmi_cost_step(&run->cost_model, run->costs, s.n_spans, s.n_head);
        cmi_cost_add_time(&time, &cost, rates);
        *ops_out += cmi_cost_ops(&cost);
        *bytes_out += cmi_cost_bytes(&cost);
        done += s.n_rows;
    }
    return time;
}

static cmi_bench_limit_kind bound_of(const cmi_cost_time *time)
{
    const double seconds[] = {time->i8, time->bf16, time->f32, time->read};
    cmi_bench_limit_kind bound = CMI_BENCH_I8;
    for (int kind = 0; kind < CMI_BENCH_N_LIMIT_KINDS; kind++) {
        bound = seconds[kind] > seconds[bound] ? (cmi_bench_limit_kind)kind : bound;
    }
    return bound;
}

static void print_row(models_run *run, const model_test *test, const measured *m)
{
    const cmi_instance *in = run->instance;
    double ops, bytes;
    cmi_cost_rates rates = rates_of(m);
    cmi_cost_time least = cost_of(run, test, &rates, &ops, &bytes);
    double seconds = cmi_bench_median(&m->seconds), n_tokens = (double)tokens_of(test);
    char name[32];
    snprintf(name, sizeof name, "%s%u", test->is_prefill ? "pp" : "tg", test->n_tokens);
    const char *weights = cmi_dtype_name(in->weights_dtype), *isa = cmi_isa_name(in->isa);
    const char *bound = cmi_bench_limit_name(bound_of(&least));
    double share = cmi_cost_seconds(&least) / seconds, threads = cmi_team_size(in->team);
    const cmi_bench_cell cells[] = {
        {"model", "model", CMI_BENCH_TEXT, run->opt->name, .width = 16},
        {"weights", "weights", CMI_BENCH_TEXT, weights},
        {"kv", NULL, CMI_BENCH_TEXT, cmi_dtype_name(in->dtype)},
        {"isa", NULL, CMI_BENCH_TEXT, isa},
        {"threads", "threads", CMI_BENCH_COUNT, NULL, threads},
        {"test", "test", CMI_BENCH_TEXT, name, .width = 7},
        {"batch", "batch", CMI_BENCH_COUNT, NULL, test->batch},
        {"depth", "depth", CMI_BENCH_COUNT, NULL, test->depth},
        {"seconds", NULL, CMI_BENCH_REAL, NULL, seconds},
        {"tokens_per_s", "tokens/s", CMI_BENCH_REAL, NULL, n_tokens / seconds, .width = 9,
         .decimals = 2},
        {"ops", NULL, CMI_BENCH_COUNT, NULL, ops},
        {"bytes", NULL, CMI_BENCH_COUNT, NULL, bytes},
        {NULL, "Mop/token", CMI_BENCH_REAL, NULL, ops / n_tokens, .width = 9, .scale = 1e-6},
        {NULL, "MB/token", CMI_BENCH_REAL, NULL, bytes / n_tokens, .width = 8, .scale = 1e-6,
         .decimals = 1},
        {"bound", "bound", CMI_BENCH_TEXT, bound, .width = 9},
        {"share", "share", CMI_BENCH_REAL, NULL, share, .width = 6, .scale = 100, .decimals = 1,
         .unit = "%"},
    };
    cmi_bench_out_row(run->out, cells, CMI_LEN(cells));
}

/* One step to warm up, then the repetitions. */
static void measure_row(models_run *run, const model_test *test)
{
    measured m = {0};
    step first = make_step(run, test, 0);
    (void)run_step(run, &first);
    sample_limits(run, &m);
    for (uint32_t i = 0; i < run->opt->repetitions; i++) {
        run_test_once(run, test, &m);
        sample_limits(run, &m);
    }
    print_row(run, test, &m);
    cmi_progress_count(&run->progress, ++run->n_done, run->n_total);
}

/* ---- all rows ---- */

typedef void test_fn(void *arg, const model_test *test);

/* Prompts over lengths, numbers and depths, then decode likewise. */
static void each_test(const cmi_bench_models_options *opt, test_fn *fn, void *arg)
{
    for (int pass = 0; pass < 2; pass++) {
        const bool is_prefill = pass == 0;
        const cmi_bench_list *lengths = is_prefill ? &opt->n_prompt : &opt->n_gen;
        const cmi_bench_list *batches = is_prefill ? &opt->prompt_batch : &opt->batch;
        for (size_t l = 0; l < lengths->n; l++) {
            for (size_t b = 0; lengths->values[l] > 0 && b < batches->n; b++) {
                for (size_t d = 0; d < opt->depth.n; d++) {
                    model_test test = {is_prefill, lengths->values[l], batches->values[b],
                                       opt->depth.values[d]};
                    fn(arg, &test);
                }
            }
        }
    }
}

static void size_test(void *arg, const model_test *test)
{
    cmi_bench_models_sizes *sizes = arg;
    uint32_t n_tokens = test->depth + test->n_tokens;
    sizes->n_tests++;
    sizes->max_model_len = CMI_MAX(sizes->max_model_len, CMI_MAX(n_tokens, 2u));
    uint64_t n_pages = (uint64_t)pages_for(n_tokens) * test->batch;
    sizes->n_kv_tokens = CMI_MAX(sizes->n_kv_tokens, n_pages * CMI_KV_PAGE_TOKENS);
    if (!test->is_prefill) {
        sizes->max_num_seqs = CMI_MAX(sizes->max_num_seqs, test->batch);
    }
}

cmi_bench_models_sizes cmi_bench_models_needs(const cmi_bench_models_options *opt)
{
    cmi_bench_models_sizes sizes = {.max_num_seqs = 1, .max_model_len = 2};
    each_test(opt, size_test, &sizes);
    return sizes;
}

static void run_test(void *arg, const model_test *test)
{
    measure_row(arg, test);
}

static void fill_kv_page(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cmi_kv_pool *pool = arg;
    cmi_bench_fill((uint8_t *)pool->base + task * pool->layout.page_bytes, pool->layout.page_bytes,
                   task);
}

void cmi_bench_models(cmi_bench_rig *rig, cmi_bench_out *out, cmi_instance *in,
                      const cmi_bench_models_options *opt)
{
    const uint32_t max_rows = in->max_num_batched_tokens;
    models_run run = {.rig = rig, .out = out, .instance = in, .opt = opt};
    run.cost_model = (cmi_cost_model){.config = &in->config,
                                      .weights_dtype = in->weights_dtype,
                                      .int8_head = in->weights->lm_head.dtype == CMI_DTYPE_I8,
                                      .kv_layout = in->kv_pool.layout};
    run.n_total = cmi_bench_models_needs(opt).n_tests;
    run.token_ids = cmi_alloc(max_rows, sizeof *run.token_ids);
    run.spans = cmi_alloc(max_rows, sizeof *run.spans);
    run.costs = cmi_alloc(max_rows, sizeof *run.costs);
    run.page_ids = cmi_alloc(in->kv_pool.n_pages, sizeof *run.page_ids);
    for (uint32_t i = 0; i < in->kv_pool.n_pages; i++) {
        run.page_ids[i] = i;
    }
    run.head_rows = cmi_alloc(max_rows, sizeof *run.head_rows);
    run.head_hidden = cmi_alloc((size_t)CMI_FORWARD_MAX_HEAD_ROWS * in->config.hidden_size,
                                sizeof *run.head_hidden);
    cmi_team_run(in->team, fill_kv_page, &in->kv_pool, in->kv_pool.n_pages);
    cmi_progress_start(&run.progress, "measuring");
    out->progress = &run.progress;
    each_test(opt, run_test, &run);
    cmi_progress_end(&run.progress);
    out->progress = NULL;
    cmi_free(run.head_hidden);
    cmi_free(run.head_rows);
    cmi_free(run.page_ids);
    cmi_free(run.costs);
    cmi_free(run.spans);
    cmi_free(run.token_ids);
}
