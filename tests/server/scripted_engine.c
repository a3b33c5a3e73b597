#include "tests/test.h"

#include "tests/server/scripted_engine.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "os/clock.h"

enum { MAX_REQUESTS = 4096, DEADLINE_S = 10 };

typedef struct scripted_request {
    uint64_t id;
    uint64_t submitted_ns, first_token_ns;
    uint32_t n_prompt, n_output;
    bool open, cancelled;
} scripted_request;

struct cmi_engine {
    scripted_engine_options opt;
    pthread_mutex_t lock; /* over everything below */
    pthread_cond_t changed;
    scripted_request *requests;
    uint32_t n_requests, n_open;
    cmi_event *events; /* grows; the taken ones are not kept */
    size_t n_events, cap_events;
    int fd;
    uint64_t n_tokens_min; /* that the last request was said to have */
    cmi_engine_stats stats;
};

cmi_engine *scripted_engine_create(const scripted_engine_options *opt)
{
    cmi_engine *engine = cmi_alloc(1, sizeof *engine);
    engine->opt = *opt;
    engine->requests = cmi_alloc(MAX_REQUESTS, sizeof *engine->requests);
    engine->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&engine->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->changed, &attr);
    pthread_condattr_destroy(&attr);
    return engine;
}

void scripted_engine_destroy(cmi_engine *engine)
{
    close(engine->fd);
    pthread_cond_destroy(&engine->changed);
    pthread_mutex_destroy(&engine->lock);
    cmi_free(engine->requests);
    cmi_free(engine->events);
    cmi_free(engine);
}

/* Locked. */
static scripted_request *find(cmi_engine *engine, uint64_t id)
{
    for (uint32_t i = engine->n_requests; i-- > 0;) {
        if (engine->requests[i].id == id) {
            return &engine->requests[i];
        }
    }
    return NULL;
}

/* Locked. */
static void push(cmi_engine *engine, const scripted_request *r, cmi_event event)
{
    event.version = CMI_MESSAGE_VERSION;
    event.request_id = r->id;
    event.submitted_ns = r->submitted_ns;
    event.started_ns = r->n_output > 0 ? r->submitted_ns + 1 : 0;
    event.first_token_ns = r->first_token_ns;
    event.now_ns = cmi_clock_monotonic_ns();
    event.n_prompt_tokens = r->n_prompt;
    event.n_output_tokens = r->n_output;
    if (engine->n_events == engine->cap_events) {
        engine->cap_events = 2 * engine->cap_events + 64;
        engine->events = cmi_realloc(engine->events, engine->cap_events, sizeof *engine->events);
    }
    engine->events[engine->n_events++] = event;
    uint64_t one = 1;
    assert(write(engine->fd, &one, sizeof one) == sizeof one);
}

/* Locked. */
static void push_token(cmi_engine *engine, scripted_request *r, uint32_t token_id)
{
    if (!r->open) {
        return; /* cancelled in the meantime */
    }
    r->n_output++;
    engine->stats.n_generation_tokens++;
    engine->stats.n_prompt_tokens += r->n_output == 1 ? r->n_prompt : 0;
    if (r->first_token_ns == 0) {
        r->first_token_ns = cmi_clock_monotonic_ns();
    }
    push(engine, r,
         (cmi_event){.type = CMI_EVENT_TOKEN,
                     .index = r->n_output - 1,
                     .token_id = token_id,
                     .logprob = NAN});
}

/* Locked. */
static void push_finished(cmi_engine *engine, scripted_request *r, cmi_finish_reason reason)
{
    if (!r->open) {
        return;
    }
    r->open = false;
    engine->n_open--;
    push(engine, r,
         (cmi_event){.type = CMI_EVENT_FINISHED,
                     .finish_reason = reason,
                     .status = reason == CMI_FINISH_ERROR ? CMI_ERR_NO_MEMORY : CMI_OK});
    pthread_cond_broadcast(&engine->changed);
}

/* Locked. False: the deadline passed. */
static bool wait_changed(cmi_engine *engine, const struct timespec *deadline)
{
    return pthread_cond_timedwait(&engine->changed, &engine->lock, deadline) == 0;
}

static struct timespec deadline_get(void)
{
    uint64_t now_ns = cmi_clock_monotonic_ns();
    return (struct timespec){.tv_sec = (time_t)(now_ns / 1000000000) + DEADLINE_S,
                             .tv_nsec = (long)(now_ns % 1000000000)};
}

uint64_t scripted_engine_request(cmi_engine *engine, uint32_t k)
{
    struct timespec deadline = deadline_get();
    bool in_time = true;
    pthread_mutex_lock(&engine->lock);
    while (engine->n_requests <= k && in_time) {
        in_time = wait_changed(engine, &deadline);
    }
    uint64_t id = engine->requests[k].id;
    pthread_mutex_unlock(&engine->lock);
    assert_true(in_time);
    return id;
}

uint32_t scripted_engine_n_submitted(cmi_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    uint32_t n = engine->n_requests;
    pthread_mutex_unlock(&engine->lock);
    return n;
}

uint64_t scripted_engine_n_tokens_min(cmi_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    uint64_t n = engine->n_tokens_min;
    pthread_mutex_unlock(&engine->lock);
    return n;
}

