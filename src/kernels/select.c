#include <string.h>

#include "kernels/internal.h"
#include "kernels/variants.h"

/* The last row whose flags a processor has, and that is not slow on it, is the one it gets. */
#if CMI_ARCH_X86_64
#define ROW_AVX2(name) {"avx2", CMI_CPU_AVX2, 0, cmi_##name##_avx2},
#define ROW_AVX512(name) {"avx512", CMI_CPU_AVX512, 0, cmi_##name##_avx512},
#define ROW_AVX512_VNNI(name, slow_on)                                                             \
    {"avx512_vnni", CMI_CPU_AVX512 | CMI_CPU_AVX512_VNNI, slow_on, cmi_##name##_avx512_vnni},
#define ROW_AVX512_VNNI_DUAL(name)                                                                 \
    {"avx512_vnni_dual", CMI_CPU_AVX512 | CMI_CPU_AVX512_VNNI, 0, cmi_##name##_avx512_vnni_dual},
#define ROW_AVX512_BF16(name, slow_on)                                                             \
    {"avx512_bf16", CMI_CPU_AVX512 | CMI_CPU_AVX512_BF16, slow_on, cmi_##name##_avx512_bf16},
#else
#define ROW_AVX2(name)
#define ROW_AVX512(name)
#define ROW_AVX512_VNNI(name, slow_on)
#define ROW_AVX512_VNNI_DUAL(name)
#define ROW_AVX512_BF16(name, slow_on)
#endif
#if CMI_ARCH_AARCH64
#define ROW_NEON(name) {"neon", CMI_CPU_NEON, 0, cmi_##name##_neon},
#define ROW_NEON_DOTPROD(name) {"neon_dotprod", CMI_CPU_NEON_DOTPROD, 0, cmi_##name##_neon_dotprod},
#define ROW_NEON_I8MM(name) {"neon_i8mm", CMI_CPU_NEON_I8MM, 0, cmi_##name##_neon_i8mm},
#define ROW_NEON_BF16(name) {"neon_bf16", CMI_CPU_NEON_BF16, 0, cmi_##name##_neon_bf16},
#else
#define ROW_NEON(name)
#define ROW_NEON_DOTPROD(name)
#define ROW_NEON_I8MM(name)
#define ROW_NEON_BF16(name)
#endif
#define TABLE(name, ...)                                                                           \
    const cmi_##name##_variant cmi_##name##_variants[] = {{"ref", 0, 0, cmi_##name##_ref},         \
                                                          __VA_ARGS__};                            \
    const size_t cmi_##name##_n_variants = CMI_LEN(cmi_##name##_variants);

TABLE(gemm_f32, ROW_AVX2(gemm_f32) ROW_AVX512(gemm_f32) ROW_NEON(gemm_f32))
TABLE(gemm_bf16,
      ROW_AVX2(gemm_bf16) ROW_AVX512(gemm_bf16) ROW_AVX512_BF16(gemm_bf16, CMI_CPU_DUAL_DOT)
          ROW_NEON(gemm_bf16) ROW_NEON_BF16(gemm_bf16))
TABLE(rmsnorm, ROW_AVX2(rmsnorm) ROW_AVX512(rmsnorm) ROW_NEON(rmsnorm))
TABLE(swiglu, ROW_AVX2(swiglu) ROW_AVX512(swiglu) ROW_NEON(swiglu))
TABLE(round_bf16, ROW_AVX2(round_bf16) ROW_AVX512_BF16(round_bf16, 0) ROW_NEON(round_bf16))
TABLE(widen_bf16, ROW_AVX2(widen_bf16) ROW_AVX512(widen_bf16) ROW_NEON(widen_bf16))
TABLE(axpy, ROW_AVX2(axpy) ROW_AVX512(axpy) ROW_NEON(axpy))
TABLE(rope, ROW_AVX2(rope) ROW_AVX512(rope) ROW_NEON(rope))
TABLE(attn_scores_f32,
      ROW_AVX2(attn_scores_f32) ROW_AVX512(attn_scores_f32) ROW_NEON(attn_scores_f32))
TABLE(attn_scores_bf16, ROW_AVX2(attn_scores_bf16) ROW_AVX512(attn_scores_bf16)
                            ROW_AVX512_BF16(attn_scores_bf16, CMI_CPU_DUAL_DOT)
                                ROW_NEON(attn_scores_bf16) ROW_NEON_BF16(attn_scores_bf16))
TABLE(attn_latent_scores_f32, ROW_AVX2(attn_latent_scores_f32) ROW_AVX512(attn_latent_scores_f32)
                                  ROW_NEON(attn_latent_scores_f32))
TABLE(attn_latent_scores_bf16,
      ROW_AVX2(attn_latent_scores_bf16) ROW_AVX512(attn_latent_scores_bf16)
          ROW_AVX512_BF16(attn_latent_scores_bf16, CMI_CPU_DUAL_DOT)
              ROW_NEON(attn_latent_scores_bf16) ROW_NEON_BF16(attn_latent_scores_bf16))
TABLE(attn_dequantize_i8, ROW_AVX2(attn_dequantize_i8) ROW_AVX512_BF16(attn_dequantize_i8, 0))
TABLE(attn_softmax_f32,
      ROW_AVX2(attn_softmax_f32) ROW_AVX512(attn_softmax_f32) ROW_NEON(attn_softmax_f32))
TABLE(attn_softmax_bf16,
      ROW_AVX2(attn_softmax_bf16) ROW_AVX512_BF16(attn_softmax_bf16, 0) ROW_NEON(attn_softmax_bf16))
TABLE(attn_values_f32,
      ROW_AVX2(attn_values_f32) ROW_AVX512(attn_values_f32) ROW_NEON(attn_values_f32))
TABLE(attn_values_bf16, ROW_AVX2(attn_values_bf16) ROW_AVX512(attn_values_bf16)
                            ROW_AVX512_BF16(attn_values_bf16, CMI_CPU_DUAL_DOT)
                                ROW_NEON(attn_values_bf16) ROW_NEON_BF16(attn_values_bf16))
TABLE(attn_merge, ROW_AVX2(attn_merge) ROW_AVX512(attn_merge) ROW_NEON(attn_merge))
TABLE(attn_pack_keys_f32)
TABLE(attn_pack_keys_bf16, ROW_AVX2(attn_pack_keys_bf16) ROW_AVX512_BF16(attn_pack_keys_bf16, 0)
                               ROW_NEON(attn_pack_keys_bf16))
TABLE(attn_pack_values_f32)
TABLE(attn_pack_values_bf16,
      ROW_AVX2(attn_pack_values_bf16) ROW_AVX512_BF16(attn_pack_values_bf16, 0)
          ROW_NEON(attn_pack_values_bf16))
TABLE(max_sum_exp, ROW_AVX2(max_sum_exp) ROW_AVX512(max_sum_exp) ROW_NEON(max_sum_exp))
TABLE(quantize_i8, ROW_AVX2(quantize_i8) ROW_AVX512(quantize_i8) ROW_NEON(quantize_i8))
TABLE(rmsnorm_quantize_i8,
      ROW_AVX2(rmsnorm_quantize_i8) ROW_AVX512(rmsnorm_quantize_i8) ROW_NEON(rmsnorm_quantize_i8))
TABLE(gemm_i8,
      ROW_AVX2(gemm_i8) ROW_AVX512_VNNI_DUAL(gemm_i8) ROW_AVX512_VNNI(gemm_i8, CMI_CPU_DUAL_DOT)
          ROW_NEON(gemm_i8) ROW_NEON_DOTPROD(gemm_i8) ROW_NEON_I8MM(gemm_i8))
TABLE(combine_f32, ROW_AVX2(combine_f32) ROW_AVX512(combine_f32) ROW_NEON(combine_f32))
TABLE(combine_bf16, ROW_AVX2(combine_bf16) ROW_AVX512(combine_bf16) ROW_NEON(combine_bf16))
TABLE(blake2b, ROW_AVX2(blake2b) ROW_AVX512(blake2b))
TABLE(peak_i8, ROW_AVX2(peak_i8) ROW_AVX512_VNNI(peak_i8, 0) ROW_NEON(peak_i8)
                   ROW_NEON_DOTPROD(peak_i8) ROW_NEON_I8MM(peak_i8))
TABLE(peak_bf16, ROW_AVX512_BF16(peak_bf16, CMI_CPU_DUAL_DOT) ROW_NEON_BF16(peak_bf16))
TABLE(peak_f32, ROW_AVX2(peak_f32) ROW_AVX512(peak_f32) ROW_NEON(peak_f32))
TABLE(peak_read, ROW_AVX2(peak_read) ROW_AVX512(peak_read))

static const struct {
    const char *name;
    uint32_t needs;     /* what a processor of this kind has at least */
    uint32_t cpu_flags; /* at most */
} isas[] = {
    [CMI_ISA_REF] = {"ref", 0, 0},
    [CMI_ISA_AVX2] = {"avx2", CMI_CPU_AVX2, CMI_CPU_AVX2},
    [CMI_ISA_AVX512] = {"avx512", CMI_CPU_AVX512,
                        CMI_CPU_AVX2 | CMI_CPU_AVX512 | CMI_CPU_AVX512_VNNI | CMI_CPU_AVX512_BF16 |
                            CMI_CPU_DUAL_DOT},
    [CMI_ISA_NEON_BASE] = {"neon_base", CMI_CPU_NEON, CMI_CPU_NEON},
    [CMI_ISA_NEON_DOTPROD] = {"neon_dotprod", CMI_CPU_NEON_DOTPROD,
                              CMI_CPU_NEON | CMI_CPU_NEON_DOTPROD},
    [CMI_ISA_NEON] = {"neon", CMI_CPU_NEON_I8MM,
                      CMI_CPU_NEON | CMI_CPU_NEON_DOTPROD | CMI_CPU_NEON_I8MM | CMI_CPU_NEON_BF16},
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
    size_t i = CMI_LEN(isas) - 1;
    while ((isas[i].needs & cpu_flags) != isas[i].needs) {
        i--;
    }
    return (cmi_isa)i;
}

void cmi_kernels_select(cmi_kernels *kernels_out, uint32_t cpu_flags)
{
#define CMI_KERNEL_SELECT(name, type)                                                              \
    for (size_t i = 0; i < cmi_##name##_n_variants; i++) {                                         \
        const cmi_##name##_variant *row = &cmi_##name##_variants[i];                               \
        if ((row->cpu_flags & ~cpu_flags) == 0 && (row->slow_on & cpu_flags) == 0) {               \
            kernels_out->name = row->fn;                                                           \
        }                                                                                          \
    }
    CMI_KERNEL_TABLE(CMI_KERNEL_SELECT)
#undef CMI_KERNEL_SELECT
}
