/* config.json and generation_config.json: defaults, the published models' shapes, and what every
 * wrong field says. */
#include "tests/test.h"

#include <jansson.h>
#include <math.h>

#include "model/config.h"
#include "tests/model/fixture.h"

/* As small as a file may be: all other fields have defaults. */
static const char smallest_v3[] =
    "{\"model_type\":\"deepseek_v3\",\"vocab_size\":100,\"hidden_size\":32,"
    "\"intermediate_size\":64,\"moe_intermediate_size\":16,\"num_hidden_layers\":5,"
    "\"num_attention_heads\":2,\"q_lora_rank\":null,\"kv_lora_rank\":8,\"qk_nope_head_dim\":4,"
    "\"qk_rope_head_dim\":6,\"v_head_dim\":4,\"n_routed_experts\":16,\"num_experts_per_tok\":2,"
    "\"max_position_embeddings\":128}";

/* Writes smallest_v3 with fields replaced by those of the JSON object `changes`; null removes a
 * field. Returns the length. */
static size_t change_fields(char *out, size_t size, const char *changes)
{
    json_t *root = json_loads(smallest_v3, 0, NULL);
    json_t *update = json_loads(changes, 0, NULL);
    if (root == NULL || update == NULL) {
        fail_msg("not JSON: %s", changes);
    }
    const char *key;
    json_t *value;
    json_object_foreach(update, key, value)
    {
        if (json_is_null(value)) {
            json_object_del(root, key);
        } else {
            json_object_set(root, key, value);
        }
    }
    size_t n = json_dumpb(root, out, size, 0);
    assert_true(n > 0 && n <= size);
    json_decref(root);
    json_decref(update);
    return n;
}

static cmi_status parse(cmi_model_config *c, const char *changes, cmi_error *err)
{
    char text[4096];
    size_t n = change_fields(text, sizeof text, changes);
    return cmi_model_config_parse(c, text, n, "dir/config.json", err);
}

static cmi_model_config parse_ok(const char *changes)
{
    cmi_model_config c;
    cmi_error err = {0};
    if (parse(&c, changes, &err) != CMI_OK) {
        fail_msg("%s: %s", changes, err.text);
    }
    return c;
}

static void v3_has_its_classes_defaults(void **state)
{
    (void)state;
    cmi_model_config c = parse_ok("{}");
    assert_int_equal(c.scoring_func, CMI_SCORING_SIGMOID);
    assert_int_equal(c.topk_method, CMI_TOPK_NOAUX_TC);
    assert_int_equal(c.n_group, 8);
    assert_int_equal(c.topk_group, 4);
    assert_int_equal(c.first_k_dense_replace, 3);
    assert_int_equal(c.moe_layer_freq, 1);
    assert_int_equal(c.n_shared_experts, 0);
    assert_int_equal(c.num_nextn_predict_layers, 1);
    assert_int_equal(c.q_lora_rank, 0);
    assert_true(c.norm_topk_prob);
    assert_true(c.routed_scaling_factor == 2.5);
    assert_true(c.rms_norm_eps == 1e-6);
    assert_true(c.rope_theta == 10000.0);
    assert_false(c.tie_word_embeddings);
    assert_false(c.rope_scaling.is_yarn);
    assert_true(c.rope_scaling.factor == 1.0);
    assert_int_equal(c.fp8.block_rows, 0);
    assert_int_equal(c.bos_token_id, UINT32_MAX);
    assert_int_equal(c.n_eos_token_ids, 0);
}

static void v2_has_its_classes_defaults(void **state)
{
    (void)state;
    cmi_model_config c = parse_ok("{\"model_type\":\"deepseek_v2\",\"n_group\":3}");
    assert_int_equal(c.scoring_func, CMI_SCORING_SOFTMAX);
    assert_int_equal(c.topk_method, CMI_TOPK_GREEDY);
    assert_int_equal(c.n_group, 1); /* greedy knows no groups */
    assert_int_equal(c.topk_group, 1);
    assert_int_equal(c.first_k_dense_replace, 0);
    assert_int_equal(c.num_nextn_predict_layers, 0);
    assert_false(c.norm_topk_prob);
    assert_true(c.routed_scaling_factor == 1.0);
}

