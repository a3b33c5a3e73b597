#include <string.h>

#include "kernels/internal.h"
#include "kernels/variants.h"

/* The last row whose flags a processor has is the one it gets. */
#if CMI_ARCH_X86_64
#define ROW_AVX2(name) {"avx2", CMI_CPU_AVX2, cmi_##name##_avx2},
#define ROW_AVX512(name) {"avx512", CMI_CPU_AVX512, cmi_##name##_avx512},
#define ROW_AVX512_VNNI(name)                                                                      \
    {"avx512_vnni", CMI_CPU_AVX512 | CMI_CPU_AVX512_VNNI, cmi_##name##_avx512_vnni},
#define ROW_AVX512_BF16(name)                                                                      \
    {"avx512_bf16", CMI_CPU_AVX512 | CMI_CPU_AVX512_BF16, cmi_##name##_avx512_bf16},
#else
#define ROW_AVX2(name)
#define ROW_AVX512(name)
#define ROW_AVX512_VNNI(name)
#define ROW_AVX512_BF16(name)
#endif
#define TABLE(name, ...)                                                                           \
    const cmi_##name##_variant cmi_##name##_variants[] = {{"ref", 0, cmi_##name##_ref},            \
                                                          __VA_ARGS__};                            \
    const size_t cmi_##name##_n_variants = CMI_LEN(cmi_##name##_variants);

TABLE(gemm_f32, ROW_AVX2(gemm_f32) ROW_AVX512(gemm_f32))
TABLE(gemm_bf16, ROW_AVX2(gemm_bf16) ROW_AVX512(gemm_bf16) ROW_AVX512_BF16(gemm_bf16))
TABLE(rmsnorm, ROW_AVX2(rmsnorm) ROW_AVX512(rmsnorm))
TABLE(swiglu, ROW_AVX2(swiglu) ROW_AVX512(swiglu))
TABLE(round_bf16, ROW_AVX2(round_bf16) ROW_AVX512_BF16(round_bf16))
TABLE(widen_bf16, ROW_AVX2(widen_bf16) ROW_AVX512(widen_bf16))
TABLE(axpy, ROW_AVX2(axpy) ROW_AVX512(axpy))
TABLE(rope, ROW_AVX2(rope) ROW_AVX512(rope))
TABLE(softmax_block, ROW_AVX2(softmax_block) ROW_AVX512(softmax_block))
TABLE(attn_values_f32, ROW_AVX2(attn_values_f32) ROW_AVX512(attn_values_f32))
TABLE(attn_values_bf16, ROW_AVX2(attn_values_bf16) ROW_AVX512(attn_values_bf16))
TABLE(max_sum_exp, ROW_AVX2(max_sum_exp) ROW_AVX512(max_sum_exp))
TABLE(quantize_i8, ROW_AVX2(quantize_i8) ROW_AVX512(quantize_i8))
TABLE(rmsnorm_quantize_i8, ROW_AVX2(rmsnorm_quantize_i8) ROW_AVX512(rmsnorm_quantize_i8))
TABLE(gemm_i8, ROW_AVX2(gemm_i8) ROW_AVX512_VNNI(gemm_i8))
TABLE(combine_f32, ROW_AVX2(combine_f32) ROW_AVX512(combine_f32))
TABLE(combine_bf16, ROW_AVX2(combine_bf16) ROW_AVX512(combine_bf16))
TABLE(peak_i8, ROW_AVX2(peak_i8) ROW_AVX512_VNNI(peak_i8))
TABLE(peak_bf16, ROW_AVX512_BF16(peak_bf16))
TABLE(peak_f32, ROW_AVX2(peak_f32) ROW_AVX512(peak_f32))
TABLE(peak_read, ROW_AVX2(peak_read))

static const struct {
    const char *name;
    uint32_t cpu_flags;
} isas[] = {
    [CMI_ISA_REF] = {"ref", 0},
    [CMI_ISA_AVX2] = {"avx2", CMI_CPU_AVX2},
    [CMI_ISA_AVX512] = {"avx512",
                        CMI_CPU_AVX2 | CMI_CPU_AVX512 | CMI_CPU_AVX512_VNNI | CMI_CPU_AVX512_BF16},
    [CMI_ISA_NEON] = {"neon", 0},
};

uint32_t cmi_isa_cpu_flags(cmi_isa isa)
{
    return isas[isa].cpu_flags;
}

const char *cmi_isa_name(cmi_isa isa)
{
    return isas[isa].name;
}

bool cmi_isa_parse(const char *name, cmi_isa *isa_out)
{
    for (size_t i = 0; i < CMI_LEN(isas); i++) {
        if (strcmp(name, isas[i].name) == 0) {
            *isa_out = (cmi_isa)i;
            return true;
        }
    }
    return false;
}

cmi_isa cmi_isa_best(uint32_t cpu_flags)
{
    if ((cpu_flags & CMI_CPU_AVX512) != 0) {
        return CMI_ISA_AVX512;
    }
    return (cpu_flags & CMI_CPU_AVX2) != 0 ? CMI_ISA_AVX2 : CMI_ISA_REF;
}

void cmi_kernels_select(cmi_kernels *kernels_out, uint32_t cpu_flags)
{
#define CMI_KERNEL_SELECT(name, type)                                                              \
    for (size_t i = 0; i < cmi_##name##_n_variants; i++) {                                         \
        uint32_t needed = cmi_##name##_variants[i].cpu_flags;                                      \
        if ((needed & cpu_flags) == needed) {                                                      \
            kernels_out->name = cmi_##name##_variants[i].fn;                                       \
        }                                                                                          \
    }
    CMI_KERNEL_TABLE(CMI_KERNEL_SELECT)
#undef CMI_KERNEL_SELECT
}
