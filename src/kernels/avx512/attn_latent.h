/* kernels/avx512/attn_latent.h - scores against latent rows as they are stored.
 *
 * A latent tile has columns in its lanes, scores want tokens there. So the inputs of 16 tokens are
 * turned into lines of a buffer that stays in the first-level cache, and all rows pass over it,
 * 8 rows at a time. With 576 inputs that makes 83 % of the peak for 16 rows, 90 % for 32, 95 % for
 * 64 (Zen 4, BF16); turning 64 tokens at once fills the second-level cache's bandwidth (75 % for 16
 * rows), and turning in registers for one row tile after the other stays at 75 % for any number. */
#ifndef CMI_KERNELS_AVX512_ATTN_LATENT_H
#define CMI_KERNELS_AVX512_ATTN_LATENT_H

#include "kernels/avx512/attention.h"

enum { LATENT_TURN = 8, LATENT_LINES = 320, LATENT_ROWS = 8 };

/* keys: lanes lane .. lane + 7 of tokens t .. t + 15, from a value tile. */
typedef void latent_turn_fn(const void *latent, size_t t, size_t lane, __m512i keys[LATENT_TURN]);

/* Lines of the buffer against lanes of q. */
typedef struct latent_pass {
    const char *q; /* of row 0, the first of the lanes */
    const char *lines;
    uint32_t n_lanes;
    uint32_t t;
    bool is_first;
    attn_ahead ahead;
} latent_pass;

static CMI_ALWAYS_INLINE void latent_tile(const attn_kind kind,
                                          const cmi_attn_latent_scores_args *args,
                                          const latent_pass *pass, size_t row,
                                          const uint32_t n_rows)
{
    static const attn_shape shape = {ATTN_VECTOR_BYTES, 0};
    const size_t q_row_bytes = args->q_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    float *s = args->s + row * args->s_stride + pass->t;
    attn_sums sums;
    for (uint32_t r = 0; r < n_rows; r++) {
        sums[r][0] = pass->is_first ? _mm512_setzero_ps() : _mm512_loadu_ps(s + r * args->s_stride);
    }
    attn_add(kind, shape, sums, pass->q + row * q_row_bytes, q_row_bytes, pass->lines,
             pass->n_lanes, pass->ahead, n_rows, 1);
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm512_storeu_ps(s + r * args->s_stride, sums[r][0]);
    }
}

static CMI_ALWAYS_INLINE void latent_rows(const attn_kind kind,
                                          const cmi_attn_latent_scores_args *args,
                                          latent_pass *pass, const char *ahead_end)
{
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)LATENT_ROWS);
    uint32_t row = 0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
        switch (n_rows) {
            ATTN_CASE(1, latent_tile, kind, args, pass, row)
            ATTN_CASE(2, latent_tile, kind, args, pass, row)
            ATTN_CASE(3, latent_tile, kind, args, pass, row)
            ATTN_CASE(4, latent_tile, kind, args, pass, row)
            ATTN_CASE(5, latent_tile, kind, args, pass, row)
            ATTN_CASE(6, latent_tile, kind, args, pass, row)
            ATTN_CASE(7, latent_tile, kind, args, pass, row)
            ATTN_CASE(8, latent_tile, kind, args, pass, row)
        }
        row += n_rows;
        pass->ahead.at += pass->n_lanes / ATTN_UNROLL * pass->ahead.n_bytes;
        pass->ahead.n_bytes = pass->ahead.at < ahead_end ? pass->ahead.n_bytes : 0;
    }
}

/* Lanes lane .. lane + n - 1 of 16 tokens, as lines. */
static CMI_ALWAYS_INLINE void latent_lines(const attn_kind kind, latent_turn_fn *turn,
                                           const cmi_attn_latent_scores_args *args, uint32_t t,
                                           uint32_t lane, uint32_t n, char *lines)
{
    const uint32_t end = lane + n, n_latent = args->n_latent / kind.p;
    for (; lane < CMI_MIN(end, n_latent); lane += LATENT_TURN) {
        __m512i keys[LATENT_TURN];
        turn(args->latent, t, lane, keys);
        for (uint32_t i = 0; i < LATENT_TURN; i++) {
            _mm512_store_si512(lines, keys[i]);
            lines += ATTN_VECTOR_BYTES;
        }
    }
    const char *rope = (const char *)args->rope + t * (size_t)CMI_ATTN_LANE_BYTES;
    for (; lane < end; lane++) {
        const size_t at = (lane - n_latent) * (size_t)(CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES);
        _mm512_store_si512(lines, _mm512_load_si512(rope + at));
        lines += ATTN_VECTOR_BYTES;
    }
}

/* What is to be prefetched is spread over the row tiles. */
static CMI_ALWAYS_INLINE void latent_scores(const attn_kind kind, latent_turn_fn *turn,
                                            const cmi_attn_latent_scores_args *args)
{
    CMI_ALIGNED(64) char lines[LATENT_LINES * ATTN_VECTOR_BYTES];
    const uint32_t n_lanes = (args->n_latent + args->n_rope) / kind.p;
    const size_t n_turns = (size_t)CMI_DIV_UP(args->n_rows, (uint32_t)LATENT_ROWS) *
                           (args->n_keys / CMI_LANES) * (n_lanes / ATTN_UNROLL);
    const char *ahead_end = (const char *)args->ahead + args->ahead_bytes;
    latent_pass pass = {.lines = lines, .ahead.at = args->ahead};
    pass.ahead.n_bytes = n_turns == 0 ? 0 : CMI_ROUND_UP(args->ahead_bytes / n_turns, (size_t)64);
    for (; pass.t < args->n_keys; pass.t += CMI_LANES) {
        pass.q = args->q;
        pass.is_first = true;
        uint32_t lane = 0;
        do {
            pass.n_lanes = CMI_MIN(n_lanes - lane, (uint32_t)LATENT_LINES);
            latent_lines(kind, turn, args, pass.t, lane, pass.n_lanes, lines);
            latent_rows(kind, args, &pass, ahead_end);
            pass.q += pass.n_lanes * (size_t)CMI_ATTN_LANE_BYTES;
            pass.is_first = false;
            lane += pass.n_lanes;
        } while (lane < n_lanes);
    }
}

#endif