static void v2_scales_only_what_it_does_not_normalize(void **state)
{
    (void)state;
    static const struct {
        const char *changes;
        bool norm;
        double factor;
    } cases[] = {
        {"{\"model_type\":\"deepseek_v2\",\"norm_topk_prob\":false}", false, 16},
        {"{\"model_type\":\"deepseek_v2\",\"norm_topk_prob\":true}", true, 1},
        {"{\"model_type\":\"deepseek_v2\",\"norm_topk_prob\":true,\"num_experts_per_tok\":1}",
         false, 16},
        {"{\"model_type\":\"deepseek_v2\",\"norm_topk_prob\":true,\"topk_method\":\"noaux_tc\"}",
         true, 16},
        {"{\"norm_topk_prob\":false}", false, 16},
        {"{\"norm_topk_prob\":true}", true, 16},
        {"{\"norm_topk_prob\":true,\"num_experts_per_tok\":1}", false, 16},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        char changes[256];
        snprintf(changes, sizeof changes, "{\"routed_scaling_factor\":16,%s", cases[i].changes + 1);
        cmi_model_config c = parse_ok(changes);
        assert_int_equal(c.norm_topk_prob, cases[i].norm);
        assert_true(c.routed_scaling_factor == cases[i].factor);
    }
}

/* The fields of the published files that are not sizes. */
static void published_variants_are_read(void **state)
{
    (void)state;
    cmi_model_config c = parse_ok(
        "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,\"beta_fast\":32,\"beta_slow\":1,"
        "\"mscale\":1.0,\"mscale_all_dim\":1.0,\"original_max_position_embeddings\":4096},"
        "\"quantization_config\":{\"activation_scheme\":\"dynamic\",\"fmt\":\"e4m3\","
        "\"quant_method\":\"fp8\",\"weight_block_size\":[128,64]},\"eos_token_id\":1,"
        "\"bos_token_id\":0,\"num_nextn_predict_layers\":1,\"q_lora_rank\":12,"
        "\"num_key_value_heads\":2,\"attention_bias\":false,\"hidden_act\":\"silu\"}");
    assert_true(c.rope_scaling.is_yarn);
    assert_true(c.rope_scaling.factor == 40.0 && c.rope_scaling.mscale_all_dim == 1.0);
    assert_int_equal(c.rope_scaling.original_max_position_embeddings, 4096);
    assert_int_equal(c.fp8.block_rows, 128);
    assert_int_equal(c.fp8.block_cols, 64);
    assert_int_equal(c.q_lora_rank, 12);
    assert_int_equal(c.bos_token_id, 0);
    assert_int_equal(c.eos_token_ids[0], 1);
    c = parse_ok("{\"model_type\":\"kimi_k2\",\"n_group\":1,\"topk_group\":1,"
                 "\"num_nextn_predict_layers\":0,\"eos_token_id\":[7,9,7],"
                 "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":32.0,\"beta_fast\":1.0,"
                 "\"beta_slow\":1.0,\"original_max_position_embeddings\":4096}}");
    assert_int_equal(c.n_group, 1);
    assert_int_equal(c.n_eos_token_ids, 2);
    assert_int_equal(c.eos_token_ids[1], 9);
    assert_true(c.rope_scaling.mscale == 1.0 && c.rope_scaling.mscale_all_dim == 0.0);
    c = parse_ok("{\"model_type\":\"deepseek_v2\",\"topk_method\":\"group_limited_greedy\","
                 "\"n_group\":8,\"topk_group\":3,\"rope_scaling\":null}");
    assert_int_equal(c.topk_method, CMI_TOPK_GROUP_LIMITED_GREEDY);
    assert_int_equal(c.topk_group, 3);
}

