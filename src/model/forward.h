/* model/forward.h - the forward pass: a row of operator stages over a batch.
 *
 * A cmi_forward owns the scratch memory of one stream of steps. cmi_forward_begin takes a batch,
 * and each cmi_forward_advance runs one stage of one layer; between two calls the pass can be left
 * and resumed, so that two microbatches can take turns. The stages are the paper's operators
 * (sections 5 to 7): MLA prolog, fused attention, output projection, gate, dispatch, grouped
 * experts, combine.
 *
 * What a row becomes depends on its own sequence only: every reduction has one fixed order
 * (kernels/kernels.h), attention runs over blocks of CMI_ATTN_BLOCK positions in ascending order
 * (kernels/attention.h), and nothing looks at the number of rows, of threads, or at chunk borders.
 * A prefill row goes through attention in expanded form (paper 8.1), a decode row in absorbed form
 * (paper 3); both read KV as stored, their own row included.
 *
 * With an exchange a batch may have no row: other ranks need the experts here all the same, so
 * every rank runs as many passes as the others (model/exchange.h).
 *
 * With a stage exchange, too, the prompts of all ranks may be shared among them (paper 8.1,
 * model/forward_staged.h): bits stay as they are.
 *
 * Thread: the owner of the team. No allocation after init. */
#ifndef CMI_MODEL_FORWARD_H
#define CMI_MODEL_FORWARD_H

#include <stdatomic.h>

#include "kernels/kernels.h"
#include "model/config.h"
#include "model/exchange.h"
#include "model/kv_layout.h"
#include "model/rope.h"
#include "model/stage_exchange.h"
#include "model/weights.h"
#include "os/team.h"

/* Consecutive positions of one sequence in a batch. */
typedef struct cmi_batch_span {
    const uint32_t *page_ids; /* block table: page_ids[i] holds positions i*64 .. i*64+63 */
    uint32_t row_idx;         /* first row of the batch that is this span's */
    uint32_t n_rows;
    uint32_t position; /* of the first row; KV of all positions before it is in the pages */
    bool is_prefill;   /* prompt tokens; false: generated ones */
} cmi_batch_span;

/* The rows of one step; decode spans come first. All arrays belong to the caller and live until the
 * pass is done. */
typedef struct cmi_batch {
    const uint32_t *token_ids; /* [n_rows], each < vocab_size */
    const cmi_batch_span *spans;
    uint32_t n_rows; /* 1 .. max_rows; with an exchange also 0 */
    uint32_t n_spans;
    /* For a pass through the MTP layer: the main model's hidden state for each row. A row with
     * (h_i, token i+1) has position i+1, where its KV goes. NULL: a pass through the main model.
     * May point into cmi_forward_hidden() of the pass before. */
    const float *mtp_hidden; /* [n_rows][hidden_size] */
    /* For measuring under a given load: the experts of every row in every layer, distinct for a
     * row, instead of the gate's choice. Their weights are those of the gate's choice. NULL: the
     * gate's.
     */
    const uint32_t *expert_ids; /* [n_rows][num_experts_per_tok] */
    /* Not NULL: set to 1, 2, ... as the main model's layers are done, for a thread that moves their
     * KV meanwhile. It was 0 before; who reads k can read the KV of layers 0 .. k-1. */
    _Atomic uint32_t *n_layers_done;
    /* With an exchange: told to all ranks in this pass, see cmi_forward_heard. The vote is for how
     * many microbatches the next one has (policy/microbatch.h). */
    uint32_t says, vote;
    /* The ranks share their prompts' rows in this pass: what cmi_forward_offer said. */
    bool is_staged;
} cmi_batch;

