/* model/weights_internal.h - how loading is cut in two: weights_plan.c says which tensor goes
 * where, weights_copy.c converts. */
#ifndef CMI_MODEL_WEIGHTS_INTERNAL_H
#define CMI_MODEL_WEIGHTS_INTERNAL_H

#include "model/checkpoint.h"
#include "model/weights.h"

/* One tensor's way into the block. */
typedef struct cmi_weights_copy {
    const cmi_checkpoint_tensor *source;
    const uint8_t *scale; /* F32 [scale_rows][scale_cols], unaligned; NULL unless source is FP8 */
    uint64_t scale_cols;
    uint32_t block_rows, block_cols; /* of one scale */
    void *dest;
    size_t dest_stride; /* elements */
    cmi_dtype dest_dtype;
    uint64_t n_rows, n_cols; /* a vector is one row */
} cmi_weights_copy;

typedef struct cmi_weights_plan {
    const cmi_model_config *config;
    cmi_dtype dtype;
    bool with_mtp;
    const cmi_checkpoint *checkpoint; /* NULL: sizes only */
    uint8_t *block;                   /* NULL: nothing is placed */
    uint64_t n_bytes;                 /* of the block so far */
    cmi_weights_copy *copies;         /* [n_copies] once block is set */
    size_t n_copies;
    cmi_error *err;
    cmi_status status; /* the first error */
} cmi_weights_plan;

/* Walks over everything that the config asks for, always in the same order. Without checkpoint it
 * counts n_bytes; with one it also looks up every tensor and checks it, and counts n_copies; with a
 * block of n_bytes too, it fills the block's structs and copies. Returns the weights at the head of
 * the block, NULL without block or on error (status). */
cmi_weights *cmi_weights_plan_walk(cmi_weights_plan *plan);

/* Refuses a checkpoint with more layers or experts than the config says. */
CMI_NODISCARD cmi_status cmi_weights_check_names(const cmi_checkpoint *checkpoint,
                                                 const cmi_model_config *config, cmi_error *err);

/* Any tensor of layer idx is there. */
bool cmi_weights_has_layer(const cmi_checkpoint *checkpoint, uint32_t layer_idx);

/* Does all copies, ordered by their place in the files (which orders the array). */
void cmi_weights_copy_run(cmi_weights_copy *copies, size_t n_copies,
                          const cmi_weights_options *opt);

/* Fills every layer's w_uk_t from its kv_b_proj. */
void cmi_weights_transpose_run(cmi_weights *weights, const cmi_model_config *config,
                               cmi_team *team);

#endif
