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
 *  - The queue is left in order of priority, then arrival. Its head is admitted when the pages of
 *    its whole prompt are free, beside one for each sequence that decodes; nobody overtakes it.
 *  - Behind the last known token of a sequence run its drafts (speculation), if rows are left: the
 *    owner says after a step how many there are, and how many tokens came of the last ones.
 *  - A sequence that needs a page when none is free takes those of the last in that order, perhaps
 *    its own; the loser goes back to its place in the queue and keeps its tokens.
 *
 * Every request that fits n_pages alone is finished some time: the oldest one is never preempted.
 *
 * Pure: no clock, no allocation after init. Thread: one, the owner's. */
#ifndef CMI_POLICY_SCHEDULER_H
#define CMI_POLICY_SCHEDULER_H

#include "policy/request_state.h"

typedef struct cmi_scheduler_options {
    uint32_t n_slots;          /* requests at a time, waiting or running; 1 .. 2^20 */
    uint32_t max_num_seqs;     /* that hold pages at a time; <= n_slots */
    uint32_t max_rows;         /* of a step */
    uint32_t max_decode_rows;  /* of them; max_num_seqs <= max_decode_rows <= max_rows */
    uint32_t max_prefill_rows; /* of a step with decode rows; 1 .. max_rows */
    uint32_t max_span_rows;    /* of a decode span: known tokens that run together */
    uint32_t max_drafts;       /* of a sequence; a span has so many rows more. Pages are held for as
                                  many positions ahead: a draft's own KV goes there */
    uint32_t page_tokens;
    uint32_t n_pages;
} cmi_scheduler_options;

/* What the scheduler knows of a request. */
typedef struct cmi_scheduler_slot {
    cmi_request_state state;
    int32_t priority; /* lower goes first */
    uint64_t order;   /* of arrival */
    uint32_t n_prompt;
    uint32_t n_total;     /* tokens that it may ever have */
    uint32_t n_generated; /* tokens that were sampled */
    uint32_t n_drafts;    /* that the next step may try */
    uint32_t n_stored;    /* positions whose KV is there */
    uint32_t n_pages;     /* held */
} cmi_scheduler_slot;

/* Rows of one sequence in a step: positions position .. position + n_rows - 1. */
typedef struct cmi_scheduler_span {
    uint32_t slot;
    uint32_t position;
    uint32_t n_rows;
    uint32_t n_drafts; /* the last rows, of tokens that are not certain */
    uint32_t n_pages;  /* that the sequence holds from now on: take what it lacks */
    bool is_prefill;
    bool samples; /* logits of the last row and of those before its drafts give tokens */
} cmi_scheduler_span;

/* What came of a span that samples. */
typedef struct cmi_scheduler_outcome {
    uint32_t n_new;    /* tokens: 1, and one for each draft that was right, 1 + n_drafts at most */
    uint32_t n_drafts; /* for the next step; <= max_drafts */
} cmi_scheduler_outcome;

/* In this order: the preempted give their pages back, the admitted begin, the spans run. */
typedef struct cmi_scheduler_plan {
    const uint32_t *preempted; /* slots */
    const uint32_t *admitted;
    const cmi_scheduler_span *spans; /* those that decode first */
    uint32_t n_preempted, n_admitted, n_spans;
    uint32_t n_rows, n_decode_rows;
} cmi_scheduler_plan;

typedef struct cmi_scheduler cmi_scheduler;

/* Bytes of memory that a scheduler with these options takes. */
size_t cmi_scheduler_bytes(const cmi_scheduler_options *opt);

/* Builds a scheduler in memory of that many bytes, aligned for any type, which must outlive it. */
cmi_scheduler *cmi_scheduler_init(void *memory, const cmi_scheduler_options *opt);

/* A request in slot, which is free. n_prompt >= 1; n_total, prompt and all tokens that it may
 * generate, fits n_pages. Later calls name requests by slot. O(waiting). */
void cmi_scheduler_arrive(cmi_scheduler *s, uint32_t slot, uint32_t n_prompt, uint32_t n_total,
                          int32_t priority);

/* The request ends, whatever its state; its pages are free. O(waiting + running). */
void cmi_scheduler_finish(cmi_scheduler *s, uint32_t slot);

/* Plans the next step; false when nobody is there. Valid until the next call. The caller performs
 * the whole of it, then calls cmi_scheduler_step_done. O(running), and O(waiting) for each request
 * preempted. */
bool cmi_scheduler_plan_step(cmi_scheduler *s, cmi_scheduler_plan *plan_out);

/* The planned step has run. outcomes: [n_spans] of the plan, read where a span samples. */
void cmi_scheduler_step_done(cmi_scheduler *s, const cmi_scheduler_outcome *outcomes);

const cmi_scheduler_slot *cmi_scheduler_slot_get(const cmi_scheduler *s, uint32_t slot);
uint32_t cmi_scheduler_n_waiting(const cmi_scheduler *s);
uint32_t cmi_scheduler_n_running(const cmi_scheduler *s);
uint32_t cmi_scheduler_n_free_pages(const cmi_scheduler *s);

#endif
