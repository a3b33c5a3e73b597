#include "base/blake2b.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

_Static_assert(sizeof(crypto_generichash_blake2b_state) <= CMI_BLAKE2B_STATE_BYTES,
               "a state of libsodium's fits");

static crypto_generichash_blake2b_state *state_of(cmi_blake2b *h)
{
    return (crypto_generichash_blake2b_state *)(void *)h->state;
}

void cmi_blake2b_init(cmi_blake2b *h, const void *key, size_t key_bytes)
{
    assert(key_bytes <= CMI_BLAKE2B_KEY_BYTES_MAX);
    /* Zeroed here and in final, so that MemorySanitizer, which does not see into the library, knows
     * the bytes as written. */
    memset(h, 0, sizeof *h);
    int status = crypto_generichash_blake2b_init(state_of(h), key_bytes == 0 ? NULL : key,
                                                 key_bytes, CMI_BLAKE2B_BYTES);
    assert(status == 0);
    (void)status;
}

void cmi_blake2b_update(cmi_blake2b *h, const void *bytes, size_t n_bytes)
{
    if (n_bytes > 0) {
        crypto_generichash_blake2b_update(state_of(h), bytes, n_bytes);
    }
}

void cmi_blake2b_final(cmi_blake2b *h, uint8_t digest_out[CMI_BLAKE2B_BYTES])
{
    memset(digest_out, 0, CMI_BLAKE2B_BYTES);
    int status = crypto_generichash_blake2b_final(state_of(h), digest_out, CMI_BLAKE2B_BYTES);
    assert(status == 0);
    (void)status;
    sodium_memzero(h, sizeof *h);
}
