/* kernels/avx2/attn_latent.h - scores against latent rows as they are stored.
 *
 * A latent tile has columns in its lanes, scores want tokens there. So the inputs of 16 tokens are
 * turned into lines of a small buffer, 64 lanes of them at a time, and all rows pass over it; their
 * sums rest in the output meanwhile. */
#ifndef CMI_KERNELS_AVX2_ATTN_LATENT_H
#define CMI_KERNELS_AVX2_ATTN_LATENT_H

#include "kernels/avx2/attention.h"

enum { LATENT_TURN = 8, LATENT_LINES = 64 };

/* lines: lanes lane .. lane + 7 of tokens t .. t + 15, from a value tile. */
typedef void latent_turn_fn(const void *latent, size_t t, size_t lane, char *lines);

/* A pass over some lanes of all inputs, from the given one on. */
typedef struct latent_pass {
    const char *q;
    const char *lines;
    size_t line_stride;
    uint32_t n_lanes;
    bool is_first;
} latent_pass;

static CMI_ALWAYS_INLINE void latent_tile(const attn_kind kind,
                                          const cmi_attn_latent_scores_args *args,
                                          const latent_pass *pass, size_t row, uint32_t t,
                                          const uint32_t n_rows)
{
    const size_t q_row_bytes = args->q_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    float *s = args->s + row * args->s_stride + t;
    attn_sums sums;
    attn_clear(sums, n_rows);
    for (uint32_t r = 0; r < n_rows && !pass->is_first; r++) {
        sums[r][0] = _mm256_loadu_ps(s + r * args->s_stride);
        sums[r][1] = _mm256_loadu_ps(s + r * args->s_stride + LANES_HALF);
    }
    attn_add(kind, sums, pass->q + row * q_row_bytes, q_row_bytes, pass->lines, pass->line_stride,
             pass->n_lanes, n_rows);
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm256_storeu_ps(s + r * args->s_stride, sums[r][0]);
        _mm256_storeu_ps(s + r * args->s_stride + LANES_HALF, sums[r][1]);
    }
}

static CMI_ALWAYS_INLINE void latent_add(const attn_kind kind,
                                         const cmi_attn_latent_scores_args *args,
                                         const latent_pass *pass, uint32_t t)
{
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)ATTN_ROWS);
    uint32_t row = 0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
        ATTN_ROW_TILE(n_rows, latent_tile, kind, args, pass, row, t)
        row += n_rows;
    }
}

static CMI_ALWAYS_INLINE void latent_scores(const attn_kind kind, latent_turn_fn *turn,
                                            const cmi_attn_latent_scores_args *args)
{
    CMI_ALIGNED(64) char lines[LATENT_LINES * ATTN_LINE_BYTES];
    const uint32_t n_lanes = args->n_latent / kind.p;
    for (uint32_t t = 0; t < args->n_keys; t += CMI_LANES) {
        latent_pass pass = {.q = args->q, .is_first = true};
        for (uint32_t lane = 0; lane < n_lanes; lane += LATENT_LINES) {
            pass.lines = lines;
            pass.line_stride = ATTN_LINE_BYTES;
            pass.n_lanes = CMI_MIN(n_lanes - lane, (uint32_t)LATENT_LINES);
            for (uint32_t i = 0; i < pass.n_lanes; i += LATENT_TURN) {
                turn(args->latent, t, lane + i, lines + i * (size_t)ATTN_LINE_BYTES);
            }
            latent_add(kind, args, &pass, t);
            pass.q += pass.n_lanes * (size_t)CMI_ATTN_LANE_BYTES;
            pass.is_first = false;
        }
        pass.lines = (const char *)args->rope + t * (size_t)CMI_ATTN_LANE_BYTES;
        pass.line_stride = CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES;
        pass.n_lanes = args->n_rope / kind.p;
        latent_add(kind, args, &pass, t);
    }
}

#endif
