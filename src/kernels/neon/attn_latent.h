/* kernels/neon/attn_latent.h - scores against latent rows as they are stored.
 *
 * A latent tile has columns in its lanes, scores want tokens there. So the inputs of 16 tokens are
 * turned into lines of a small buffer, 64 lanes of them at a time, and all rows pass over it; their
 * sums rest in the output meanwhile. */
#ifndef CMI_KERNELS_NEON_ATTN_LATENT_H
#define CMI_KERNELS_NEON_ATTN_LATENT_H

#include "kernels/neon/attention.h"

enum { LATENT_LINES = 64 };

/* lines: the lanes of 16 columns of tokens t .. t + 15, from the line of a value tile where these
 * columns of token t lie. */
typedef void latent_turn_fn(const uint8_t *from, uint8_t *lines);

/* A pass over some lanes of all inputs, from the given one on. */
typedef struct latent_pass {
    const uint8_t *q;
    const uint8_t *lines;
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
    if (pass->is_first) {
        attn_clear(sums, n_rows);
    } else {
        attn_load(sums, s, args->s_stride, n_rows);
    }
    attn_add(kind, sums, pass->q + row * q_row_bytes, q_row_bytes, pass->lines, pass->line_stride,
             pass->n_lanes, n_rows);
    attn_store(sums, s, args->s_stride, n_rows);
}

static CMI_ALWAYS_INLINE void latent_add(const attn_kind kind,
                                         const cmi_attn_latent_scores_args *args,
                                         const latent_pass *pass, uint32_t t)
{
    for (uint32_t row = 0; row < args->n_rows; row += ATTN_ROWS) {
        ATTN_ROW_TILE(args->n_rows - row, latent_tile, kind, args, pass, row, t)
    }
}

static CMI_ALWAYS_INLINE void latent_scores(const attn_kind kind, latent_turn_fn *turn,
                                            const cmi_attn_latent_scores_args *args)
{
    uint8_t lines[LATENT_LINES * ATTN_LINE_BYTES];
    const uint32_t turn_lanes = CMI_ATTN_COLS / kind.p;
    const uint32_t n_lanes = args->n_latent / kind.p;
    for (uint32_t t = 0; t < args->n_keys; t += CMI_LANES) {
        latent_pass pass = {.q = args->q, .is_first = true};
        for (uint32_t lane = 0; lane < n_lanes; lane += LATENT_LINES) {
            pass.lines = lines;
            pass.line_stride = ATTN_LINE_BYTES;
            pass.n_lanes = CMI_MIN(n_lanes - lane, (uint32_t)LATENT_LINES);
            for (uint32_t i = 0; i < pass.n_lanes; i += turn_lanes) {
                size_t at = cmi_value_tile_at(kind.p, t, (size_t)(lane + i) * kind.p);
                turn((const uint8_t *)args->latent + at * (CMI_ATTN_LANE_BYTES / kind.p),
                     lines + i * (size_t)ATTN_LINE_BYTES);
            }
            latent_add(kind, args, &pass, t);
            pass.q += pass.n_lanes * (size_t)CMI_ATTN_LANE_BYTES;
            pass.is_first = false;
        }
        pass.lines = (const uint8_t *)args->rope + t * (size_t)CMI_ATTN_LANE_BYTES;
        pass.line_stride = CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES;
        pass.n_lanes = args->n_rope / kind.p;
        latent_add(kind, args, &pass, t);
    }
}

#endif
