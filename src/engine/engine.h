/* engine/engine.h - one engine: a thread that takes requests and gives tokens.
 *
 * The calls below may come from any thread. Requests wait in a bounded queue, are admitted in the
 * order of their arrival, and run together (policy/scheduler.h), up to the instance's max_num_seqs.
 * One that is preempted for want of KV pages comes back with the same tokens. Events wait in a
 * bounded ring; a full ring holds the engine back (never drops), so whoever owns an engine must
 * poll it. */
#ifndef CMI_ENGINE_ENGINE_H
#define CMI_ENGINE_ENGINE_H

#include "engine/message.h"
#include "policy/admission.h"

typedef struct cmi_engine cmi_engine;

enum {
    CMI_MAX_DRAFTS = 4,
    CMI_ENGINE_PREFIX_LOSSES = 10, /* reasons of policy/prefix_cache.h */
};

/* What does not change while the engine lives. */
typedef struct cmi_engine_info {
    uint32_t vocab_size;
    uint32_t max_model_len; /* prompt and output together, tokens */
    uint32_t max_queued_requests;
    uint64_t max_queued_tokens; /* of prompts; 0: no bound */
    uint32_t n_kv_pages;
    uint32_t kv_page_tokens;
    uint32_t max_drafts; /* 0: no speculation */
    /* Why prompt tokens are computed that a cache could have saved: static text; NULL ends. */
    const char *prefix_losses[CMI_ENGINE_PREFIX_LOSSES];
} cmi_engine_info;

/* An engine whose instance is one rank of several (engine/instance_rank.h): counters since its
 * process began, and gauges. */
typedef struct cmi_engine_rank {
    uint32_t is_up;               /* of a router: it can be asked */
    uint32_t n_views;             /* times that the ranks who live have agreed on each other */
    uint64_t n_passes, passes_ns; /* of the main model, own rows or not */
    uint64_t waited_ns; /* in passes, for rows and results of others; the slowest waits the least */
    uint64_t n_expert_rows;               /* (row, expert) that its routed experts have computed */
    uint64_t n_adopted;                   /* experts that it holds for ranks that are dead */
    uint64_t n_windows, n_plans, n_moves; /* of EPLB: moves are experts that came to it */
    double imbalance, planned; /* as of engine/rank_balance.h; 0: nothing has been planned yet */
} cmi_engine_rank;

/* Counters since the start, and gauges. */
typedef struct cmi_engine_stats {
    uint64_t n_prompt_tokens;     /* rows computed, again after a preemption */
    uint64_t n_generation_tokens; /* sampled */
    uint64_t n_steps;
    uint64_t n_step_tokens; /* rows of all steps together */
    uint64_t n_preemptions;
    uint64_t n_prefix_queried; /* prompt tokens of admitted requests */
    uint64_t n_prefix_hits;    /* of them found in the prefix cache */
    /* Of them in blocks that the cache was asked for, that it had, that came from elsewhere; and
     * computed, by the reasons of cmi_engine_info. queried == hits + the sum of lost. */
    uint64_t n_prefix_looked_up, n_prefix_available, n_prefix_loaded;
    uint64_t n_prefix_lost[CMI_ENGINE_PREFIX_LOSSES];
    uint64_t n_drafts;                          /* times that drafts were tried */
    uint64_t n_draft_tokens, n_accepted_tokens; /* of them */
    uint64_t n_accepted_at[CMI_MAX_DRAFTS];     /* the first draft, the second, ... */
    uint32_t n_running;
    uint32_t n_waiting;
    uint32_t n_kv_pages_used;
    uint64_t n_waiting_tokens;                   /* of prompts */
    uint64_t n_refused[CMI_ADMISSION_N_REASONS]; /* requests, by the reason */
    /* Steps whose duration was predicted: their durations as predicted and as measured, and what
     * lay between, added up. */
    uint64_t n_predicted_steps, predicted_ns, measured_ns, misjudged_ns;
    /* Requests that ended with tokens and had such a target, and those of them that missed it. */
    uint64_t n_ttft_targets, n_ttft_missed, n_tpot_targets, n_tpot_missed;
    /* Ended because their time was up, or because they had waited twice their TTFT target. */
    uint64_t n_timed_out, n_given_up;
    /* Of a router (engine/router.h), else 0: ranks, those that can be asked, how often one was
     * lost, and requests that went on at another one. */
    uint32_t n_ranks, n_ranks_up;
    uint64_t n_ranks_lost, n_moved;
    cmi_engine_rank rank; /* zeroed of an engine that is none */
} cmi_engine_stats;

