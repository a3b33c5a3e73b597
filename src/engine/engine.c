/* engine/engine.c - the queue in front of an engine and its thread.
 *
 * Events are pushed without the engine lock, since a push may wait: it and the ring's lock are
 * never held together. */
#include "engine/engine_internal.h"

#include <string.h>

#include "base/alloc.h"
#include "os/clock.h"

void cmi_engine_finish_unserved(cmi_engine *engine, const cmi_queued_request *queued)
{
    cmi_event event = {.version = CMI_MESSAGE_VERSION,
                       .type = CMI_EVENT_FINISHED,
                       .request_id = queued->request->request_id,
                       .finish_reason = CMI_FINISH_ABORT,
                       .status = CMI_OK,
                       .submitted_ns = queued->submitted_ns,
                       .now_ns = cmi_clock_monotonic_ns()};
    (void)cmi_event_ring_push(&engine->ring, &event);
}

/* Takes queue entry i out; the later ones move up. Lock held. */
static cmi_queued_request take_queued(cmi_engine *engine, uint32_t i)
{
    cmi_queued_request taken = engine->queue[i];
    engine->n_queued--;
    engine->n_queue_cancelled -= taken.cancelled ? 1 : 0;
    memmove(engine->queue + i, engine->queue + i + 1,
            (engine->n_queued - i) * sizeof *engine->queue);
    return taken;
}

/* Ends every cancelled (or, with all set, every) queued request. */
static void sweep_queue(cmi_engine *engine, bool all)
{
    for (uint32_t i = 0;;) {
        pthread_mutex_lock(&engine->lock);
        while (i < engine->n_queued && !all && !engine->queue[i].cancelled) {
            i++;
        }
        if (i >= engine->n_queued) {
            pthread_mutex_unlock(&engine->lock);
            return;
        }
        cmi_queued_request taken = take_queued(engine, i);
        pthread_mutex_unlock(&engine->lock);
        cmi_engine_finish_unserved(engine, &taken);
        cmi_free(taken.request);
    }
}

bool cmi_engine_check_cancel(cmi_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    bool sweep = engine->n_queue_cancelled > 0;
    bool end = engine->running_cancelled || engine->stopping;
    pthread_mutex_unlock(&engine->lock);
    if (sweep) {
        sweep_queue(engine, false);
    }
    return end;
}

void cmi_engine_count_step(cmi_engine *engine, uint32_t n_rows, bool is_prefill)
{
    pthread_mutex_lock(&engine->lock);
    engine->stats.n_prompt_tokens += is_prefill ? n_rows : 0;
    engine->stats.n_steps++;
    engine->stats.n_step_tokens += n_rows;
    engine->stats.n_kv_pages_used =
        engine->instance->kv_pool.n_pages - engine->instance->kv_pool.n_free;
    pthread_mutex_unlock(&engine->lock);
}

void cmi_engine_count_token(cmi_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->stats.n_generation_tokens++;
    pthread_mutex_unlock(&engine->lock);
}

/* Waits for a request and makes it the running one. False: the engine is stopping. */
static bool next_request(cmi_engine *engine, cmi_queued_request *next_out)
{
    for (;;) {
        pthread_mutex_lock(&engine->lock);
        while (engine->n_queued == 0 && !engine->stopping) {
            pthread_cond_wait(&engine->work, &engine->lock);
        }
        if (engine->stopping) {
            pthread_mutex_unlock(&engine->lock);
            return false;
        }
        *next_out = take_queued(engine, 0);
        if (!next_out->cancelled) {
            engine->is_running = true;
            engine->running_cancelled = false;
            engine->running_id = next_out->request->request_id;
            pthread_mutex_unlock(&engine->lock);
            return true;
        }
        pthread_mutex_unlock(&engine->lock);
        cmi_engine_finish_unserved(engine, next_out);
        cmi_free(next_out->request);
    }
}

static void *engine_main(void *arg)
{
    cmi_engine *engine = arg;
    cmi_queued_request next;
    cmi_team_own(engine->instance->team);
    while (next_request(engine, &next)) {
        cmi_engine_serve(engine, &next);
        cmi_free(next.request);
    }
    sweep_queue(engine, true);
    return NULL;
}

cmi_status cmi_engine_start(cmi_engine **engine_out, cmi_instance *instance,
                            const cmi_engine_options *opt, cmi_error *err)
{
    cmi_engine *engine = cmi_alloc(1, sizeof *engine);
    engine->instance = instance;
    engine->max_queued =
        opt->max_queued_requests > 0 ? opt->max_queued_requests : CMI_DEFAULT_MAX_QUEUED_REQUESTS;
    cmi_status st = cmi_event_ring_init(
        &engine->ring, opt->n_events > 0 ? opt->n_events : CMI_DEFAULT_ENGINE_EVENTS, err);
    if (st != CMI_OK) {
        cmi_free(engine);
        return st;
    }
    engine->queue = cmi_alloc(engine->max_queued, sizeof *engine->queue);
    cmi_sequence_init(&engine->sequence, instance);
    cmi_sampler_init(&engine->sampler, instance->config.vocab_size, &instance->kernels);
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->work, NULL);
    int rc = pthread_create(&engine->thread, NULL, engine_main, engine);
    if (rc != 0) {
        st = cmi_error_set(err, CMI_ERR_IO, "cannot start the engine's thread: %s", strerror(rc));
        engine->thread = pthread_self();
        cmi_engine_stop(engine);
        return st;
    }
    *engine_out = engine;
    return CMI_OK;
}

