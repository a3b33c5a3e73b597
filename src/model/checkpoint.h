/* model/checkpoint.h - the tensors of a Hugging Face directory, whichever files hold them.
 *
 * A directory holds model.safetensors, or model.safetensors.index.json whose weight_map says which
 * of the shards beside it holds a tensor. If both are there the single file is read, as Hugging
 * Face's own loader does. After opening, a checkpoint is immutable and may be read by any thread.
 */
#ifndef CMI_MODEL_CHECKPOINT_H
#define CMI_MODEL_CHECKPOINT_H

#include "model/safetensors.h"

enum {
    CMI_CHECKPOINT_MAX_SHARDS = 4096,
    CMI_CHECKPOINT_MAX_INDEX_BYTES =
        64 * 1024 * 1024, /* 91 thousand tensors (DeepSeek-V3) make 9 MB */
};

typedef struct cmi_checkpoint_tensor {
    const cmi_safetensors *file;
    const cmi_tensor *tensor;
} cmi_checkpoint_tensor;

typedef struct cmi_checkpoint {
    char *dir;              /* for error lines */
    cmi_safetensors *files; /* all open */
    uint32_t n_files;
    cmi_checkpoint_tensor *tensors; /* ordered by name */
    uint32_t n_tensors;
} cmi_checkpoint;

/* Opens and checks every file that is named. CMI_ERR_NOT_FOUND: no safetensors in dir, or a shard
 * that the index names is not there. CMI_ERR_BAD_DATA: a file or the index is broken, or they
 * contradict each other. *checkpoint_out is untouched on error. */
CMI_NODISCARD cmi_status cmi_checkpoint_open(cmi_checkpoint *checkpoint_out, const char *dir,
                                             cmi_error *err);
void cmi_checkpoint_close(cmi_checkpoint *checkpoint); /* NULL or zeroed is fine */

/* NULL when there is no tensor of that name. O(log n). */
const cmi_checkpoint_tensor *cmi_checkpoint_find(const cmi_checkpoint *checkpoint,
                                                 const char *name);

#endif