typedef struct cmi_forward_options {
    const cmi_model_config *config;
    const cmi_weights *weights;
    const cmi_kernels *kernels;
    cmi_team *team;
    cmi_kv_layout kv_layout;  /* its operand_dtype is the compute type too */
    void *kv_base;            /* the page pool */
    uint32_t max_rows;        /* of a batch */
    uint32_t max_decode_rows; /* of them, <= max_rows */
    uint32_t max_positions;   /* of a sequence */
    cmi_exchange *exchange;   /* of rows with the ranks that have the experts; NULL: all are here */
    /* For passes that are staged, whose shape has this max_rows; NULL: there are none. */
    cmi_stage_exchange *stage;
} cmi_forward_options;

typedef struct cmi_forward cmi_forward;

/* All that the options point to outlives the forward. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_forward_create(cmi_forward **forward_out,
                                            const cmi_forward_options *opt, cmi_error *err);
void cmi_forward_destroy(cmi_forward *forward); /* NULL is fine */

/* Bytes of scratch memory that a forward with these options takes; weights and kv_base are not
 * read. */
uint64_t cmi_forward_estimate_bytes(const cmi_forward_options *opt);

/* Bytes that each rank's window of a stage exchange has. */
uint64_t cmi_forward_stage_window_bytes(const cmi_model_config *config, const cmi_kv_layout *layout,
                                        const cmi_stage_shape *shape);

/* With a stage exchange: tells the other ranks which prompts a batch has and hears of theirs, in
 * one exchange of a pass. Then all ranks know whether it is worth to share rows in it, and say so
 * in their batches, which otherwise stay as they are. All ranks call it for the same pass, which is
 * one through the main model without expert_ids, and is run next. Errors as of advance. */
CMI_NODISCARD cmi_status cmi_forward_offer(cmi_forward *forward, const cmi_batch *batch,
                                           bool *is_staged_out);

void cmi_forward_begin(cmi_forward *forward, const cmi_batch *batch);

/* The stages of a layer, in their order; a layer has either the dense one or those of experts. */
typedef enum cmi_stage {
    CMI_STAGE_MLA_PROLOG,
    CMI_STAGE_ATTENTION,
    CMI_STAGE_OUTPUT_PROJECTION,
    CMI_STAGE_DENSE_FFN,
    CMI_STAGE_GATE,
    CMI_STAGE_DISPATCH,
    CMI_STAGE_GROUPED_EXPERTS,
    CMI_STAGE_COMBINE,
    CMI_N_STAGES,
} cmi_stage;
const char *cmi_stage_name(cmi_stage stage); /* "mla_prolog", ... */

/* What the next cmi_forward_advance will run. */
cmi_stage cmi_forward_next_stage(const cmi_forward *forward);

/* Runs the next stage. CMI_IN_PROGRESS while stages are left, then CMI_OK; with an exchange also
 * why that cannot go on: then the pass is over, and what it computed is to be thrown away. */
CMI_NODISCARD cmi_status cmi_forward_advance(cmi_forward *forward);

/* begin, then advance to the end: CMI_OK, or what ended it. */
cmi_status cmi_forward_run(cmi_forward *forward, const cmi_batch *batch);

/* After a pass with an exchange: the most that any rank's batch said, the same on all ranks. So a
 * group agrees on whether there is a next pass, what it is, and so on, without a message more. 0 in
 * a model without experts. */
uint32_t cmi_forward_heard(const cmi_forward *forward);
uint32_t cmi_forward_heard_vote(const cmi_forward *forward); /* likewise */

/* After a pass: the output of the final norm for every row, float32 [n_rows][hidden_size]; what the
 * head and the MTP layer read. Valid until the next begin. */
const float *cmi_forward_hidden(const cmi_forward *forward);

/* The LM head: logits_out[i] = lm_head * hidden[i] for n <= CMI_FORWARD_MAX_HEAD_ROWS rows, float32
 * [n][vocab_size]. hidden: [n][hidden_size], from anywhere. */
enum { CMI_FORWARD_MAX_HEAD_ROWS = 64 };
void cmi_forward_logits(cmi_forward *forward, const float *hidden, uint32_t n, float *logits_out);

#endif
