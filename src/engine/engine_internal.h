/* engine/engine_internal.h - what engine.c (calls from any thread), engine_loop.c (steps) and
 * engine_sample.c (tokens) and engine_speculate.c (drafts) share.
 *
 * A request has a slot from submit to its end, and a seat (KV pages) while it runs. What a slot
 * holds is the engine thread's, but for the parts that the lock guards. */
#ifndef CMI_ENGINE_ENGINE_INTERNAL_H
#define CMI_ENGINE_ENGINE_INTERNAL_H

#include <pthread.h>

#include "engine/engine_calls.h"
#include "engine/event_ring.h"
#include "engine/instance.h"
#include "engine/kv_receiver.h"
#include "engine/kv_sender.h"
#include "engine/output_grammar.h"
#include "engine/policy_recorder.h"
#include "engine/sampler.h"
#include "policy/scheduler.h"
#include "policy/speculation.h"

/* Tokens that end a request. */
enum {
    CMI_MAX_END_TOKENS = CMI_MAX_STOP_TOKEN_IDS + CMI_LEN(((cmi_model_config *)0)->eos_token_ids),
};

/* What a running sequence has beside its pages. */
typedef struct cmi_seat {
    uint32_t *page_ids; /* [pages of max_model_len] as the forward pass wants them */
    float
        *hidden; /* [hidden_size] of the last prompt position that is stored; NULL without drafts */
    uint32_t slot;
    bool is_lent;       /* a prefill instance may write its pages */
    cmi_matcher *ahead; /* behind the drafts of a request with a grammar; NULL without either */
} cmi_seat;

/* How a hand-over ended, as the receiver tells it. */
typedef struct cmi_seat_end {
    uint32_t seat;
    cmi_status status;
} cmi_seat_end;

/* Logprobs of a prompt that a prefill instance computes. */
typedef struct cmi_seat_event {
    uint32_t seat;
    cmi_event event;
} cmi_seat_event;

enum { CMI_MAX_SEAT_EVENTS = 256 };

/* The hidden state behind a block of a prompt that became full in this step. */
typedef struct cmi_block_end {
    uint32_t slot, block_idx;
    float *hidden; /* [hidden_size] */
} cmi_block_end;

typedef struct cmi_engine_slot {
    cmi_request *request;  /* owned; NULL: the slot is free */
    uint32_t *output;      /* [max outputs] owned: the tokens so far */
    cmi_seat *seat;        /* NULL: waiting */
    cmi_content_key *keys; /* [n_keys] owned: of the prompt's full blocks */
    uint32_t n_keys;
    uint64_t space_tag; /* of the keys' namespace */
    uint32_t n_cached;  /* prompt tokens that were not computed at first */
    uint32_t n_output, max_output;
    uint32_t n_given;                /* of the output, that came with the request */
    uint32_t n_prompt_events;        /* PROMPT_TOKEN events sent */
    uint32_t drafts[CMI_MAX_DRAFTS]; /* of the tokens behind the output */
    uint32_t n_drafts;
    bool is_drafting;          /* the MTP layer keeps up with it */
    uint32_t wanted_drafts;    /* for the next step */
    uint32_t n_tried, n_right; /* drafts */
    cmi_acceptance acceptance; /* the same of late */
    uint32_t end_tokens[CMI_MAX_END_TOKENS];
    uint32_t n_end_tokens;
    cmi_output_grammar *grammar; /* owned; NULL: none */
    uint32_t stop_token_id;
    cmi_finish_reason reason; /* NONE while it goes on; set when it comes: what came ends it */
    cmi_status status;        /* with CMI_FINISH_ERROR */
    uint64_t submitted_ns, started_ns, first_token_ns, last_token_ns;
    bool is_cancelled; /* lock */
} cmi_engine_slot;

/* A span of the step whose last rows' logits become tokens: of row row_idx the next one, and of
 * each row behind it one more, while the drafts there are right. */
typedef struct cmi_sampled_span {
    uint32_t slot;
    uint32_t row_idx;
    uint32_t n_rows;           /* 1 and the drafts */
    uint32_t n_new;            /* tokens that came of it */
    cmi_output_step last_step; /* of the last of them, in the grammar */
    cmi_event events[1 + CMI_MAX_DRAFTS];
} cmi_sampled_span;

struct cmi_engine {
    cmi_engine_base base;
    cmi_instance *instance;
    cmi_kv_sender *sender;                                 /* NULL: prompts are not for others */
    cmi_kv_receiver *receiver;                             /* NULL: prompts run here */
    void (*add_stats)(void *arg, cmi_engine_stats *stats); /* may be NULL */
    void *add_stats_arg;
    void (*flush_others)(void *add_stats_arg); /* may be NULL */
    uint64_t join_ns;
    void (*lost)(void *arg); /* may be NULL */
    void *lost_arg;
    cmi_event_ring ring;
    pthread_t thread;
    uint32_t n_slots;
    cmi_content_model content_model; /* for keys; they and the secret do not change */
    uint8_t secret[32];              /* of the namespace that has no salt */
    const cmi_vocab *vocab;          /* NULL: no grammars */
    cmi_grammar_cache *grammars;     /* NULL likewise */

