/* model/config.h - config.json of the deepseek_v2 and deepseek_v3 families, checked.
 *
 * Field names are Hugging Face's. A struct of this type that cmi_model_config_load has filled holds
 * only values that the rest of model/ can work with: every product of sizes fits, group counts
 * divide, and what is not supported was refused by name. Sizes must be in the file; switches that
 * it leaves out have the defaults of the family's published configuration class.
 *
 * The two families' gates differ only in what the fields below say, so that one gate serves both
 * (with s the scores, c the selected experts, w the weights of their outputs):
 *   s = scoring_func(gate x), in float32
 *   c = topk_method over s (noaux_tc: over s + e_score_correction_bias)
 *   w = s[c];  if norm_topk_prob: w /= sum(w) + 1e-20;  w *= routed_scaling_factor */
#ifndef CMI_MODEL_CONFIG_H
#define CMI_MODEL_CONFIG_H

#include "base/error.h"

/* The epsilon of q_a_layernorm and kv_a_layernorm. DeepSeek's own code and Hugging Face's build
 * these two with the norm's default, whatever rms_norm_eps says. */
#define CMI_LATENT_NORM_EPS 1e-6

typedef enum cmi_scoring_func { CMI_SCORING_SOFTMAX, CMI_SCORING_SIGMOID } cmi_scoring_func;

typedef enum cmi_topk_method {
    CMI_TOPK_GREEDY,               /* top-k of the scores */
    CMI_TOPK_GROUP_LIMITED_GREEDY, /* groups ranked by their best score, then top-k inside */
    CMI_TOPK_NOAUX_TC, /* groups by their two best biased scores; the bias only selects */
} cmi_topk_method;

/* YaRN (rope_scaling.type "yarn"). With m(f, x) = f > 1 ? 0.1 * x * ln(f) + 1 : 1,
 *   the cos and sin tables are multiplied by m(factor, mscale) / m(factor, mscale_all_dim), and
 *   the softmax scale 1/sqrt(nope + rope) by m(factor, mscale_all_dim)^2,
 * in V2 as in V3. Without YaRN factor is 1, so both multipliers are 1. beta_fast may equal
 * beta_slow (Kimi K2): the ramp between them is then a step. */
typedef struct cmi_rope_scaling {
    bool is_yarn;
    double factor;
    double beta_fast, beta_slow;
    double mscale, mscale_all_dim;
    uint32_t original_max_position_embeddings;
} cmi_rope_scaling;

/* How FP8 weights are stored (quantization_config); block sizes 0 when the checkpoint has none. */
typedef struct cmi_fp8_config {
    uint32_t block_rows, block_cols;
} cmi_fp8_config;

typedef struct cmi_model_config {
    uint32_t vocab_size;
    uint32_t hidden_size;
    uint32_t intermediate_size;     /* of dense layers */
    uint32_t moe_intermediate_size; /* of one expert */
    uint32_t num_hidden_layers;
    uint32_t num_nextn_predict_layers; /* MTP layers that the config names: 0 or 1 */
    uint32_t num_attention_heads;
    uint32_t q_lora_rank; /* 0: null in the file, one q_proj instead of q_a_proj and q_b_proj */
    uint32_t kv_lora_rank;
    uint32_t qk_nope_head_dim;
    uint32_t qk_rope_head_dim;
    uint32_t v_head_dim;
    uint32_t n_routed_experts; /* 0: no layer has experts */
    uint32_t n_shared_experts; /* 0: none */
    uint32_t num_experts_per_tok;
    uint32_t n_group, topk_group;
    uint32_t first_k_dense_replace;
    uint32_t moe_layer_freq;
    uint32_t max_position_embeddings;
    cmi_scoring_func scoring_func;
    cmi_topk_method topk_method;
    bool norm_topk_prob; /* false also when one expert per token leaves nothing to normalize */
    bool tie_word_embeddings;
    double routed_scaling_factor; /* 1 where V2's gate normalizes: it scales only otherwise */
    double rms_norm_eps;
    double rope_theta;
    cmi_rope_scaling rope_scaling;
    cmi_fp8_config fp8;
    bool is_int8;          /* the linears are INT8 with one scale for each output (weight_scale) */
    uint32_t bos_token_id; /* UINT32_MAX: none */
    uint32_t eos_token_ids[8]; /* config.json and generation_config.json together */
    uint32_t n_eos_token_ids;
} cmi_model_config;

/* What generation_config.json recommends; NAN / 0 where it says nothing. */
typedef struct cmi_generation_config {
    double temperature;        /* NAN: not given */
    double top_p;              /* NAN: not given */
    uint32_t top_k;            /* 0: not given or off */
    double repetition_penalty; /* NAN: not given */
    bool do_sample;            /* true when not given */
} cmi_generation_config;

/* Reads dir/config.json and, if it is there, dir/generation_config.json.
 * CMI_ERR_NOT_FOUND, CMI_ERR_BAD_DATA or CMI_ERR_UNSUPPORTED; err names file and field. */
CMI_NODISCARD cmi_status cmi_model_config_load(cmi_model_config *config_out,
                                               cmi_generation_config *generation_out,
                                               const char *dir, cmi_error *err);

/* The same for the text of a config.json; name stands for the file in error lines. Both outputs are
 * untouched on error. */
CMI_NODISCARD cmi_status cmi_model_config_parse(cmi_model_config *config_out, const char *text,
                                                size_t n_bytes, const char *name, cmi_error *err);

/* The same for the text of a generation_config.json; its eos_token_id is added to config's. */
CMI_NODISCARD cmi_status cmi_generation_config_parse(cmi_generation_config *generation_out,
                                                     cmi_model_config *config, const char *text,
                                                     size_t n_bytes, const char *name,
                                                     cmi_error *err);

/* Layer idx has routed experts; MTP layers (idx >= num_hidden_layers) have them whenever the model
 * does. */
bool cmi_model_config_is_moe(const cmi_model_config *config, uint32_t layer_idx);

#endif
