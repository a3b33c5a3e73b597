/* model/weights_digest.h - one name for the weights and the mathematics of a model.
 *
 * docs/CONTENT_KEY.md is the specification, with test vectors. Two models have the same digest if
 * they have the same tensors (name, type, shape and bytes), whichever files hold them in whatever
 * order, and the same values in all fields of config.json that change what is computed.
 *
 *     leaf    about 128 KiB of rows of a tensor
 *     tensor  its name, type and shape, and its leaves
 *     set     all tensors of the model, in the order of their digests
 *     model   the config's fields, and the set
 *
 * A tensor's digest needs no other tensor and a set needs their digests only, so that ranks which
 * see a part of the weights each can agree about the whole. Leaves are hashed by whoever reads
 * them, in any order.
 *
 * Weights without experts (cmi_weights_options.without_experts) are named by all tensors that they
 * hold and by a *sample* of each expert's: name, type, shape and first row. So all ranks come to
 * the same digest without reading the experts, and a model with other experts gets another one
 * unless every first row is the same. It is another digest than that of the whole, unless there are
 * no experts. Of random weights it is the same, since the seed says it all. */
#ifndef CMI_MODEL_WEIGHTS_DIGEST_H
#define CMI_MODEL_WEIGHTS_DIGEST_H

#include "base/blake2b.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "os/team.h"

typedef struct cmi_digest {
    uint8_t bytes[CMI_BLAKE2B_BYTES];
} cmi_digest;

/* Rows of a tensor that make one leaf (the last one may have fewer). A row is what the last
 * dimension spans; 0: the tensor has no bytes. */
uint64_t cmi_weights_leaf_rows(const cmi_tensor *tensor);

/* Of one tensor with its bytes at data. On the calling thread. */
void cmi_weights_digest_tensor(cmi_digest *digest_out, const cmi_tensor *tensor,
                               const uint8_t *data);

/* A tensor's sample. */
void cmi_weights_digest_sample(cmi_digest *digest_out, const cmi_tensor *tensor,
                               const uint8_t *data);

/* Of a set; orders its members. */
void cmi_weights_digest_set(cmi_digest *set_out, cmi_digest *tensors, size_t n_tensors);

/* In place of a set: random weights (cmi_weights_random), named by what makes their bytes. plan:
 * cmi_weights_plan.digest, and layout the version of the block. */
void cmi_weights_digest_random(cmi_digest *set_out, uint64_t seed, uint64_t plan, uint32_t layout);

/* Of the model: what a content key takes. */
void cmi_weights_digest_model(cmi_digest *digest_out, const cmi_model_config *config,
                              const cmi_digest *set);

/* ---- while tensors stream by ---- */

/* Collects the leaves of some tensors of a checkpoint. */
typedef struct cmi_weights_hash cmi_weights_hash;

/* checkpoint must outlive it. Takes 33 bytes a leaf. */
cmi_weights_hash *cmi_weights_hash_create(const cmi_checkpoint *checkpoint);
void cmi_weights_hash_destroy(cmi_weights_hash *hash); /* NULL is fine */

/* The tensor belongs to the set (NULL is fine, and so is twice). Before all others are called. */
void cmi_weights_hash_want(cmi_weights_hash *hash, const cmi_checkpoint_tensor *tensor);

/* A sample of the tensor belongs to it (NULL is fine): once for a tensor, and not wanted whole. */
void cmi_weights_hash_want_sample(cmi_weights_hash *hash, const cmi_checkpoint_tensor *tensor);

/* After the last cmi_weights_hash_want and _sample. */
void cmi_weights_hash_begin(cmi_weights_hash *hash);

/* These rows are in the caches now: hashes the leaves that lie in them whole, those that nobody has
 * hashed yet. Any thread. */
void cmi_weights_hash_rows(cmi_weights_hash *hash, const cmi_checkpoint_tensor *tensor,
                           uint64_t first_row, uint64_t n_rows);

/* Hashes the next thousands of samples, on the team; false: there are none left. */
bool cmi_weights_hash_samples(cmi_weights_hash *hash, cmi_team *team);

/* Hashes the leaves and samples that are left, on the team, and the set. */
void cmi_weights_hash_finish(cmi_weights_hash *hash, cmi_team *team, cmi_digest *set_out);

#endif
