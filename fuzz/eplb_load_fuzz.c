/* Any bytes as a load file: an error line, or loads that every placement takes. */
#include "cli/eplb_load.h"
#include "policy/expert_load.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    cmi_error err = {0};
    cmi_eplb_load load;
    if (cmi_eplb_load_parse(&load, (const char *)data, n_bytes, "input", &err) == CMI_OK) {
        assert(load.n_layers >= 1 && load.n_layers <= CMI_EXPERT_LAYERS_MAX);
        assert(load.n_experts >= 1 && load.n_experts <= CMI_EXPERTS_MAX);
        for (size_t i = 0; i < (size_t)load.n_layers * load.n_experts; i++) {
            assert(load.loads[i] >= 0 && load.loads[i] <= CMI_EXPERT_LOAD_MAX);
            assert(!(load.loads[i] < CMI_EXPERT_LOAD_MIN) || load.loads[i] == 0);
        }
    } else {
        assert(strncmp(err.text, "input: ", 7) == 0);
    }
    cmi_eplb_load_deinit(&load);
    return 0;
}
