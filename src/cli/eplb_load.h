/* cli/eplb_load.h - the load file of `cminfer eplb`: a JSON array with an array for each layer,
 * which holds a number for each expert: tokens, or any measure of its work. */
#ifndef CMI_CLI_EPLB_LOAD_H
#define CMI_CLI_EPLB_LOAD_H

#include "base/error.h"

typedef struct cmi_eplb_load {
    uint32_t n_layers;  /* 1 .. CMI_EXPERT_LAYERS_MAX */
    uint32_t n_experts; /* 1 .. CMI_EXPERTS_MAX, the same in every layer */
    float *loads;       /* [n_layers][n_experts]: what cmi_expert_placement_make takes */
} cmi_eplb_load;

/* Reads text; deinit out always. err says "file: layer l: expert e: ...", both from 0.
 * CMI_ERR_BAD_DATA: no JSON, another shape, or a load that is negative or out of range.
 * CMI_ERR_TOO_LARGE: more layers or experts than there may be. Any thread. */
CMI_NODISCARD cmi_status cmi_eplb_load_parse(cmi_eplb_load *out, const char *text, size_t n_bytes,
                                             const char *file, cmi_error *err);
void cmi_eplb_load_deinit(cmi_eplb_load *load); /* NULL or zeroed is fine */

#endif
