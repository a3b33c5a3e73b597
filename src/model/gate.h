/* model/gate.h - which experts a token goes to, and how much each counts (DeepSeek-V3 2.1.2).
 *
 * Scalar code: a gate row is hundreds of values beside millions of expert weights. Ties are broken
 * by the lower index, for groups as for experts, so that the choice is a function of the bits
 * alone. */
#ifndef CMI_MODEL_GATE_H
#define CMI_MODEL_GATE_H

#include "model/config.h"

enum { CMI_GATE_MAX_EXPERTS = 2048, CMI_GATE_MAX_TOP_K = 64 };

/* logits: [n_routed_experts], the gate's product with one normed token. bias: [n_routed_experts],
 * may be NULL; it takes part in the selection only. Writes num_experts_per_tok experts in
 * descending order of what selected them, and their weights. */
void cmi_gate_select(const cmi_model_config *config, const float *logits, const float *bias,
                     uint32_t *experts_out, float *weights_out);

#endif
