#include "model/weights_digest.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/kernels.h"

enum { TAG_BYTES = 16, ENCODING_VERSION = 1, LEAF_BYTES = 128 << 10, LABEL_BYTES = 16 };

/* Leaves that are hashed together: the lanes of the widest variant. */
enum { RUN_LEAVES = 8 };

/* Of one cmi_weights_hash_samples. */
enum { RUN_SAMPLES = 4096 };

static const char LEAF_TAG[TAG_BYTES] = "cminfer.w.leaf";
static const char TENSOR_TAG[TAG_BYTES] = "cminfer.w.tensor";
static const char SAMPLE_TAG[TAG_BYTES] = "cminfer.w.sample";
static const char SET_TAG[TAG_BYTES] = "cminfer.w.set";
static const char RANDOM_TAG[TAG_BYTES] = "cminfer.w.random";
static const char MODEL_TAG[TAG_BYTES] = "cminfer.w.model";

/* ---- encoding: little-endian, fixed widths ---- */

static void put_u32(cmi_blake2b *h, uint32_t value)
{
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
    cmi_blake2b_update(h, bytes, sizeof bytes);
}

static void put_u64(cmi_blake2b *h, uint64_t value)
{
    put_u32(h, (uint32_t)value);
    put_u32(h, (uint32_t)(value >> 32));
}

/* The bits of the float64. */
static void put_f64(cmi_blake2b *h, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_u64(h, bits);
}

static void begin(cmi_blake2b *h, const char tag[TAG_BYTES])
{
    cmi_blake2b_init(h, NULL, 0);
    cmi_blake2b_update(h, tag, TAG_BYTES);
    put_u32(h, ENCODING_VERSION);
}

/* ---- tensors ---- */

static uint64_t n_rows_of(const cmi_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i + 1 < t->n_dims; i++) {
        n *= t->dims[i];
    }
    return t->n_bytes == 0 ? 0 : n;
}

uint64_t cmi_weights_leaf_rows(const cmi_tensor *t)
{
    uint64_t n_rows = n_rows_of(t);
    return n_rows == 0 ? 0 : CMI_MAX(LEAF_BYTES / (t->n_bytes / n_rows), (uint64_t)1);
}

static uint64_t n_leaves_of(const cmi_tensor *t)
{
    uint64_t rows = cmi_weights_leaf_rows(t);
    return rows == 0 ? 0 : CMI_DIV_UP(n_rows_of(t), rows);
}

/* The first block of a leaf's message; the data's blocks lie as the file has them. */
static void leaf_head(uint8_t head[CMI_BLAKE2B_BLOCK_BYTES])
{
    memset(head, 0, CMI_BLAKE2B_BLOCK_BYTES);
    memcpy(head, LEAF_TAG, TAG_BYTES);
    head[TAG_BYTES] = ENCODING_VERSION;
}

/* n consecutive leaves. */
static void hash_leaves(const cmi_kernels *kernels, cmi_digest *out, const cmi_tensor *t,
                        const uint8_t *data, uint64_t first, uint32_t n)
{
    uint8_t head[CMI_BLAKE2B_BLOCK_BYTES];
    uint64_t n_rows = n_rows_of(t), rows = cmi_weights_leaf_rows(t);
    size_t row_bytes = t->n_bytes / n_rows;
    uint64_t rest = n_rows - (first + n - 1) * rows; /* rows of the last one and of all behind it */
    uint32_t n_whole = rest < rows ? n - 1 : n;
    cmi_blake2b_args args = {.head = head,
                             .data = data + first * rows * row_bytes,
                             .stride = rows * row_bytes,
                             .n_bytes = rows * row_bytes,
                             .n_messages = n_whole,
                             .digests = out->bytes};
    leaf_head(head);
    kernels->blake2b(&args);
    if (n_whole < n) {
        args.data += n_whole * args.stride;
        args.n_bytes = rest * row_bytes;
        args.n_messages = 1;
        args.digests = out[n_whole].bytes;
        kernels->blake2b(&args);
    }
}

