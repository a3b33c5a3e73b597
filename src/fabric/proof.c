#include "fabric/proof.h"

#include <sodium.h>

#include "base/blake2b.h"

/* Keeps this use of the secret apart from any other. */
static const char purpose[] = "cminfer fabric 1";

void cmi_proof_make_key(uint8_t key_out[CMI_PROOF_BYTES], const uint8_t *secret, size_t n_bytes)
{
    cmi_blake2b h;
    cmi_blake2b_init(&h, purpose, sizeof purpose);
    cmi_blake2b_update(&h, secret, n_bytes);
    cmi_blake2b_final(&h, key_out);
}

void cmi_proof_make(uint8_t proof_out[CMI_PROOF_BYTES], const uint8_t key[CMI_PROOF_BYTES],
                    cmi_proof_role role, const void *said, size_t n_bytes)
{
    uint8_t who = (uint8_t)role;
    cmi_blake2b h;
    cmi_blake2b_init(&h, key, CMI_PROOF_BYTES);
    cmi_blake2b_update(&h, &who, sizeof who);
    cmi_blake2b_update(&h, said, n_bytes);
    cmi_blake2b_final(&h, proof_out);
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