/* A group of compressed-tensors as llm-compressor writes it, with the fields that do not matter. */
#define CT_ARGS(strategy, dynamic)                                                                 \
    "{\"actorder\":null,\"block_structure\":null,\"dynamic\":" dynamic                             \
    ",\"group_size\":null,\"num_bits\":8,\"observer\":\"minmax\",\"observer_kwargs\":{},"          \
    "\"strategy\":\"" strategy "\",\"symmetric\":true,\"type\":\"int\"}"
#define CT(format, weights, input_activations)                                                     \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"" format       \
    "\",\"config_groups\":{\"group_0\":{\"input_activations\":" input_activations                  \
    ",\"output_activations\":null,\"targets\":[\"Linear\"],\"weights\":" weights                   \
    "}},\"global_compression_ratio\":1.5,\"ignore\":[\"lm_head\"],\"kv_cache_scheme\":null,"       \
    "\"quantization_status\":\"compressed\"}}"
#define CT_WEIGHTS CT_ARGS("channel", "false")
#define CT_TOKENS CT_ARGS("token", "true")
#define CT_GROUP(scope) "quantization_config.config_groups.group_0." scope ": "

static void int8_forms_are_read(void **state)
{
    (void)state;
    static const char *const accepted[] = {
        CT("int-quantized", CT_WEIGHTS, CT_TOKENS),
        /* what may be left out */
        CT("int-quantized", "{\"num_bits\":8,\"strategy\":\"channel\"}",
           "{\"num_bits\":8,\"strategy\":\"token\"}"),
        "{\"quantization_config\":{\"quant_method\":\"w8a8_int8\"}}",
        "{\"quantization_config\":{\"quant_method\":\"w8a8_int8\",\"bits\":8}}",
    };
    for (size_t i = 0; i < CMI_LEN(accepted); i++) {
        cmi_model_config c = parse_ok(accepted[i]);
        assert_true(c.is_int8);
        assert_int_equal(c.fp8.block_rows, 0);
    }
    assert_false(parse_ok("{}").is_int8);
}

static void newer_rope_parameters_are_read(void **state)
{
    (void)state;
    cmi_model_config c =
        parse_ok("{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":50000.0}}");
    assert_true(c.rope_theta == 50000.0);
    assert_false(c.rope_scaling.is_yarn);
    c = parse_ok("{\"rope_theta\":5,\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,"
                 "\"original_max_position_embeddings\":64,\"beta_fast\":16}}");
    assert_true(c.rope_theta == 5.0);
    assert_true(c.rope_scaling.is_yarn && c.rope_scaling.beta_fast == 16.0);
}

static void one_rotated_pair_has_no_order(void **state)
{
    (void)state;
    parse_ok("{\"rope_interleave\":false,\"qk_rope_head_dim\":2}");
}

static void moe_layers_follow_first_k_and_freq(void **state)
{
    (void)state;
    cmi_model_config c = parse_ok("{\"first_k_dense_replace\":1,\"moe_layer_freq\":2}");
    static const bool want[] = {false, false, true, false, true, true}; /* the last is MTP's */
    for (uint32_t i = 0; i < CMI_LEN(want); i++) {
        assert_int_equal(cmi_model_config_is_moe(&c, i), want[i]);
    }
    c = parse_ok("{\"n_routed_experts\":null,\"num_experts_per_tok\":null,"
                 "\"moe_intermediate_size\":null}");
    assert_int_equal(c.n_routed_experts, 0);
    assert_false(cmi_model_config_is_moe(&c, 4));
    assert_false(cmi_model_config_is_moe(&c, 5));
}

typedef struct config_case {
    const char *changes;
    cmi_status status;
    const char *says; /* a part of the error line */
} config_case;

#define BAD CMI_ERR_BAD_DATA
#define UNSUPPORTED CMI_ERR_UNSUPPORTED
#define YARN "\"type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":64"

