/* model/stage_exchange.h - what ranks give each other in a staged pass (model/forward_staged.h).
 *
 * Each rank has a window of memory, laid out alike by the forward pass on all of them, into which
 * the others put. A pass is a row of steps, the same on all ranks: a rank puts what others are to
 * have, tells all that this was it, and hears that all others have told, too. So, with n and m
 * numbers of steps:
 *   - what came with step n may be read once it was heard, and is to be read before n + 1 is told:
 *     nobody puts in n + 2 before all have told n + 1, so what steps n and n + 1 bring must not
 *     overlap, what n and n + 2 bring may;
 *   - what was put in n is the exchange's until n + 1 was heard: all have heard n by then.
 *
 * Every rank takes part in every step, also without a row. */
#ifndef CMI_MODEL_STAGE_EXCHANGE_H
#define CMI_MODEL_STAGE_EXCHANGE_H

#include "base/error.h"

typedef struct cmi_stage_exchange cmi_stage_exchange;

/* The same for all ranks. */
typedef struct cmi_stage_shape {
    uint32_t n_ranks;
    uint32_t max_rows;  /* of a rank's batch, and of those that it computes */
    uint32_t max_pages; /* that the prompts of a pass have in all, those before the pass included;
                         * kept for one layer */
    /* A pass is staged if that takes as many rows, and an eighth, off the busiest rank; 0: always.
     */
    uint32_t min_rows_saved;
} cmi_stage_shape;

/* Those with a status return why the group cannot go on, as of model/exchange.h: the pass is then
 * lost, and the exchange with it. */
typedef struct cmi_stage_exchange_calls {
    /* n_bytes at `from` go to offset `at` of a rank's window, this rank's own included. */
    cmi_status (*put)(cmi_stage_exchange *exchange, uint32_t rank, size_t at, const void *from,
                      size_t n_bytes);
    cmi_status (*tell)(cmi_stage_exchange *exchange);
    cmi_status (*hear)(cmi_stage_exchange *exchange);
    /* Moves on what is on its way, without waiting. */
    void (*progress)(cmi_stage_exchange *exchange);
    /* What came from a rank cannot be: it is at fault. Returns CMI_ERR_BAD_DATA. */
    cmi_status (*blame)(cmi_stage_exchange *exchange, uint32_t rank);
    /* The number of the step that is told next: the same on all ranks, also after passes that some
     * of them have not begun. */
    uint64_t (*next_step)(const cmi_stage_exchange *exchange);
} cmi_stage_exchange_calls;

struct cmi_stage_exchange { /* what an implementation begins with */
    const cmi_stage_exchange_calls *calls;
    cmi_stage_shape shape;
    uint32_t rank;
    uint8_t *window; /* this rank's own, 64-byte aligned; cmi_forward_stage_window_bytes */
};

#endif
