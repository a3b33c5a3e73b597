/* policy/speculation.h - how many drafts the next step tries, by what they cost and how often they
 * hold.
 *
 * A draft is a row more to verify and a row of the MTP layer; the layer's passes come on top, each
 * one for all sequences together. Drafts are tried if all of it together gives more tokens a
 * second, by predicted durations, than trying none; for a sequence as many as each is worth its
 * rows. To begin again after none were tried needs a gain of SPECULATION_GAIN, so that a guess next
 * to even does not swing.
 *
 * Pure: no clock, no allocation. Thread: one, the owner's. */
#ifndef CMI_POLICY_SPECULATION_H
#define CMI_POLICY_SPECULATION_H

#include "policy/step_cost.h"

enum { CMI_SPECULATION_MAX_DRAFTS = 8 };

/* How often a draft holds, given that those before it did. */
typedef struct cmi_acceptance {
    double n_tested, n_right; /* of late: halved when there are many */
} cmi_acceptance;

/* A step tried n_tried >= 1 drafts in a row, of which the first n_right held. */
void cmi_acceptance_count(cmi_acceptance *a, uint32_t n_tried, uint32_t n_right);

/* In (0, 1). prior: what is believed before much was tried. */
double cmi_acceptance_rate(const cmi_acceptance *a, double prior);

typedef struct cmi_speculation_seq {
    double acceptance;   /* 0 .. 1 */
    uint32_t max_drafts; /* 0: the layer does not keep up with it, or it wants none */
    uint32_t n_drafts;   /* out */
} cmi_speculation_seq;

typedef struct cmi_speculation {
    bool is_on;      /* drafts were tried in the last step */
    uint32_t n_idle; /* steps since the layer was worth its rows */
} cmi_speculation;

/* Decides for all sequences that decode in the next step: steady is that step without drafts. Keeps
 * n_drafts <= max_drafts, and more of them than max_rows in all are given up from the end. Returns
 * whether the layer is to keep up with those that have no drafts, so that they can have some later:
 * what it costs is little, or it has not been idle for long. O(n * CMI_SPECULATION_MAX_DRAFTS). */
bool cmi_speculation_decide(cmi_speculation *spec, const cmi_step_rates *rates,
                            const cmi_step_shape *steady, cmi_speculation_seq *seqs, uint32_t n,
                            uint32_t max_rows);

#endif
