/* model/forward_staged_internal.h - the state that forward_staged*.c share. */
#ifndef CMI_MODEL_FORWARD_STAGED_INTERNAL_H
#define CMI_MODEL_FORWARD_STAGED_INTERNAL_H

#include "model/forward_internal.h"
#include "model/stage_offer.h"

/* Offsets in every rank's window. */
typedef struct cmi_stage_layout {
    /* two windows in turn (of steps), since offers may follow one another; one of each source */
    size_t offers, offer_bytes;
    /* prolog: of all staged rows; what q_b_proj reads, rows as wide as the layer's type has them,
     * its scales, and KV as stored */
    size_t q_values, q_scales, kv_rows;
    /* prolog: pages of a layer, [max_pages] of layer_bytes; those of other ranks' prompts */
    size_t pages;
    /* attention: of each source its heads of this rank's rows, float32 [rows][its heads][v] */
    size_t heads, heads_bytes;
    /* close: float32 [max_rows][hidden] of the rows at home, and of those that go home */
    size_t hidden_in, hidden_out;
    size_t n_bytes;
} cmi_stage_layout;

struct cmi_staged {
    cmi_stage_exchange *exchange;
    cmi_stage_layout at;
    cmi_stage_offer_limits limits; /* of offers */
    uint32_t first_head, n_heads;  /* that this rank attends with */
    uint32_t q_skip;               /* columns of q_b_proj before them, from a whole block on */
    size_t q_stride;               /* columns of q */
    uint32_t offers_idx;           /* which window has those of the pass at hand */
    /* the pass in progress */
    const cmi_batch *given;
    cmi_batch batch;         /* local rows, then this rank's share */
    cmi_batch_span *spans;   /* [max_rows] */
    uint32_t *token_ids;     /* [max_rows] */
    uint32_t *given_row;     /* [max_rows] of the local rows: where they were */
    uint32_t *prompt_span;   /* [max_rows] which span each offered prompt was */
    cmi_stage_offer *offers; /* [n_ranks] */
    cmi_staged_plan plan;
    uint32_t *row_prompt; /* [n_ranks * max_rows] of all staged rows: which prompt of the plan */
    cmi_operand q_in;     /* in the window */
    /* all staged rows, this rank's heads */
    float *q;     /* [rows][q_stride] */
    void *q_op;   /* [rows][n_heads][q_cols] operand */
    float *o;     /* [rows][n_heads][v] */
    float *m, *l; /* [n_heads][rows] */
    void *scratch_block;
    size_t scratch_bytes;
};

static inline uint32_t cmi_staged_all_rows(const cmi_stage_shape *shape)
{
    return shape->n_ranks * shape->max_rows;
}

/* This rank's share of the staged rows. */
static inline uint32_t cmi_staged_first_row(const cmi_staged *s)
{
    return s->plan.first_row[s->exchange->rank];
}

static inline uint32_t cmi_staged_n_rows(const cmi_staged *s, uint32_t rank)
{
    return s->plan.first_row[rank + 1] - s->plan.first_row[rank];
}

/* The span of a prompt of this rank's, as it was given. */
static inline const cmi_batch_span *cmi_staged_own_span(const cmi_staged *s,
                                                        const cmi_staged_prompt *prompt)
{
    return &s->given->spans[s->prompt_span[prompt->prompt_idx]];
}

/* The i-th other rank, from the next one on, so that not all put to the same one. */
static inline uint32_t cmi_staged_peer(const cmi_staged *s, uint32_t i)
{
    return (s->exchange->rank + i) % s->exchange->shape.n_ranks;
}

static inline cmi_status cmi_staged_put(const cmi_staged *s, uint32_t rank, size_t at,
                                        const void *from, size_t n_bytes)
{
    return n_bytes == 0 ? CMI_OK : s->exchange->calls->put(s->exchange, rank, at, from, n_bytes);
}

/* Puts n_bytes at offset `at` of the own window to the same place of all others. */
cmi_status cmi_staged_put_to_all(const cmi_staged *s, size_t at, size_t n_bytes);

#endif
