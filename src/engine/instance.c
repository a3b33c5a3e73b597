/* engine/instance.c - opening a model within the memory there is, and running steps of one
 * sequence. */
#include "engine/instance_rank.h"

#include <assert.h>

#include "base/alloc.h"
#include "model/pipeline.h"
#include "os/host_memory.h"

/* Memory that opening a model plans for. Weights and KV are what users can influence, so errors
 * name them apart. */
typedef struct memory_plan {
    uint64_t weights_bytes; /* without those that the host has given to the shared block already */
    uint64_t kv_bytes;
    uint64_t scratch_bytes;
} memory_plan;

static double gib(uint64_t n_bytes)
{
    return (double)n_bytes / (1 << 30);
}

static cmi_forward_options forward_options(cmi_instance *in, const cmi_kv_layout *layout)
{
    return (cmi_forward_options){
        .config = &in->config,
        .weights = in->weights,
        .kernels = &in->kernels,
        .team = in->team,
        .kv_layout = *layout,
        .kv_base = in->kv_pool.base,
        .max_rows = in->max_step_rows,
        .max_decode_rows = in->max_decode_rows,
        .max_positions = in->max_model_len,
        .exchange = in->rank != NULL ? cmi_instance_rank_exchange(in->rank) : NULL,
        .stage = in->rank != NULL ? cmi_instance_rank_stage(in->rank) : NULL};
}

static cmi_weights_options weights_options(const cmi_instance *in, const cmi_instance_options *opt)
{
    return (cmi_weights_options){.dtype = in->weights_dtype,
                                 .int8_head = opt->quantization == CMI_QUANTIZATION_W8A8_INT8,
                                 .with_mtp =
                                     opt->with_mtp && in->config.num_nextn_predict_layers > 0,
                                 .without_experts = opt->rank != NULL,
                                 .team = in->team,
                                 .share_dir = opt->share_dir,
                                 .progress = opt->progress,
                                 .progress_arg = opt->progress_arg};
}

static size_t logits_bytes(const cmi_instance *in)
{
    return (size_t)CMI_FORWARD_MAX_HEAD_ROWS * in->config.vocab_size * sizeof(float);
}

static size_t mtp_hidden_bytes(const cmi_instance *in)
{
    return (size_t)in->max_step_rows * in->config.hidden_size * sizeof(float);
}

static uint64_t new_weights_bytes(const cmi_instance *in, const cmi_instance_options *opt)
{
    if (opt->weights_of != NULL) {
        return 0;
    }
    cmi_weights_options weights = weights_options(in, opt);
    uint64_t n_bytes = cmi_weights_estimate_bytes(&in->config, &weights);
    uint64_t taken = cmi_weights_taken_bytes(&in->config, opt->model_dir, &weights);
    return n_bytes - CMI_MIN(taken, n_bytes);
}

/* Pages that were asked for: for all sequences, or n_kv_tokens. */
static uint64_t pages_wanted(const cmi_instance *in, const cmi_instance_options *opt)
{
    uint64_t n_tokens =
        opt->n_kv_tokens > 0 ? opt->n_kv_tokens : (uint64_t)in->max_model_len * in->max_num_seqs;
    return CMI_DIV_UP(n_tokens, (uint64_t)CMI_KV_PAGE_TOKENS);
}

/* Pages of one sequence, without which it could not end. */
static uint64_t pages_needed(const cmi_instance *in, const cmi_instance_options *opt)
{
    return opt->n_kv_tokens > 0 ? pages_wanted(in, opt) : cmi_kv_pages_for(in->max_model_len);
}

/* sizes: of the exchanges that there will be; NULL: none. */
static memory_plan plan_memory(cmi_instance *in, const cmi_instance_options *opt,
                               const cmi_kv_layout *layout, uint64_t weights_bytes,
                               cmi_instance_rank_sizes *sizes)
{
    cmi_weights_options weights = weights_options(in, opt);
    cmi_forward_options forward = forward_options(in, layout);
    if (sizes != NULL) {
        forward.exchange = &sizes->exchange;
        forward.stage = sizes->stage.shape.n_ranks > 0 ? &sizes->stage : NULL;
    }
    return (memory_plan){
        .weights_bytes = weights_bytes,
        .kv_bytes = pages_needed(in, opt) * layout->page_bytes,
        .scratch_bytes = cmi_forward_estimate_bytes(&forward) + logits_bytes(in) +
                         (sizes != NULL && opt->rank->n_microbatches != 1
                              ? cmi_pipeline_estimate_bytes(&forward, &sizes->exchange)
                              : 0) +
                         (weights.with_mtp ? mtp_hidden_bytes(in) : 0),
    };
}

