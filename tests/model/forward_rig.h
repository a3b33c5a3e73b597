/* tests/model/forward_rig.h - a loaded model with a forward pass and KV pages, and sequences driven
 * through it by hand. Every function fails the test by itself. */
#ifndef CMI_TESTS_MODEL_FORWARD_RIG_H
#define CMI_TESTS_MODEL_FORWARD_RIG_H

#include "model/forward.h"
#include "tests/model/random_model.h"

enum { RIG_MAX_SEQUENCES = 3, RIG_PAGES = 13 /* a sequence: RANDOM_MODEL_POSITIONS */ };

typedef struct rig_options {
    cmi_dtype dtype; /* of the linears; with I8 attention is BF16 */
    bool int8_kv;
    cmi_isa isa;
    uint32_t n_threads;
    uint32_t max_rows;
} rig_options;

typedef struct rig {
    cmi_model_config config;
    cmi_generation_config generation;
    cmi_kernels kernels;
    cmi_kv_layout layout;
    cmi_team *team;
    cmi_weights *weights;
    cmi_forward *forward;
    void *kv; /* starts as NaN everywhere: reading what was not written shows */
    uint32_t page_ids[RIG_MAX_SEQUENCES][RIG_PAGES]; /* interleaved, descending */
} rig;

void rig_open(rig *r, const random_model *model, const rig_options *opt);
void rig_close(rig *r);

/* The span of n_rows rows of a sequence from position on. */
cmi_batch_span rig_span(const rig *r, uint32_t sequence, uint32_t row_idx, uint32_t n_rows,
                        uint32_t position, bool is_prefill);

/* Passes n tokens of one sequence at position; hidden_out [n][hidden_size]. mtp_hidden as in
 * cmi_batch. */
void rig_pass(rig *r, uint32_t sequence, const uint32_t *tokens, uint32_t n, uint32_t position,
              bool is_prefill, const float *mtp_hidden, float *hidden_out);

/* How tokens 0 .. n-1 of a sequence go through the model. */
typedef struct rig_plan {
    const uint32_t *tokens;
    uint32_t n;
    uint32_t n_prompt;    /* of them; the others are decoded */
    uint32_t chunk;       /* rows of a prefill pass */
    uint32_t decode_rows; /* rows of a decode pass; 0: one */
} rig_plan;

/* hidden_out: [n][hidden_size]. mtp_out: the same of the MTP layer, row i from (hidden i-1, token
 * i), row 0 zero; NULL when the model has none. */
void rig_run(rig *r, const rig_plan *plan, float *hidden_out, float *mtp_out);

#endif