static const config_case cases[] = {
    {"{\"model_type\":null}", BAD, "model_type: is missing"},
    {"{\"model_type\":3}", BAD, "model_type: is not a string"},
    {"{\"model_type\":\"llama\"}", UNSUPPORTED, "model_type: \"llama\" is not supported"},
    {"{\"model_type\":\"deepseek_v32\"}", UNSUPPORTED, "model_type: \"deepseek_v32\""},
    /* sizes */
    {"{\"vocab_size\":null}", BAD, "vocab_size: is missing"},
    {"{\"vocab_size\":0}", BAD, "vocab_size: 0 is not in 1.."},
    {"{\"vocab_size\":\"100\"}", BAD, "vocab_size: is not a whole number"},
    {"{\"vocab_size\":100.0}", BAD, "vocab_size: is not a whole number"},
    {"{\"vocab_size\":true}", BAD, "vocab_size: is not a whole number"},
    {"{\"vocab_size\":-1}", BAD, "vocab_size: -1 is not in"},
    {"{\"vocab_size\":4294967297}", BAD, "vocab_size: 4294967297 is not in"},
    {"{\"hidden_size\":1000000}", BAD, "hidden_size: "},
    {"{\"intermediate_size\":null}", BAD, "intermediate_size: is missing"},
    {"{\"num_hidden_layers\":0}", BAD, "num_hidden_layers: "},
    {"{\"num_hidden_layers\":100000}", BAD, "num_hidden_layers: "},
    {"{\"num_attention_heads\":100000}", BAD, "num_attention_heads: "},
    {"{\"kv_lora_rank\":0}", BAD, "kv_lora_rank: "},
    {"{\"kv_lora_rank\":null}", BAD, "kv_lora_rank: is missing"},
    {"{\"qk_nope_head_dim\":0}", BAD, "qk_nope_head_dim: "},
    {"{\"qk_rope_head_dim\":0}", BAD, "qk_rope_head_dim: "},
    {"{\"qk_rope_head_dim\":3}", BAD, "qk_rope_head_dim: 3 is odd"},
    {"{\"v_head_dim\":0}", BAD, "v_head_dim: "},
    {"{\"max_position_embeddings\":0}", BAD, "max_position_embeddings: "},
    {"{\"q_lora_rank\":null}", BAD, "q_lora_rank: is missing; null"},
    {"{\"q_lora_rank\":-3}", BAD, "q_lora_rank: -3"},
    {"{\"num_key_value_heads\":1}", UNSUPPORTED, "num_key_value_heads: 1 differs"},
    {"{\"num_nextn_predict_layers\":2}", UNSUPPORTED, "num_nextn_predict_layers: 2"},
    {"{\"rms_norm_eps\":0}", BAD, "rms_norm_eps: 0 is not in"},
    {"{\"rms_norm_eps\":\"1e-6\"}", BAD, "rms_norm_eps: is not a number"},
    {"{\"tie_word_embeddings\":1}", BAD, "tie_word_embeddings: is not true or false"},
    /* variants */
    {"{\"hidden_act\":\"gelu\"}", UNSUPPORTED, "hidden_act: \"gelu\""},
    {"{\"attention_bias\":true}", UNSUPPORTED, "attention_bias: true"},
    {"{\"mlp_bias\":true}", UNSUPPORTED, "mlp_bias: true"},
    {"{\"use_mla\":false}", UNSUPPORTED, "use_mla: false"},
    /* experts */
    {"{\"n_routed_experts\":100000}", BAD, "n_routed_experts: "},
    {"{\"moe_intermediate_size\":null}", BAD, "moe_intermediate_size: is missing"},
    {"{\"moe_intermediate_size\":0}", BAD, "moe_intermediate_size: "},
    {"{\"num_experts_per_tok\":null}", BAD, "num_experts_per_tok: is missing"},
    {"{\"num_experts_per_tok\":17}", BAD, "num_experts_per_tok: 17 is not in 1..16"},
    {"{\"num_experts_per_tok\":0}", BAD, "num_experts_per_tok: 0"},
    {"{\"n_shared_experts\":1000}", BAD, "n_shared_experts: "},
    {"{\"moe_layer_freq\":0}", BAD, "moe_layer_freq: "},
    {"{\"n_group\":0}", BAD, "n_group: 0"},
    {"{\"n_group\":5}", BAD, "n_group: 5 does not divide n_routed_experts (16)"},
    {"{\"n_group\":2}", BAD, "topk_group: 4 is more than n_group (2)"},
    {"{\"topk_group\":0}", BAD, "topk_group: 0"},
    {"{\"num_experts_per_tok\":9}", BAD, "num_experts_per_tok: 9 is more than the 8"},
    {"{\"n_group\":16}", BAD, "n_group: 16 leaves one expert"},
    {"{\"scoring_func\":\"tanh\"}", UNSUPPORTED, "scoring_func: \"tanh\""},
    {"{\"topk_method\":\"aux\"}", UNSUPPORTED, "topk_method: \"aux\""},
    {"{\"norm_topk_prob\":\"yes\"}", BAD, "norm_topk_prob: "},
    {"{\"routed_scaling_factor\":-1}", BAD, "routed_scaling_factor: -1"},
    /* positions */
    {"{\"rope_theta\":1}", BAD, "rope_theta: 1 is not in 2.."},
    {"{\"rope_interleave\":false}", UNSUPPORTED, "rope_interleave: false"},
    {"{\"rope_scaling\":40}", BAD, "rope_scaling: is not an object"},
    {"{\"rope_scaling\":{}}", BAD, "rope_scaling.rope_type: is missing"},
    {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", UNSUPPORTED,
     "rope_scaling.rope_type: \"linear\""},
    {"{\"rope_parameters\":{\"rope_type\":\"llama3\"}}", UNSUPPORTED,
     "rope_parameters.rope_type: \"llama3\""},
    {"{\"rope_scaling\":{\"type\":\"yarn\"}}", BAD, "rope_scaling.factor: is missing"},
    {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2}}", BAD,
     "rope_scaling.original_max_position_embeddings: is missing"},
    {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":0.5}}", BAD, "rope_scaling.factor: 0.5"},
    {"{\"rope_scaling\":{" YARN ",\"beta_fast\":0.5}}", BAD, "rope_scaling.beta_fast: 0.5 is less"},
    {"{\"rope_scaling\":{" YARN ",\"mscale\":-1}}", BAD, "rope_scaling.mscale: -1"},
    {"{\"rope_scaling\":{" YARN ",\"truncate\":false}}", UNSUPPORTED, "rope_scaling.truncate: "},
    {"{\"rope_scaling\":{" YARN ",\"attention_factor\":1.0}}", UNSUPPORTED,
     "rope_scaling.attention_factor: "},
    /* quantization */
    {"{\"quantization_config\":\"fp8\"}", BAD, "quantization_config: is not an object"},
    {"{\"quantization_config\":{}}", BAD, "quantization_config.quant_method: is missing"},
    {"{\"quantization_config\":{\"quant_method\":\"gptq\"}}", UNSUPPORTED,
     "quantization_config.quant_method: \"gptq\""},
    {"{\"quantization_config\":{\"quant_method\":\"fp8\"}}", UNSUPPORTED,
     "quantization_config.weight_block_size: "},
    {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128]}}",
     UNSUPPORTED, "quantization_config.weight_block_size: "},
    {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[0,128]}}", BAD,
     "quantization_config.weight_block_size: [0, 128]"},
    {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\","
     "\"weight_block_size\":[128,128]}}",
     UNSUPPORTED, "quantization_config.fmt: \"e5m2\""},
    {"{\"compression_config\":{}}", UNSUPPORTED, "compression_config: "},
    {CT("float-quantized", CT_WEIGHTS, CT_TOKENS), UNSUPPORTED,
     "quantization_config.format: \"float-quantized\" is not supported; int-quantized is"},
    {CT("pack-quantized", CT_WEIGHTS, CT_TOKENS), UNSUPPORTED, "quantization_config.format: "},
    {CT("int-quantized", CT_WEIGHTS, "null"), UNSUPPORTED,
     CT_GROUP("input_activations") "is missing: only W8A8"},
    {CT("int-quantized", "null", CT_TOKENS), UNSUPPORTED, CT_GROUP("weights") "is missing"},
    {CT("int-quantized", "8", CT_TOKENS), UNSUPPORTED, CT_GROUP("weights") "is missing"},
    {CT("int-quantized", CT_ARGS("group", "false"), CT_TOKENS), UNSUPPORTED,
     CT_GROUP("weights") "is not symmetric INT8 with strategy \"channel\""},
    {CT("int-quantized", CT_WEIGHTS, CT_ARGS("tensor", "false")), UNSUPPORTED,
     CT_GROUP("input_activations") "is not symmetric INT8 with strategy \"token\""},
    {CT("int-quantized", "{\"num_bits\":4,\"strategy\":\"channel\"}", CT_TOKENS), UNSUPPORTED,
     CT_GROUP("weights") "is not symmetric INT8"},
    {CT("int-quantized", "{\"num_bits\":8,\"strategy\":\"channel\",\"type\":\"float\"}", CT_TOKENS),
     UNSUPPORTED, CT_GROUP("weights") "is not symmetric INT8"},
    {CT("int-quantized", "{\"num_bits\":8,\"strategy\":\"channel\",\"symmetric\":false}",
        CT_TOKENS),
     UNSUPPORTED, CT_GROUP("weights") "is not symmetric INT8"},
    {CT("int-quantized", "{\"strategy\":\"channel\"}", CT_TOKENS), BAD,
     "quantization_config.config_groups.group_0.weights.num_bits: is missing"},
    {CT("int-quantized", "{\"num_bits\":\"8\",\"strategy\":\"channel\"}", CT_TOKENS), BAD,
     "quantization_config.config_groups.group_0.weights.num_bits: is not a whole number"},
    {CT("int-quantized", "{\"num_bits\":8,\"strategy\":3}", CT_TOKENS), BAD,
     "quantization_config.config_groups.group_0.weights.strategy: is not a string"},
    {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}", UNSUPPORTED,
     "quantization_config.format: \"\""},
    {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\","
     "\"format\":\"int-quantized\"}}",
     BAD, "quantization_config.config_groups: has no group"},
    {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\","
     "\"format\":\"int-quantized\",\"config_groups\":{\"g\":[]}}}",
     UNSUPPORTED, "quantization_config.config_groups.g.weights: is missing"},
    /* token ids */
    {"{\"bos_token_id\":100}", BAD, "bos_token_id: 100 is not in 0..99"},
    {"{\"eos_token_id\":100}", BAD, "eos_token_id: is not a token id below vocab_size (100)"},
    {"{\"eos_token_id\":-1}", BAD, "eos_token_id: "},
    {"{\"eos_token_id\":[1,\"2\"]}", BAD, "eos_token_id: "},
    {"{\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", CMI_ERR_TOO_LARGE, "eos_token_id: more than 8"},
};