/* All of a tensor's message but the leaves, which come last, or of its sample's but the row. */
static void begin_tensor(cmi_blake2b *h, const char tag[TAG_BYTES], const cmi_tensor *t)
{
    char label[LABEL_BYTES] = {0};
    size_t label_bytes = strlen(t->dtype_label), name_bytes = strlen(t->name);
    assert(label_bytes <= sizeof label);
    memcpy(label, t->dtype_label, label_bytes);
    begin(h, tag);
    put_u32(h, t->n_dims);
    put_u64(h, name_bytes);
    put_u64(h, n_leaves_of(t));
    cmi_blake2b_update(h, label, sizeof label);
    for (uint32_t i = 0; i < t->n_dims; i++) {
        put_u64(h, t->dims[i]);
    }
    cmi_blake2b_update(h, t->name, name_bytes);
}

void cmi_weights_digest_tensor(cmi_digest *digest_out, const cmi_tensor *tensor,
                               const uint8_t *data)
{
    cmi_blake2b h;
    cmi_kernels kernels;
    cmi_kernels_select(&kernels, cmi_cpu_flags());
    begin_tensor(&h, TENSOR_TAG, tensor);
    for (uint64_t i = 0, n_leaves = n_leaves_of(tensor); i < n_leaves; i += RUN_LEAVES) {
        cmi_digest leaves[RUN_LEAVES];
        uint32_t n = (uint32_t)CMI_MIN(n_leaves - i, (uint64_t)RUN_LEAVES);
        hash_leaves(&kernels, leaves, tensor, data, i, n);
        cmi_blake2b_update(&h, leaves, n * sizeof *leaves);
    }
    cmi_blake2b_final(&h, digest_out->bytes);
}

void cmi_weights_digest_sample(cmi_digest *digest_out, const cmi_tensor *tensor,
                               const uint8_t *data)
{
    cmi_blake2b h;
    uint64_t n_rows = n_rows_of(tensor);
    begin_tensor(&h, SAMPLE_TAG, tensor);
    if (n_rows > 0) {
        cmi_blake2b_update(&h, data, tensor->n_bytes / n_rows);
    }
    cmi_blake2b_final(&h, digest_out->bytes);
}

/* ---- sets and models ---- */

static int compare_digests(const void *left, const void *right)
{
    return memcmp(left, right, sizeof(cmi_digest));
}

void cmi_weights_digest_set(cmi_digest *set_out, cmi_digest *tensors, size_t n_tensors)
{
    cmi_blake2b h;
    if (n_tensors > 0) {
        qsort(tensors, n_tensors, sizeof *tensors, compare_digests);
    }
    begin(&h, SET_TAG);
    put_u32(&h, 0);
    put_u64(&h, n_tensors);
    for (size_t i = 0; i < n_tensors; i++) {
        cmi_blake2b_update(&h, tensors[i].bytes, sizeof tensors[i].bytes);
    }
    cmi_blake2b_final(&h, set_out->bytes);
}

void cmi_weights_digest_random(cmi_digest *set_out, uint64_t seed, uint64_t plan, uint32_t layout)
{
    cmi_blake2b h;
    begin(&h, RANDOM_TAG);
    put_u32(&h, layout);
    put_u64(&h, seed);
    put_u64(&h, plan);
    cmi_blake2b_final(&h, set_out->bytes);
}

/* The specification's numbers, whatever the enums say. */
static uint32_t scoring_code(cmi_scoring_func scoring)
{
    return scoring == CMI_SCORING_SOFTMAX ? 1 : 2;
}

static uint32_t topk_code(cmi_topk_method method)
{
    return method == CMI_TOPK_GREEDY ? 1 : method == CMI_TOPK_GROUP_LIMITED_GREEDY ? 2 : 3;
}

/* A field added to the config that changes the mathematics belongs here, and counts
 * ENCODING_VERSION up. */
