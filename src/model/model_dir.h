/* model/model_dir.h - from what a user calls a model to the directory that holds it.
 *
 * Looks at files, never at the network or the environment. Any thread. */
#ifndef CMI_MODEL_MODEL_DIR_H
#define CMI_MODEL_MODEL_DIR_H

#include "base/buf.h"
#include "base/error.h"

/* Values of the environment variables of the same names, NULL or "" where they are not set. The
 * Hugging Face cache is HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else
 * HOME/.cache/huggingface/hub. */
typedef struct cmi_model_dir_env {
    const char *hf_hub_cache;
    const char *hf_home;
    const char *xdg_cache_home;
    const char *home;
} cmi_model_dir_env;

/* model is one of, tried in this order:
 *   a directory with a config.json,
 *   a model's folder in a Hugging Face cache (models--org--name): the snapshot of its refs/main,
 *   "org/name": the same, in the cache that env says.
 * Writes the directory's path to dir_out, which is initialized here; the caller deinits it also
 * after an error. CMI_ERR_NOT_FOUND: nowhere; err says where it was looked for and what to do.
 * CMI_ERR_BAD_DATA: refs/main does not name a snapshot. */
CMI_NODISCARD cmi_status cmi_model_dir_resolve(cmi_buf *dir_out, const char *model,
                                               const cmi_model_dir_env *env, cmi_error *err);

#endif
