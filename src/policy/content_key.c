#include "policy/content_key.h"

#include <assert.h>
#include <string.h>

#include "base/le.h"

/* Every message begins with 16 bytes that say what it is, so that none of one kind equals one of
 * another, and has a fixed length or says its length before what varies. */
enum { TAG_BYTES = 16, ENCODING_VERSION = 1 };

static const char BLOCK_TAG[TAG_BYTES] = "cminfer.kv.block";
static const char SPACE_TAG[TAG_BYTES] = "cminfer.kv.space";
static const char LABEL_TAG[TAG_BYTES] = "cminfer.kv.label";

/* Offsets in the message of a block. */
enum {
    AT_VERSION = TAG_BYTES,
    AT_N_TOKENS = 20,
    AT_QUANTIZATION = 24,
    AT_COMPUTE_DTYPE = 28,
    AT_KV_DTYPE = 32,
    AT_KV_LAYOUT_VERSION = 36,
    AT_WITH_MTP = 40,
    AT_RESERVED = 44, /* zero: 8-byte alignment of what follows */
    AT_WEIGHTS_DIGEST = 48,
    AT_PARENT = 80,
    AT_TOKENS = 112,
    BLOCK_BYTES = AT_TOKENS + 4 * CMI_CONTENT_BLOCK_TOKENS,
};

const cmi_content_key cmi_content_key_root = {{0}};

/* The number that stands for an element type, whatever the enum says. */
static uint32_t dtype_code(cmi_dtype dtype)
{
    switch (dtype) {
    case CMI_DTYPE_F32:
        return 1;
    case CMI_DTYPE_BF16:
        return 2;
    case CMI_DTYPE_I8:
        return 3;
    default:
        assert(false); /* neither computed with nor stored in KV pages */
        return 0;
    }
}

void cmi_content_space_make(cmi_content_space *space_out, const void *secret, size_t secret_bytes,
                            const void *salt, size_t salt_bytes)
{
    assert(secret_bytes >= CMI_CONTENT_SECRET_BYTES_MIN &&
           secret_bytes <= CMI_CONTENT_SECRET_BYTES_MAX);
    uint8_t head[TAG_BYTES + 4 + 8];
    cmi_blake2b h;
    memcpy(head, SPACE_TAG, TAG_BYTES);
    cmi_le_store32(head + AT_VERSION, ENCODING_VERSION);
    cmi_le_store64(head + AT_VERSION + 4, salt_bytes);
    cmi_blake2b_init(&h, secret, secret_bytes);
    cmi_blake2b_update(&h, head, sizeof head);
    cmi_blake2b_update(&h, salt, salt_bytes);
    cmi_blake2b_final(&h, space_out->key);

    uint8_t label[CMI_BLAKE2B_BYTES];
    memcpy(head, LABEL_TAG, TAG_BYTES);
    cmi_blake2b_init(&h, space_out->key, sizeof space_out->key);
    cmi_blake2b_update(&h, head, AT_VERSION + 4);
    cmi_blake2b_final(&h, label);
    space_out->tag = cmi_le_load64(label);
}

/* All of the message that the blocks of a chain have in common. */
static void put_model(uint8_t message[BLOCK_BYTES], const cmi_content_model *model)
{
    memset(message, 0, BLOCK_BYTES);
    memcpy(message, BLOCK_TAG, TAG_BYTES);
    cmi_le_store32(message + AT_VERSION, ENCODING_VERSION);
    cmi_le_store32(message + AT_N_TOKENS, CMI_CONTENT_BLOCK_TOKENS);
    cmi_le_store32(message + AT_QUANTIZATION, (uint32_t)model->quantization);
    cmi_le_store32(message + AT_COMPUTE_DTYPE, dtype_code(model->compute_dtype));
    cmi_le_store32(message + AT_KV_DTYPE, dtype_code(model->kv_dtype));
    cmi_le_store32(message + AT_KV_LAYOUT_VERSION, model->kv_layout_version);
    cmi_le_store32(message + AT_WITH_MTP, model->with_mtp ? 1 : 0);
    memcpy(message + AT_WEIGHTS_DIGEST, model->weights_digest, sizeof model->weights_digest);
}

static void hash_block(cmi_content_key *key_out, uint8_t message[BLOCK_BYTES],
                       const cmi_content_space *space, const cmi_content_key *parent,
                       const uint32_t *tokens)
{
    memcpy(message + AT_PARENT, parent->bytes, sizeof parent->bytes);
    for (uint32_t i = 0; i < CMI_CONTENT_BLOCK_TOKENS; i++) {
        cmi_le_store32(message + AT_TOKENS + 4 * i, tokens[i]);
    }
    cmi_blake2b h;
    cmi_blake2b_init(&h, space->key, sizeof space->key);
    cmi_blake2b_update(&h, message, BLOCK_BYTES);
    cmi_blake2b_final(&h, key_out->bytes);
}

void cmi_content_key_make(cmi_content_key *key_out, const cmi_content_space *space,
                          const cmi_content_model *model, const cmi_content_key *parent,
                          const uint32_t *tokens)
{
    uint8_t message[BLOCK_BYTES];
    put_model(message, model);
    hash_block(key_out, message, space, parent, tokens);
}

uint32_t cmi_content_keys_make(cmi_content_key *keys_out, uint32_t max_keys,
                               const cmi_content_space *space, const cmi_content_model *model,
                               const uint32_t *tokens, uint32_t n_tokens)
{
    uint8_t message[BLOCK_BYTES];
    uint32_t n_keys = CMI_MIN(n_tokens / CMI_CONTENT_BLOCK_TOKENS, max_keys);
    const cmi_content_key *parent = &cmi_content_key_root;
    put_model(message, model);
    for (uint32_t i = 0; i < n_keys; i++) {
        hash_block(&keys_out[i], message, space, parent,
                   tokens + (size_t)i * CMI_CONTENT_BLOCK_TOKENS);
        parent = &keys_out[i];
    }
    return n_keys;
}

bool cmi_content_key_equal(const cmi_content_key *a, const cmi_content_key *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}