    /* the engine thread's */
    cmi_page_pool *pool;
    cmi_prefix_cache *cache;
    cmi_scheduler *scheduler;
    void *policy_memory[3]; /* of these three */
    uint32_t n_blocks;      /* that the cache has room for */
    cmi_engine_slot *slots; /* [n_slots] */
    cmi_seat *seats;        /* [max_num_seqs] */
    cmi_seat **free_seats;  /* a stack */
    uint32_t n_free_seats;
    uint32_t *token_ids;               /* [max_step_rows] of the step */
    cmi_batch_span *spans;             /* [max_num_seqs] of the step */
    cmi_sampled_span *sampled;         /* [max_num_seqs] of the step */
    cmi_scheduler_outcome *outcomes;   /* [max_num_seqs] of the step's spans */
    float *hidden;                     /* [CMI_FORWARD_MAX_HEAD_ROWS][hidden_size] */
    cmi_sampler *samplers;             /* [team size] */
    uint32_t *draft_masks;             /* [team size][mask words] or NULL */
    uint32_t *ended;                   /* [n_slots] slots whose request is over */
    uint32_t *arrived;                 /* [n_slots] taken from the inbox */
    cmi_seat_end *seat_ends_taken;     /* [max_num_seqs], with a receiver */
    cmi_seat_event *seat_events_taken; /* [CMI_MAX_SEAT_EVENTS], with a receiver */
    bool is_idle;                      /* nothing can run until something happens */
    cmi_engine_stats counts;           /* as of the last step */
    uint64_t probe_ns;                 /* to spend on made-up steps first */
    uint64_t next_expiry_ns;           /* no request's time is up before */
    uint32_t n_mtp_agreed;             /* passes of the MTP layer behind the step, by all ranks */
    /* drafts */
    uint32_t max_drafts;
    cmi_batch_span *mtp_spans; /* [max_num_seqs] */
    uint32_t *mtp_slots;       /* [max_num_seqs] whose drafts come of a pass */
    uint32_t *mtp_rows;        /* [max_num_seqs] the row of each */
    uint64_t n_started;        /* requests that began while drafts did not pay */
    bool drafts_by_cost;
    bool layer_pays; /* to keep up with sequences, as of the last step */
    cmi_speculation speculation;
    cmi_acceptance acceptance;                          /* of all */
    cmi_speculation_seq *spec_seqs;                     /* [max_num_seqs] */
    uint32_t *spec_slots;                               /* [max_num_seqs] of each */
    uint32_t n_mtp_passes, n_mtp_rows, n_mtp_head_rows; /* of the step */
    float *block_hidden;       /* [n_blocks][hidden_size] by the cache's block */
    cmi_block_end *block_ends; /* [max_num_batched_tokens / block + max_num_seqs] of the step */
    uint32_t n_block_ends;
    /* recording */
    cmi_policy_options policy;     /* what pool, cache and scheduler were made from */
    cmi_policy_recorder *recorder; /* NULL: nothing is recorded */

    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t work;
    uint32_t *free_slots; /* a stack */
    uint32_t n_free_slots;
    uint32_t *inbox; /* [n_slots] submitted, oldest first */
    uint32_t n_inbox;
    uint64_t n_inbox_tokens;
    uint32_t n_coming; /* admitted, not in the inbox yet */
    uint64_t n_coming_tokens;
    cmi_admission_queue queue; /* n: coming, in the inbox, or in the scheduler's queue */
    cmi_admission_load load;   /* as of the last step */
    double door_limit_ns;      /* tightest target of those that are coming or in the inbox */
    uint64_t n_refused[CMI_ADMISSION_N_REASONS];
    uint32_t n_cancelled;
    bool flush_asked;        /* of the prefix cache */
    cmi_seat_end *seat_ends; /* [max_num_seqs], with a receiver */
    uint32_t n_seat_ends;
    cmi_seat_event *seat_events; /* [CMI_MAX_SEAT_EVENTS], with a receiver */
    uint32_t n_seat_events;
    pthread_cond_t seat_event_room;
    bool stopping;
    bool is_lost;     /* nothing can be computed any more */
    bool is_up;       /* the thread has done what comes before requests */
    cmi_status up_st; /* or why it could not */
    cmi_error up_err;
    pthread_cond_t up;
    cmi_engine_stats stats;
};

/* engine_prefix_stats.c */
void cmi_engine_prefix_publish(cmi_engine_stats *stats, const cmi_prefix_account *account);
void cmi_engine_prefix_add(cmi_engine_stats *total, const cmi_engine_stats *one);

/* engine.c */
extern const cmi_engine_calls cmi_own_engine_calls;

/* What admission goes by at the moment. Any thread. */
void cmi_engine_peek(cmi_engine *engine, cmi_admission_load *load_out,
                     cmi_admission_queue *queue_out);

/* engine_loop.c */
void *cmi_engine_main(void *engine);

