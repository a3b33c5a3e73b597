/* Any bytes as config.json and as generation_config.json: an error line, or a config whose promises
 * hold. */
#include "model/config.h"
#include "model/weights.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check_config(const cmi_model_config *c)
{
    const cmi_weights_options opt = {.dtype = CMI_DTYPE_BF16, .with_mtp = true};
    uint64_t n_bytes = cmi_weights_estimate_bytes(c, &opt);
    assert(n_bytes >= 2ull * c->vocab_size * c->hidden_size && n_bytes < UINT64_MAX / 2);
    assert(c->qk_rope_head_dim % 2 == 0);
    assert(c->n_eos_token_ids <= CMI_LEN(c->eos_token_ids));
    if (c->n_routed_experts > 0) {
        assert(c->n_routed_experts % c->n_group == 0 && c->topk_group <= c->n_group);
        assert(c->num_experts_per_tok <= c->n_routed_experts / c->n_group * c->topk_group);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    cmi_error err = {0};
    cmi_model_config config = {.vocab_size = 1000};
    cmi_generation_config generation;
    const char *text = (const char *)data;
    if (cmi_model_config_parse(&config, text, n_bytes, "input", &err) == CMI_OK) {
        check_config(&config);
    } else {
        assert(strncmp(err.text, "input:", 6) == 0);
    }
    cmi_status st = cmi_generation_config_parse(&generation, &config, text, n_bytes, "input", &err);
    assert(st == CMI_OK || strncmp(err.text, "input:", 6) == 0);
    return 0;
}
