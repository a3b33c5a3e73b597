/* policy/step_budget.h - how long the next step may take, and who fits into it: latency targets of
 * the sequences that decode, against predicted durations.
 *
 * A sequence's target is the time between its tokens in the mean (TPOT), counted from its last one.
 * A step brings it as many tokens as drafts were right of late, so it may take that much longer.
 * One that is ahead of its target lends a quarter of its lead, at most half a target; one that is
 * behind wants a quarter of it back, at most a quarter of a target, so that a single slow step is
 * neither fought for long nor forgotten.
 *
 * Pure: time is an argument. Thread: one, the owner's. */
#ifndef CMI_POLICY_STEP_BUDGET_H
#define CMI_POLICY_STEP_BUDGET_H

#include "policy/step_cost.h"

/* How a sequence gets on with its tokens. */
typedef struct cmi_pace {
    uint64_t target_ns; /* between tokens, to aim at; 0: none */
    uint64_t first_ns, last_ns;
    uint32_t n_tokens;
    double tokens_per_step; /* of late; 0 is read as 1 */
} cmi_pace;

/* What to aim at where target_ns is asked for: a little less, since who aims at a target itself is
 * late in every second answer. 0 of 0. */
uint64_t cmi_pace_aim_ns(uint64_t target_ns);

/* A step that ended at now_ns gave n_new >= 1 tokens. */
void cmi_pace_count(cmi_pace *pace, uint64_t now_ns, uint32_t n_new);

/* How long a step that begins at now_ns may take for this sequence, which has a target and a token;
 * below 0: it is late already. */
double cmi_pace_allowance_ns(const cmi_pace *pace, uint64_t now_ns);

/* What those that run leave to others. */
typedef struct cmi_step_budget {
    const cmi_step_rates *rates; /* NULL: durations are not known, everything fits */
    double factor;               /* on predictions, to cover more than the mean */
    double step_ns;              /* that the step may take */
    double steady_ns;            /* that a step may take in which all that run decode */
    cmi_step_shape steady;       /* that step */
} cmi_step_budget;

/* Nobody runs yet. */
cmi_step_budget cmi_step_budget_begin(const cmi_step_rates *rates, double factor);

/* A running sequence of n_known tokens; now_ns is when the step begins. One that does not decode
 * yet is counted among those that will, and does not hurry this step. */
void cmi_step_budget_add(cmi_step_budget *budget, const cmi_pace *pace, uint64_t now_ns,
                         uint32_t n_known, bool decodes);

/* Whether one more sequence of n_known tokens can decode with the others, by the targets of all. */
bool cmi_step_budget_has_seat(const cmi_step_budget *budget, const cmi_pace *pace,
                              uint32_t n_known);

/* Adds rows of a prompt at positions position .. to shape. */
void cmi_step_shape_add_prefill(cmi_step_shape *shape, uint32_t position, uint32_t n_rows,
                                bool with_mtp);

/* How many rows of a prompt, 0 .. n_max, the step can take beside what shape has. */
uint32_t cmi_step_budget_prefill_rows(const cmi_step_budget *budget, const cmi_step_shape *shape,
                                      uint32_t position, uint32_t n_max, bool with_mtp);

#endif
