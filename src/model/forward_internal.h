/* model/forward_internal.h - the state that the stages of forward*.c share.
 *
 * An operand is what a matrix product reads: rows in the type of the weights (float32, BF16, or
 * INT8 with a scale for each row). Attention works on operands of the forward's own type (float32,
 * or BF16 also where the weights are INT8). Everything that is added up or normed stays float32. */
#ifndef CMI_MODEL_FORWARD_INTERNAL_H
#define CMI_MODEL_FORWARD_INTERNAL_H

#include "model/forward.h"
#include "model/forward_attention.h"
#include "model/forward_staged.h"

/* Rows of a product in progress of a float product that does not go straight to its place. */
enum { CMI_FLOAT_TILE_ROWS = 64 };

/* Rows that a matrix product reads. The type and the length are those of the product at hand. */
typedef struct cmi_operand {
    void *values;
    float *scales; /* [rows], INT8 only */
    size_t row_bytes;
    uint32_t n; /* values of a row */
    cmi_dtype dtype;
} cmi_operand;

typedef struct cmi_forward_scratch {
    float *x;              /* [rows][hidden] the residual stream */
    float *normed;         /* [rows][hidden] */
    float *hidden;         /* [rows][hidden] after the final norm */
    cmi_operand operand;   /* [max(rows, head rows)][hidden, twice with MTP] of normed */
    float *joined;         /* [rows][2 * hidden] what the MTP layer begins with */
    float *qkv_a;          /* [rows][q_lora + kv_lora + rope] */
    cmi_operand q_a_op;    /* [rows][q_lora] */
    float *q;              /* [rows][heads * (nope + rope)] */
    float *q_abs;          /* [decode rows][heads * kv_lora] */
    float *latent;         /* [CMI_EXPAND_TOKENS][kv_lora] stored rows, where kv_b_proj is INT8 */
    cmi_operand latent_op; /* the same quantized */
    cmi_attention_scratch attn;
    float *o;              /* [rows][heads * v] attention's accumulator and output */
    cmi_operand o_proj_op; /* [rows][heads * v] */
    float *tile;           /* [workers][tile_values] float products on their way */
    size_t tile_values;
    float *gate_logits;       /* [rows][experts] */
    uint32_t *expert_ids;     /* [rows][k] */
    float *expert_weights;    /* [rows][k] */
    uint32_t *expert_begin;   /* [experts + 2] first sorted pair (or arrival) of an expert */
    uint32_t *slot_of;        /* [rows * k] row * k + rank -> sorted pair */
    cmi_operand expert_x;     /* [rows * k, or arrivals][hidden] sorted by expert */
    float *ffn_act;           /* [max(rows * k * moe, rows * dense)] silu(gate) * up */
    cmi_operand ffn_op;       /* the same as operand */
    float *shared_act;        /* [rows][shared] */
    cmi_operand shared_op;    /* the same as operand */
    void *expert_y;           /* [as expert_x][hidden] in the forward's type, as on a wire */
    void *shared_y;           /* [rows][hidden] the same of the shared experts */
    struct cmi_group *groups; /* [memory nodes][experts + 1] */
    uint32_t *row_span;       /* [rows] the span of a row */
} cmi_forward_scratch;

struct cmi_forward {
    cmi_forward_options opt;
    cmi_rope rope;
    float softmax_scale;
    cmi_dtype dtype;            /* F32 or BF16: attention's operands, and what experts send back */
    size_t value_bytes;         /* of it */
    cmi_attention_kernels attn; /* for it */
    cmi_forward_scratch s;
    void *scratch_block;
    size_t scratch_bytes;
    cmi_staged *staged; /* NULL without a stage exchange */
    /* the pass in progress */
    const cmi_batch *batch; /* rows that this rank computes */
    bool is_staged;
    /* Of the batch those first ones whose attention is computed here; all, unless it is staged. */
    uint32_t n_local_rows, n_local_spans;
    const cmi_layer_weights *layer;
    uint32_t layer_idx; /* of the KV, too: num_hidden_layers is the MTP layer */
    uint32_t layer_end;
    uint32_t stage_idx;
    uint32_t kv_begin;      /* first slot that holds KV: 0, or 1 in the MTP layer */
    uint32_t n_decode_rows; /* rows 0 .. n_decode_rows-1 */
    uint32_t n_groups;
    cmi_status status;          /* of the exchange */
    uint32_t heard, heard_vote; /* over it, in the layer of experts that was last */
    const void *returned; /* by it: results of pair i at i * returned_stride; NULL: in expert_y */
    size_t returned_stride;
};

/* linear.c */

/* Bytes from row to row. */
static inline size_t cmi_operand_row_bytes(cmi_dtype dtype, size_t n)
{
    return dtype == CMI_DTYPE_I8 ? cmi_i8_row_stride(n) : n * cmi_dtype_bytes(dtype);
}

/* The operand will hold rows of n values as dtype. */
void cmi_operand_begin(cmi_operand *op, cmi_dtype dtype, uint32_t n);

static inline void *cmi_operand_row(const cmi_operand *op, size_t row)
{
    return (uint8_t *)op->values + row * op->row_bytes;
}

/* Row `row` of op becomes op->n float32 values. */
void cmi_forward_write_operand(const cmi_forward *f, const float *from, cmi_operand *op,
                               uint32_t row);

