/* model/weights_random.c - weights of any shape without files, for measuring.
 *
 * A value is a function of the seed and of its place in a block that nothing is left out of, so
 * neither threads matter nor what else is there. Matrices have the
 * standard deviation 1/sqrt(n_in), so that a normed row keeps its size; norms are ones, the gate's
 * bias is zero, embeddings have deviation 1. The halves of kv_b_proj that decode uses are those of
 * the kv_b_proj that prefill uses. */
#include "model/weights_internal.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/dtype.h"

enum { JOB_BYTES = 4 << 20, TABLE_VALUES = 256 };

/* Rows, or blocks of outputs, of one matrix. */
typedef struct random_job {
    const cmi_linear *m;
    uint64_t place; /* of m->w in a whole block */
    double deviation;
    uint32_t n_out;   /* outputs of a part of m */
    uint32_t n_parts; /* 2: blocks alternate between gate and up */
    uint32_t first, n;
} random_job;

typedef struct random_run {
    const cmi_weights_plan *plan; /* NULL: of slabs */
    uint64_t seed;
    random_job *jobs;
    size_t n_jobs, n_room;
} random_run;

/* SplitMix64 (Steele et al., OOPSLA'14) at a place. Philox would take ten times as long. */
static uint64_t word_at(uint64_t seed, uint64_t place)
{
    uint64_t z = seed + (place + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static uint64_t place_of(const random_job *job, const void *at)
{
    return job->place + (uint64_t)((const uint8_t *)at - (const uint8_t *)job->m->w);
}

/* ---- jobs ---- */

static void push(random_run *run, random_job job)
{
    if (run->n_jobs == run->n_room) {
        run->n_room = CMI_MAX(2 * run->n_room, (size_t)256);
        run->jobs = cmi_realloc(run->jobs, run->n_room, sizeof *run->jobs);
    }
    run->jobs[run->n_jobs++] = job;
}

static void push_units(random_run *run, random_job job, uint32_t n_units, size_t unit_bytes)
{
    uint32_t each = (uint32_t)CMI_MAX((size_t)JOB_BYTES / unit_bytes, (size_t)1);
    for (uint32_t first = 0; first < n_units; first += each) {
        job.first = first;
        job.n = CMI_MIN(each, n_units - first);
        push(run, job);
    }
}

static void push_parts(random_run *run, const cmi_linear *m, uint64_t place, uint32_t n_parts,
                       double deviation)
{
    random_job job = {.m = m,
                      .place = place,
                      .deviation = deviation,
                      .n_out = m->n_out / n_parts,
                      .n_parts = n_parts};
    if (m->w == NULL || m->n_out == 0) {
        return;
    }
    if (m->dtype == CMI_DTYPE_I8) {
        uint32_t n_blocks = CMI_DIV_UP(job.n_out, (uint32_t)CMI_I8_BLOCK_COLS) * n_parts;
        push_units(run, job, n_blocks, m->stride);
    } else {
        push_units(run, job, m->n_out, m->stride * cmi_dtype_bytes(m->dtype));
    }
}

/* Of a matrix in the plan's block. */
static uint64_t block_place(const random_run *run, const cmi_linear *m)
{
    const cmi_weights_plan *plan = run->plan;
    return m->w == NULL
               ? 0
               : cmi_weights_whole_place(plan, (uint64_t)((const uint8_t *)m->w - plan->block));
}

static void push_linear(random_run *run, const cmi_linear *m)
{
    push_parts(run, m, block_place(run, m), 1, 1 / sqrt((double)m->n_in));
}

/* Its matrices lie side by side, in the block as in a slab. */
static void push_ffn_at(random_run *run, const cmi_ffn *ffn, uint64_t place)
{
    const cmi_linear *gate_up = &ffn->gate_up, *down = &ffn->down;
    uint64_t between = (uint64_t)((const uint8_t *)down->w - (const uint8_t *)gate_up->w);
    push_parts(run, gate_up, place, 2, 1 / sqrt((double)gate_up->n_in));
    push_parts(run, down, place + between, 1, 1 / sqrt((double)down->n_in));
}

static void push_ffn(random_run *run, const cmi_ffn *ffn)
{
    if (ffn->down.w != NULL) {
        push_ffn_at(run, ffn, block_place(run, &ffn->gate_up));
    }
}

static void set_ones(const float *vector, uint32_t n)
{
    float *to = (float *)(uintptr_t)vector;
    for (uint32_t i = 0; to != NULL && i < n; i++) {
        to[i] = 1;
    }
}

static void push_layer(random_run *run, const cmi_layer_weights *layer)
{
    const cmi_model_config *c = run->plan->config;
    set_ones(layer->input_layernorm, c->hidden_size);
    set_ones(layer->post_attention_layernorm, c->hidden_size);
    set_ones(layer->q_a_layernorm, c->q_lora_rank);
    set_ones(layer->kv_a_layernorm, c->kv_lora_rank);
    push_linear(run, &layer->qkv_a_proj);
    push_linear(run, &layer->q_b_proj);
    push_linear(run, &layer->kv_b_proj);
    push_linear(run, &layer->o_proj);
    if (!layer->is_moe) {
        push_ffn(run, &layer->dense);
        return;
    }
    push_linear(run, &layer->gate);
    for (uint32_t e = 0; e < c->n_routed_experts; e++) {
        push_ffn(run, &layer->experts[e]);
    }
    push_ffn(run, &layer->shared);
}

/* ---- values ---- */

static void write_block(const random_run *run, const random_job *job, uint32_t block)
{
    const cmi_linear *m = job->m;
    const uint32_t done = block / job->n_parts * CMI_I8_BLOCK_COLS;
    const uint32_t n_out = CMI_MIN(job->n_out - done, (uint32_t)CMI_I8_BLOCK_COLS);
    const uint32_t n_groups = CMI_DIV_UP(m->n_in, (uint32_t)CMI_I8_GROUP);
    uint8_t *head = (uint8_t *)(uintptr_t)m->w + block * m->stride;
    int8_t *w = (int8_t *)head + CMI_I8_HEADER_BYTES;
    int32_t sums[CMI_I8_BLOCK_COLS] = {0};
    for (uint32_t g = 0; g < n_groups; g++, w += CMI_I8_BLOCK_COLS * CMI_I8_GROUP) {
        uint64_t words[CMI_I8_BLOCK_COLS * CMI_I8_GROUP / sizeof(uint64_t)];
        const uint64_t place = place_of(job, w) / sizeof *words;
        const uint32_t n_k = CMI_MIN(m->n_in - g * CMI_I8_GROUP, (uint32_t)CMI_I8_GROUP);
        for (uint32_t i = 0; i < CMI_LEN(words); i++) {
            words[i] = word_at(run->seed, place + i);
        }
        if (n_out == CMI_I8_BLOCK_COLS && n_k == CMI_I8_GROUP) {
            memcpy(w, words, sizeof words);
        } else {
            for (uint32_t o = 0; o < n_out; o++) {
                memcpy(w + o * CMI_I8_GROUP, (uint8_t *)words + o * CMI_I8_GROUP, n_k);
            }
        }
        for (uint32_t o = 0; o < CMI_I8_BLOCK_COLS; o++) {
            const int8_t *four = w + o * CMI_I8_GROUP;
            sums[o] += four[0] + four[1] + four[2] + four[3];
        }
    }
    const double byte_deviation = sqrt((256.0 * 256 - 1) / 12);
    float *scales = (float *)(void *)head;
    int32_t *offsets = (int32_t *)(void *)(head + CMI_I8_HEADER_BYTES / 2);
    for (uint32_t o = 0; o < n_out; o++) {
        scales[o] = (float)(job->deviation / byte_deviation);
        offsets[o] = -CMI_I8_ZERO * sums[o];
    }
}

/* Evenly spread values with the deviation. */
static void make_table(float table[TABLE_VALUES], double deviation)
{
    for (uint32_t i = 0; i < TABLE_VALUES; i++) {
        table[i] = (float)(deviation * sqrt(12) * ((i + 0.5) / TABLE_VALUES - 0.5));
    }
}

static void write_row(const random_run *run, const random_job *job, uint32_t row,
                      const float table[TABLE_VALUES])
{
    const cmi_linear *m = job->m;
    const size_t value_bytes = cmi_dtype_bytes(m->dtype);
    uint8_t *to = (uint8_t *)(uintptr_t)m->w + row * m->stride * value_bytes;
    const uint64_t place = place_of(job, to);
    for (uint32_t i = 0; i < m->n_in; i += sizeof(uint64_t)) {
        uint64_t word = word_at(run->seed, place + i);
        const uint32_t n = CMI_MIN(m->n_in - i, (uint32_t)sizeof word);
        for (uint32_t j = 0; j < n; j++, word >>= 8) {
            float value = table[word & 0xFF];
            if (m->dtype == CMI_DTYPE_F32) {
                ((float *)(void *)to)[i + j] = value;
            } else {
                ((cmi_bf16 *)(void *)to)[i + j] = cmi_bf16_from_f32(value);
            }
        }
    }
}

static void write_job(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const random_run *run = arg;
    const random_job *job = &run->jobs[task];
    float table[TABLE_VALUES];
    make_table(table, job->deviation);
    for (uint32_t i = job->first; i < job->first + job->n; i++) {
        if (job->m->dtype == CMI_DTYPE_I8) {
            write_block(run, job, i);
        } else {
            write_row(run, job, i, table);
        }
    }
}

/* ---- decode's halves of kv_b_proj ---- */

static float value_of(const cmi_linear *m, uint32_t row, uint32_t col)
{
    if (m->dtype == CMI_DTYPE_F32) {
        return ((const float *)m->w)[row * m->stride + col];
    }
    if (m->dtype == CMI_DTYPE_BF16) {
        return cmi_bf16_to_f32(((const cmi_bf16 *)m->w)[row * m->stride + col]);
    }
    const uint32_t lane = row % CMI_I8_BLOCK_COLS;
    const uint8_t *block = (const uint8_t *)m->w + row / CMI_I8_BLOCK_COLS * m->stride;
    const int8_t *w = (const int8_t *)block + CMI_I8_HEADER_BYTES +
                      col / CMI_I8_GROUP * CMI_I8_GROUP * CMI_I8_BLOCK_COLS + lane * CMI_I8_GROUP +
                      col % CMI_I8_GROUP;
    return (float)*w * ((const float *)(const void *)block)[lane];
}

static void set_value(cmi_dtype dtype, const void *w, size_t at, float value)
{
    if (dtype == CMI_DTYPE_F32) {
        ((float *)(uintptr_t)w)[at] = value;
    } else {
        ((cmi_bf16 *)(uintptr_t)w)[at] = cmi_bf16_from_f32(value);
    }
}

typedef struct absorbed_run {
    const cmi_model_config *config;
    const cmi_layer_weights *layer;
} absorbed_run;

/* w_uk_t and w_uv of one head. */
static void write_absorbed_head(void *arg, uint32_t head, uint32_t worker)
{
    (void)worker;
    const absorbed_run *run = arg;
    const cmi_model_config *c = run->config;
    const cmi_layer_weights *layer = run->layer;
    const cmi_linear *kv_b = &layer->kv_b_proj, *uk = &layer->w_uk_t, *uv = &layer->w_uv;
    const uint32_t nope = c->qk_nope_head_dim, v = c->v_head_dim, rank = c->kv_lora_rank;
    const uint32_t first = head * (nope + v);
    for (uint32_t r = 0; r < rank; r++) {
        for (uint32_t i = 0; i < nope; i++) {
            size_t at = ((size_t)head * rank + r) * uk->stride + i;
            set_value(uk->dtype, uk->w, at, value_of(kv_b, first + i, r));
        }
    }
    if (kv_b->dtype != CMI_DTYPE_I8) {
        return; /* w_uv is a part of kv_b */
    }
    for (uint32_t i = 0; i < v; i++) {
        for (uint32_t r = 0; r < rank; r++) {
            size_t at = head * layer->w_uv_head_stride + i * uv->stride + r;
            set_value(uv->dtype, uv->w, at, value_of(kv_b, first + nope + i, r));
        }
    }
}

static void write_absorbed(const cmi_model_config *config, const cmi_layer_weights *layer,
                           cmi_team *team)
{
    absorbed_run run = {config, layer};
    cmi_team_run(team, write_absorbed_head, &run, config->num_attention_heads);
}

/* ---- all of them ---- */

static void push_all(random_run *run, const cmi_weights *w)
{
    const cmi_model_config *c = run->plan->config;
    push_parts(run, &w->embed, block_place(run, &w->embed), 1, 1);
    if (w->lm_head.w != w->embed.w) {
        push_linear(run, &w->lm_head);
    }
    set_ones(w->norm, c->hidden_size);
    for (uint32_t i = 0; i < c->num_hidden_layers; i++) {
        push_layer(run, &w->layers[i]);
    }
    if (w->mtp != NULL) {
        set_ones(w->mtp->enorm, c->hidden_size);
        set_ones(w->mtp->hnorm, c->hidden_size);
        set_ones(w->mtp->head_norm, c->hidden_size);
        push_linear(run, &w->mtp->eh_proj);
        push_layer(run, &w->mtp->layer);
    }
}

/* Jobs of one call to the team, so that progress can be told in between. */
enum { JOBS_A_WAVE = 256 };

typedef struct wave {
    random_run *run;
    size_t first;
} wave;

static void write_wave_job(void *arg, uint32_t task, uint32_t worker)
{
    const wave *w = arg;
    write_job(w->run, (uint32_t)w->first + task, worker);
}

/* Does all jobs, which write about total_bytes, and drops them. */
static void run_jobs(random_run *run, uint64_t total_bytes, const cmi_weights_options *opt)
{
    for (size_t first = 0; first < run->n_jobs; first += JOBS_A_WAVE) {
        wave w = {run, first};
        size_t n_done = CMI_MIN(first + JOBS_A_WAVE, run->n_jobs);
        cmi_weights_run_tasks(opt->team, write_wave_job, &w, (uint32_t)(n_done - first));
        if (opt->progress != NULL) {
            opt->progress(opt->progress_arg, total_bytes * n_done / run->n_jobs, total_bytes);
        }
    }
    cmi_free(run->jobs);
}

void cmi_weights_fill_random_slabs(const cmi_random_slab *slabs, size_t n_slabs, uint64_t seed,
                                   const cmi_weights_options *opt)
{
    random_run run = {.seed = seed};
    uint64_t total_bytes = 0;
    for (size_t i = 0; i < n_slabs; i++) {
        push_ffn_at(&run, &slabs[i].ffn, slabs[i].place);
        total_bytes += slabs[i].slab_bytes;
    }
    run_jobs(&run, total_bytes, opt);
}

void cmi_weights_fill_random(cmi_weights *weights, const cmi_weights_plan *plan,
                             const cmi_weights_options *opt)
{
    random_run run = {.plan = plan, .seed = plan->random_seed};
    push_all(&run, weights);
    run_jobs(&run, plan->block_bytes, opt);
    for (uint32_t i = 0; i < plan->config->num_hidden_layers; i++) {
        write_absorbed(plan->config, &weights->layers[i], opt->team);
    }
    if (weights->mtp != NULL) {
        write_absorbed(plan->config, &weights->mtp->layer, opt->team);
    }
}
