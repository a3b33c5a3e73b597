/* fabric/proof.h - how two sides of a connection prove that they know the cluster's secret.
 *
 * Each side sends a nonce, then a keyed BLAKE2b-256 over who proves and all that both have said so
 * far. So a proof can be neither replayed nor sent back to its maker, and nothing that was agreed
 * on can be changed between them. The secret itself is never sent. Any thread. */
#ifndef CMI_FABRIC_PROOF_H
#define CMI_FABRIC_PROOF_H

#include "base/compiler.h"

enum {
    CMI_PROOF_BYTES = 32, /* of keys, nonces and proofs */
};

typedef enum cmi_proof_role { CMI_PROOF_LISTENER = 1, CMI_PROOF_CONNECTOR = 2 } cmi_proof_role;

/* The key for proofs from the secret of the options. */
void cmi_proof_make_key(uint8_t key_out[CMI_PROOF_BYTES], const uint8_t *secret, size_t n_bytes);

void cmi_proof_make(uint8_t proof_out[CMI_PROOF_BYTES], const uint8_t key[CMI_PROOF_BYTES],
                    cmi_proof_role role, const void *said, size_t n_bytes);

/* In constant time. */
CMI_NODISCARD bool cmi_proof_holds(const uint8_t proof[CMI_PROOF_BYTES],
                                   const uint8_t key[CMI_PROOF_BYTES], cmi_proof_role role,
                                   const void *said, size_t n_bytes);

void cmi_proof_forget_key(uint8_t key[CMI_PROOF_BYTES]);

#endif
