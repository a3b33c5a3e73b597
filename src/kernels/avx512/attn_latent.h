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

enum {
    LATENT_TURN = 8,
    LATENT_LINES = 320,
    LATENT_WIDE_ROWS = 64, /* that are widened at a time: 80 KiB of second-level cache */
};

/* keys: lanes lane .. lane + 7 of tokens t .. t + 15, from a value tile. */
typedef void latent_turn_fn(const void *latent, size_t t, size_t lane, __m512i keys[LATENT_TURN]);

/* Lanes lane .. lane + n_lanes - 1 of rows row .. row + n_rows - 1, against 16 tokens from t on in
 * each register. */
typedef struct latent_pass {
    attn_rows q;
    const char *lines; /* [n_lanes][n_vectors] registers */
    uint32_t row, n_rows;
    uint32_t lane, n_lanes;
    uint32_t t;
    attn_ahead ahead;
    const char *ahead_end;
} latent_pass;

/* A row tile, tile_row rows after the first of the pass. */
static CMI_ALWAYS_INLINE void latent_tile(const attn_kind kind,
                                          const cmi_attn_latent_scores_args *args,
                                          const latent_pass *pass, size_t tile_row,
                                          const uint32_t n_vectors, const uint32_t n_rows)
{
    const attn_shape shape = {n_vectors * (size_t)ATTN_VECTOR_BYTES, ATTN_VECTOR_BYTES};
    const attn_rows q = {pass->q.at + tile_row * pass->q.row_bytes, pass->q.row_bytes};
    float *s = args->s + (pass->row + tile_row) * args->s_stride + pass->t;
    attn_sums sums;
    attn_clear(sums, n_rows, n_vectors);
    for (uint32_t r = 0; pass->lane > 0 && r < n_rows; r++) {
        for (uint32_t i = 0; i < n_vectors; i++) {
            sums[r][i] = _mm512_loadu_ps(s + r * args->s_stride + i * CMI_LANES);
        }
    }
    attn_add(kind, shape, sums, q, pass->lines, pass->n_lanes, pass->ahead, n_rows, n_vectors);
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < n_vectors; i++) {
            _mm512_storeu_ps(s + r * args->s_stride + i * CMI_LANES, sums[r][i]);
        }
    }
}

static CMI_ALWAYS_INLINE void latent_rows(const attn_kind kind,
                                          const cmi_attn_latent_scores_args *args,
                                          latent_pass *pass, const uint32_t n_vectors)
{
    const uint32_t n_tiles = CMI_DIV_UP(pass->n_rows, kind.latent_rows);
    uint32_t row = 0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        const uint32_t n_rows = CMI_DIV_UP(pass->n_rows - row, n_tiles - tile);
        ATTN_ROW_TILE(n_rows, kind.latent_rows, latent_tile, kind, args, pass, row, n_vectors)
        row += n_rows;
        pass->ahead.at += pass->n_lanes / ATTN_UNROLL * pass->ahead.n_bytes;
        pass->ahead.n_bytes = pass->ahead.at < pass->ahead_end ? pass->ahead.n_bytes : 0;
    }
}

/* LATENT_TURN lanes of 16 tokens into the first-level cache: they lie 2 KiB from those before,
 * which Intel's prefetcher does not see coming. */
static CMI_ALWAYS_INLINE void latent_prefetch(const attn_kind kind, const void *latent, size_t t,
                                              size_t lane)
{
    const char *at = (const char *)latent +
                     cmi_value_tile_at(kind.p, t, lane * kind.p) * (CMI_ATTN_LANE_BYTES / kind.p);
    for (size_t b = 0; kind.is_wide && b < LATENT_TURN * ATTN_VECTOR_BYTES;
         b += ATTN_VECTOR_BYTES) {
        _mm_prefetch(at + b, _MM_HINT_T0);
    }
}

