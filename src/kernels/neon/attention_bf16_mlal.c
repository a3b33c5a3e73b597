/* BF16 with the widening multiply-adds, which are our lane's steps: see gemm_bf16_mlal.c. */
#include "kernels/neon/attention.h"
#include "kernels/neon/attn_latent.h"
#include "kernels/neon/latent_turn_bf16.h"

/* which: t for the odd elements of a line, b for the even ones. The lane must be in registers 0 to
 * 15; gcc 12 knows the instruction but not this. */
#define MULTIPLY_ADD(which, sum, line, lane, index)                                                \
    __asm__("bfmlal" which " %0.4s, %1.8h, %2.h[%c3]"                                              \
            : "+w"(sum)                                                                            \
            : "w"(line), "x"(lane), "i"(index))

#define ADD(lane)                                                                                  \
    for (uint32_t i = 0; i < ATTN_REGISTERS; i++) {                                                \
        const uint8x16_t line = vld1q_u8(w + (lane)*w_step_bytes + i * ATTN_REGISTER_BYTES);       \
        for (uint32_t r = 0; r < n_rows; r++) {                                                    \
            MULTIPLY_ADD("t", sums[r][i], line, lanes[r], 2 * (lane) + 1);                         \
            MULTIPLY_ADD("b", sums[r][i], line, lanes[r], 2 * (lane));                             \
        }                                                                                          \
    }

static CMI_ALWAYS_INLINE void add_four(attn_sums sums, const uint8_t *x, size_t x_row_bytes,
                                       const uint8_t *w, size_t w_step_bytes, const uint32_t n_rows)
{
    uint8x16_t lanes[ATTN_ROWS];
    for (uint32_t r = 0; r < n_rows; r++) {
        lanes[r] = vld1q_u8(x + r * x_row_bytes);
    }
    ADD(0)
    ADD(1)
    ADD(2)
    ADD(3)
}

static CMI_ALWAYS_INLINE void add_one(attn_sums sums, const uint8_t *x, size_t x_row_bytes,
                                      const uint8_t *w, size_t w_step_bytes, const uint32_t n_rows)
{
    uint8x16_t lanes[ATTN_ROWS];
    for (uint32_t r = 0; r < n_rows; r++) {
        uint32_t lane;
        memcpy(&lane, x + r * x_row_bytes, sizeof lane);
        lanes[r] = vreinterpretq_u8_u32(vdupq_n_u32(lane));
    }
    ADD(0)
}

static const attn_kind mlal_kind = {2, add_four, add_one};

void cmi_attn_scores_bf16_neon_bf16(const cmi_attn_scores_args *args)
{
    scores(mlal_kind, args);
}

void cmi_attn_latent_scores_bf16_neon_bf16(const cmi_attn_latent_scores_args *args)
{
    latent_scores(mlal_kind, latent_turn_bf16, args);
}

void cmi_attn_values_bf16_neon_bf16(const cmi_attn_values_args *args)
{
    values(mlal_kind, args);
}