void cmi_engine_stop(cmi_engine *engine)
{
    if (engine == NULL) {
        return;
    }
    pthread_mutex_lock(&engine->lock);
    engine->stopping = true;
    pthread_cond_signal(&engine->work);
    pthread_mutex_unlock(&engine->lock);
    cmi_event_ring_close(&engine->ring);
    if (!pthread_equal(engine->thread, pthread_self())) {
        pthread_join(engine->thread, NULL);
    }
    cmi_sampler_deinit(&engine->sampler);
    cmi_sequence_deinit(&engine->sequence, engine->instance);
    cmi_event_ring_deinit(&engine->ring);
    pthread_cond_destroy(&engine->work);
    pthread_mutex_destroy(&engine->lock);
    cmi_free(engine->queue);
    cmi_free(engine);
}

/* ---- calls from any thread
 * --------------------------------------------------------------------------- */

static cmi_status check_tokens(const cmi_engine *engine, const cmi_request *request, cmi_error *err)
{
    uint32_t vocab_size = engine->instance->config.vocab_size;
    const uint32_t *prompt = cmi_request_prompt(request);
    const cmi_logit_bias *bias = cmi_request_logit_bias(request);
    for (uint32_t i = 0; i < request->n_prompt_tokens; i++) {
        if (prompt[i] >= vocab_size) {
            return cmi_error_set(err, CMI_ERR_INVALID, "prompt token %u is %u, vocab_size is %u", i,
                                 prompt[i], vocab_size);
        }
    }
    for (uint32_t i = 0; i < request->n_logit_bias; i++) {
        if (bias[i].token_id >= vocab_size) {
            return cmi_error_set(err, CMI_ERR_INVALID,
                                 "logit_bias names token %u, vocab_size is %u", bias[i].token_id,
                                 vocab_size);
        }
    }
    return CMI_OK;
}

cmi_status cmi_engine_submit(cmi_engine *engine, const cmi_request *request, cmi_error *err)
{
    cmi_status st = cmi_request_check(request, request->n_bytes, err);
    if (st == CMI_OK) {
        st = check_tokens(engine, request, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    if (request->n_prompt_tokens >= engine->instance->max_model_len) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "the prompt has %u tokens, the context holds %u with the answer",
                             request->n_prompt_tokens, engine->instance->max_model_len);
    }
    cmi_queued_request queued = {.submitted_ns = cmi_clock_monotonic_ns()};
    queued.request = cmi_alloc(1, request->n_bytes);
    memcpy(queued.request, request, request->n_bytes);
    pthread_mutex_lock(&engine->lock);
    if (engine->stopping) {
        st = cmi_error_set(err, CMI_ERR_CLOSED, "the engine is stopping");
    } else if (engine->n_queued == engine->max_queued) {
        st = cmi_error_set(err, CMI_ERR_NO_CAPACITY, "%u requests are waiting, no more are taken",
                           engine->n_queued);
    } else {
        engine->queue[engine->n_queued++] = queued;
        pthread_cond_signal(&engine->work);
    }
    pthread_mutex_unlock(&engine->lock);
    if (st != CMI_OK) {
        cmi_free(queued.request);
    }
    return st;
}

void cmi_engine_cancel(cmi_engine *engine, uint64_t request_id)
{
    pthread_mutex_lock(&engine->lock);
    if (engine->is_running && engine->running_id == request_id) {
        engine->running_cancelled = true;
    }
    for (uint32_t i = 0; i < engine->n_queued; i++) {
        cmi_queued_request *queued = &engine->queue[i];
        if (queued->request->request_id == request_id && !queued->cancelled) {
            queued->cancelled = true;
            engine->n_queue_cancelled++;
        }
    }
    pthread_mutex_unlock(&engine->lock);
}

size_t cmi_engine_poll(cmi_engine *engine, cmi_event *events_out, size_t n_max)
{
    return cmi_event_ring_take(&engine->ring, events_out, n_max);
}

int cmi_engine_event_fd(const cmi_engine *engine)
{
    return engine->ring.fd;
}

void cmi_engine_info_get(const cmi_engine *engine, cmi_engine_info *info_out)
{
    const cmi_instance *instance = engine->instance;
    *info_out = (cmi_engine_info){.vocab_size = instance->config.vocab_size,
                                  .max_model_len = instance->max_model_len,
                                  .max_queued_requests = engine->max_queued,
                                  .n_kv_pages = instance->kv_pool.n_pages,
                                  .kv_page_tokens = CMI_KV_PAGE_TOKENS};
}

void cmi_engine_stats_get(cmi_engine *engine, cmi_engine_stats *stats_out)
{
    pthread_mutex_lock(&engine->lock);
    *stats_out = engine->stats;
    stats_out->n_running = engine->is_running ? 1 : 0;
    stats_out->n_waiting = engine->n_queued;
    pthread_mutex_unlock(&engine->lock);
}