/* Chooses max_model_len if the user did not, and refuses what does not fit. */
static cmi_status fit_memory(cmi_instance *in, const cmi_instance_options *opt,
                             const cmi_kv_layout *layout, cmi_error *err)
{
    uint64_t available = cmi_host_memory_available();
    uint32_t limit = in->config.max_position_embeddings;
    if (opt->max_model_len > limit) {
        return cmi_error_set(
            err, CMI_ERR_INVALID,
            "--max-model-len %u is more than the model's max_position_embeddings %u",
            opt->max_model_len, limit);
    }
    in->max_model_len = opt->max_model_len > 0 ? opt->max_model_len : limit;
    uint64_t weights_bytes = new_weights_bytes(in, opt);
    cmi_instance_rank_sizes of_rank, *sizes = NULL;
    if (opt->rank != NULL) {
        const cmi_weights_options weights = weights_options(in, opt);
        cmi_status st = cmi_instance_rank_plan(in, opt, &weights, layout, sizes = &of_rank, err);
        if (st != CMI_OK) {
            return st;
        }
        weights_bytes += of_rank.n_bytes;
    }
    memory_plan plan = plan_memory(in, opt, layout, weights_bytes, sizes);
    while (opt->max_model_len == 0 && in->max_model_len > 2 * CMI_KV_PAGE_TOKENS &&
           plan.weights_bytes + plan.kv_bytes + plan.scratch_bytes > available) {
        in->max_model_len /= 2;
        plan = plan_memory(in, opt, layout, weights_bytes, sizes);
    }
    if (plan.weights_bytes > available) {
        return cmi_error_set(err, CMI_ERR_NO_MEMORY,
                             "%s does not fit in memory: %.1f GiB of weights as %s are needed, "
                             "%.1f GiB are available",
                             opt->model_dir, gib(plan.weights_bytes),
                             cmi_dtype_name(in->weights_dtype), gib(available));
    }
    uint64_t total = plan.weights_bytes + plan.kv_bytes + plan.scratch_bytes;
    if (total > available) {
        return cmi_error_set(
            err, CMI_ERR_NO_MEMORY,
            "%s does not fit in memory: %.1f GiB of weights, %.1f GiB of KV for %u tokens and "
            "%.1f GiB of scratch are needed, %.1f GiB are available; try a smaller "
            "--max-model-len or --max-num-batched-tokens",
            opt->model_dir, gib(plan.weights_bytes), gib(plan.kv_bytes), in->max_model_len,
            gib(plan.scratch_bytes), gib(available));
    }
    uint64_t spare_pages = (available - total) / 2 / layout->page_bytes;
    in->n_kv_pages =
        (uint32_t)CMI_MIN(CMI_MAX(pages_wanted(in, opt), pages_needed(in, opt)),
                          CMI_MIN(pages_needed(in, opt) + spare_pages, (uint64_t)UINT32_MAX));
    in->kv_bytes = in->n_kv_pages * layout->page_bytes;
    in->scratch_bytes = plan.scratch_bytes;
    return CMI_OK;
}

static void choose_kernels(cmi_instance *in, cmi_isa isa)
{
    uint32_t flags = cmi_cpu_flags() & cmi_isa_cpu_flags(isa);
    cmi_kernels_select(&in->kernels, flags);
    in->isa = cmi_isa_best(flags);
}