static void wrong_fields_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_model_config c;
        cmi_error err = {0};
        cmi_status st = parse(&c, cases[i].changes, &err);
        if (st != cases[i].status || strncmp(err.text, "dir/config.json: ", 17) != 0 ||
            strncmp(err.text + 17, cases[i].says, strlen(cases[i].says)) != 0) {
            fail_msg("%s: %d, %s", cases[i].changes, st, err.text);
        }
    }
}

static void what_is_not_a_json_object_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "{",
                                        "[]",
                                        "3",
                                        "{} x",
                                        "{\"a\":1,\"a\":2}",
                                        "{\"vocab_size\":NaN}",
                                        "{\"a\":\"\xff\"}",
                                        "{\"rope_theta\":1e999}"};
    for (size_t i = 0; i < CMI_LEN(texts); i++) {
        cmi_model_config c;
        cmi_error err = {0};
        assert_int_equal(cmi_model_config_parse(&c, texts[i], strlen(texts[i]), "x", &err), BAD);
        assert_true(err.text[0] == 'x');
    }
}

static void generation_config_adds_defaults_and_ends(void **state)
{
    (void)state;
    cmi_model_config c = parse_ok("{\"eos_token_id\":1}");
    cmi_generation_config g;
    cmi_error err;
    const char text[] = "{\"temperature\":0.6,\"top_p\":0.95,\"top_k\":40,\"do_sample\":false,"
                        "\"repetition_penalty\":1.1,\"eos_token_id\":[1,5]}";
    assert_int_equal(cmi_generation_config_parse(&g, &c, text, strlen(text), "x", &err), CMI_OK);
    assert_true(g.temperature == 0.6 && g.top_p == 0.95 && g.repetition_penalty == 1.1);
    assert_int_equal(g.top_k, 40);
    assert_false(g.do_sample);
    assert_int_equal(c.n_eos_token_ids, 2);
    assert_int_equal(c.eos_token_ids[1], 5);
    assert_int_equal(cmi_generation_config_parse(&g, &c, "{}", 2, "x", &err), CMI_OK);
    assert_true(isnan(g.temperature) && isnan(g.top_p) && isnan(g.repetition_penalty));
    assert_int_equal(g.top_k, 0);
    assert_true(g.do_sample);
    const char wrong[] = "{\"top_p\":2,\"eos_token_id\":7}";
    assert_int_equal(cmi_generation_config_parse(&g, &c, wrong, strlen(wrong), "x", &err), BAD);
    assert_string_equal(err.text, "x: top_p: 2 is not in 0..1");
    assert_int_equal(c.n_eos_token_ids, 2);
}

