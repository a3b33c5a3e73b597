/* model/config_internal.h - what the files that read config.json share.
 *
 * The limits are far above every published model and low enough that no product of sizes in model/
 * or engine/ can overflow 64 bits: the largest, layers x experts x 3 matrices x width x hidden_size
 * x 4 bytes, stays under 2^61. A row's length (heads x head dimensions, 2 x width) is at most
 * 2^27.
 */
#ifndef CMI_MODEL_CONFIG_INTERNAL_H
#define CMI_MODEL_CONFIG_INTERNAL_H

#include "model/config.h"
#include "model/gate.h"
#include "model/json_fields.h"

enum {
    CMI_CONFIG_MAX_VOCAB = 1 << 22,
    CMI_CONFIG_MAX_HIDDEN = 1 << 16,
    CMI_CONFIG_MAX_WIDTH = 1 << 20,
    CMI_CONFIG_MAX_LAYERS = 1 << 10,
    CMI_CONFIG_MAX_HEADS = 1 << 12,
    CMI_CONFIG_MAX_HEAD_DIM = 1 << 12,
    CMI_CONFIG_MAX_RANK = 1 << 16,
    CMI_CONFIG_MAX_EXPERTS = CMI_GATE_MAX_EXPERTS,
    CMI_CONFIG_MAX_EXPERTS_PER_TOK = CMI_GATE_MAX_TOP_K,
    CMI_CONFIG_MAX_SHARED_EXPERTS = 1 << 6,
    CMI_CONFIG_MAX_POSITIONS = 1 << 24, /* what a request message can hold, and rope.c reduce */
    CMI_CONFIG_MAX_FP8_BLOCK = 1 << 16,
};

typedef enum cmi_config_family { CMI_CONFIG_V2, CMI_CONFIG_V3 } cmi_config_family;

/* Each reads and checks its group of fields; *c holds the family's defaults and the sizes. */
void cmi_config_read_experts(cmi_json_fields *f, cmi_model_config *c, cmi_config_family family);
void cmi_config_read_rope(cmi_json_fields *f, cmi_model_config *c);
void cmi_config_read_quantization(cmi_json_fields *f, cmi_model_config *c);

#endif
