/* policy/step_cost.h - how long a step will take, from its shape.
 *
 * The duration is a sum of terms that are never negative: a constant (weights that every step
 * reads), the share of the experts that some row goes to (n rows of k out of E leave
 * E (1 - k/E)^n of them alone, so it saturates), rows and context of decode and of prefill, rows of
 * the head, and passes and rows of the MTP layer. Their coefficients are fitted to the steps that
 * were measured: least squares of the relative error, older steps forgotten, outliers bounded. What
 * the steps of late say nothing about stays as it was.
 *
 * What is left over, measured by predicted, is kept for the last CMI_STEP_COST_WINDOW steps, so
 * that one can ask for a duration that all but a share of the steps keep.
 *
 * Pure: no clock, no allocation; equal calls give equal bits. Thread: one, the owner's; a copy of
 * the rates may go anywhere. */
#ifndef CMI_POLICY_STEP_COST_H
#define CMI_POLICY_STEP_COST_H

#include "base/compiler.h"

enum { CMI_STEP_TERMS = 9, CMI_STEP_COST_WINDOW = 256 };

typedef struct cmi_step_shape {
    uint32_t n_decode_rows; /* drafts among them */
    uint32_t n_prefill_rows;
    uint32_t n_head_rows;     /* that become tokens, drafts of the MTP layer included */
    uint32_t n_mtp_passes;    /* of the MTP layer behind the step */
    uint32_t n_mtp_rows;      /* of these passes together */
    uint64_t decode_context;  /* positions that each decode span reads, added up */
    uint64_t prefill_context; /* positions that each prefill row reads, added up */
} cmi_step_shape;

/* What a prediction needs. */
typedef struct cmi_step_rates {
    double term_ns[CMI_STEP_TERMS]; /* >= 0 */
    double idle_share; /* 1 - k/E: of the experts that a row leaves alone; 1 without experts */
} cmi_step_rates;

typedef struct cmi_step_cost {
    cmi_step_rates rates;
    uint64_t n_observed;
    /* The rest is step_cost.c's: the normal equations, the usual relative error, and the ratios of
     * measured to predicted, by age and by size. */
    double a[CMI_STEP_TERMS][CMI_STEP_TERMS], b[CMI_STEP_TERMS];
    double usual_error;
    float ratios[CMI_STEP_COST_WINDOW], sorted[CMI_STEP_COST_WINDOW];
} cmi_step_cost;

/* A model whose rows go to n_experts_per_tok of n_experts routed experts (0 of 0: dense), and of
 * which nothing is known: it predicts 0. */
void cmi_step_cost_init(cmi_step_cost *cost, uint32_t n_experts, uint32_t n_experts_per_tok);

/* A step of this shape took so long; 0 is passed over. */
void cmi_step_cost_observe(cmi_step_cost *cost, const cmi_step_shape *shape, uint64_t duration_ns);

/* Fits until nothing moves much, where few steps have been observed. */
void cmi_step_cost_settle(cmi_step_cost *cost);

/* Whether so much was observed that predictions mean something. */
bool cmi_step_cost_is_known(const cmi_step_cost *cost);

/* Mean duration; finite, >= 0, and no less for a shape that is larger in any number. */
double cmi_step_predict_ns(const cmi_step_rates *rates, const cmi_step_shape *shape);

/* What a prediction is to be multiplied with to cover this share of the steps of late, 0 < share <=
 * 1. 1 before there were any. */
double cmi_step_cost_factor(const cmi_step_cost *cost, double share);

/* What it is to be multiplied with to be right about many steps together: their mean, in which the
 * outliers count that the fit keeps off. 1 before there were any. O(CMI_STEP_COST_WINDOW). */
double cmi_step_cost_mean_factor(const cmi_step_cost *cost);

#endif