/* The lanes of the pass for 16 tokens from t on, as lines that are line_bytes apart. */
static CMI_ALWAYS_INLINE void latent_lines(const attn_kind kind, latent_turn_fn *turn,
                                           const cmi_attn_latent_scores_args *args,
                                           const latent_pass *pass, uint32_t t, char *lines,
                                           const size_t line_bytes)
{
    const uint32_t end = pass->lane + pass->n_lanes, n_latent = args->n_latent / kind.p;
    uint32_t lane = pass->lane;
    for (; lane < CMI_MIN(end, n_latent); lane += LATENT_TURN) {
        __m512i keys[LATENT_TURN];
        latent_prefetch(kind, args->latent, t, lane + 2 * LATENT_TURN);
        turn(args->latent, t, lane, keys);
        for (uint32_t i = 0; i < LATENT_TURN; i++) {
            _mm512_store_si512(lines, keys[i]);
            lines += line_bytes;
        }
    }
    const char *rope = (const char *)args->rope + t * (size_t)CMI_ATTN_LANE_BYTES;
    for (; lane < end; lane++) {
        const size_t at = (lane - n_latent) * (size_t)(CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES);
        _mm512_store_si512(lines, _mm512_load_si512(rope + at));
        lines += line_bytes;
    }
}

/* All tokens of the pass from t on that come n_vectors registers at a time. */
static CMI_ALWAYS_INLINE void latent_tokens(const attn_kind kind, latent_turn_fn *turn,
                                            const cmi_attn_latent_scores_args *args,
                                            latent_pass *pass, char *lines,
                                            const uint32_t n_vectors)
{
    for (; pass->t + n_vectors * CMI_LANES <= args->n_keys; pass->t += n_vectors * CMI_LANES) {
        for (uint32_t i = 0; i < n_vectors; i++) {
            latent_lines(kind, turn, args, pass, pass->t + i * CMI_LANES,
                         lines + i * ATTN_VECTOR_BYTES, n_vectors * ATTN_VECTOR_BYTES);
        }
        latent_rows(kind, args, pass, n_vectors);
    }
}

/* Lanes of a piece: what the lines have room for, in pieces of about one size. */
static CMI_ALWAYS_INLINE uint32_t latent_piece_lanes(const attn_kind kind, uint32_t n_lanes)
{
    const uint32_t n_pieces = CMI_DIV_UP(n_lanes * kind.latent_vectors, (uint32_t)LATENT_LINES);
    return CMI_ROUND_UP(CMI_DIV_UP(n_lanes, CMI_MAX(n_pieces, 1u)), (uint32_t)LATENT_TURN);
}

/* What is to be prefetched is spread over the row tiles. */
static CMI_ALWAYS_INLINE void latent_scores(const attn_kind kind, latent_turn_fn *turn,
                                            const cmi_attn_latent_scores_args *args)
{
    enum { WIDE_VALUES = LATENT_LINES }; /* 2 a lane, 2 lines a lane */
    CMI_ALIGNED(64) char lines[LATENT_LINES * ATTN_VECTOR_BYTES];
    CMI_ALIGNED(64) float wide[LATENT_WIDE_ROWS * WIDE_VALUES];
    const uint32_t n_lanes = (args->n_latent + args->n_rope) / kind.p;
    const uint32_t piece_lanes = latent_piece_lanes(kind, n_lanes);
    const uint32_t rows_max = kind.is_wide ? LATENT_WIDE_ROWS : args->n_rows;
    const size_t q_row_bytes = args->q_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    const size_t n_turns = (size_t)CMI_DIV_UP(args->n_rows, kind.latent_rows) *
                           CMI_DIV_UP(args->n_keys, kind.latent_vectors * CMI_LANES) *
                           (n_lanes / ATTN_UNROLL);
    latent_pass pass = {.lines = lines,
                        .ahead.at = args->ahead,
                        .ahead_end = (const char *)args->ahead + args->ahead_bytes};
    pass.ahead.n_bytes = n_turns == 0 ? 0 : CMI_ROUND_UP(args->ahead_bytes / n_turns, (size_t)64);
    for (; pass.row < args->n_rows; pass.row += rows_max) {
        pass.n_rows = CMI_MIN(args->n_rows - pass.row, rows_max);
        pass.lane = 0;
        do {
            const char *q = (const char *)args->q + pass.row * q_row_bytes +
                            pass.lane * (size_t)CMI_ATTN_LANE_BYTES;
            pass.n_lanes = CMI_MIN(n_lanes - pass.lane, piece_lanes);
            pass.q = attn_rows_of(kind, q, q_row_bytes, pass.n_rows, pass.n_lanes * (size_t)kind.p,
                                  wide, WIDE_VALUES);
            pass.t = 0;
            latent_tokens(kind, turn, args, &pass, lines, kind.latent_vectors);
            latent_tokens(kind, turn, args, &pass, lines, 1);
            pass.lane += pass.n_lanes;
        } while (pass.lane < n_lanes);
    }
}

#endif
