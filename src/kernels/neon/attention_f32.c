#include "kernels/neon/attention.h"
#include "kernels/neon/attn_latent.h"
#include "kernels/neon/transpose.h"

#define ADD(lane)                                                                                  \
    for (uint32_t i = 0; i < ATTN_REGISTERS; i++) {                                                \
        const uint8_t *from = w + (lane)*w_step_bytes + i * ATTN_REGISTER_BYTES;                   \
        const float32x4_t line = vreinterpretq_f32_u8(vld1q_u8(from));                             \
        for (uint32_t r = 0; r < n_rows; r++) {                                                    \
            sums[r][i] = vfmaq_laneq_f32(sums[r][i], line, lanes[r], lane);                        \
        }                                                                                          \
    }

static CMI_ALWAYS_INLINE void add_four(attn_sums sums, const uint8_t *x, size_t x_row_bytes,
                                       const uint8_t *w, size_t w_step_bytes, const uint32_t n_rows)
{
    float32x4_t lanes[ATTN_ROWS];
    for (uint32_t r = 0; r < n_rows; r++) {
        lanes[r] = vreinterpretq_f32_u8(vld1q_u8(x + r * x_row_bytes));
    }
    ADD(0)
    ADD(1)
    ADD(2)
    ADD(3)
}

static CMI_ALWAYS_INLINE void add_one(attn_sums sums, const uint8_t *x, size_t x_row_bytes,
                                      const uint8_t *w, size_t w_step_bytes, const uint32_t n_rows)
{
    float32x4_t lanes[ATTN_ROWS];
    for (uint32_t r = 0; r < n_rows; r++) {
        lanes[r] = vld1q_dup_f32((const float *)(const void *)(x + r * x_row_bytes));
    }
    ADD(0)
}

static const attn_kind f32_kind = {1, add_four, add_one};

void cmi_attn_scores_f32_neon(const cmi_attn_scores_args *args)
{
    scores(f32_kind, args);
}

static inline void turn(const uint8_t *from, uint8_t *lines)
{
    for (size_t token = 0; token < CMI_ATTN_COLS; token += 4) {
        for (size_t quarter = 0; quarter < 4; quarter++) {
            uint32x4_t v[4];
            for (size_t i = 0; i < 4; i++) {
                v[i] = vreinterpretq_u32_u8(
                    vld1q_u8(from + (token + i) * ATTN_LINE_BYTES + quarter * ATTN_REGISTER_BYTES));
            }
            transpose_4(v);
            for (size_t i = 0; i < 4; i++) {
                vst1q_u8(lines + (quarter * 4 + i) * ATTN_LINE_BYTES +
                             token / 4 * ATTN_REGISTER_BYTES,
                         vreinterpretq_u8_u32(v[i]));
            }
        }
    }
}

void cmi_attn_latent_scores_f32_neon(const cmi_attn_latent_scores_args *args)
{
    latent_scores(f32_kind, turn, args);
}

void cmi_attn_values_f32_neon(const cmi_attn_values_args *args)
{
    values(f32_kind, args);
}