/* The auto rules of cmi_quantization. */
static cmi_status choose_types(cmi_instance *in, const cmi_instance_options *opt, cmi_error *err)
{
    bool is_int8 = opt->quantization == CMI_QUANTIZATION_W8A8_INT8 ||
                   (opt->quantization == CMI_QUANTIZATION_AUTO && in->config.is_int8 &&
                    opt->dtype == CMI_DTYPE_BF16);
    if (is_int8 && opt->dtype != CMI_DTYPE_BF16) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "INT8 weights go with dtype bf16 only: use --quantization none with "
                             "--dtype f32");
    }
    if (opt->int8_kv && opt->dtype != CMI_DTYPE_BF16) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--kv-cache-dtype int8 goes with --dtype bf16 only");
    }
    in->dtype = opt->dtype;
    in->kv_dtype = opt->int8_kv ? CMI_DTYPE_I8 : opt->dtype;
    in->weights_dtype = is_int8 ? CMI_DTYPE_I8 : opt->dtype;
    return CMI_OK;
}

static cmi_status load_config(cmi_instance *in, const cmi_instance_options *opt, cmi_error *err)
{
    if (opt->random_config != NULL) {
        in->config = *opt->random_config;
        return CMI_OK;
    }
    return cmi_model_config_load(&in->config, &in->generation, opt->model_dir, err);
}

static uint32_t count_processors(const cmi_topology *topology)
{
    uint32_t n = 0;
    for (uint32_t node = 0; node < cmi_topology_nodes(topology); node++) {
        n += cmi_topology_processors(topology, node);
    }
    return n;
}

static cmi_status open_team(cmi_instance *in, const cmi_instance_options *opt, cmi_error *err)
{
    uint32_t n_threads = opt->n_threads > 0 ? opt->n_threads : cmi_host_processors();
    if (opt->numa != CMI_NUMA_OFF) {
        cmi_topology_options host = {0};
        cmi_status st = cmi_topology_create(&in->topology, &host, err);
        if (st != CMI_OK) {
            return cmi_error_prefix(err, "memory nodes (--numa off does without)");
        }
        if (opt->numa == CMI_NUMA_AUTO && n_threads > count_processors(in->topology)) {
            cmi_topology_destroy(in->topology);
            in->topology = NULL;
        }
    }
    return cmi_team_create_on(&in->team, n_threads, in->topology, err);
}

/* Rows of a step, once the config is known. */
static void choose_rows(cmi_instance *in, const cmi_instance_options *opt)
{
    bool with_mtp = opt->with_mtp && in->config.num_nextn_predict_layers > 0;
    in->max_drafts = with_mtp ? opt->max_drafts : 0;
    in->max_decode_rows = in->max_num_seqs * (1 + in->max_drafts) + CMI_SPARE_DECODE_ROWS;
    in->max_decode_rows = CMI_MIN(in->max_decode_rows, in->max_num_batched_tokens);
    in->max_step_rows = in->max_num_batched_tokens + (in->max_drafts > 0 ? in->max_num_seqs : 0);
}

static cmi_status open_weights(cmi_instance *in, const cmi_instance_options *opt,
                               const cmi_weights_options *weights, cmi_error *err)
{
    in->owns_weights = opt->weights_of == NULL;
    if (opt->weights_of != NULL) {
        assert(opt->weights_of->weights_dtype == in->weights_dtype);
        assert((opt->weights_of->weights->mtp != NULL) == weights->with_mtp);
        in->weights = opt->weights_of->weights;
        return CMI_OK;
    }
    return opt->random_config != NULL
               ? cmi_weights_random(&in->weights, &in->config, opt->random_seed, weights, err)
               : cmi_weights_load(&in->weights, &in->config, opt->model_dir, weights, err);
}

static cmi_status open_kv(cmi_instance *in, const cmi_instance_options *opt,
                          const cmi_kv_layout *layout, cmi_error *err)
{
    void *memory = NULL;
    if (opt->kv_memory != NULL) {
        cmi_status st = opt->kv_memory(opt->kv_memory_arg, in->kv_bytes, &memory, err);
        if (st != CMI_OK) {
            return st;
        }
    }
    return cmi_kv_pool_init(&in->kv_pool, layout, in->n_kv_pages, memory, err);
}

