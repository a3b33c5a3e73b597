/* model/weights.h - a checkpoint's weights in the form that the forward pass reads.
 *
 * Loading copies every tensor once, converted to the compute type, into one large block: rows are
 * 64-byte aligned, source pages are released behind the copy, and the checkpoint's files are closed
 * afterwards. Peak memory is the block; the file pages that are being read are page cache. The
 * structs below lie apart from it, so that processes of one host can have one block together.
 *
 * After loading, everything is immutable and may be read by any thread, except that the owner of
 * weights without experts sets those (cmi_weights_set_expert). */
#ifndef CMI_MODEL_WEIGHTS_H
#define CMI_MODEL_WEIGHTS_H

#include "base/dtype.h"
#include "base/error.h"
#include "kernels/int8.h"
#include "model/config.h"
#include "model/weights_digest.h"
#include "os/shared_block.h"
#include "os/team.h"

/* A matrix [n_out][n_in] for y = x W^T. F32 and BF16: rows, stride elements apart; what lies
 * between n_in and stride is zero. w is 64-byte aligned, and so is every row. I8: packed blocks of
 * 16 outputs with their scales (kernels/int8.h); stride is the bytes of a block. */
typedef struct cmi_linear {
    const void *w;
    size_t stride;
    uint32_t n_out, n_in;
    cmi_dtype dtype;
} cmi_linear;

/* A feed-forward network: y = down(silu(gate x) * (up x)). gate_up has the gate's rows first, then
 * up's: [2 * width][hidden_size]; as I8 its blocks alternate, 16 outputs of gate, then the same 16
 * of up, each padded to whole blocks. The slab of a routed expert is contiguous (gate_up, then
 * down) and does not point anywhere, so that an expert can move on its own. */
typedef struct cmi_ffn {
    cmi_linear gate_up;
    cmi_linear down; /* [hidden_size][width] */
    uint32_t width;
} cmi_ffn;

typedef struct cmi_layer_weights {
    const float *input_layernorm;          /* [hidden_size] */
    const float *post_attention_layernorm; /* [hidden_size] */
    const float *q_a_layernorm;            /* [q_lora_rank], NULL without q_lora */
    const float *kv_a_layernorm;           /* [kv_lora_rank] */
    cmi_linear qkv_a_proj; /* q_a_proj's rows (none without q_lora), then kv_a_proj's:
                              [q_lora_rank + kv_lora_rank + rope][hidden_size] */
    cmi_linear q_b_proj;   /* [heads * (nope + rope)][q_lora_rank, or hidden_size for q_proj] */
    cmi_linear kv_b_proj;  /* [heads * (nope + v)][kv_lora_rank], as in the file */
    cmi_linear w_uk_t; /* [heads * kv_lora_rank][nope]: K's part of kv_b_proj, heads transposed */
    cmi_linear w_uv;   /* of head 0: [v][kv_lora_rank], V's part of kv_b_proj */
    size_t w_uv_head_stride; /* elements from one head's w_uv to the next */
    cmi_linear o_proj;       /* [hidden_size][heads * v] */
    bool is_moe;
    cmi_ffn dense;          /* width intermediate_size; !is_moe */
    cmi_linear gate;        /* always F32: [n_routed_experts][hidden_size]; is_moe */
    const float *gate_bias; /* e_score_correction_bias [n_routed_experts], NULL when absent */
    const cmi_ffn *experts; /* [n_routed_experts], width moe_intermediate_size; one that is not here
                               (without_experts) has w NULL and all else filled in */
    cmi_ffn shared;         /* width n_shared_experts * moe_intermediate_size; down.w NULL: none */
} cmi_layer_weights;

/* The multi-token-prediction layer (DeepSeek-V3 technical report 2.2; paper section 7.2). Embedding
 * and head are the main model's. */
typedef struct cmi_mtp_weights {
    const float *enorm, *hnorm; /* [hidden_size] */
    cmi_linear eh_proj; /* [hidden_size][2 * hidden_size]: embedding first, then hidden state */
    cmi_layer_weights layer;
    const float *head_norm; /* shared_head.norm, [hidden_size] */
} cmi_mtp_weights;

