#include "policy/expert_load.h"

#include <assert.h>
#include <string.h>

size_t cmi_expert_load_bytes(uint32_t n_layers, uint32_t n_experts)
{
    if (n_layers < 1 || n_layers > CMI_EXPERT_LAYERS_MAX || n_experts < 1 ||
        n_experts > CMI_EXPERTS_MAX) {
        return 0;
    }
    return (size_t)n_layers * n_experts * (sizeof(uint64_t) + sizeof(uint32_t));
}

cmi_status cmi_expert_load_init(cmi_expert_load *load, void *memory, uint32_t n_layers,
                                uint32_t n_experts, uint32_t age_shift)
{
    const size_t n_bytes = cmi_expert_load_bytes(n_layers, n_experts);
    if (n_bytes == 0 || age_shift > CMI_EXPERT_AGE_SHIFT_MAX) {
        return CMI_ERR_INVALID;
    }
    memset(memory, 0, n_bytes);
    load->n_layers = n_layers;
    load->n_experts = n_experts;
    load->age_shift = age_shift;
    load->aged = memory;
    load->window = (uint32_t *)(void *)(load->aged + (size_t)n_layers * n_experts);
    return CMI_OK;
}

void cmi_expert_load_add(cmi_expert_load *load, uint32_t layer, uint32_t expert, uint32_t n_rows)
{
    assert(layer < load->n_layers && expert < load->n_experts);
    uint32_t *count = &load->window[(size_t)layer * load->n_experts + expert];
    *count += CMI_MIN(n_rows, UINT32_MAX - *count);
}

void cmi_expert_load_age(cmi_expert_load *load)
{
    const uint64_t divisor = 1ull << load->age_shift;
    const size_t n = (size_t)load->n_layers * load->n_experts;
    for (size_t i = 0; i < n; i++) {
        load->aged[i] += load->window[i] - CMI_DIV_UP(load->aged[i], divisor);
        load->window[i] = 0;
    }
}

void cmi_expert_load_read(const cmi_expert_load *load, uint32_t layer, float *loads_out)
{
    assert(layer < load->n_layers);
    const uint64_t *aged = &load->aged[(size_t)layer * load->n_experts];
    for (uint32_t e = 0; e < load->n_experts; e++) {
        loads_out[e] = (float)aged[e];
    }
}
