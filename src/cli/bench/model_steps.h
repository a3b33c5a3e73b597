/* cli/bench/model_steps.h - the steps of a measured prefill or decode, built and run one by one. */
#ifndef CMI_CLI_BENCH_MODEL_STEPS_H
#define CMI_CLI_BENCH_MODEL_STEPS_H

#include "cli/bench/routing.h"
#include "engine/instance.h"
#include "model/cost.h"

/* batch sequences of n_tokens each behind depth tokens of context. Decode may verify n_drafts
 * behind each token, and make as many anew with the MTP layer: all of them hold. */
typedef struct cmi_bench_test {
    bool is_prefill;
    uint32_t n_tokens, batch, depth, n_drafts;
} cmi_bench_test;

/* What a step's time is divided into: its stages, over all layers, and the head. The last layer's
 * last stage has the final norm, the first layer's first one the embedding. */
enum { CMI_BENCH_HEAD = CMI_N_STAGES, CMI_BENCH_N_PHASES };
const char *cmi_bench_phase_name(uint32_t phase);

/* Adds what a phase costs of a step to ops, bytes and the least time. */
typedef struct cmi_bench_phase_cost {
    double ops, bytes;
    cmi_cost_time least;
} cmi_bench_phase_cost;
void cmi_bench_phase_add(cmi_bench_phase_cost *sum, uint32_t phase, const cmi_cost *cost,
                         const cmi_cost_rates *rates);

typedef struct cmi_bench_steps {
    cmi_instance *instance;
    cmi_bench_routing routing;
    cmi_cost_model cost_model;
    uint32_t *page_ids; /* [pages]: a sequence has consecutive ones */
    /* of the step at hand, [max_num_batched_tokens] each */
    uint32_t *token_ids;
    uint32_t *expert_ids; /* [num_experts_per_tok] of each; NULL: the gate's */
    uint32_t *head_rows;  /* those that go through the head */
    cmi_batch_span *spans;
    cmi_cost_span *cost_spans;
    uint32_t n_rows, n_spans, n_head, n_experts;
    uint32_t n_mtp_passes; /* behind it */
    float *head_hidden;    /* [CMI_FORWARD_MAX_HEAD_ROWS][hidden_size] */
} cmi_bench_steps;

void cmi_bench_steps_init(cmi_bench_steps *steps, cmi_instance *instance,
                          cmi_bench_routing routing);
void cmi_bench_steps_deinit(cmi_bench_steps *steps);

/* Makes the step that begins after n_done tokens of all sequences together: of prompts the next
 * rows, packed over sequences; of decode the next token of every sequence, and its drafts. Returns
 * n_rows. */
uint32_t cmi_bench_step_make(cmi_bench_steps *steps, const cmi_bench_test *test, uint64_t n_done);

/* Runs it and adds the seconds of its phases. */
void cmi_bench_step_run(cmi_bench_steps *steps, double seconds_inout[CMI_BENCH_N_PHASES]);

/* What it costs, passes of the MTP layer included: calls add for the step and each pass. */
typedef void cmi_bench_cost_fn(void *arg, const cmi_cost *cost);
void cmi_bench_step_cost(const cmi_bench_steps *steps, cmi_bench_cost_fn *add, void *arg);

#endif
