/* model/forward_internal.h - the state that the stages of forward*.c share.
 *
 * "Operand" means in the compute type (float32 or BF16): what a matrix product reads. Everything
 * that is added up or normed stays float32. */
#ifndef CMI_MODEL_FORWARD_INTERNAL_H
#define CMI_MODEL_FORWARD_INTERNAL_H

#include "model/forward.h"

/* Rows of a prefill span, or heads of a decode row, that one attention task takes. Sizes scratch;
 * the bits do not depend on it. */
enum { CMI_ATTENTION_TILE = 16 };

typedef struct cmi_forward_scratch {
    float *x;                 /* [rows][hidden] the residual stream */
    float *normed;            /* [rows][hidden] */
    float *hidden;            /* [rows][hidden] after the final norm */
    void *operand;            /* [max(rows, head rows)][hidden, twice with MTP] operand of normed */
    float *q_a;               /* [rows][q_lora] */
    void *q_a_op;             /* [rows][q_lora] operand */
    float *kv_a;              /* [rows][kv_lora + rope] */
    float *q;                 /* [rows][heads * (nope + rope)] */
    void *q_op;               /* [rows][heads * (nope + rope)] operand, roped: expanded form */
    float *q_abs;             /* [decode rows][heads * kv_lora] */
    void *q_abs_op;           /* [decode rows][heads * (kv_lora + rope)] operand: absorbed form */
    float *kv_block;          /* [64][heads * (nope + v)] one page expanded */
    void *k_block_op;         /* [heads][64][nope + rope] operand */
    void *v_block_op;         /* [heads][64][v] operand */
    float *o;                 /* [rows][heads * v] attention's accumulator and output */
    float *softmax_m;         /* [rows][heads] running maximum */
    float *softmax_l;         /* [rows][heads] running sum */
    float *o_latent;          /* [decode rows][heads * kv_lora] */
    void *o_op;               /* [rows][heads * v] or [decode rows][heads * kv_lora], operand */
    float *projected;         /* [rows][hidden] */
    float *gate_logits;       /* [rows][experts] */
    uint32_t *expert_ids;     /* [rows][k] */
    float *expert_weights;    /* [rows][k] */
    uint32_t *expert_begin;   /* [experts + 2] first sorted pair of an expert */
    uint32_t *slot_of;        /* [rows * k] row * k + rank -> sorted pair */
    void *expert_x;           /* [rows * k][hidden] operand, sorted by expert */
    float *ffn_gate_up;       /* [max(rows * k * 2 * moe, rows * 2 * dense or shared)] */
    void *ffn_op;             /* [half of it] operand */
    float *expert_y;          /* [rows * k][hidden] */
    uint32_t *active_experts; /* [experts] those with rows in this step */
    float *scores;            /* [workers][TILE][64] */
    float *alpha;             /* [workers][TILE] */
    uint32_t *row_span;       /* [rows] the span of a row */
} cmi_forward_scratch;

struct cmi_forward {
    cmi_forward_options opt;
    cmi_rope rope;
    float softmax_scale;
    cmi_dtype dtype;
    size_t value_bytes; /* of an operand */
    cmi_forward_scratch s;
    void *scratch_block;
    size_t scratch_bytes;
    /* the pass in progress */
    const cmi_batch *batch;
    const cmi_layer_weights *layer;
    uint32_t layer_idx; /* of the KV, too: num_hidden_layers is the MTP layer */
    uint32_t layer_end;
    uint32_t stage_idx;
    uint32_t kv_begin;      /* first slot that holds KV: 0, or 1 in the MTP layer */
    uint32_t n_decode_rows; /* rows 0 .. n_decode_rows-1 */
    uint32_t n_active_experts;
    const cmi_ffn *ffn; /* the one that cmi_forward_ffn is running */
};

/* linear.c */

/* y = x W^T for n_rows rows; x holds operands of the weight's dtype. Column tiles go to the team.
 */
void cmi_forward_linear(cmi_forward *f, const cmi_linear *linear, const void *x, size_t x_stride,
                        uint32_t n_rows, float *y, size_t y_stride);

/* Runs fn for every row, some rows a task. */
typedef void cmi_row_fn(cmi_forward *f, uint32_t row_idx);
void cmi_forward_each_row(cmi_forward *f, uint32_t n_rows, cmi_row_fn *fn);

/* Writes n float32 values as operands. */
void cmi_forward_to_operand(const cmi_forward *f, const float *from, uint32_t n, void *to);

/* normed = rmsnorm(x) of a row, and its operand: what a block of the layer begins with. */
void cmi_forward_norm_x(cmi_forward *f, uint32_t row_idx, const float *weight);

/* x += projected for a row: what it ends with. A cmi_row_fn. */
void cmi_forward_add_projected(cmi_forward *f, uint32_t row_idx);

/* to + n values, in operand units. */
static inline void *cmi_operand_at(const cmi_forward *f, const void *base, size_t n)
{
    return (uint8_t *)(uintptr_t)base + n * f->value_bytes;
}

/* The matrix product of operands, as a function of the weight's type. */
void cmi_forward_gemm(const cmi_forward *f, cmi_dtype dtype, const cmi_gemm_args *args);

/* The position of a row in its sequence; its slot in the KV. */
static inline uint32_t cmi_row_position(const cmi_forward *f, uint32_t row_idx)
{
    const cmi_batch_span *span = &f->batch->spans[f->s.row_span[row_idx]];
    return span->position + (row_idx - span->row_idx);
}

/* KV of the current layer in a span's page: rows of operands, kv_layout.row_stride apart. */
static inline void *cmi_span_page(const cmi_forward *f, const cmi_batch_span *span,
                                  uint32_t page_idx)
{
    return cmi_kv_page_layer(&f->opt.kv_layout, f->opt.kv_base, span->page_ids[page_idx],
                             f->layer_idx);
}

/* stages: forward_mla.c, forward_attention.c, forward_ffn.c */
void cmi_stage_mla_prolog(cmi_forward *f);
void cmi_stage_attention(cmi_forward *f);
void cmi_stage_output_projection(cmi_forward *f);
void cmi_stage_dense_ffn(cmi_forward *f);
void cmi_stage_gate(cmi_forward *f);
void cmi_stage_dispatch(cmi_forward *f);
void cmi_stage_grouped_experts(cmi_forward *f);
void cmi_stage_combine(cmi_forward *f);

#endif