void cmi_weights_digest_model(cmi_digest *digest_out, const cmi_model_config *c,
                              const cmi_digest *set)
{
    static const cmi_rope_scaling no_yarn = {0};
    const cmi_rope_scaling *rope = c->rope_scaling.is_yarn ? &c->rope_scaling : &no_yarn;
    const uint32_t numbers[] = {
        c->vocab_size,
        c->hidden_size,
        c->intermediate_size,
        c->moe_intermediate_size,
        c->num_hidden_layers,
        c->num_attention_heads,
        c->q_lora_rank,
        c->kv_lora_rank,
        c->qk_nope_head_dim,
        c->qk_rope_head_dim,
        c->v_head_dim,
        c->n_routed_experts,
        c->n_shared_experts,
        c->num_experts_per_tok,
        c->n_group,
        c->topk_group,
        c->first_k_dense_replace,
        c->moe_layer_freq,
        scoring_code(c->scoring_func),
        topk_code(c->topk_method),
        c->norm_topk_prob ? 1 : 0,
        c->tie_word_embeddings ? 1 : 0,
        c->fp8.block_rows,
        c->fp8.block_cols,
        rope->is_yarn ? 1 : 0,
        rope->original_max_position_embeddings,
    };
    const double reals[] = {
        c->routed_scaling_factor,
        c->rms_norm_eps,
        CMI_LATENT_NORM_EPS,
        c->rope_theta,
        rope->factor,
        rope->beta_fast,
        rope->beta_slow,
        rope->mscale,
        rope->mscale_all_dim,
    };
    cmi_blake2b h;
    begin(&h, MODEL_TAG);
    put_u32(&h, 0);
    cmi_blake2b_update(&h, set->bytes, sizeof set->bytes);
    for (size_t i = 0; i < CMI_LEN(numbers); i++) {
        put_u32(&h, numbers[i]);
    }
    for (size_t i = 0; i < CMI_LEN(reals); i++) {
        put_f64(&h, reals[i]);
    }
    cmi_blake2b_final(&h, digest_out->bytes);
}

/* ---- while tensors stream by ---- */

struct cmi_weights_hash {
    const cmi_checkpoint *checkpoint;
    cmi_kernels kernels;
    uint64_t *first_leaf; /* [checkpoint->n_tensors] in the arrays below; NOT_WANTED */
    uint64_t n_leaves;    /* wanted */
    cmi_digest *leaves;
    _Atomic uint8_t *is_taken; /* whoever sets it hashes the leaf */
    uint32_t *sampled;         /* [n_samples] of the checkpoint's tensors; room for all */
    cmi_digest *samples;       /* [n_samples] of them */
    uint32_t n_samples, n_samples_done;
};

#define NOT_WANTED UINT64_MAX

cmi_weights_hash *cmi_weights_hash_create(const cmi_checkpoint *checkpoint)
{
    cmi_weights_hash *hash = cmi_alloc(1, sizeof *hash);
    hash->checkpoint = checkpoint;
    cmi_kernels_select(&hash->kernels, cmi_cpu_flags());
    hash->first_leaf = cmi_alloc(checkpoint->n_tensors, sizeof *hash->first_leaf);
    hash->sampled = cmi_alloc(checkpoint->n_tensors, sizeof *hash->sampled);
    for (uint32_t i = 0; i < checkpoint->n_tensors; i++) {
        hash->first_leaf[i] = NOT_WANTED;
    }
    return hash;
}

void cmi_weights_hash_destroy(cmi_weights_hash *hash)
{
    if (hash != NULL) {
        cmi_free(hash->samples);
        cmi_free(hash->sampled);
        cmi_free((void *)hash->is_taken);
        cmi_free(hash->leaves);
        cmi_free(hash->first_leaf);
        cmi_free(hash);
    }
}

static uint64_t *first_leaf_of(const cmi_weights_hash *hash, const cmi_checkpoint_tensor *tensor)
{
    return &hash->first_leaf[tensor - hash->checkpoint->tensors];
}

void cmi_weights_hash_want(cmi_weights_hash *hash, const cmi_checkpoint_tensor *tensor)
{
    if (tensor != NULL && *first_leaf_of(hash, tensor) == NOT_WANTED) {
        *first_leaf_of(hash, tensor) = hash->n_leaves;
        hash->n_leaves += n_leaves_of(tensor->tensor);
    }
}

void cmi_weights_hash_want_sample(cmi_weights_hash *hash, const cmi_checkpoint_tensor *tensor)
{
    if (tensor != NULL) {
        assert(hash->n_samples < hash->checkpoint->n_tensors);
        hash->sampled[hash->n_samples++] = (uint32_t)(tensor - hash->checkpoint->tensors);
    }
}