static cmi_status open_parts(cmi_instance *in, const cmi_instance_options *opt, cmi_error *err)
{
    cmi_status st = load_config(in, opt, err);
    if (st != CMI_OK) {
        return st;
    }
    choose_rows(in, opt);
    st = choose_types(in, opt, err);
    if (st != CMI_OK) {
        return st;
    }
    st = open_team(in, opt, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_weights_options weights = weights_options(in, opt);
    cmi_kv_layout layout = cmi_kv_layout_make(&in->config, in->kv_dtype, weights.with_mtp);
    st = fit_memory(in, opt, &layout, err);
    if (st != CMI_OK) {
        return st;
    }
    st = open_weights(in, opt, &weights, err);
    if (st != CMI_OK) {
        return st;
    }
    st = open_kv(in, opt, &layout, err);
    if (st == CMI_OK && opt->rank != NULL) {
        st = cmi_instance_rank_open(in, opt, &weights, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    cmi_forward_options forward = forward_options(in, &layout);
    st = cmi_forward_create(&in->forward, &forward, err);
    if (st != CMI_OK) {
        return st;
    }
    if (in->rank != NULL) {
        st = cmi_instance_rank_start(in, err);
        if (st != CMI_OK) {
            return st;
        }
    }
    in->logits = cmi_alloc(1, logits_bytes(in));
    if (in->weights->mtp != NULL) {
        in->mtp_hidden = cmi_alloc(1, mtp_hidden_bytes(in));
    }
    return CMI_OK;
}

cmi_status cmi_instance_open(cmi_instance **instance_out, const cmi_instance_options *opt,
                             cmi_error *err)
{
    cmi_instance *in = cmi_alloc(1, sizeof *in);
    in->max_num_batched_tokens = opt->max_num_batched_tokens > 0
                                     ? opt->max_num_batched_tokens
                                     : CMI_DEFAULT_MAX_NUM_BATCHED_TOKENS;
    in->max_num_seqs = opt->max_num_seqs > 0 ? opt->max_num_seqs : 1;
    in->max_num_seqs = CMI_MIN(in->max_num_seqs, in->max_num_batched_tokens);
    choose_kernels(in, opt->isa);
    cmi_status st = open_parts(in, opt, err);
    if (st != CMI_OK) {
        cmi_instance_close(in);
        return st;
    }
    *instance_out = in;
    return CMI_OK;
}

void cmi_instance_close(cmi_instance *in)
{
    if (in == NULL) {
        return;
    }
    cmi_free(in->mtp_hidden);
    cmi_free(in->logits);
    cmi_forward_destroy(in->forward);
    cmi_instance_rank_close(in);
    cmi_kv_pool_deinit(&in->kv_pool);
    if (in->owns_weights) {
        cmi_weights_destroy(in->weights);
    }
    cmi_team_destroy(in->team);
    cmi_topology_destroy(in->topology);
    cmi_free(in);
}

/* ---- sequences
 * ----------------------------------------------------------------------------------- */

void cmi_sequence_init(cmi_sequence *seq, const cmi_instance *in)
{
    *seq = (cmi_sequence){0};
    seq->page_ids = cmi_alloc(cmi_kv_pages_for(in->max_model_len), sizeof *seq->page_ids);
    seq->last_hidden = cmi_alloc(in->config.hidden_size, sizeof(float));
    seq->prev_hidden = cmi_alloc(in->config.hidden_size, sizeof(float));
}

void cmi_sequence_reset(cmi_sequence *seq, cmi_instance *in)
{
    cmi_kv_pool_release(&in->kv_pool, seq->n_pages, seq->page_ids);
    seq->n_pages = 0;
    seq->n_stored = 0;
}

void cmi_sequence_deinit(cmi_sequence *seq, cmi_instance *in)
{
    if (seq->page_ids != NULL) {
        cmi_sequence_reset(seq, in);
        cmi_free(seq->page_ids);
        cmi_free(seq->last_hidden);
        cmi_free(seq->prev_hidden);
        *seq = (cmi_sequence){0};
    }
}

/* Makes sure that positions below n_tokens have pages. */
static cmi_status grow(cmi_sequence *seq, cmi_instance *in, uint32_t n_tokens)
{
    if (n_tokens > in->max_model_len) {
        return CMI_ERR_TOO_LARGE;
    }
    uint32_t n_pages = cmi_kv_pages_for(n_tokens);
    if (n_pages <= seq->n_pages) {
        return CMI_OK;
    }
    cmi_status st =
        cmi_kv_pool_acquire(&in->kv_pool, n_pages - seq->n_pages, seq->page_ids + seq->n_pages);
    if (st == CMI_OK) {
        seq->n_pages = n_pages;
    }
    return st;
}

cmi_status cmi_instance_run(cmi_instance *in, const cmi_batch *batch, cmi_error *err)
{
    const uint64_t patience_ns = 120000000000u;
    cmi_error unused;
    cmi_status st;
    do {
        st = in->rank == NULL
                 ? CMI_OK
                 : cmi_instance_call(in, batch->mtp_hidden != NULL ? CMI_PASS_MTP : CMI_PASS_MAIN);
        if (st == CMI_OK) {
            st = in->rank == NULL ? cmi_forward_run(in->forward, batch)
                                  : cmi_instance_pass(in, batch);
        }
        if (st == CMI_OK) {
            return CMI_OK;
        }
        st = cmi_instance_join(in, patience_ns, err != NULL ? err : &unused);
    } while (st == CMI_OK);
    return st;
}

static cmi_status run_span(cmi_instance *in, const cmi_sequence *seq, const uint32_t *tokens,
                           uint32_t n, uint32_t position, bool is_prefill, const float *mtp_hidden)
{
    cmi_batch_span span = {
        .page_ids = seq->page_ids, .n_rows = n, .position = position, .is_prefill = is_prefill};
    cmi_batch batch = {
        .token_ids = tokens, .spans = &span, .n_rows = n, .n_spans = 1, .mtp_hidden = mtp_hidden};
    return cmi_instance_run(in, &batch, NULL);
}

cmi_status cmi_instance_step(cmi_instance *in, cmi_sequence *seq, const uint32_t *tokens,
                             uint32_t n, bool is_prefill)
{
    assert(n >= 1 && n <= in->max_num_batched_tokens && (is_prefill || n == 1));
    cmi_status st = grow(seq, in, seq->n_stored + n);
    if (st != CMI_OK) {
        return st;
    }
    st = run_span(in, seq, tokens, n, seq->n_stored, is_prefill, NULL);
    if (st != CMI_OK) {
        return st;
    }
    seq->n_stored += n;
    size_t width = in->config.hidden_size;
    float *prev = seq->prev_hidden;
    seq->prev_hidden = seq->last_hidden;
    seq->last_hidden = prev;
    memcpy(seq->last_hidden, cmi_forward_hidden(in->forward) + (n - 1) * width,
           width * sizeof(float));
    return CMI_OK;
}

const float *cmi_instance_logits(cmi_instance *in, uint32_t row_idx, uint32_t n)
{
    const float *hidden =
        cmi_forward_hidden(in->forward) + (size_t)row_idx * in->config.hidden_size;
    cmi_forward_logits(in->forward, hidden, n, in->logits);
    return in->logits;
}

cmi_status cmi_instance_mtp_prefill(cmi_instance *in, cmi_sequence *seq, const uint32_t *tokens,
                                    uint32_t n)
{
    size_t width = in->config.hidden_size;
    uint32_t first = seq->n_stored - n;
    /* Slot j takes the hidden state of position j-1; position 0 has none before it. */
    uint32_t skip = first == 0 ? 1 : 0;
    if (n == skip) {
        return CMI_OK;
    }
    if (skip == 0) {
        memcpy(in->mtp_hidden, seq->prev_hidden, width * sizeof(float));
    }
    memcpy(in->mtp_hidden + (1 - skip) * width, cmi_forward_hidden(in->forward),
           (n - 1) * width * sizeof(float));
    return run_span(in, seq, tokens + skip, n - skip, first + skip, true, in->mtp_hidden);
}

cmi_status cmi_instance_mtp_draft(cmi_instance *in, cmi_sequence *seq, uint32_t next_token,
                                  const float **logits_out)
{
    assert(in->weights->mtp != NULL && seq->n_stored >= 1);
    cmi_status st = grow(seq, in, seq->n_stored + 1);
    if (st != CMI_OK) {
        return st;
    }
    st = run_span(in, seq, &next_token, 1, seq->n_stored, false, seq->last_hidden);
    if (st == CMI_OK) {
        *logits_out = cmi_instance_logits(in, 0, 1);
    }
    return st;
}
