/* policy/microbatch.h - whether the next step runs as two microbatches: on when it pays.
 *
 * Two hide what rows take to other ranks and back, and read the experts' weights twice for it.
 * Which weighs more is not predicted but tried: now and then a few steps run the other way, and
 * what a unit of work took then decides, the best of as many steps on both sides, so that what else
 * the host does counts on neither. To change needs a gain of MICROBATCH_GAIN. While nothing
 * changes, trials become rarer, down to one step in a thousand. Steps of decode alone and those
 * with prompts are decided apart.
 *
 * Ranks of a group must run the same number. Each votes, in one step, for the next
 * (model/forward.h), and all hear the highest vote: that of a rank with prompts before that of one
 * without, since the former takes longest, then the highest rank's. So one rank decides whose
 * trials are its own, and no word more is sent than a pass sends anyway.
 *
 * Pure: no clock, no allocation. Thread: one, the owner's. */
#ifndef CMI_POLICY_MICROBATCH_H
#define CMI_POLICY_MICROBATCH_H

#include "base/compiler.h"

typedef enum cmi_microbatch_kind {
    CMI_MICROBATCH_DECODE, /* a rank's rows are all generated tokens */
    CMI_MICROBATCH_PREFILL,
    CMI_MICROBATCH_KINDS,
} cmi_microbatch_kind;

typedef struct cmi_microbatch_trials {
    uint32_t current;  /* microbatches that pay, as far as is known: 1 or 2 */
    uint32_t n_steps;  /* since the last trial, or in it */
    uint32_t pause;    /* steps between trials */
    bool is_trying;    /* the other number */
    uint32_t n_tried;  /* steps of the trial that ran it */
    uint32_t n_group;  /* of current's, towards the next best */
    double group_best; /* of these, ns for a unit of work */
    double best;       /* of current's last whole group; 0: none yet */
    double tried_best; /* of the trial's */
} cmi_microbatch_trials;

typedef struct cmi_microbatch {
    cmi_microbatch_trials kinds[CMI_MICROBATCH_KINDS];
} cmi_microbatch;

void cmi_microbatch_init(cmi_microbatch *m); /* one, until two have paid */

/* What a step should have: 1 or 2. */
uint32_t cmi_microbatch_wish(const cmi_microbatch *m, cmi_microbatch_kind kind);

/* A step in which this rank had rows has run as n microbatches and taken ns. work > 0: what it
 * would take, in any unit, such as a prediction (policy/step_cost.h). */
void cmi_microbatch_note(cmi_microbatch *m, cmi_microbatch_kind kind, uint32_t n, double work,
                         double ns);

/* The vote of a rank, < 65536, for n microbatches in a next step in which it has rows of kind. One
 * without rows votes 0. */
uint32_t cmi_microbatch_vote(cmi_microbatch_kind kind, uint32_t rank, uint32_t n);

/* What the highest of all ranks' votes means: 1 or 2. 0, nobody has voted: 1. */
uint32_t cmi_microbatch_agreed(uint32_t highest_vote);

#endif
