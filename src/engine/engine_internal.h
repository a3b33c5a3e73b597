/* engine/engine_internal.h - what engine.c (queue, life cycle) and engine_serve.c (one request)
 * share. */
#ifndef CMI_ENGINE_ENGINE_INTERNAL_H
#define CMI_ENGINE_ENGINE_INTERNAL_H

#include <pthread.h>

#include "engine/engine.h"
#include "engine/event_ring.h"
#include "engine/instance.h"
#include "engine/sampler.h"

typedef struct cmi_queued_request {
    cmi_request *request; /* owned */
    uint64_t submitted_ns;
    bool cancelled;
} cmi_queued_request;

struct cmi_engine {
    cmi_instance *instance;
    cmi_sequence sequence; /* of the running request */
    cmi_sampler sampler;
    cmi_event_ring ring;
    pthread_t thread;

    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t work;
    cmi_queued_request *queue; /* [max_queued], oldest first */
    uint32_t max_queued;
    uint32_t n_queued;
    uint32_t n_queue_cancelled; /* entries with cancelled set */
    bool is_running;
    bool running_cancelled;
    uint64_t running_id;
    bool stopping;
    cmi_engine_stats stats;
};

/* Runs one request to its FINISHED event. Engine thread. */
void cmi_engine_serve(cmi_engine *engine, const cmi_queued_request *queued);

/* Once a step: ends queued requests that were cancelled, and says whether the running one must end.
 */
bool cmi_engine_check_cancel(cmi_engine *engine);

/* Add a pass of n_rows rows, or a sampled token, to the counters. */
void cmi_engine_count_step(cmi_engine *engine, uint32_t n_rows, bool is_prefill);
void cmi_engine_count_token(cmi_engine *engine);

/* FINISHED for a request that never ran. */
void cmi_engine_finish_unserved(cmi_engine *engine, const cmi_queued_request *queued);

#endif