typedef struct cmi_weights {
    cmi_dtype dtype;           /* of the linears; cmi_weights_options says which differ */
    cmi_linear embed;          /* [vocab_size][hidden_size]: rows are looked up */
    cmi_linear lm_head;        /* [vocab_size][hidden_size]; the same matrix as embed when tied */
    const float *norm;         /* [hidden_size] */
    cmi_layer_weights *layers; /* [num_hidden_layers] */
    cmi_mtp_weights *mtp;      /* NULL: left out, or the files have no MTP layer */
    uint32_t n_layers;         /* num_hidden_layers */
    uint32_t n_experts;        /* routed, of a layer that has any */
    bool without_experts;      /* they are not in the block: cmi_weights_set_expert */
    uint8_t *block;            /* all tensors */
    uint64_t block_bytes;      /* of it */
    cmi_shared_block *shared;  /* that has the block; NULL: it is this process's own */
    cmi_digest digest;         /* of the model (model/weights_digest.h says what it covers) */
    uint64_t n_bytes;          /* memory that all of it takes, this struct included */
    uint64_t huge_bytes;       /* of the block, in huge pages when loading ended */
    double share_at_home;      /* of the block, on the memory node that reads it; NAN: not known */
} cmi_weights;

/* Called from the loading thread with bytes read so far and in all. */
typedef void cmi_progress_fn(void *arg, uint64_t done_bytes, uint64_t total_bytes);

/* What the linears become. The gates are always F32.
 *
 * | dtype | linears | embed, w_uk_t, w_uv | lm_head             |
 * | F32   | F32     | F32                 | F32                 |
 * | BF16  | BF16    | BF16                | BF16                |
 * | I8    | I8      | BF16                | I8 if int8_head and not tied, else BF16 |
 *
 * I8 is W8A8 with round to nearest: one scale for each output, amax / 127. w_uk_t and w_uv belong
 * to decode's absorbed attention, which works in BF16; prefill expands KV with the INT8 kv_b_proj.
 */
typedef struct cmi_weights_options {
    cmi_dtype dtype; /* F32, BF16 or I8 */
    bool int8_head;
    bool with_mtp;         /* false leaves the MTP layer out */
    bool without_experts;  /* leaves the routed experts out of all layers (model/expert_slabs.h) */
    cmi_team *team;        /* converts in parallel, and its nodes get the weights: slices of each
                              matrix in the proportion of cmi_team_share; the caller owns it */
    const char *share_dir; /* share the block there (os/shared_block.h); NULL: own memory */
    cmi_progress_fn *progress; /* NULL: none */
    void *progress_arg;
} cmi_weights_options;

/* Bytes that cmi_weights_load would take (cmi_weights.n_bytes), from the config alone. Exact,
 * except that an MTP layer which the config names and the files do not hold is counted. */
uint64_t cmi_weights_estimate_bytes(const cmi_model_config *config, const cmi_weights_options *opt);

/* How many of them this host has already given to the shared block of dir, so that loading will not
 * take them again. 0 also where nothing is shared or where dir cannot be read. */
uint64_t cmi_weights_taken_bytes(const cmi_model_config *config, const char *dir,
                                 const cmi_weights_options *opt);

/* Loads dir/model.safetensors or the shards of dir/model.safetensors.index.json.
 * Every tensor that the config asks for must be there with its exact shape (CMI_ERR_BAD_DATA names
 * file and tensor), experts that are left out included; tensors that nothing asks for are ignored,
 * except that more layers or experts than config.json says contradict it and are refused. F32, F16,
 * BF16, F8_E4M3 with weight_scale_inv, and I8 with a weight_scale for each output are read. From
 * FP8 and I8, F32 is the float32 product code * scale, and BF16 that product rounded; I8 to I8
 * keeps codes and scales. CMI_ERR_NO_MEMORY: does not fit. CMI_ERR_IO: a file cannot be read (any
 * more). Where share_dir is set, the errors of cmi_shared_block_open too. *weights_out is untouched
 * on error. */
CMI_NODISCARD cmi_status cmi_weights_load(cmi_weights **weights_out, const cmi_model_config *config,
                                          const char *dir, const cmi_weights_options *opt,
                                          cmi_error *err);

/* The same memory filled with random weights: nothing is read, values depend on the seed and the
 * options only, and a forward pass over them is numerically sane (weights_random.c). The MTP layer
 * is there when opt and config name it; opt->share_dir is not used. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_weights_random(cmi_weights **weights_out,
                                            const cmi_model_config *config, uint64_t seed,
                                            const cmi_weights_options *opt, cmi_error *err);

/* Puts a routed expert into weights that were made without experts, or takes it out (NULL), by
 * pointing at its slab, which stays the caller's (cmi_expert_view). layer_idx as in
 * cmi_expert_id. Changes nothing but the two pointers of this process's structs, also where the
 * block is shared. Thread: the owner of the forward pass, between two passes; a pass must not send
 * rows to an expert that is out. */
void cmi_weights_set_expert(cmi_weights *weights, uint32_t layer_idx, uint32_t expert,
                            const cmi_ffn *ffn);

void cmi_weights_destroy(cmi_weights *weights); /* NULL is fine */

#endif
