/* policy/expert_load.h - how many rows each expert got lately: counted in a window, and aged from
 * window to window.
 *
 *     aged' = aged - ceil(aged / 2^age_shift) + counted in this window
 *
 * so a window weighs 1 - 2^-age_shift of the next one, and what is no longer used goes to 0. With
 * age_shift 0 only the last window counts. All integers: the same history gives the same loads on
 * every machine. Counts of ranks are added before a window is closed, in any order.
 *
 * Pure: memory comes from the caller. Thread: one, the owner's. */
#ifndef CMI_POLICY_EXPERT_LOAD_H
#define CMI_POLICY_EXPERT_LOAD_H

#include "policy/expert_placement.h"

enum { CMI_EXPERT_LAYERS_MAX = 1024, CMI_EXPERT_AGE_SHIFT_MAX = 16 };

typedef struct cmi_expert_load {
    uint32_t n_layers;
    uint32_t n_experts;
    uint32_t age_shift;
    uint64_t *aged;   /* [n_layers][n_experts] rows, < 2^49 */
    uint32_t *window; /* [n_layers][n_experts] rows of the open window; stays at 2^32 - 1 */
} cmi_expert_load;

/* Bytes for it; 0: a number is out of range. */
size_t cmi_expert_load_bytes(uint32_t n_layers, uint32_t n_experts);

/* Puts the counts, all 0, into memory (aligned for uint64_t), which must outlive it.
 * CMI_ERR_INVALID: a number is out of range (1 .. CMI_EXPERT_LAYERS_MAX, 1 .. CMI_EXPERTS_MAX,
 * 0 .. CMI_EXPERT_AGE_SHIFT_MAX). */
CMI_NODISCARD cmi_status cmi_expert_load_init(cmi_expert_load *load, void *memory,
                                              uint32_t n_layers, uint32_t n_experts,
                                              uint32_t age_shift);

/* n_rows more went to an expert. */
void cmi_expert_load_add(cmi_expert_load *load, uint32_t layer, uint32_t expert, uint32_t n_rows);

/* Closes the window of all layers and opens the next one. O(n_layers * n_experts). */
void cmi_expert_load_age(cmi_expert_load *load);

/* The aged counts of a layer (without the open window), for cmi_expert_placement_make:
 * loads_out [n_experts]. */
void cmi_expert_load_read(const cmi_expert_load *load, uint32_t layer, float *loads_out);

#endif
