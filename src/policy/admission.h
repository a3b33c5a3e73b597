/* policy/admission.h - whether a request is taken, or refused at once with a time to come back.
 *
 * The queue is bounded in requests and in prompt tokens. Beside that a request with targets is
 * taken only if they will hold, by predicted durations:
 *  - TTFT: the prompts before it and its own, at the rows a step that those who decode leave them;
 *    or, if that is later, until it has a seat.
 *  - TPOT: seats are as many sequences as can decode together by the tightest target of those that
 *    run, those that wait, and itself. Without a TTFT target it must not have to wait for one. One
 *    that could not keep its target alone is not taken at all.
 * A request without targets can only find the queue full. Priorities and tenants are not looked at:
 * those that overtake are late guests of everybody else's prediction.
 *
 * Pure: no clock, no allocation. Any thread. */
#ifndef CMI_POLICY_ADMISSION_H
#define CMI_POLICY_ADMISSION_H

#include "policy/step_cost.h"

/* Reasons, with the names that metrics show. */
#define CMI_ADMISSION_REASON_TABLE(X)                                                              \
    X(OK, "none")                                                                                  \
    /* so many wait already */                                                                     \
    X(QUEUED_REQUESTS, "queued_requests")                                                          \
    /* their prompts and this one are too many tokens */                                           \
    X(QUEUED_TOKENS, "queued_tokens")                                                              \
    /* its first token would come too late */                                                      \
    X(TTFT, "ttft")                                                                                \
    /* too many would decode together */                                                           \
    X(TPOT, "tpot")

typedef enum cmi_admission_reason {
#define CMI_ADMISSION_ENUM(id, name) CMI_ADMISSION_##id,
    CMI_ADMISSION_REASON_TABLE(CMI_ADMISSION_ENUM)
#undef CMI_ADMISSION_ENUM
        CMI_ADMISSION_N_REASONS,
} cmi_admission_reason;

typedef struct cmi_admission_verdict {
    cmi_admission_reason reason;
    uint32_t retry_after_ms; /* 0 with CMI_ADMISSION_OK */
    uint64_t predicted_ns;   /* TTFT or TPOT, what it is refused for; 0 with other reasons */
} cmi_admission_verdict;

/* The queue and its bounds. */
typedef struct cmi_admission_queue {
    uint32_t n_requests, max_requests;
    uint64_t n_tokens, max_tokens; /* of prompts; max_tokens 0: no bound */
} cmi_admission_queue;

enum {
    CMI_ADMISSION_RETRY_MS = 1000, /* where nothing better is known */
    CMI_ADMISSION_RETRY_MAX_MS = 60000,
};

/* What runs, as of the last step. */
typedef struct cmi_admission_load {
    bool is_known; /* durations are; false: nothing is predicted */
    cmi_step_rates rates;
    double factor;          /* on predictions */
    cmi_step_shape steady;  /* a step in which all that run decode */
    double limit_ns;        /* of such a step by the tightest target of those that run or wait */
    double tokens_per_step; /* of a sequence; 1 without drafts */
    uint32_t n_running, max_running;
    uint32_t max_prefill_rows; /* beside decode */
    uint32_t max_rows;
    uint64_t n_prefill_tokens; /* of those that run, to be computed yet */
    double computed_share;     /* of prompt tokens: 1 - what the prefix cache has had */
    double mean_output;        /* tokens of answers of late; 0: not known */
} cmi_admission_load;

#define CMI_ADMISSION_NO_LIMIT 1e300

typedef struct cmi_admission_request {
    uint64_t n_prompt; /* perhaps a lower bound */
    uint32_t max_tokens;
    uint64_t ttft_ns, tpot_ns; /* targets; 0: none */
    uint64_t age_ns;           /* that it has waited elsewhere */
} cmi_admission_request;

/* Whether the queue has room. With an empty queue it has, whatever the prompt's length: nothing
 * would become of refusing it. O(1). */
cmi_admission_verdict cmi_admission_check_queue(const cmi_admission_queue *queue,
                                                uint64_t n_tokens);

/* That, then the targets. O(log max_running). */
cmi_admission_verdict cmi_admission_decide(const cmi_admission_load *load,
                                           const cmi_admission_queue *queue,
                                           const cmi_admission_request *request);

/* When a request is to be ended if it has not ended by itself, and why: its timeout, counted from
 * its arrival, or, as long as it has not begun, twice its TTFT target: its sender will not wait for
 * an answer that was promised sooner. UINT64_MAX: never. */
typedef struct cmi_expiry {
    uint64_t at_ns;
    bool is_timeout;
} cmi_expiry;
cmi_expiry cmi_admission_expiry(uint64_t arrived_ns, uint64_t timeout_ns, uint64_t ttft_ns,
                                bool has_begun);

#endif
