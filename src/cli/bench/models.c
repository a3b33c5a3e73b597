/* `cminfer bench MODEL`: prefill and decode of a whole model, as the engine's steps do them. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/bench/bench.h"
#include "cli/bench/model_steps.h"

static const double sample_seconds = 0.3; /* between samples of the limits */

typedef struct models_run {
    cmi_bench_rig *rig;
    cmi_bench_out *out;
    const cmi_bench_models_options *opt;
    cmi_bench_steps steps;
    cmi_progress progress;
    double spread_max;        /* of a limit's samples */
    uint64_t n_done, n_total; /* tests */
} models_run;

/* What was measured of a test. */
typedef struct measured {
    cmi_bench_samples seconds; /* of a repetition */
    cmi_bench_samples phases[CMI_BENCH_N_PHASES];
    cmi_bench_samples rates[CMI_BENCH_N_LIMIT_KINDS];
    double sampled_at;
} measured;

/* ---- measuring ---- */

static void sample_limits(models_run *run, measured *m)
{
    cmi_bench_rig *rig = run->rig;
    for (int kind = 0; kind < CMI_BENCH_N_LIMIT_KINDS; kind++) {
        cmi_bench_limit limit = cmi_bench_limit_for(kind, rig->cpu_flags);
        cmi_bench_sample(&m->rates[kind], cmi_bench_limit_sample(rig, limit, rig->n_threads, 0));
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

static uint64_t tokens_of(const cmi_bench_test *test)
{
    return (uint64_t)test->n_tokens * test->batch;
}

/* Returns the seconds of its steps, with the limits sampled between them. */
static double run_once(models_run *run, const cmi_bench_test *test, measured *m)
{
    double phases[CMI_BENCH_N_PHASES] = {0}, seconds = 0;
    for (uint64_t done = 0; done < tokens_of(test);) {
        done += cmi_bench_step_make(&run->steps, test, done);
        cmi_bench_step_run(&run->steps, phases);
        if (cmi_bench_seconds() - m->sampled_at > sample_seconds) {
            sample_limits(run, m);
        }
    }
    for (uint32_t i = 0; i < CMI_BENCH_N_PHASES; i++) {
        cmi_bench_sample(&m->phases[i], phases[i]);
        seconds += phases[i];
    }
    cmi_bench_sample(&m->seconds, seconds);
    return seconds;
}

/* One step to warm up, then the repetitions. */
static void measure(models_run *run, const cmi_bench_test *test, measured *m)
{
    double unused[CMI_BENCH_N_PHASES] = {0}, seconds = 0;
    (void)cmi_bench_step_make(&run->steps, test, 0);
    cmi_bench_step_run(&run->steps, unused);
    sample_limits(run, m);
    while (m->seconds.n < run->opt->repetitions ||
           (seconds < run->opt->seconds && m->seconds.n < CMI_BENCH_MAX_SAMPLES)) {
        seconds += run_once(run, test, m);
    }
    sample_limits(run, m);
}

/* ---- rows ---- */

typedef struct phase_costs {
    const cmi_cost_rates *rates;
    cmi_bench_phase_cost *costs; /* [CMI_BENCH_N_PHASES] */
} phase_costs;

static void add_cost(void *arg, const cmi_cost *cost)
{
    const phase_costs *sums = arg;
    for (uint32_t i = 0; i < CMI_BENCH_N_PHASES; i++) {
        cmi_bench_phase_add(&sums->costs[i], i, cost, sums->rates);
    }
}

/* What all steps of a test cost, phase by phase. */
static void add_costs(models_run *run, const cmi_bench_test *test, const cmi_cost_rates *rates,
                      cmi_bench_phase_cost costs[CMI_BENCH_N_PHASES])
{
    phase_costs sums = {rates, costs};
    for (uint64_t done = 0; done < tokens_of(test);) {
        done += cmi_bench_step_make(&run->steps, test, done);
        cmi_bench_step_cost(&run->steps, add_cost, &sums);
    }
}

static cmi_bench_phase_cost sum_of(const cmi_bench_phase_cost costs[CMI_BENCH_N_PHASES])
{
    cmi_bench_phase_cost sum = {0};
    for (uint32_t i = 0; i < CMI_BENCH_N_PHASES; i++) {
        sum.ops += costs[i].ops;
        sum.bytes += costs[i].bytes;
        sum.least.read += costs[i].least.read;
        sum.least.i8 += costs[i].least.i8;
        sum.least.bf16 += costs[i].least.bf16;
        sum.least.f32 += costs[i].least.f32;
    }
    return sum;
}

static const char *bound_of(const cmi_cost_time *time)
{
    const double seconds[] = {time->i8, time->bf16, time->f32, time->read};
    cmi_bench_limit_kind bound = CMI_BENCH_I8;
    for (int kind = 0; kind < CMI_BENCH_N_LIMIT_KINDS; kind++) {
        bound = seconds[kind] > seconds[bound] ? (cmi_bench_limit_kind)kind : bound;
    }
    return cmi_bench_limit_name(bound);
}

static bool has_drafts(const cmi_bench_models_options *opt)
{
    return opt->drafts.n > 1 || opt->drafts.values[0] > 0;
}

static void print_row(models_run *run, const cmi_bench_test *test, const char *stage,
                      double seconds, const cmi_bench_phase_cost *cost)
{
    const cmi_instance *in = run->steps.instance;
    const char *weights = cmi_dtype_name(in->weights_dtype), *isa = cmi_isa_name(in->isa);
    const char *kv = cmi_dtype_name(in->dtype);
    const char *routing = cmi_bench_routing_name(run->opt->routing);
    const double n_tokens = (double)tokens_of(test), least = cmi_cost_seconds(&cost->least);
    const cmi_bench_cell_kind share_kind = least > 0 ? CMI_BENCH_REAL : CMI_BENCH_NONE;
    char name[32];
    snprintf(name, sizeof name, "%s%u", test->is_prefill ? "pp" : "tg", test->n_tokens);
    const cmi_bench_cell cells[] = {
        {"model", "model", CMI_BENCH_TEXT, run->opt->name, .width = 16},
        {"weights", "weights", CMI_BENCH_TEXT, weights},
        {"kv", NULL, CMI_BENCH_TEXT, kv},
        {"isa", NULL, CMI_BENCH_TEXT, isa},
        {"threads", "threads", CMI_BENCH_COUNT, NULL, run->rig->n_threads},
        {"routing", NULL, CMI_BENCH_TEXT, routing},
        {"test", "test", CMI_BENCH_TEXT, name, .width = 7},
        {"batch", "batch", CMI_BENCH_COUNT, NULL, test->batch},
        {"depth", "depth", CMI_BENCH_COUNT, NULL, test->depth},
        {"drafts", has_drafts(run->opt) ? "drafts" : NULL, CMI_BENCH_COUNT, NULL, test->n_drafts},
        {"stage", run->opt->with_stages ? "stage" : NULL, CMI_BENCH_TEXT, stage, .width = 17},
        {"seconds", run->opt->with_stages ? "ms" : NULL, CMI_BENCH_REAL, NULL, seconds, .width = 10,
         .scale = 1e3, .decimals = 3},
        {"tokens_per_s", "tokens/s", CMI_BENCH_REAL, NULL, n_tokens / seconds, .width = 9,
         .decimals = 2},
        {"ops", NULL, CMI_BENCH_COUNT, NULL, cost->ops},
        {"bytes", NULL, CMI_BENCH_COUNT, NULL, cost->bytes},
        {NULL, "Mop/token", CMI_BENCH_REAL, NULL, cost->ops / n_tokens, .width = 9, .scale = 1e-6,
         .decimals = 1},
        {NULL, "MB/token", CMI_BENCH_REAL, NULL, cost->bytes / n_tokens, .width = 8, .scale = 1e-6,
         .decimals = 2},
        {"bound", "bound", least > 0 ? CMI_BENCH_TEXT : CMI_BENCH_NONE, bound_of(&cost->least),
         .width = 9},
        {"share", "share", share_kind, NULL, least / seconds, .width = 6, .scale = 100,
         .decimals = 1, .unit = "%"},
    };
    cmi_bench_out_row(run->out, cells, CMI_LEN(cells));
}

static void run_test(void *arg, const cmi_bench_test *test)
{
    models_run *run = arg;
    measured *m = cmi_alloc(1, sizeof *m);
    measure(run, test, m);
    for (int kind = 0; kind < CMI_BENCH_N_LIMIT_KINDS; kind++) {
        run->spread_max = CMI_MAX(run->spread_max, cmi_bench_spread(&m->rates[kind]));
    }
    cmi_cost_rates rates = rates_of(m);
    cmi_bench_phase_cost costs[CMI_BENCH_N_PHASES] = {0};
    add_costs(run, test, &rates, costs);
    cmi_bench_phase_cost sum = sum_of(costs);
    print_row(run, test, "all", cmi_bench_median(&m->seconds), &sum);
    for (uint32_t i = 0; run->opt->with_stages && i < CMI_BENCH_N_PHASES; i++) {
        double seconds = cmi_bench_median(&m->phases[i]);
        if (seconds > 0) {
            print_row(run, test, cmi_bench_phase_name(i), seconds, &costs[i]);
        }
    }
    cmi_free(m);
    cmi_progress_count(&run->progress, ++run->n_done, run->n_total);
}

/* ---- all tests ---- */

typedef void test_fn(void *arg, const cmi_bench_test *test);

static void each_depth(const cmi_bench_models_options *opt, cmi_bench_test test, test_fn *fn,
                       void *arg)
{
    for (size_t d = 0; d < opt->depth.n; d++) {
        test.depth = opt->depth.values[d];
        for (size_t k = 0; k < (test.is_prefill ? 1 : opt->drafts.n); k++) {
            test.n_drafts = test.is_prefill ? 0 : opt->drafts.values[k];
            fn(arg, &test);
        }
    }
}

/* Prompts over lengths, numbers and depths, then decode likewise, and over drafts. */
static void each_test(const cmi_bench_models_options *opt, test_fn *fn, void *arg)
{
    for (int pass = 0; pass < 2; pass++) {
        const bool is_prefill = pass == 0;
        const cmi_bench_list *lengths = is_prefill ? &opt->n_prompt : &opt->n_gen;
        const cmi_bench_list *batches = is_prefill ? &opt->prompt_batch : &opt->batch;
        for (size_t l = 0; l < lengths->n; l++) {
            for (size_t b = 0; lengths->values[l] > 0 && b < batches->n; b++) {
                cmi_bench_test test = {.is_prefill = is_prefill,
                                       .n_tokens = lengths->values[l],
                                       .batch = batches->values[b]};
                each_depth(opt, test, fn, arg);
            }
        }
    }
}

static void size_test(void *arg, const cmi_bench_test *test)
{
    cmi_bench_models_sizes *sizes = arg;
    uint32_t n_tokens = test->depth + test->n_tokens + test->n_drafts;
    sizes->n_tests++;
    sizes->max_drafts = CMI_MAX(sizes->max_drafts, test->n_drafts);
    sizes->max_model_len = CMI_MAX(sizes->max_model_len, CMI_MAX(n_tokens, 2u));
    uint64_t kv_tokens = (uint64_t)CMI_ROUND_UP(n_tokens, (uint32_t)CMI_KV_PAGE_TOKENS);
    sizes->n_kv_tokens = CMI_MAX(sizes->n_kv_tokens, kv_tokens * test->batch);
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
    models_run run = {.rig = rig, .out = out, .opt = opt};
    run.n_total = cmi_bench_models_needs(opt).n_tests;
    cmi_bench_steps_init(&run.steps, in, opt->routing);
    cmi_team_run(in->team, fill_kv_page, &in->kv_pool, in->kv_pool.n_pages);
    cmi_progress_start(&run.progress, "measuring");
    out->progress = &run.progress;
    each_test(opt, run_test, &run);
    cmi_progress_end(&run.progress);
    out->progress = NULL;
    cmi_bench_warn_of_spread(run.spread_max);
    cmi_bench_steps_deinit(&run.steps);
}
