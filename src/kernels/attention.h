/* kernels/attention.h - attention over tiles of 64 tokens: scores, softmax, values.
 *
 * Keys and values lie in tiles whose unit is a lane of 4 bytes: one float32, or a pair of BF16 that
 * a dot product instruction multiplies and adds in one go. P is the number of values in a lane.
 *
 *     key tile     [k / P][64 tokens][P]            a lane holds P inputs k of one token
 *     value tile   [c / 16][64 / P][16 columns][P]  a lane holds one column c of P tokens
 *
 * The lanes of a register are tokens when scores are summed and columns when values are, so a sum
 * never leaves its lane and has one order: ascending k for scores, ascending t for values, for a
 * pair the odd element first, then the even one, each a fused multiply-add. That is what the
 * AVX-512 BF16 dot product does (kernels/kernels.h); other instruction sets do the two steps.
 *
 * The keys of a row are seen in blocks of CMI_ATTN_BLOCK tokens. A block has a maximum and a sum of
 * its own; blocks are merged in ascending order. So they can be computed apart, by other threads,
 * and the merged bits are the same.
 *
 * A key that a row does not see gets weight +0. It only ever adds zeros, which can change the sign
 * of a zero sum and nothing else; whoever divides by l adds +0 and has the same bits then, however
 * many such keys a call passed over. What a hidden key holds does not matter, what a hidden value
 * holds must be finite.
 *
 * Names: _f32 has float32 operands (P = 1), _bf16 has BF16 operands (P = 2). */
#ifndef CMI_KERNELS_ATTENTION_H
#define CMI_KERNELS_ATTENTION_H

#include "base/dtype.h"

enum {
    CMI_ATTN_TILE = 64,   /* tokens of a tile */
    CMI_ATTN_BLOCK = 256, /* tokens that share a maximum: part of what defines the bits */
    CMI_ATTN_COLS = 16,   /* columns of a value tile that lie together; also the lanes of a sum */
    CMI_ATTN_LANE_BYTES = 4,
};

/* Where input k of token t lies in a key tile, and column c of token t in a value tile, in values.
 */
static inline size_t cmi_key_tile_at(uint32_t p, size_t t, size_t k)
{
    return (k / p * CMI_ATTN_TILE + t) * p + k % p;
}

static inline size_t cmi_value_tile_at(uint32_t p, size_t t, size_t c)
{
    const size_t lines = CMI_ATTN_TILE / p;
    return ((c / CMI_ATTN_COLS * lines + t / p) * CMI_ATTN_COLS + c % CMI_ATTN_COLS) * p + t % p;
}

static inline size_t cmi_key_tile_bytes(uint32_t p, size_t n_k)
{
    return CMI_DIV_UP(n_k, (size_t)p) * CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES;
}

static inline size_t cmi_value_tile_bytes(uint32_t p, size_t n_cols)
{
    return CMI_DIV_UP(n_cols, (size_t)CMI_ATTN_COLS) * CMI_ATTN_COLS * CMI_ATTN_LANE_BYTES *
           (CMI_ATTN_TILE / p);
}

/* s[r][t] = chain over k of q[r][k] * key[t][k] from 0. */
typedef struct cmi_attn_scores_args {
    const void *q; /* [n_rows][q_stride] operands */
    const void *k; /* a key tile, 64-byte aligned */
    float *s;      /* [n_rows][s_stride] */
    size_t q_stride, s_stride;
    uint32_t n_rows;
    uint32_t n_keys; /* the first of the tile: a multiple of 16 */
    uint32_t n_k;    /* a multiple of P */
} cmi_attn_scores_args;
typedef void cmi_attn_scores_fn(const cmi_attn_scores_args *args);

/* Scores against latent rows, whose first part is a value tile, since a latent row is key and value
 * at once and is stored as the latter: its columns are the first inputs.
 * s[r][t] = chain over k < n_latent of q[r][k] * latent[t][k] from 0, going on with k < n_rope of
 * q[r][n_latent + k] * rope[t][k]. */
typedef struct cmi_attn_latent_scores_args {
    const void *q;      /* [n_rows][q_stride] operands */
    const void *latent; /* a value tile, 64-byte aligned */
    const void *rope;   /* a key tile, 64-byte aligned */
    float *s;           /* [n_rows][s_stride] */
    size_t q_stride, s_stride;
    uint32_t n_rows;
    uint32_t n_keys;    /* the first of the tiles: a multiple of 16 */
    uint32_t n_latent;  /* a multiple of 16: pad q and the tile with zeros */
    uint32_t n_rope;    /* a multiple of P */
    const void *ahead;  /* what the caller reads next: prefetched meanwhile */
    size_t ahead_bytes; /* 0: nothing */
} cmi_attn_latent_scores_args;
typedef void cmi_attn_latent_scores_fn(const cmi_attn_latent_scores_args *args);