typedef struct cmi_engine_options {
    uint32_t max_queued_requests; /* waiting, not running; 0: the default */
    uint64_t max_queued_tokens;   /* of waiting prompts; 0: no bound */
    uint32_t n_events;            /* of the ring; 0: the default */
    /* Prompt tokens of a step in which others decode: what bounds their delay. 0: the default. */
    uint32_t max_prefill_rows;
    bool no_prefix_cache; /* prompts share nothing */
    /* For made-up steps before the first request, so that durations are known when targets want
     * them; about so long, or longer if that is too short for it. 0: none, they are learned
     * from requests. */
    uint32_t probe_ms;
    /* Of the MTP layer for each token; no more than the instance has room for; 0: none. */
    uint32_t max_drafts;
    /* Drafts are tried as long as predictions say that they pay (policy/speculation.h); before
     * durations are known, and else, as long as enough of them hold. */
    bool drafts_by_cost;
    /* What the scheduler is told and answers goes to this file (engine/policy_recorder.h), with a
     * sender to one that has ".prefill" behind its name; NULL: nowhere. */
    const char *record_events;
    /* Prefill and decode as two instances (engine/handover.h). With a sender the engine runs
     * prompts for decode instances, and nobody else submits or polls; with a receiver it has its
     * prompts run by prefill instances. Both outlive the engine. At most one is not NULL. */
    struct cmi_kv_sender *sender;
    struct cmi_kv_receiver *receiver;
    /* Called on the engine's thread when its ring of events is no longer empty, beside the eventfd;
     * NULL: nothing is. */
    void (*notify)(void *arg);
    void *notify_arg;
    /* Adds the counters of others that work for this engine to its own; NULL: there are none. Any
     * thread. */
    void (*add_stats)(void *arg, cmi_engine_stats *stats);
    void *add_stats_arg;
    /* Flushes their prefix caches too, with the same argument; may be NULL. */
    void (*flush_others)(void *add_stats_arg);
    /* Of an instance that is a rank of several: how long it waits for the others before it gives
     * up, 0: 10 minutes; and what is then called, on the engine's thread. Nothing is computed after
     * that: it is to be stopped, and its requests end without an event. */
    uint64_t join_ns;
    void (*lost)(void *arg);
    void *lost_arg;
    /* The bytes of the model's tokens, whose end tokens are the model's, for requests with a
     * grammar; it outlives the engine. NULL: they are refused. */
    const struct cmi_vocab *vocab;
} cmi_engine_options;

enum {
    CMI_DEFAULT_MAX_QUEUED_REQUESTS = 1024,
    CMI_DEFAULT_ENGINE_EVENTS = 4096,
    CMI_DEFAULT_MAX_PREFILL_ROWS = 256,
};

/* Starts the engine's thread, which owns the instance (engine/instance.h) until cmi_engine_stop. */
struct cmi_instance;
CMI_NODISCARD cmi_status cmi_engine_start(cmi_engine **engine_out, struct cmi_instance *instance,
                                          const cmi_engine_options *opt, cmi_error *err);

/* Ends all requests (CMI_FINISH_ABORT, as far as the ring has room), joins the thread and frees the
 * engine; the instance is the caller's again. No other call may be in progress. NULL is fine. */
void cmi_engine_stop(cmi_engine *engine);

/* Whether a request would be taken, before one is made; of the prompt a lower bound is enough.
 * False counts as a refusal; *verdict_out says why and for how long. Never waits for a step. */
bool cmi_engine_has_room(cmi_engine *engine, const cmi_admission_request *request,
                         cmi_admission_verdict *verdict_out);

/* Queues a copy of the request. Its grammar is compiled here, on the caller's thread, unless it was
 * in use lately: a millisecond or two, at most about half a second (grammar/grammar.h). Whether it
 * is taken is known before anything is computed for it, and without waiting for a step.
 *
 * One that brings output tokens goes on behind them, or ends at once (engine/message.h); the
 * caller's thread goes through them with its grammar.
 *
 * CMI_ERR_INVALID: malformed, a token id outside the vocabulary, prompt + 1 or prompt + output >
 * max_model_len, or output behind an end (err says). CMI_ERR_BAD_DATA: the grammar cannot be kept
 * to (err says). CMI_ERR_NO_CAPACITY: refused, nothing changed; *verdict_out says why and for how
 * long, it may be NULL. CMI_ERR_CLOSED: the engine is stopping. */
CMI_NODISCARD cmi_status cmi_engine_offer(cmi_engine *engine, const cmi_request *request,
                                          cmi_admission_verdict *verdict_out, cmi_error *err);

/* The same without the verdict. */
CMI_NODISCARD cmi_status cmi_engine_submit(cmi_engine *engine, const cmi_request *request,
                                           cmi_error *err);

/* Ends a request within one step, waiting or running; its FINISHED event (CMI_FINISH_ABORT) still
 * comes. Unknown and ended ids are ignored. */
void cmi_engine_cancel(cmi_engine *engine, uint64_t request_id);

/* Requests that are submitted after this find no prompt cached that no running one holds. Any
 * thread. */
void cmi_engine_flush_prefix_cache(cmi_engine *engine);

/* Takes up to n_max events, oldest first, without waiting. One thread polls. */
CMI_NODISCARD size_t cmi_engine_poll(cmi_engine *engine, cmi_event *events_out, size_t n_max);

/* Readable (an eventfd) while events may be waiting. Read its 8 bytes, then poll until it gives
 * none. */
int cmi_engine_event_fd(const cmi_engine *engine);

void cmi_engine_info_get(const cmi_engine *engine, cmi_engine_info *info_out);
void cmi_engine_stats_get(cmi_engine *engine, cmi_engine_stats *stats_out);

/* Of a router its ranks, at most n_max of them, as they told last, a second ago at most; zeroed: it
 * is away. Returns how many there are; 0: the engine is no router. */
uint32_t cmi_engine_ranks_get(cmi_engine *engine, cmi_engine_rank *ranks_out, uint32_t n_max);

#endif