void cmi_weights_hash_begin(cmi_weights_hash *hash)
{
    hash->samples = cmi_alloc(hash->n_samples, sizeof *hash->samples);
    hash->leaves = cmi_alloc(hash->n_leaves, sizeof *hash->leaves);
    hash->is_taken = cmi_alloc(hash->n_leaves, sizeof *hash->is_taken);
}

/* The leaf is the caller's to hash. What it writes is read after the team's run, which orders that:
 * the mark alone needs no order. */
static bool take_leaf(cmi_weights_hash *hash, uint64_t at)
{
    return atomic_exchange_explicit(&hash->is_taken[at], 1, memory_order_relaxed) == 0;
}

void cmi_weights_hash_rows(cmi_weights_hash *hash, const cmi_checkpoint_tensor *tensor,
                           uint64_t first_row, uint64_t n_rows)
{
    const cmi_tensor *t = tensor->tensor;
    uint64_t rows = cmi_weights_leaf_rows(t), at = *first_leaf_of(hash, tensor);
    if (rows == 0) {
        return;
    }
    uint64_t leaf = CMI_DIV_UP(first_row, rows), last_row = first_row + n_rows;
    uint64_t end = last_row == n_rows_of(t) ? n_leaves_of(t) : last_row / rows;
    while (leaf < end) {
        uint32_t n = 0;
        while (n < RUN_LEAVES && leaf + n < end && take_leaf(hash, at + leaf + n)) {
            n++;
        }
        if (n > 0) {
            hash_leaves(&hash->kernels, &hash->leaves[at + leaf], t,
                        cmi_safetensors_data(tensor->file, t), leaf, n);
        }
        leaf += n < RUN_LEAVES ? n + 1 : n; /* past the one that somebody else has taken */
    }
}

static void hash_sample(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    cmi_weights_hash *hash = arg;
    uint32_t i = hash->n_samples_done + task;
    const cmi_checkpoint_tensor *tensor = &hash->checkpoint->tensors[hash->sampled[i]];
    const cmi_tensor *t = tensor->tensor;
    cmi_weights_digest_sample(&hash->samples[i], t, cmi_safetensors_data(tensor->file, t));
    cmi_file_map_release(&tensor->file->map, t->offset, t->n_bytes); /* and what came along */
}

bool cmi_weights_hash_samples(cmi_weights_hash *hash, cmi_team *team)
{
    uint32_t n = CMI_MIN(hash->n_samples - hash->n_samples_done, (uint32_t)RUN_SAMPLES);
    if (n > 0) {
        cmi_team_run(team, hash_sample, hash, n);
        hash->n_samples_done += n;
    }
    return n > 0;
}

static void hash_left(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    cmi_weights_hash *hash = arg;
    const cmi_checkpoint_tensor *tensor = &hash->checkpoint->tensors[task];
    if (*first_leaf_of(hash, tensor) != NOT_WANTED) {
        cmi_weights_hash_rows(hash, tensor, 0, n_rows_of(tensor->tensor));
    }
}

void cmi_weights_hash_finish(cmi_weights_hash *hash, cmi_team *team, cmi_digest *set_out)
{
    uint32_t n_tensors = 0;
    cmi_digest *tensors =
        cmi_alloc((size_t)hash->checkpoint->n_tensors + hash->n_samples, sizeof *tensors);
    while (cmi_weights_hash_samples(hash, team)) {
    }
    cmi_team_run(team, hash_left, hash, hash->checkpoint->n_tensors);
    for (uint32_t i = 0; i < hash->checkpoint->n_tensors; i++) {
        const cmi_checkpoint_tensor *tensor = &hash->checkpoint->tensors[i];
        uint64_t leaf = *first_leaf_of(hash, tensor);
        if (leaf != NOT_WANTED) {
            cmi_blake2b h;
            begin_tensor(&h, TENSOR_TAG, tensor->tensor);
            cmi_blake2b_update(&h, hash->leaves + leaf,
                               n_leaves_of(tensor->tensor) * sizeof *hash->leaves);
            cmi_blake2b_final(&h, tensors[n_tensors++].bytes);
        }
    }
    if (hash->n_samples > 0) {
        memcpy(tensors + n_tensors, hash->samples, hash->n_samples * sizeof *tensors);
    }
    cmi_weights_digest_set(set_out, tensors, n_tensors + hash->n_samples);
    cmi_free(tensors);
}
