/* model/expert_slabs.h - routed experts one by one, for a process that holds some of them.
 *
 * Weights are made without experts (cmi_weights_options.without_experts), and each expert that is
 * to be here gets a slab: gate_up and down in one contiguous piece of memory without pointers, of
 * the same size for all experts of a model. What an expert's slab holds comes from the model's
 * files (or from the seed of random weights) whenever it is wanted: at the start, when experts are
 * to be elsewhere, and when the process that had it is gone. That is one way for all three, which
 * needs nobody alive but this process, and its bytes are those of a whole load
 * (cmi_weights_load, cmi_weights_random) with the same options.
 *
 *     open a source                    once; files stay open and mapped
 *     cmi_expert_read_many             at the start, on the team
 *     cmi_expert_read                  later, on a thread of its own
 *     cmi_expert_view, cmi_weights_set_expert   between two passes: from now on it computes here
 *
 * Slabs are the caller's memory, also their place on memory nodes and in huge pages. Reading one
 * allocates some rows' scratch and waits for disks: not for the thread that runs steps. */
#ifndef CMI_MODEL_EXPERT_SLABS_H
#define CMI_MODEL_EXPERT_SLABS_H

#include "model/weights.h"

typedef struct cmi_expert_source cmi_expert_source;

typedef struct cmi_expert_id {
    uint32_t layer_idx; /* with routed experts; num_hidden_layers: the MTP layer */
    uint32_t expert;    /* 0 .. n_routed_experts - 1 */
} cmi_expert_id;

/* An expert and where it is to go. */
typedef struct cmi_expert_target {
    cmi_expert_id id;
    void *slab; /* [cmi_expert_slab_bytes], 64-byte aligned; what is in it is overwritten */
} cmi_expert_target;

/* Bytes of a slab, a multiple of 64. Of opt counts dtype. For a model with routed experts. */
uint64_t cmi_expert_slab_bytes(const cmi_model_config *config, const cmi_weights_options *opt);

/* Opens the files of dir and checks what cmi_weights_load checks: every tensor that the config asks
 * for, so those of all experts, is there with its shape and a type that can be read. No weight is
 * read. Of opt count dtype and with_mtp. Errors are those of cmi_weights_load (but for memory).
 * config is copied. *source_out is untouched on error. */
CMI_NODISCARD cmi_status cmi_expert_source_open(cmi_expert_source **source_out,
                                                const cmi_model_config *config, const char *dir,
                                                const cmi_weights_options *opt, cmi_error *err);

/* The experts of cmi_weights_random with that seed. */
CMI_NODISCARD cmi_status cmi_expert_source_random(cmi_expert_source **source_out,
                                                  const cmi_model_config *config, uint64_t seed,
                                                  const cmi_weights_options *opt, cmi_error *err);

/* When nobody reads. Slabs and views stay good. NULL is fine. */
void cmi_expert_source_close(cmi_expert_source *source);

/* The layer has routed experts here: not beyond the last one, nor the MTP layer where the options
 * or the files have none. */
bool cmi_expert_source_has_layer(const cmi_expert_source *source, uint32_t layer_idx);

/* Reads one expert on the calling thread, whose float mode becomes that of base/float_env.h. Any
 * thread, many at once as long as slabs differ, and beside forward passes over other experts.
 * Pages of the files are released behind it as in a whole load.
 *
 * CMI_ERR_IO: the device fails, or somebody has truncated a file since; the slab is then of no use,
 * and trying again may help. That needs Linux 5.14: on older systems, and if the file is truncated
 * in just this moment, the process dies of SIGBUS. A file that is overwritten in place gives other
 * weights unnoticed; one that is replaced by another of its name does not matter, since the old one
 * stays mapped. Random weights: always CMI_OK. */
CMI_NODISCARD cmi_status cmi_expert_read(const cmi_expert_source *source,
                                         const cmi_expert_target *target, cmi_error *err);

/* Reads many in the order of the files, as cmi_weights_load does. Of opt count the team, whose
 * owner calls (NULL: the calling thread does it alone, as above), and progress. Errors as above,
 * after which no slab is of use. */
CMI_NODISCARD cmi_status cmi_expert_read_many(const cmi_expert_source *source,
                                              const cmi_expert_target *targets, size_t n_targets,
                                              const cmi_weights_options *opt, cmi_error *err);

/* What the forward pass reads of a slab. */
cmi_ffn cmi_expert_view(const cmi_expert_source *source, const void *slab);

#endif