void scripted_engine_token(cmi_engine *engine, uint64_t request_id, uint32_t token_id)
{
    pthread_mutex_lock(&engine->lock);
    push_token(engine, find(engine, request_id), token_id);
    pthread_mutex_unlock(&engine->lock);
}

void scripted_engine_finish(cmi_engine *engine, uint64_t request_id, cmi_finish_reason reason)
{
    pthread_mutex_lock(&engine->lock);
    push_finished(engine, find(engine, request_id), reason);
    pthread_mutex_unlock(&engine->lock);
}

void scripted_engine_wait_cancelled(cmi_engine *engine, uint64_t request_id)
{
    struct timespec deadline = deadline_get();
    bool in_time = true;
    pthread_mutex_lock(&engine->lock);
    while (!find(engine, request_id)->cancelled && in_time) {
        in_time = wait_changed(engine, &deadline);
    }
    pthread_mutex_unlock(&engine->lock);
    assert_true(in_time);
}

void scripted_engine_wait_idle(cmi_engine *engine)
{
    struct timespec deadline = deadline_get();
    bool in_time = true;
    pthread_mutex_lock(&engine->lock);
    while (engine->n_open > 0 && in_time) {
        in_time = wait_changed(engine, &deadline);
    }
    pthread_mutex_unlock(&engine->lock);
    assert_true(in_time);
}

bool cmi_engine_has_room(cmi_engine *engine, const cmi_admission_request *request,
                         cmi_admission_verdict *verdict_out)
{
    pthread_mutex_lock(&engine->lock);
    engine->n_tokens_min = request->n_prompt;
    *verdict_out = engine->opt.refusal;
    pthread_mutex_unlock(&engine->lock);
    return verdict_out->reason == CMI_ADMISSION_OK;
}

cmi_status cmi_engine_offer(cmi_engine *engine, const cmi_request *request,
                            cmi_admission_verdict *verdict_out, cmi_error *err)
{
    pthread_mutex_lock(&engine->lock);
    *verdict_out = (cmi_admission_verdict){.reason = CMI_ADMISSION_OK};
    if (engine->n_open >= engine->opt.info.max_queued_requests) {
        *verdict_out = (cmi_admission_verdict){CMI_ADMISSION_QUEUED_REQUESTS, 2001, 0};
        pthread_mutex_unlock(&engine->lock);
        return cmi_error_set(err, CMI_ERR_NO_CAPACITY, "the queue is full");
    }
    assert(engine->n_requests < MAX_REQUESTS);
    scripted_request *r = &engine->requests[engine->n_requests++];
    *r = (scripted_request){.id = request->request_id,
                            .submitted_ns = cmi_clock_monotonic_ns(),
                            .n_prompt = request->n_prompt_tokens,
                            .open = true};
    engine->n_open++;
    for (uint32_t i = 0; i < engine->opt.n_auto_tokens; i++) {
        push_token(engine, r, engine->opt.auto_token_id);
    }
    if (engine->opt.n_auto_tokens > 0) {
        push_finished(engine, r, CMI_FINISH_LENGTH);
    }
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    return CMI_OK;
}

void cmi_engine_cancel(cmi_engine *engine, uint64_t request_id)
{
    pthread_mutex_lock(&engine->lock);
    scripted_request *r = find(engine, request_id);
    if (r != NULL && r->open) {
        r->cancelled = true;
        if (!engine->opt.ignores_cancel) {
            push_finished(engine, r, CMI_FINISH_ABORT);
        }
        pthread_cond_broadcast(&engine->changed);
    }
    pthread_mutex_unlock(&engine->lock);
}

void cmi_engine_flush_prefix_cache(cmi_engine *engine)
{
    (void)engine;
}

size_t cmi_engine_poll(cmi_engine *engine, cmi_event *events_out, size_t n_max)
{
    pthread_mutex_lock(&engine->lock);
    size_t n = CMI_MIN(n_max, engine->n_events);
    if (n > 0) {
        memcpy(events_out, engine->events, n * sizeof *events_out);
        engine->n_events -= n;
        memmove(engine->events, engine->events + n, engine->n_events * sizeof *engine->events);
    }
    pthread_mutex_unlock(&engine->lock);
    return n;
}

int cmi_engine_event_fd(const cmi_engine *engine)
{
    return engine->fd;
}

void cmi_engine_info_get(const cmi_engine *engine, cmi_engine_info *info_out)
{
    *info_out = engine->opt.info;
}

void cmi_engine_stats_get(cmi_engine *engine, cmi_engine_stats *stats_out)
{
    pthread_mutex_lock(&engine->lock);
    *stats_out = engine->opt.counters;
    stats_out->n_prompt_tokens = engine->stats.n_prompt_tokens;
    stats_out->n_generation_tokens = engine->stats.n_generation_tokens;
    stats_out->n_running = engine->n_open > 0 ? 1 : 0;
    stats_out->n_waiting = engine->n_open > 0 ? engine->n_open - 1 : 0;
    stats_out->n_kv_pages_used = engine->n_open;
    pthread_mutex_unlock(&engine->lock);
}

uint32_t cmi_engine_ranks_get(cmi_engine *engine, cmi_engine_rank *ranks_out, uint32_t n_max)
{
    (void)engine;
    (void)ranks_out;
    (void)n_max;
    return 0;
}
