/* policy/scheduler.h - which rows the next step of an instance computes: continuous batching with
 * chunked prefill.
 *
 * The owner tells what happened (arrive, finish, a step's outcome) and asks for a plan; it then
 * performs the plan, gives back and takes KV pages exactly as the plan says, and tells the outcome.
 * A plan depends on what was told before and on nothing else.
 *
 * The rules:
 *  - Sequences that decode come first, oldest first, a row each; one whose tokens are known already
 *    (it was preempted) runs several of them in one span.
 *  - What is left of the step goes to prompts in order, in chunks. While others decode, prompts get
 *    at most max_prefill_rows of a step, so that a long prompt delays them by a bounded time.
 *  - The queue is left in order of priority; among equals by the tenant that was served the fewest
 *    tokens (policy/fairness.h), then by arrival. Whose turn it is is admitted when there are pages
 *    for its whole prompt, beside one for each sequence that decodes; nobody overtakes it.
 * Blocks of the prompt that the prefix cache has are not computed, and full blocks that were are
 * given to it. Idle cached blocks count as room.
 *  - Targets (TPOT) bound a step as soon as its duration can be predicted: prompts get the rows
 * that keep the tightest one, though after STARVED steps without any a few; and nobody is admitted
 *    beside whom those that run, or itself, could not keep theirs. Nobody is sent away for a
 * target.
 *  - Behind the last known token of a sequence run its drafts (speculation), if rows are left: the
 *    owner says after a step how many there are, and how many tokens came of the last ones.
 *  - A sequence that needs a page when none is free takes those of the last in that order, perhaps
 *    its own; the loser goes back to its place in the queue and keeps its tokens. Pages that a peer
 *    writes or reads cannot be taken: while there are such, it sits a step out instead.
 *
 * Where prefill and decode are two instances (options.role), the decode side admits a request by
 * reserving its pages, and its prompt comes from the other side (cmi_scheduler_received);
 * the prefill side keeps a stored prompt until the owner, who has put it across, finishes it.
 *
 * Every request that fits n_pages alone is finished some time: the oldest one is never preempted.
 *
 * Pure: no clock, no allocation after init. Thread: one, the owner's. */
#ifndef CMI_POLICY_SCHEDULER_H
#define CMI_POLICY_SCHEDULER_H

#include "policy/admission.h"
#include "policy/fairness.h"
#include "policy/prefix_cache.h"
#include "policy/request_state.h"
#include "policy/step_budget.h"

/* What an instance does of a request. */
typedef enum cmi_instance_role {
    CMI_ROLE_BOTH,
    CMI_ROLE_PREFILL, /* prompts and the first token; then CMI_REQUEST_SEND */
    CMI_ROLE_DECODE,  /* the tokens behind it; before that CMI_REQUEST_RECEIVE */
} cmi_instance_role;

typedef struct cmi_scheduler_options {
    cmi_instance_role role;
    uint32_t n_slots;          /* requests at a time, waiting or running; 1 .. 2^20 */
    uint32_t max_num_seqs;     /* that hold pages at a time; <= n_slots */
    uint32_t max_rows;         /* of a step */
    uint32_t max_decode_rows;  /* of them; max_num_seqs <= max_decode_rows <= max_rows */
    uint32_t max_prefill_rows; /* of a step with decode rows; 1 .. max_rows */
    uint32_t max_span_rows;    /* of a decode span: known tokens that run together */
    uint32_t max_drafts;       /* of a sequence; a span has so many rows more. Pages are held for as
                                  many positions ahead: a draft's own KV goes there */
    uint32_t max_tokens;       /* of a sequence */
    uint32_t n_experts, n_experts_per_tok; /* of the model, for predictions; 0, 0: none */
    /* Share of the steps that are to keep to a predicted duration, where there are targets. 0: the
     * mean holds, as a target is one of many steps. */
    double cover;
    /* Both outlive the scheduler and are its own meanwhile. */
    cmi_page_pool *pool;
    cmi_prefix_cache *cache; /* over pool; perhaps for no block */
} cmi_scheduler_options;

/* A request as it comes. */
typedef struct cmi_scheduler_request {
    uint32_t n_prompt; /* >= 1 */
    uint32_t n_total;  /* prompt and all tokens that it may generate; <= max_tokens, and its pages
                          fit the pool */
    /* Of the output, known when it comes, as of one that comes back after a preemption: < n_total -
     * n_prompt; 0 with CMI_ROLE_PREFILL. */
    uint32_t n_generated;
    int32_t priority; /* lower goes first */
    uint64_t tenant;  /* any number; whose turn it is depends on it */
    uint64_t tpot_ns; /* target for the time between tokens; 0: none */
    /* For the prefix cache: keys of the prompt's full blocks, which live as long as the request;
     * with n_keys 0 its blocks are not given to the cache either. */
    const cmi_content_key *keys;
    uint32_t n_keys;
    uint64_t space_tag;
    bool skips_cache; /* is not to find anything, for this reason */
    cmi_prefix_loss skip_reason;
} cmi_scheduler_request;

/* What the scheduler knows of a request. */
typedef struct cmi_scheduler_slot {
    cmi_request_state state;
    cmi_scheduler_request request;
    uint64_t order;       /* of arrival */
    uint32_t n_generated; /* tokens of the output that are known */
    uint32_t n_drafts;    /* that the next step may try */
    uint32_t n_stored;    /* positions whose KV is there */
    uint32_t n_cached;    /* of them found in the cache when it was last admitted */
    cmi_pace pace;
    uint32_t tenant; /* entry of the table */
    bool is_charged; /* for its prompt */
    /* While it runs: its KV, and the chain of cached blocks that it begins with. */
    cmi_page_id *pages; /* [n_pages] */
    uint32_t n_pages;
    uint32_t n_blocks; /* of the chain */
    cmi_block_id tip;
    bool is_refused; /* the cache had no room for a block of it: those behind stay its own */
} cmi_scheduler_slot;

