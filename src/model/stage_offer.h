/* model/stage_offer.h - what a rank brings to a staged pass, as it lies in the others' windows: a
 * head, prompts[max_rows], and token_ids[max_rows] of all their rows, each from a cache line on.
 *
 * A peer has written it; what read lets through can be used as indices. Pure: no I/O, no
 * allocation. */
#ifndef CMI_MODEL_STAGE_OFFER_H
#define CMI_MODEL_STAGE_OFFER_H

#include "model/staged_plan.h"

typedef struct cmi_stage_offer_limits { /* the same for all ranks */
    uint32_t max_rows;                  /* of a rank */
    uint32_t max_positions;             /* of a sequence */
    uint32_t vocab_size;
} cmi_stage_offer_limits;

typedef struct cmi_stage_offer_head {
    uint32_t n_own_rows, n_prompts;
} cmi_stage_offer_head;

/* Where its parts begin, in bytes from its own begin; the head does at 0. */
size_t cmi_stage_offer_prompts_at(void);
size_t cmi_stage_offer_tokens_at(const cmi_stage_offer_limits *limits);
size_t cmi_stage_offer_bytes(const cmi_stage_offer_limits *limits);

/* offer: cmi_stage_offer_bytes of it, 64-byte aligned, into which *offer_out points. False: it is
 * none. */
CMI_NODISCARD bool cmi_stage_offer_read(cmi_stage_offer *offer_out,
                                        const cmi_stage_offer_limits *limits, const void *offer);

#endif
