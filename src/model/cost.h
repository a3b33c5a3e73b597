/* model/cost.h - what a step costs by the config alone: operations and bytes of memory, part by
 * part, and the time that a machine of given limits needs at least.
 *
 * Counted are matrix products and attention, a multiplication and an addition as two operations,
 * and the bytes of weights and KV, each once for a step: activations stay in caches. Not counted
 * are norms, softmax, rope, the embedding and what happens between the ranks of an instance.
 *
 * Pure; any thread. */
#ifndef CMI_MODEL_COST_H
#define CMI_MODEL_COST_H

#include "model/kv_layout.h"

typedef enum cmi_cost_part_id {
    CMI_COST_MTP_INPUT,  /* eh_proj */
    CMI_COST_PROLOG,     /* q_a, kv_a, q_b */
    CMI_COST_ABSORPTION, /* decode: K's half of kv_b on queries */
    CMI_COST_EXPANSION,  /* prefill: kv_b on stored rows */
    CMI_COST_ATTENTION,  /* scores and values, and KV */
    CMI_COST_VALUES_UP,  /* decode: V's half of kv_b on what attention gives */
    CMI_COST_OUTPUT,     /* o */
    CMI_COST_DENSE,
    CMI_COST_GATE,
    CMI_COST_SHARED, /* experts */
    CMI_COST_ROUTED, /* experts: for each row the k it is sent to; bytes of those that get any */
    CMI_COST_HEAD,
    CMI_COST_N_PARTS,
} cmi_cost_part_id;

typedef struct cmi_cost_part {
    cmi_dtype dtype; /* of the operands: I8, BF16 or F32 */
    double ops, bytes;
} cmi_cost_part;

typedef struct cmi_cost {
    cmi_cost_part parts[CMI_COST_N_PARTS];
} cmi_cost;

typedef struct cmi_cost_model {
    const cmi_model_config *config;
    cmi_dtype weights_dtype; /* as in cmi_weights_options */
    bool int8_head;
    cmi_kv_layout kv_layout;
} cmi_cost_model;

/* Consecutive positions of one sequence in a step. */
typedef struct cmi_cost_span {
    uint32_t n_rows;
    uint32_t position;   /* of the first row */
    uint32_t n_expanded; /* prefill: stored rows that are expanded for the first time: the span's
                            own, and before a prompt's first step also its cached prefix. Chunks
                            that expand them again do it on their own account */
    bool is_prefill;
} cmi_cost_span;

typedef struct cmi_cost_batch {
    const cmi_cost_span *spans;
    uint32_t n_spans;
    uint32_t n_head_rows; /* that go through the head */
    uint32_t n_experts;   /* of a layer that get rows. 0: taken as chosen independently and
                             uniformly; of E, E (1 - (1 - k/E)^rows) do */
} cmi_cost_batch;

/* The cost of one step of the main model. */
cmi_cost cmi_cost_step(const cmi_cost_model *model, const cmi_cost_batch *batch);

/* Of one pass through the MTP layer, which a model with n_mtp_layers has. */
cmi_cost cmi_cost_mtp_pass(const cmi_cost_model *model, const cmi_cost_batch *batch);

double cmi_cost_ops(const cmi_cost *cost); /* of all parts */
double cmi_cost_bytes(const cmi_cost *cost);

/* What a machine does in a second. */
typedef struct cmi_cost_rates {
    double read_bytes, i8_ops, bf16_ops, f32_ops;
} cmi_cost_rates;

/* Least seconds by what bounds them. */
typedef struct cmi_cost_time {
    double read, i8, bf16, f32;
} cmi_cost_time;

/* Adds to time, for every part, the larger of its seconds of reading and of computing: parts run
 * one after the other, inside a part reading and computing overlap. */
void cmi_cost_add_part_time(cmi_cost_time *time, const cmi_cost_part *part,
                            const cmi_cost_rates *rates);
void cmi_cost_add_time(cmi_cost_time *time, const cmi_cost *cost, const cmi_cost_rates *rates);
double cmi_cost_seconds(const cmi_cost_time *time); /* the sum */

#endif