static void a_directory_needs_config_json_only(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    cmi_model_config c;
    cmi_generation_config g;
    cmi_error err = {0};
    assert_int_equal(cmi_model_config_load(&c, &g, dir.path, &err), CMI_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "config.json"));
    temp_write_text(&dir, "config.json", smallest_v3);
    assert_int_equal(cmi_model_config_load(&c, &g, dir.path, &err), CMI_OK);
    assert_int_equal(c.vocab_size, 100);
    assert_true(isnan(g.temperature));
    temp_write_text(&dir, "generation_config.json", "{\"temperature\":\"hot\"}");
    assert_int_equal(cmi_model_config_load(&c, &g, dir.path, &err), BAD);
    assert_non_null(strstr(err.text, "/generation_config.json: temperature: is not a number"));
    temp_dir_remove(&dir);
}

static void a_huge_file_is_refused_unread(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    FILE *f = fopen(temp_path(&dir, "config.json"), "wb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 16 << 20, SEEK_SET), 0); /* sparse */
    assert_int_equal(fputc(' ', f), ' ');
    fclose(f);
    cmi_model_config c;
    cmi_generation_config g;
    cmi_error err;
    assert_int_equal(cmi_model_config_load(&c, &g, dir.path, &err), CMI_ERR_TOO_LARGE);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v3_has_its_classes_defaults),
        cmocka_unit_test(v2_has_its_classes_defaults),
        cmocka_unit_test(v2_scales_only_what_it_does_not_normalize),
        cmocka_unit_test(published_variants_are_read),
        cmocka_unit_test(int8_forms_are_read),
        cmocka_unit_test(newer_rope_parameters_are_read),
        cmocka_unit_test(one_rotated_pair_has_no_order),
        cmocka_unit_test(moe_layers_follow_first_k_and_freq),
        cmocka_unit_test(wrong_fields_are_refused_by_name),
        cmocka_unit_test(what_is_not_a_json_object_is_refused),
        cmocka_unit_test(generation_config_adds_defaults_and_ends),
        cmocka_unit_test(a_directory_needs_config_json_only),
        cmocka_unit_test(a_huge_file_is_refused_unread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