/* An INT8 latent tile as the BF16 tile that is computed with: a value tile with P = 4, and a scale
 * for each token. tile: value[t][c] = round(q[t][c] * scales[t]), a value tile with P = 2. */
typedef struct cmi_attn_dequantize_args {
    const void *q;       /* int8_t, 64-byte aligned */
    const float *scales; /* [CMI_ATTN_TILE] */
    void *tile;          /* cmi_bf16, 64-byte aligned */
    uint32_t n_t;        /* the first tokens: a multiple of 16 */
    uint32_t n_cols;     /* a multiple of 16 */
} cmi_attn_dequantize_args;
typedef void cmi_attn_dequantize_fn(const cmi_attn_dequantize_args *args);

/* The softmax of a block, row by row, and its merge into what came before.
 * Row r sees the keys t with n_hidden <= t < n_visible[r]. If there are any,
 *   m_b = (max of s[t]) * scale;  p[t] = exp(fma(s[t], scale, -m_b));  l_b = sum of p[t] in 16
 *   lanes (lane t % 16) and a tree,
 * before p is rounded to an operand; hidden p are +0. Else m_b = -INFINITY and l_b = 0. The merge:
 *   m' = max(m, m_b);  alpha = exp(m - m');  beta = exp(m_b - m');  l = fma(l, alpha, l_b * beta);
 *   m = m'
 * but with m_b = -INFINITY nothing changes: alpha = 1, beta = 0. Visible scores are finite. */
typedef struct cmi_attn_softmax_args {
    const float *s;            /* [n_rows][s_stride] */
    void *p;                   /* [n_rows][p_stride] operands */
    const uint32_t *n_visible; /* [n_rows], each <= n_keys */
    float *m, *l;              /* [n_rows] -INFINITY and 0 before the first block */
    float *alpha, *beta;       /* [n_rows] written */
    size_t s_stride, p_stride;
    uint32_t n_rows;
    uint32_t n_keys; /* columns of s and p: a multiple of 16, <= CMI_ATTN_BLOCK */
    uint32_t n_hidden;
    float scale; /* > 0 */
} cmi_attn_softmax_args;
typedef void cmi_attn_softmax_fn(const cmi_attn_softmax_args *args);

/* o[r][c] = fma(chain over t of p[r][t] * value[t][c] from 0, beta[r], o[r][c] * alpha[r]). */
typedef struct cmi_attn_values_args {
    const void *p;             /* [n_rows][p_stride] operands */
    const void *const *v;      /* value tiles, 64-byte aligned: tokens 0 .. 63, 64 .. 127, ... */
    const float *alpha, *beta; /* [n_rows] */
    float *o;                  /* [n_rows][o_stride], updated in place */
    size_t p_stride, o_stride;
    uint32_t n_rows;
    uint32_t n_t; /* a multiple of P, <= CMI_ATTN_BLOCK */
    uint32_t n_cols;
} cmi_attn_values_args;
typedef void cmi_attn_values_fn(const cmi_attn_values_args *args);

/* Merges a block that was computed apart: m, l as in attn_softmax with the block's m_b and l_b, and
 * o[r][c] = fma(o_b[r][c], beta[r], o[r][c] * alpha[r]). */
typedef struct cmi_attn_merge_args {
    const float *m_b, *l_b; /* [n_rows] */
    const float *o_b;       /* [n_rows][o_stride] */
    float *m, *l, *o;       /* the same shapes */
    size_t o_stride;
    uint32_t n_rows, n_cols;
} cmi_attn_merge_args;
typedef void cmi_attn_merge_fn(const cmi_attn_merge_args *args);

/* Rows of float32 become the first n_rows tokens of a tile, as operands. attn_pack_keys: columns
 * are the inputs k. attn_pack_values: columns are columns. Zeros are written for the tokens up to
 * the next multiple of 16, for the inputs up to the next multiple of P, and for the columns up to
 * the next multiple of 16; the rest of the tile stays as it is. */
typedef struct cmi_attn_pack_args {
    const float *x; /* [n_rows][x_stride] */
    void *tile;     /* 64-byte aligned */
    size_t x_stride;
    uint32_t n_rows; /* 1 .. 64 */
    uint32_t n_cols;
} cmi_attn_pack_args;
typedef void cmi_attn_pack_fn(const cmi_attn_pack_args *args);

#endif
