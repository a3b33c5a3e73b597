/* tests/server/scripted_engine.h - engine.h's functions with the test as the engine.
 *
 * A submitted request is open until the test finishes it. Nothing happens by itself, but for what
 * the options say. Waiting is by condition variable with a deadline of 10 s, then the test fails.
 */
#ifndef CMI_TESTS_SCRIPTED_ENGINE_H
#define CMI_TESTS_SCRIPTED_ENGINE_H

#include "engine/engine.h"

typedef struct scripted_engine_options {
    cmi_engine_info info;
    uint32_t n_auto_tokens; /* each request gets so many tokens and CMI_FINISH_LENGTH on submit */
    uint32_t auto_token_id;
    cmi_engine_stats counters;     /* what the stats tell, but for tokens, running, waiting */
    cmi_admission_verdict refusal; /* of everything, before it is read */
    bool ignores_cancel; /* the test finishes cancelled requests too; else they end at once */
} scripted_engine_options;

cmi_engine *scripted_engine_create(const scripted_engine_options *opt);
void scripted_engine_destroy(cmi_engine *engine);

/* Waits for the submit of the k-th request since the start (0 is the first); its id. */
uint64_t scripted_engine_request(cmi_engine *engine, uint32_t k);
uint32_t scripted_engine_n_submitted(cmi_engine *engine);

/* What cmi_engine_has_room was last asked about. */
uint64_t scripted_engine_n_tokens_min(cmi_engine *engine);

void scripted_engine_token(cmi_engine *engine, uint64_t request_id, uint32_t token_id);
void scripted_engine_finish(cmi_engine *engine, uint64_t request_id, cmi_finish_reason reason);

/* Waits until the request was cancelled, or until nothing is open. */
void scripted_engine_wait_cancelled(cmi_engine *engine, uint64_t request_id);
void scripted_engine_wait_idle(cmi_engine *engine);

#endif
