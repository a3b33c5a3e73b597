/* policy/content_key.h - the names of KV blocks: all that a block's bytes depend on, hashed.
 *
 * docs/CONTENT_KEY.md is the specification, with test vectors. A key names the KV of 128
 * consecutive prompt tokens, given all tokens before them, under one namespace and one model.
 * Whoever does not know the namespace's secret can neither make nor guess its keys.
 *
 * Pure: no I/O, no clock, no allocation. Any thread. */
#ifndef CMI_POLICY_CONTENT_KEY_H
#define CMI_POLICY_CONTENT_KEY_H

#include "base/blake2b.h"
#include "base/dtype.h"

enum {
    CMI_CONTENT_BLOCK_TOKENS = 128,
    CMI_CONTENT_KEY_BYTES = CMI_BLAKE2B_BYTES,
    CMI_CONTENT_SECRET_BYTES_MIN = 16, /* of a namespace's secret */
    CMI_CONTENT_SECRET_BYTES_MAX = CMI_BLAKE2B_KEY_BYTES_MAX,
};

typedef struct cmi_content_key {
    uint8_t bytes[CMI_CONTENT_KEY_BYTES];
} cmi_content_key;

/* The parent of a first block: 32 zeros. */
extern const cmi_content_key cmi_content_key_root;

/* What linear weights became when they were loaded. The numbers are part of the specification. */
typedef enum cmi_content_quantization {
    CMI_CONTENT_QUANTIZATION_NONE = 0,
    CMI_CONTENT_QUANTIZATION_W8A8_INT8 = 1,
} cmi_content_quantization;

/* The model, and how it is computed. */
typedef struct cmi_content_model {
    uint8_t weights_digest[CMI_BLAKE2B_BYTES]; /* model/weights_digest.h */
    cmi_content_quantization quantization;
    cmi_dtype compute_dtype;    /* F32 or BF16 */
    cmi_dtype kv_dtype;         /* F32, BF16 or I8 */
    uint32_t kv_layout_version; /* of a page's bytes, and of the mathematics that make them */
    bool with_mtp;              /* pages hold the MTP layer, too */
} cmi_content_model;

/* A namespace, with a request's cache_salt in it. key is secret; tag may stand in logs. */
typedef struct cmi_content_space {
    uint8_t key[CMI_BLAKE2B_BYTES];
    uint64_t tag; /* equal for equal namespaces; says nothing about the key */
} cmi_content_space;

/* secret_bytes: CMI_CONTENT_SECRET_BYTES_MIN .. MAX. salt: the request's cache_salt, any bytes;
 * salt_bytes 0: none. */
void cmi_content_space_make(cmi_content_space *space_out, const void *secret, size_t secret_bytes,
                            const void *salt, size_t salt_bytes);

/* The key of one block: CMI_CONTENT_BLOCK_TOKENS token ids behind parent's. About a microsecond. */
void cmi_content_key_make(cmi_content_key *key_out, const cmi_content_space *space,
                          const cmi_content_model *model, const cmi_content_key *parent,
                          const uint32_t *tokens);

/* The keys of all full blocks of n_tokens tokens, or of the first max_keys of them. Returns how
 * many. A partial block at the end has no key. */
uint32_t cmi_content_keys_make(cmi_content_key *keys_out, uint32_t max_keys,
                               const cmi_content_space *space, const cmi_content_model *model,
                               const uint32_t *tokens, uint32_t n_tokens);

bool cmi_content_key_equal(const cmi_content_key *a, const cmi_content_key *b);

#endif
