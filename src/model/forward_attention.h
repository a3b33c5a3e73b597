/* model/forward_attention.h - the attention stage's own state: how it is cut, and its scratch.
 *
 * For forward*.c only. Query rows of an expanded head have nope with padding to whole lanes, then
 * rope; of an absorbed one latent with padding to 16 columns, then rope: like the tiles that they
 * are multiplied with (kernels/attention.h). Padding is zero. */
#ifndef CMI_MODEL_FORWARD_ATTENTION_H
#define CMI_MODEL_FORWARD_ATTENTION_H

#include "kernels/kernels.h"
#include "model/forward.h"

/* Nothing here changes a bit; CMI_ATTN_BLOCK would. */
enum {
    CMI_ATTENTION_ROWS = 64,     /* query rows of a decode task, one for a head of a row */
    CMI_ATTENTION_ROWS_MIN = 16, /* the same where that gives too few tasks */
    CMI_DECODE_SPAN_ROWS = 8,    /* rows of a decode span that share a pass over its KV */
    CMI_DECODE_PARTS = 8,        /* blocks for each thread that are computed apart at a time */
    CMI_EXPAND_PAGES = 8,        /* pages that are expanded at a time: whole blocks */
    CMI_EXPAND_TOKENS = CMI_EXPAND_PAGES * CMI_KV_PAGE_TOKENS,
    CMI_EXPAND_TILES = 128, /* pages times heads that are expanded at a time */
    CMI_PREFILL_ROWS = 48,  /* rows of a prefill task */
    CMI_SOFTMAX_ROWS = 12,  /* of them, those whose scores are held at a time */
    CMI_BLOCK_PAGES = CMI_ATTN_BLOCK / CMI_KV_PAGE_TOKENS,
};

/* Heads head .. head + n_heads - 1 of rows row .. row + n_rows - 1, all of one decode span: they
 * read the same KV. Their query rows follow one another, by head, then by row. */
typedef struct cmi_decode_unit {
    const cmi_batch_span *span;
    uint32_t row, n_rows;
    uint32_t head, n_heads;
    uint32_t n_keys; /* that the last row sees */
} cmi_decode_unit;

/* A block of a unit that is computed apart. */
typedef struct cmi_decode_part {
    const cmi_decode_unit *unit;
    uint32_t block_idx;
} cmi_decode_part;

/* A worker's memory for the query rows at hand. */
typedef struct cmi_attention_worker {
    float *scores;       /* [CMI_ATTENTION_ROWS][CMI_ATTN_BLOCK] */
    void *p;             /* the same as operands */
    float *alpha, *beta; /* [CMI_ATTENTION_ROWS] */
    uint32_t *n_visible; /* [CMI_ATTENTION_ROWS] */
    uint8_t *pages;      /* decode, INT8 KV: [CMI_BLOCK_PAGES] latent tiles as BF16 */
    void *q;             /* prefill: [CMI_PREFILL_ROWS][q_cols] */
    float *expanded;     /* prefill: [CMI_KV_PAGE_TOKENS][expanded_cols] */
} cmi_attention_worker;

typedef struct cmi_attention_scratch {
    uint32_t nope_cols, q_cols, abs_cols; /* with padding: nope, an expanded and an absorbed row */
    void *kv_rows;                        /* [rows] of kv_layout.row_bytes: what is stored */
    void *q_op;                           /* [rows][heads][q_cols] operand */
    void *q_abs_op;                       /* [decode rows * heads][abs_cols] operand */
    cmi_attention_worker *workers;
    uint32_t expanded_cols;
    /* decode, by query row: see cmi_query_row */
    float *m, *l;    /* [decode rows * heads] running maximum and sum */
    float *o_latent; /* [decode rows * heads][kv_lora] */
    void *o_op;      /* [heads][decode rows][kv_lora] operand */
    cmi_decode_unit *units;
    cmi_decode_part *parts;
    uint32_t n_units, n_parts, n_parts_max;
    float *part_m, *part_l; /* [n_parts_max][CMI_ATTENTION_ROWS] */
    float *part_o;          /* [n_parts_max][CMI_ATTENTION_ROWS][kv_lora] */
    /* prefill */
    void *latent;           /* [CMI_EXPAND_TOKENS][kv_lora] operand: stored rows */
    uint8_t *keys, *values; /* [CMI_EXPAND_TILES] tiles: of a head all pages, then the next */
    size_t key_bytes, value_bytes;
    float *head_m, *head_l; /* [heads][rows] running maximum and sum */
} cmi_attention_scratch;

/* Heads that rows of a span attend with, and where their rows are: all of a model's heads over the
 * batch, or those of this rank over rows of many ranks (model/forward_staged.h). */
typedef struct cmi_prefill_heads {
    uint32_t first, n; /* heads first .. first + n - 1 */
    uint32_t max_rows; /* from head to head of m and l */
    const void *q_op;  /* [rows][n][q_cols] operand */
    float *o;          /* [rows][n][v_head_dim] */
    float *m, *l;      /* [n][max_rows] */
    /* The layer's KV of a span without page_ids: page after page, layer_bytes each. */
    const uint8_t *pages;
} cmi_prefill_heads;

/* The kernels for the forward's type. */
typedef struct cmi_attention_kernels {
    cmi_attn_scores_fn *scores;
    cmi_attn_latent_scores_fn *latent_scores;
    cmi_attn_softmax_fn *softmax;
    cmi_attn_values_fn *values;
    cmi_attn_pack_fn *pack_keys, *pack_values;
} cmi_attention_kernels;

/* Where a head of a decode row stands among the query rows. The rows of a span that share a pass
 * over KV stand together. */
static inline size_t cmi_query_row(const cmi_batch_span *span, uint32_t n_heads, uint32_t row,
                                   uint32_t head)
{
    uint32_t i = row - span->row_idx;
    uint32_t first = i / CMI_DECODE_SPAN_ROWS * CMI_DECODE_SPAN_ROWS;
    uint32_t n = CMI_MIN(span->n_rows - first, (uint32_t)CMI_DECODE_SPAN_ROWS);
    return (span->row_idx + first) * (size_t)n_heads + head * (size_t)n + (i - first);
}

/* forward_decode_attention.c: s.o of all decode rows. */
void cmi_attend_decode_rows(cmi_forward *f);

/* forward_prefill_attention.c: heads->o of a span's rows, of which the span's row_idx is the first.
 */
void cmi_attend_prefill_span(cmi_forward *f, const cmi_batch_span *span,
                             const cmi_prefill_heads *heads);

#endif
