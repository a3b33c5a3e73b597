/* model/pipeline.h - one batch as two microbatches: while rows of one are on their way to experts
 * of other ranks, or results on their way back, the other one is computed (paper sections 7.1 and
 * 8.2; docs/EXPERT_PARALLEL.md).
 *
 * The two take turns on one thread, at operator stages:
 *
 *     first    prolog .. gate, send |                     | experts, send back |
 *     second                        | prolog .. gate, send |                   | experts, send back
 *
 * and what a turn waits for was sent a turn of the other one ago. Each has a forward pass and an
 * exchange of its own. The order of the calls is always this one, with whatever rows, so ranks
 * cannot wait for each other in a circle; a rank without rows, or with rows in one half only, takes
 * part in every layer of both.
 *
 * A batch is cut at one row: before it is the first microbatch, so that with decode spans in front
 * the first may be decode and the second a prompt. A prompt may be cut at any row: its first part
 * is ahead in every layer, so its KV is there when the second part's attention looks for it. A
 * decode span, with its drafts, is not cut. The bits are those of one pass.
 *
 * Thread: the owner of the team. No allocation after creation. */
#ifndef CMI_MODEL_PIPELINE_H
#define CMI_MODEL_PIPELINE_H

#include "model/forward.h"

typedef struct cmi_pipeline cmi_pipeline;

/* Rows of the second microbatch, for a forward with max_rows: what its exchange must take. The
 * first one's takes max_rows, since a pass of one microbatch is its. */
static inline uint32_t cmi_pipeline_second_rows(uint32_t max_rows)
{
    return CMI_DIV_UP(max_rows, 2u);
}

/* Around a forward with an exchange, and a second exchange between the same ranks; both outlive the
 * pipeline. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_pipeline_create(cmi_pipeline **pipeline_out, cmi_forward *forward,
                                             cmi_exchange *second, cmi_error *err);
void cmi_pipeline_destroy(cmi_pipeline *pipeline); /* NULL is fine */

/* Bytes that a pipeline takes beside its forward, for that one's options. */
uint64_t cmi_pipeline_estimate_bytes(const cmi_forward_options *opt, const cmi_exchange *second);

/* As cmi_forward_run, whose place it takes: what a pass leaves behind is asked of the forward,
 * hidden states of all rows, heard, and logits. n_microbatches: 1 or 2, the same on all ranks. A
 * pass through the MTP layer is one microbatch, whatever is asked for. After an error both
 * exchanges are lost. */
CMI_NODISCARD cmi_status cmi_pipeline_run(cmi_pipeline *pipeline, const cmi_batch *batch,
                                          uint32_t n_microbatches);

/* The first row of the second microbatch; n_rows if it has none. */
uint32_t cmi_pipeline_cut(const cmi_pipeline *pipeline, const cmi_batch *batch);

#endif
