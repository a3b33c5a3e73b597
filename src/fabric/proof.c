#include "fabric/proof.h"

#include <sodium.h>

static const uint8_t personal[crypto_generichash_blake2b_PERSONALBYTES + 1] = "cminfer fabric 1";

void cmi_proof_make_key(uint8_t key_out[CMI_PROOF_BYTES], const uint8_t *secret, size_t n_bytes)
{
    (void)crypto_generichash_blake2b_salt_personal(key_out, CMI_PROOF_BYTES, secret, n_bytes, NULL,
                                                   0, NULL, personal);
}

void cmi_proof_make(uint8_t proof_out[CMI_PROOF_BYTES], const uint8_t key[CMI_PROOF_BYTES],
                    cmi_proof_role role, const void *said, size_t n_bytes)
{
    uint8_t who = (uint8_t)role;
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, key, CMI_PROOF_BYTES, CMI_PROOF_BYTES);
    (void)crypto_generichash_update(&state, &who, sizeof who);
    (void)crypto_generichash_update(&state, said, n_bytes);
    (void)crypto_generichash_final(&state, proof_out, CMI_PROOF_BYTES);
}

bool cmi_proof_holds(const uint8_t proof[CMI_PROOF_BYTES], const uint8_t key[CMI_PROOF_BYTES],
                     cmi_proof_role role, const void *said, size_t n_bytes)
{
    uint8_t want[CMI_PROOF_BYTES];
    cmi_proof_make(want, key, role, said, n_bytes);
    return sodium_memcmp(proof, want, sizeof want) == 0;
}

void cmi_proof_forget_key(uint8_t key[CMI_PROOF_BYTES])
{
    sodium_memzero(key, CMI_PROOF_BYTES);
}