/* How a norm's result is left behind. */
typedef struct cmi_norm {
    const float *weight;
    float eps;
    float *buffer;    /* [n] float32; may be the input */
    bool keep_normed; /* buffer holds the normed row afterwards; else it may hold anything */
} cmi_norm;

/* Row `row` of op becomes rmsnorm(x). */
void cmi_forward_norm_operand(const cmi_forward *f, const float *x, const cmi_norm *norm,
                              cmi_operand *op, uint32_t row);

/* Row `row` of s.operand becomes rmsnorm(residual stream): what a block of the layer begins with.
 */
void cmi_forward_norm_x(cmi_forward *f, uint32_t row, const float *weight, bool keep_normed);

/* The outputs first .. first + n_out - 1; first is a multiple of CMI_I8_BLOCK_COLS. */
cmi_linear cmi_linear_outputs(const cmi_linear *linear, uint32_t first, uint32_t n_out);

/* y = out(x W^T) for n_rows rows from x_row on. BF16 as out means the forward's type. */
typedef struct cmi_product {
    cmi_forward *f;
    const cmi_linear *linear;
    const cmi_operand *x;
    size_t x_row;
    uint32_t n_rows;
    void *y; /* [n_rows][y_stride] */
    size_t y_stride;
    cmi_i8_out out;
} cmi_product;

/* One product of a row of them that the team does together: the experts of a step. */
typedef struct cmi_group {
    cmi_product product;
    uint32_t first_task, tile_cols;
    uint32_t first_tile; /* of this group's; those before are other memory nodes' */
} cmi_group;

/* Columns of y. */
uint32_t cmi_product_cols(const cmi_product *p);

/* Columns begin .. begin + n_cols of it: a task's share. begin is a multiple of 16, n_cols at most
 * CMI_TILE_COLS_MAX. */
enum { CMI_TILE_COLS_MAX = 256 };
void cmi_product_part(const cmi_product *p, uint32_t begin, uint32_t n_cols, uint32_t worker);

/* All of it, column tiles on the team. */
void cmi_forward_product(const cmi_product *p);

/* All of f->n_groups products in s.groups; tiles of one follow those of the one before. Every
 * memory node has a share of every product, as it has of every matrix (model/weights.h). */
void cmi_forward_grouped_product(cmi_forward *f);

/* Runs fn for every row, some rows a task. */
typedef void cmi_row_fn(cmi_forward *f, uint32_t row_idx);
void cmi_forward_each_row(cmi_forward *f, uint32_t n_rows, cmi_row_fn *fn);

/* Tasks call it before they begin: on the owner's thread it moves on what is on its way to other
 * ranks. Nobody else does, and what waits for a stage's end makes other ranks wait. */
static inline void cmi_forward_move_on(const cmi_forward *f, uint32_t worker)
{
    if (worker == 0 && f->opt.exchange != NULL) {
        f->opt.exchange->calls->progress(f->opt.exchange);
    } else if (worker == 0 && f->is_staged) {
        f->opt.stage->calls->progress(f->opt.stage);
    }
}

/* Writes n float32 values in the forward's type. */
void cmi_forward_to_operand(const cmi_forward *f, const float *from, uint32_t n, void *to);

/* to + n values of the forward's type. */
static inline void *cmi_operand_at(const cmi_forward *f, const void *base, size_t n)
{
    return (uint8_t *)(uintptr_t)base + n * f->value_bytes;
}

/* The float matrix product, as a function of the type of both sides. */
void cmi_forward_gemm(const cmi_forward *f, cmi_dtype dtype, const cmi_gemm_args *args);

/* The position of a row in its sequence; its slot in the KV. */
static inline uint32_t cmi_row_position(const cmi_forward *f, uint32_t row_idx)
{
    const cmi_batch_span *span = &f->batch->spans[f->s.row_span[row_idx]];
    return span->position + (row_idx - span->row_idx);
}

/* KV of the current layer in a span's page: see model/kv_layout.h. */
static inline void *cmi_span_page(const cmi_forward *f, const cmi_batch_span *span,
                                  uint32_t page_idx)
{
    return cmi_kv_page_layer(&f->opt.kv_layout, f->opt.kv_base, span->page_ids[page_idx],
                             f->layer_idx);
}

/* forward_mla.c: parts of the prolog of a row */

/* Row op_row of op becomes what q_b_proj reads. */
void cmi_forward_norm_q_a(cmi_forward *f, uint32_t row, cmi_operand *op, uint32_t op_row);

/* Norms the latent part and rotates the key part of a row, and writes both as they are stored:
 * kv_layout.row_bytes. */
void cmi_forward_prepare_kv(cmi_forward *f, uint32_t row, uint8_t *to);

/* Rotates n_heads queries, [n_heads][nope + rope] in place, for a position, and writes them as
 * attention reads them: [n_heads][q_cols] operand. */
void cmi_forward_rotate_heads(const cmi_forward *f, float *nope, uint32_t rotary, uint32_t n_heads,
                              void *to);

/* forward.c: the final norm of a row. */
void cmi_forward_final_norm(const cmi_forward *f, const float *x, float *to);

/* forward_attention.c: o[i] = o[i] / l + 0, so that no zero is negative. */
void cmi_attention_divide(float *o, float l, uint32_t n);

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
