/* tests/model/random_model.h - small models with random weights, of any shape that config.json can
 * say, as a Hugging Face directory and as the float32 values that went into it. */
#ifndef CMI_TESTS_MODEL_RANDOM_MODEL_H
#define CMI_TESTS_MODEL_RANDOM_MODEL_H

#include "tests/model/fixture.h"

/* Fields of config.json by their names there. 0 and NULL mean what they mean in the file, except
 * where said. */
typedef struct model_spec {
    const char *name; /* for messages */
    uint64_t seed;
    bool is_v2; /* model_type deepseek_v2, else deepseek_v3 */
    uint32_t vocab_size, hidden_size, intermediate_size, moe_intermediate_size;
    uint32_t num_hidden_layers, num_nextn_predict_layers;
    uint32_t num_attention_heads, q_lora_rank /* 0: null */, kv_lora_rank;
    uint32_t qk_nope_head_dim, qk_rope_head_dim, v_head_dim;
    uint32_t n_routed_experts /* 0: null */, n_shared_experts, num_experts_per_tok;
    uint32_t n_group, topk_group, first_k_dense_replace, moe_layer_freq;
    const char *scoring_func, *topk_method;
    bool norm_topk_prob, tie_word_embeddings;
    double routed_scaling_factor, rms_norm_eps, rope_theta;
    double yarn_factor; /* 0: no rope_scaling */
    uint32_t yarn_original_positions;
    double yarn_beta_fast, yarn_beta_slow, yarn_mscale, yarn_mscale_all_dim;
} model_spec;

enum { RANDOM_MODEL_MAX_TENSORS = 1024, RANDOM_MODEL_POSITIONS = 832 };

typedef struct random_tensor {
    char name[96];
    float *values; /* [n_rows][n_cols]; n_rows 0: a vector */
    uint32_t n_rows, n_cols;
} random_tensor;

typedef struct random_model {
    model_spec spec;
    temp_dir dir; /* config.json and model.safetensors */
    random_tensor tensors[RANDOM_MODEL_MAX_TENSORS];
    size_t n_tensors;
} random_model;

/* Both fail the test by themselves. The caller destroys the model. */
random_model *random_model_create(const model_spec *spec);
void random_model_destroy(random_model *model);

/* "model.layers.%u.%s", layer, rest: which must be there. */
const random_tensor *random_model_layer_tensor(const random_model *model, uint32_t layer,
                                               const char *rest);
const random_tensor *random_model_tensor(const random_model *model, const char *name);

/* The layer has routed experts, by the rule of the published classes. */
bool random_model_is_moe(const model_spec *spec, uint32_t layer);

#endif
