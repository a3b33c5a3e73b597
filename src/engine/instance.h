/* engine/instance.h - a model that is ready to compute: weights, KV pages, threads, one stream of
 * steps.
 *
 * Synchronous: the engine's thread (engine/engine.h) and the offline commands call the same
 * functions. Thread: one, the owner, which is also worker 0 of the team. No allocation after open.
 */
#ifndef CMI_ENGINE_INSTANCE_H
#define CMI_ENGINE_INSTANCE_H

#include "cluster/membership.h"
#include "engine/kv_pool.h"
#include "fabric/fabric.h"
#include "model/forward.h"

typedef enum cmi_quantization {
    CMI_QUANTIZATION_AUTO, /* INT8 checkpoints stay INT8 (their head in BF16), others as dtype */
    CMI_QUANTIZATION_NONE, /* everything as dtype */
    CMI_QUANTIZATION_W8A8_INT8, /* all linears INT8, the head too */
} cmi_quantization;

/* What to do with several memory nodes. */
typedef enum cmi_numa {
    CMI_NUMA_AUTO,  /* slice, unless there are more threads than processors */
    CMI_NUMA_OFF,   /* threads run and pages lie where the system puts them */
    CMI_NUMA_SLICE, /* threads stay on their node, which has a slice of every matrix */
} cmi_numa;

typedef struct cmi_instance cmi_instance;

/* Memory for KV pages that others can reach, zeroed; it outlives the instance. */
typedef cmi_status cmi_kv_memory_fn(void *arg, size_t n_bytes, void **memory_out, cmi_error *err);

/* An instance that is one rank of several (engine/instance_rank.h). */
typedef struct cmi_rank_options {
    const char *name; /* of the instance of them all */
    /* Of this rank, and where its place is among the others' (ep/rank.h); both outlive the
     * instance, whose owner is the fabric's. */
    cmi_fabric *fabric;
    cmi_membership *membership;
    uint32_t min_ranks;   /* fewer do not go on without the others; 0: 1 */
    uint32_t n_redundant; /* replicas of experts beyond one of each */
    /* Of a pass (model/pipeline.h): 1 or 2; 0: as many as pay. */
    uint32_t n_microbatches;
    bool shares_prompts; /* rows of uneven prompts among all ranks (model/forward_staged.h) */
    /* Passes after which experts may move between ranks (engine/rank_balance.h); 0: they stay. */
    uint32_t balance_window;
} cmi_rank_options;

typedef struct cmi_instance_options {
    const char *model_dir;
    cmi_dtype dtype;               /* F32 or BF16: KV, operands, weights, unless they are INT8 */
    bool int8_kv;                  /* latent KV as INT8; goes with BF16 only */
    cmi_quantization quantization; /* INT8 goes with BF16 only */
    cmi_isa isa;                   /* at most this */
    uint32_t n_threads;            /* 0: one for every processor */
    cmi_numa numa;
    uint32_t max_num_batched_tokens; /* rows of a step, the chunk of a prefill; 0: the default */
    uint32_t
        max_model_len; /* tokens of a sequence; 0: the model's, or what fits in memory if less */
    uint32_t max_num_seqs; /* that decode in one step; 0: 1; at most max_num_batched_tokens */
    /* Of all sequences together; 0: max_model_len for each of max_num_seqs, but no more than half
     * of the memory that weights and scratch leave, and at least one sequence's. */
    uint64_t n_kv_tokens;
    bool with_mtp;         /* load the MTP layer if there is one */
    uint32_t max_drafts;   /* of it for each sequence in a step; needs with_mtp; 0: none */
    const char *share_dir; /* share the weights there with other processes; NULL: own memory */
    /* Not NULL: compute with the weights of this instance, which was opened with the same model,
     * types and MTP layer, and outlives the new one. */
    const cmi_instance *weights_of;
    cmi_kv_memory_fn *kv_memory; /* NULL: the instance's own */
    void *kv_memory_arg;
    /* Not NULL: random weights of this shape and seed instead of files; model_dir is then only what
     * errors call it. */
    const cmi_model_config *random_config;
    uint64_t random_seed;
    const cmi_rank_options *rank; /* NULL: all experts are here */
    cmi_progress_fn *progress;    /* while loading; may be NULL */
    void *progress_arg;
} cmi_instance_options;

enum {
    CMI_DEFAULT_MAX_NUM_BATCHED_TOKENS = 2048,
    /* Known tokens of a sequence that pass through decode together, and how many rows of a step
     * are for such beyond one for each sequence. */
    CMI_MAX_REPLAY_ROWS = 8,
    CMI_SPARE_DECODE_ROWS = 32,
};

