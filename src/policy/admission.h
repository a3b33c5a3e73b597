/* policy/admission.h - whether a request is taken, or refused at once with a time to come back.
 *
 * A queue is bounded in requests and in prompt tokens. Both bounds are looked at before anything is
 * computed for a request, so that refusing costs next to nothing when many come.
 *
 * Pure: no clock, no allocation. Any thread. */
#ifndef CMI_POLICY_ADMISSION_H
#define CMI_POLICY_ADMISSION_H

#include "base/compiler.h"

/* Reasons, with the names that metrics show. */
#define CMI_ADMISSION_REASON_TABLE(X)                                                              \
    X(OK, "none")                                                                                  \
    X(QUEUED_REQUESTS, "queued_requests") /* so many wait already */                               \
    X(QUEUED_TOKENS, "queued_tokens")     /* their prompts and this one are too many tokens */

typedef enum cmi_admission_reason {
#define CMI_ADMISSION_ENUM(id, name) CMI_ADMISSION_##id,
    CMI_ADMISSION_REASON_TABLE(CMI_ADMISSION_ENUM)
#undef CMI_ADMISSION_ENUM
        CMI_ADMISSION_N_REASONS,
} cmi_admission_reason;

typedef struct cmi_admission_verdict {
    cmi_admission_reason reason;
    uint32_t retry_after_ms; /* 0 with CMI_ADMISSION_OK */
} cmi_admission_verdict;

/* The queue and its bounds. */
typedef struct cmi_admission_queue {
    uint32_t n_requests, max_requests;
    uint64_t n_tokens, max_tokens; /* of prompts; max_tokens 0: no bound */
} cmi_admission_queue;

enum { CMI_ADMISSION_RETRY_MS = 1000 }; /* where nothing better is known */

/* Whether a request with so many prompt tokens has room. With an empty queue it has, whatever its
 * length: nothing would become of refusing it. n_tokens may be a lower bound. */
cmi_admission_verdict cmi_admission_check_queue(const cmi_admission_queue *queue,
                                                uint64_t n_tokens);

#endif
