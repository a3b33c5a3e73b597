#include "base/blake2b.h"

#include "kernels/internal.h"

_Static_assert((int)CMI_BLAKE2B_BYTES == (int)CMI_BLAKE2B_DIGEST_BYTES, "one length of digests");

void cmi_blake2b_ref(const cmi_blake2b_args *args)
{
    for (uint32_t i = 0; i < args->n_messages; i++) {
        cmi_blake2b h;
        cmi_blake2b_init(&h, NULL, 0);
        cmi_blake2b_update(&h, args->head, CMI_BLAKE2B_BLOCK_BYTES);
        cmi_blake2b_update(&h, args->data + i * args->stride, args->n_bytes);
        cmi_blake2b_final(&h, args->digests + (size_t)i * CMI_BLAKE2B_DIGEST_BYTES);
    }
}
