/* BF16 without BF16 instructions: the halves of each pair widened, the odd element first. */
#include "kernels/neon/attention.h"
#include "kernels/neon/attn_latent.h"
#include "kernels/neon/latent_turn_bf16.h"

static inline float32x4_t odd_of(uint32x4_t pairs)
{
    return vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xFFFF0000u)));
}

static inline float32x4_t even_of(uint32x4_t pairs)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16));
}

#define ADD(lane)                                                                                  \
    for (uint32_t i = 0; i < ATTN_REGISTERS; i++) {                                                \
        const uint8_t *from = w + (lane)*w_step_bytes + i * ATTN_REGISTER_BYTES;                   \
        const uint32x4_t pairs = vreinterpretq_u32_u8(vld1q_u8(from));                             \
        const float32x4_t line_odd = odd_of(pairs), line_even = even_of(pairs);                    \
        for (uint32_t r = 0; r < n_rows; r++) {                                                    \
            sums[r][i] = vfmaq_laneq_f32(sums[r][i], line_odd, odd[r], lane);                      \
            sums[r][i] = vfmaq_laneq_f32(sums[r][i], line_even, even[r], lane);                    \
        }                                                                                          \
    }

static CMI_ALWAYS_INLINE void add_four(attn_sums sums, const uint8_t *x, size_t x_row_bytes,
                                       const uint8_t *w, size_t w_step_bytes, const uint32_t n_rows)
{
    float32x4_t odd[ATTN_ROWS], even[ATTN_ROWS];
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint32x4_t lanes = vreinterpretq_u32_u8(vld1q_u8(x + r * x_row_bytes));
        odd[r] = odd_of(lanes);
        even[r] = even_of(lanes);
    }
    ADD(0)
    ADD(1)
    ADD(2)
    ADD(3)
}

static CMI_ALWAYS_INLINE void add_one(attn_sums sums, const uint8_t *x, size_t x_row_bytes,
                                      const uint8_t *w, size_t w_step_bytes, const uint32_t n_rows)
{
    float32x4_t odd[ATTN_ROWS], even[ATTN_ROWS];
    for (uint32_t r = 0; r < n_rows; r++) {
        uint32_t lane;
        memcpy(&lane, x + r * x_row_bytes, sizeof lane);
        odd[r] = odd_of(vdupq_n_u32(lane));
        even[r] = even_of(vdupq_n_u32(lane));
    }
    ADD(0)
}

static const attn_kind bf16_kind = {2, add_four, add_one};

void cmi_attn_scores_bf16_neon(const cmi_attn_scores_args *args)
{
    scores(bf16_kind, args);
}

void cmi_attn_latent_scores_bf16_neon(const cmi_attn_latent_scores_args *args)
{
    latent_scores(bf16_kind, latent_turn_bf16, args);
}

void cmi_attn_values_bf16_neon(const cmi_attn_values_args *args)
{
    values(bf16_kind, args);
}
