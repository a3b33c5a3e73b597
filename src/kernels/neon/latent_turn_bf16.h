/* kernels/neon/latent_turn_bf16.h - BF16 latent rows: a latent_turn_fn (attn_latent.h). */
#ifndef CMI_KERNELS_NEON_LATENT_TURN_BF16_H
#define CMI_KERNELS_NEON_LATENT_TURN_BF16_H

#include "kernels/neon/attn_latent.h"
#include "kernels/neon/transpose.h"

/* Four columns of 8 tokens, two and two in a lane: turned, a register holds a column, and two
 * columns zipped are lanes of 4 tokens each. */
static inline void latent_turn_4x8(const uint8_t *from, uint8_t *lines)
{
    uint32x4_t v[4];
    for (size_t i = 0; i < 4; i++) {
        v[i] = vreinterpretq_u32_u8(vld1q_u8(from + i * ATTN_LINE_BYTES));
    }
    transpose_4(v);
    for (size_t i = 0; i < 4; i += 2) {
        uint16x8_t a = vreinterpretq_u16_u32(v[i]), b = vreinterpretq_u16_u32(v[i + 1]);
        uint8_t *to = lines + i / 2 * ATTN_LINE_BYTES;
        vst1q_u8(to, vreinterpretq_u8_u16(vzip1q_u16(a, b)));
        vst1q_u8(to + ATTN_REGISTER_BYTES, vreinterpretq_u8_u16(vzip2q_u16(a, b)));
    }
}

static inline void latent_turn_bf16(const uint8_t *from, uint8_t *lines)
{
    for (size_t quarter = 0; quarter < 4; quarter++) {
        for (size_t half = 0; half < 2; half++) {
            latent_turn_4x8(from + half * 4 * ATTN_LINE_BYTES + quarter * ATTN_REGISTER_BYTES,
                            lines + quarter * 2 * ATTN_LINE_BYTES + half * 2 * ATTN_REGISTER_BYTES);
        }
    }
}

#endif
