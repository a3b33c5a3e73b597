/* model/forward_staged.h - a pass whose prompts all ranks of an instance compute together: the
 * paper's SP, TP, SP (section 8.1). For forward*.c only.
 *
 * The rows of all ranks' prompts are packed into one list and cut evenly (staged_plan.h). A rank
 * has its share of rows from the embedding to the final norm, whose ever they are, but for
 * attention, where it has its share of the heads over all rows:
 *
 *     offer     every rank's tokens go to all, once a pass; then all have the same plan
 *     prolog    share of rows: norm, down-projections; what q_b_proj reads and what is stored of a
 *               row go to all ranks (all-gather, after the dimensions were reduced)
 *     attention share of heads: q_b_proj, kv_b_proj, all rows; outputs go to the row's rank
 *               (all-to-all)
 *     output projection, feed-forward: share of rows
 *     close     hidden states go home
 *
 * Nothing is added across ranks: an output is computed by one rank, from the operands that one
 * process has, and o_proj reads all heads of a row, in float32 as there. So bits stay.
 *
 * KV lands in the pages of the rank at home, and nowhere else for long: of a prompt's earlier
 * positions the home puts a layer's pages into the other windows when their layer comes. A copy of
 * all layers at every rank for as long as a prompt lasts would save that, which is little beside
 * what attention computes with it (docs/EXPERT_PARALLEL.md), cost the memory of as many more pages,
 * and not help where a prefix came from a cache. Rows that decode, and prompts that find no room in
 * the window, are computed at home as ever.
 *
 * Steps of the exchange (stage_exchange.h): one for the offers, and if the pass is staged, two in
 * each layer and one to close. */
#ifndef CMI_MODEL_FORWARD_STAGED_H
#define CMI_MODEL_FORWARD_STAGED_H

#include "model/forward.h"

typedef struct cmi_staged cmi_staged;

CMI_NODISCARD cmi_status cmi_staged_create(cmi_staged **staged_out, const cmi_forward_options *opt,
                                           cmi_error *err);
void cmi_staged_destroy(cmi_staged *staged); /* NULL is fine */

/* Beside the forward's own scratch; 0 without a stage exchange, of which the shape is read. */
uint64_t cmi_staged_estimate_bytes(const cmi_forward_options *opt);

/* Of the batch that was offered: sets the forward's batch, n_local_rows and n_local_spans. */
void cmi_staged_open(cmi_forward *f, const cmi_batch *batch);

/* The prolog: before its rows are finished, row by row from n_local_rows on, and behind it. */
void cmi_staged_begin_rows(cmi_forward *f);
void cmi_staged_finish_row(cmi_forward *f, uint32_t row);
CMI_NODISCARD cmi_status cmi_staged_send_rows(cmi_forward *f);

CMI_NODISCARD cmi_status cmi_staged_attend(cmi_forward *f);

/* s.o of the rows from n_local_rows on. */
CMI_NODISCARD cmi_status cmi_staged_take_heads(cmi_forward *f);

/* s.hidden of the batch that was given. */
CMI_NODISCARD cmi_status cmi_staged_close(cmi_forward *f);

#endif