/* The slot and its seat are free again, and its request is over if it was not before. */
void cmi_engine_leave_seat(cmi_engine *engine, uint32_t slot);
void cmi_engine_free_slot(cmi_engine *engine, uint32_t slot);

/* ---- engine_handover.c: the engine's part in hand-overs ---- */

/* From the receiver's thread: an ask has ended. CMI_OK: the prompt is stored. */
void cmi_engine_received(cmi_engine *engine, uint32_t seat, cmi_status st);
/* From the receiver's thread: an event of a prompt. Waits while there is no room. */
void cmi_engine_take_prompt_event(cmi_engine *engine, uint32_t seat, const cmi_event *event);

/* With a receiver: wants the prompt of a slot that has just been admitted. */
void cmi_engine_ask(cmi_engine *engine, uint32_t slot);
/* Takes over what the receiver has told, both arrays from the engine's inbox; requests that end
 * with it are added to engine->ended. Returns how many are there then. */
uint32_t cmi_engine_take_handovers(cmi_engine *engine, uint32_t n_ends, uint32_t n_events,
                                   uint32_t n_ended);
/* Ends a request in the scheduler. False: its slot and seat stay until its pages are given back. */
bool cmi_engine_end_in_scheduler(cmi_engine *engine, uint32_t slot);
/* After the receiver has stopped: nobody has pages of ours any more. */
void cmi_engine_take_back_all(cmi_engine *engine);

/* With a sender: what a step makes final, before it runs and after. */
void cmi_engine_step_sends(cmi_engine *engine, const cmi_scheduler_plan *plan);
void cmi_engine_step_sent(cmi_engine *engine, const cmi_scheduler_plan *plan);

/* ---- engine_rank.c: instances that are one rank of several; of others only the first ---- */

/* The step's pass of the main model. False: nothing can be computed any more. */
CMI_NODISCARD bool cmi_engine_run_main(cmi_engine *engine, cmi_batch *batch);

/* Before the first step: finds the other ranks. */
CMI_NODISCARD cmi_status cmi_engine_rank_begin(cmi_engine *engine, cmi_error *err);

/* Follows a pass of others, or sleeps until something happens, at most until then. Without the
 * lock. */
void cmi_engine_rank_wait(cmi_engine *engine, uint64_t until_ns);

/* Puts what the rank has done into counts. */
void cmi_engine_rank_count(cmi_engine *engine);

/* Ends a wait for work, or the next one. With the lock, any thread. */
void cmi_engine_wake(cmi_engine *engine);

/* engine_probe.c: runs made-up steps for about budget_ns, and until durations are known. Before the
 * first plan, on the engine's thread. */
void cmi_engine_probe(cmi_engine *engine, uint64_t budget_ns);

/* engine_sample.c: an event of the request with what all events repeat. */
cmi_event cmi_engine_event(const cmi_engine *engine, uint32_t slot, cmi_event_type type);

/* PROMPT_TOKEN events for the prompt tokens that follow the rows of a prefill span; row_idx is its
 * first row in the step. */
void cmi_engine_push_prompt_logprobs(cmi_engine *engine, const cmi_scheduler_span *span,
                                     uint32_t row_idx);

/* The reason, if the request ends with this last token of its output; step: what the token did to
 * its grammar. */
void cmi_engine_decide_end(cmi_engine_slot *slot, uint32_t token_id, cmi_output_step step);

/* Takes a token into account and sends its event, which is complete but for its index and times.
 */
void cmi_engine_accept_token(cmi_engine *engine, cmi_engine_slot *slot, cmi_event *event,
                             cmi_output_step step);

/* Samples engine->sampled[0 .. n - 1] on the team, pushes their TOKEN events in order, and decides
 * which requests end. */
void cmi_engine_sample_spans(cmi_engine *engine, uint32_t n);

/* What a token of the slot is sampled from, n_ahead tokens behind its output. */
cmi_sample cmi_engine_sample_of(const cmi_engine_slot *slot, const float *logits, uint32_t n_ahead);

/* engine_resume.c: the output that slot's request brings becomes the slot's, and perhaps ends it.
 * Before the engine's thread has the slot. CMI_ERR_INVALID: it cannot be this request's. */
CMI_NODISCARD cmi_status cmi_engine_resume(const cmi_engine *engine, cmi_engine_slot *slot,
                                           cmi_error *err);

/* engine_speculate.c: brings the MTP layer up to the step that has just run and been sampled, and
 * leaves drafts in the slots. Overwrites the hidden states of the step. */
void cmi_engine_speculate(cmi_engine *engine, const cmi_scheduler_plan *plan);

/* engine_drafts.c: how many drafts each sequence of the step gets for the next one, and with whom
 * the layer keeps up. */
void cmi_engine_decide_drafts(cmi_engine *engine, const cmi_scheduler_plan *plan);

/* Keeps the hidden states behind blocks that the cache took. */
void cmi_engine_keep_block_ends(cmi_engine *engine, const cmi_scheduler_sealed *sealed,
                                uint32_t n_sealed);

/* Whether a request that begins now is to be drafted for. */
bool cmi_engine_starts_drafting(cmi_engine *engine, const cmi_request *request);

#endif