struct cmi_instance {
    cmi_model_config config;
    cmi_generation_config generation;
    cmi_isa isa;             /* in use */
    cmi_dtype dtype;         /* of attention: F32 or BF16 */
    cmi_dtype kv_dtype;      /* of latent KV: dtype or I8 */
    cmi_dtype weights_dtype; /* of the linears: dtype or I8 */
    uint32_t max_model_len;
    uint32_t max_num_batched_tokens;
    uint32_t max_num_seqs;
    uint32_t max_decode_rows; /* of a step; >= max_num_seqs */
    uint32_t max_drafts;      /* 0 without the MTP layer */
    uint32_t max_step_rows;   /* of a pass: a prompt's end adds a row to the MTP layer's */
    cmi_kernels kernels;
    cmi_topology *topology; /* NULL: placement is off */
    cmi_team *team;
    cmi_weights *weights;
    bool owns_weights;
    cmi_kv_pool kv_pool;
    cmi_forward *forward;
    struct cmi_instance_rank *rank; /* NULL: all experts are here */
    float *logits;                  /* [CMI_FORWARD_MAX_HEAD_ROWS][vocab_size] */
    float *mtp_hidden; /* [max_step_rows][hidden_size], input of an MTP pass; NULL without
                          the MTP layer */
    uint32_t n_kv_pages;
    uint64_t kv_bytes;
    uint64_t scratch_bytes;
};

/* Checks first that weights, KV and scratch fit in memory. err is one line naming what is wrong. */
CMI_NODISCARD cmi_status cmi_instance_open(cmi_instance **instance_out,
                                           const cmi_instance_options *opt, cmi_error *err);
void cmi_instance_close(cmi_instance *instance); /* NULL is fine */

/* One sequence's KV and where it stands. */
typedef struct cmi_sequence {
    uint32_t *page_ids; /* [pages of max_model_len] */
    uint32_t n_pages;
    uint32_t n_stored;  /* positions whose KV is in the pages */
    float *last_hidden; /* [hidden_size] of position n_stored-1 */
    float *prev_hidden; /* [hidden_size] of the position before the last step's first */
} cmi_sequence;

void cmi_sequence_init(cmi_sequence *seq, const cmi_instance *instance);
void cmi_sequence_deinit(cmi_sequence *seq, cmi_instance *instance); /* releases its pages */

/* Gives the pages back and starts from position 0. */
void cmi_sequence_reset(cmi_sequence *seq, cmi_instance *instance);

/* One pass: all that cmi_forward_run does. Of a rank of several the others are called first, and it
 * is run until it succeeds, or an error as of cmi_instance_join says why it cannot; *err is then
 * set (it may be NULL). */
CMI_NODISCARD cmi_status cmi_instance_run(cmi_instance *instance, const cmi_batch *batch,
                                          cmi_error *err);

/* Runs n tokens at positions n_stored .. of one sequence: 1 .. max_num_batched_tokens of its prompt
 * (prefill path), or 1 generated token (decode path).
 * CMI_ERR_NO_CAPACITY: no pages; CMI_ERR_TOO_LARGE: past max_model_len; else as cmi_instance_run.
 * Nothing changed then. */
CMI_NODISCARD cmi_status cmi_instance_step(cmi_instance *instance, cmi_sequence *seq,
                                           const uint32_t *tokens, uint32_t n, bool is_prefill);

/* Logits after row row_idx of the last step and the n-1 rows behind it, float32 [n][vocab_size];
 * n <= CMI_FORWARD_MAX_HEAD_ROWS. Valid until the next call. */
const float *cmi_instance_logits(cmi_instance *instance, uint32_t row_idx, uint32_t n);

/* Brings the MTP layer's KV up to the step that has just run with the same prompt tokens.
 * Overwrites the step's hidden states: read its logits before. Needs weights->mtp. Errors as
 * cmi_instance_run. */
CMI_NODISCARD cmi_status cmi_instance_mtp_prefill(cmi_instance *instance, cmi_sequence *seq,
                                                  const uint32_t *tokens, uint32_t n);

/* The MTP layer's logits for the token after next_token, where next_token is to stand at position
 * n_stored >= 1; run it before next_token's own step. Errors as cmi_instance_step. Needs
 * weights->mtp. */
CMI_NODISCARD cmi_status cmi_instance_mtp_draft(cmi_instance *instance, cmi_sequence *seq,
                                                uint32_t next_token, const float **logits_out);

#endif
