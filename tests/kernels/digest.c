/* kernels_digest --isa NAME: the best instruction set of this processor, then for each kernel a
 * hash of everything that its battery computes with the variant that NAME selects. Runs that print
 * the same hashes compute the same bits; compare_digests.py holds several machines to that. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/float_env.h"
#include "tests/kernels/battery.h"

/* FNV-1a, 64 bits. */
static void hash_bytes(void *context, const char *label, const void *bytes, size_t n_bytes)
{
    (void)label;
    uint64_t *hash = context;
    for (size_t i = 0; i < n_bytes; i++) {
        *hash = (*hash ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001B3);
    }
}

static uint64_t digest_begin(void)
{
    return UINT64_C(0xCBF29CE484222325);
}

int main(int argc, char **argv)
{
    cmi_isa isa;
    if (argc != 3 || strcmp(argv[1], "--isa") != 0 || !cmi_isa_parse(argv[2], &isa)) {
        (void)fprintf(stderr, "usage: kernels_digest --isa ISA\n");
        return EXIT_FAILURE;
    }
    cmi_float_env_set();
    cmi_kernels kernels;
    cmi_kernels_select(&kernels, cmi_cpu_flags() & cmi_isa_cpu_flags(isa));
    printf("cpu %s\n", cmi_isa_name(cmi_isa_best(cmi_cpu_flags())));
#define DIGEST(name, type)                                                                         \
    {                                                                                              \
        uint64_t hash = digest_begin();                                                            \
        battery b = {.seed = 1, .sink = hash_bytes, .context = &hash};                             \
        battery_##name(&b, kernels.name);                                                          \
        printf(#name " %016llx\n", (unsigned long long)hash);                                      \
    }
    CMI_KERNEL_TABLE(DIGEST)
#undef DIGEST
    return EXIT_SUCCESS;
}