/* Rows of one sequence in a step: positions position .. position + n_rows - 1. */
typedef struct cmi_scheduler_span {
    uint32_t slot;
    uint32_t position;
    uint32_t n_rows;
    uint32_t n_drafts;        /* the last rows, of tokens that are not certain */
    const cmi_page_id *pages; /* of the sequence, for all rows and drafts' KV */
    uint32_t n_pages;
    bool is_prefill;
    bool samples; /* logits of the last row and of those before its drafts give tokens */
} cmi_scheduler_span;

/* What came of a span that samples. */
typedef struct cmi_scheduler_outcome {
    uint32_t n_new;    /* tokens: 1, and one for each draft that was right, 1 + n_drafts at most */
    uint32_t n_drafts; /* for the next step; <= max_drafts */
} cmi_scheduler_outcome;

/* A block of a prompt that the cache has from now on. */
typedef struct cmi_scheduler_sealed {
    uint32_t slot;
    uint32_t block_idx; /* of the prompt */
    uint32_t cache_idx; /* where the hidden state of its last position belongs */
    bool is_duplicate;  /* it lies there already */
} cmi_scheduler_sealed;

/* In this order: the preempted lose their KV, the admitted begin (with CMI_ROLE_DECODE: are asked
 * for at a prefill instance), the spans run. */
typedef struct cmi_scheduler_plan {
    const uint32_t *preempted; /* slots */
    const uint32_t *admitted;
    const cmi_scheduler_span *spans; /* those that decode first */
    uint32_t n_preempted, n_admitted, n_spans;
    uint32_t n_rows, n_decode_rows;
    cmi_step_shape shape;
    double predicted_ns; /* in the mean; 0: not known yet */
} cmi_scheduler_plan;

typedef struct cmi_scheduler cmi_scheduler;

/* Bytes of memory that a scheduler with these options takes. */
size_t cmi_scheduler_bytes(const cmi_scheduler_options *opt);

/* Builds a scheduler in memory of that many bytes, aligned for any type, which must outlive it. */
cmi_scheduler *cmi_scheduler_init(void *memory, const cmi_scheduler_options *opt);

/* A request in slot, which is free. Later calls name requests by slot. O(waiting). */
void cmi_scheduler_arrive(cmi_scheduler *s, uint32_t slot, const cmi_scheduler_request *request);

/* The request ends, whatever its state but RECEIVE and DRAIN. O(waiting + running + its pages). */
void cmi_scheduler_finish(cmi_scheduler *s, uint64_t now_ns, uint32_t slot);

/* ---- of a request in RECEIVE, whose pages a prefill instance may write ---- */

/* Its prompt is stored. n_new: 1 with its first token, 0 when that is known already, which is so
 * after a preemption. n_drafts as in an outcome. */
void cmi_scheduler_received(cmi_scheduler *s, uint64_t now_ns, uint32_t slot, uint32_t n_new,
                            uint32_t n_drafts);

/* It ends, but its pages may still be written: its slot and they are free after
 * cmi_scheduler_drained. */
void cmi_scheduler_leave(cmi_scheduler *s, uint32_t slot);
void cmi_scheduler_drained(cmi_scheduler *s, uint64_t now_ns, uint32_t slot);

/* Plans the next step. Valid until the next call. The caller performs the whole of it, then calls
 * cmi_scheduler_step_done if there are spans. Returns whether there are: without, nothing is to be
 * done until it is told that something happened. O(running), and O(waiting) for each request
 * preempted. */
bool cmi_scheduler_plan_step(cmi_scheduler *s, uint64_t now_ns, cmi_scheduler_plan *plan_out);

/* What the MTP layer did behind the planned step, which the plan's shape could only guess; before
 * cmi_scheduler_step_done. n_head_rows: that became drafts. */
void cmi_scheduler_count_mtp(cmi_scheduler *s, uint32_t n_passes, uint32_t n_rows,
                             uint32_t n_head_rows);

/* The planned step has run. outcomes: [n_spans] of the plan, read where a span samples. Returns the
 * blocks that went to the cache with it: [*n_sealed_out], valid until the next plan. */
const cmi_scheduler_sealed *cmi_scheduler_step_done(cmi_scheduler *s, uint64_t now_ns,
                                                    const cmi_scheduler_outcome *outcomes,
                                                    uint32_t *n_sealed_out);

const cmi_scheduler_slot *cmi_scheduler_slot_get(const cmi_scheduler *s, uint32_t slot);
uint32_t cmi_scheduler_n_waiting(const cmi_scheduler *s);
uint64_t cmi_scheduler_n_waiting_tokens(const cmi_scheduler *s); /* of their prompts */
uint32_t cmi_scheduler_n_running(const cmi_scheduler *s);
/* What admission wants to know, between two steps. O(running + waiting). */
void cmi_scheduler_load(const cmi_scheduler *s, cmi_admission_load *load_out);
/* How long steps take: observed from each plan to its cmi_scheduler_step_done. The owner may
 * observe steps of its own before the first plan. */
cmi_step_cost *cmi_scheduler_cost(cmi_scheduler *s);
/* Where the prompts' tokens went since init, for every admission. */
const cmi_prefix_account *cmi_scheduler_prefix_account(const cmi_scheduler *s);

#endif
