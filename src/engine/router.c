#include "engine/router.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "engine/output_grammar.h"
#include "engine/router_internal.h"
#include "os/clock.h"
#include "os/random.h"
#include "policy/routing.h"
#include "policy/step_budget.h"

static const uint64_t SECOND = 1000000000, US_NS = 1000;

static cmi_router *of(cmi_engine *engine)
{
    return (cmi_router *)(void *)engine;
}

static const cmi_router *of_const(const cmi_engine *engine)
{
    return (const cmi_router *)(const void *)engine;
}

/* ---- what ranks have to do ---- */

static cmi_rank_load load_of(const cmi_router_link *link, uint64_t now_ns)
{
    const cmi_link_load *told = &link->told;
    cmi_rank_load load = {.is_open = link->state == CMI_ROUTER_UP && now_ns >= link->full_until_ns,
                          .n_seats = link->hello.max_running,
                          .n_requests = told->stats.n_running + told->queue.n_requests,
                          .n_tokens = told->load.n_prefill_tokens + told->queue.n_tokens,
                          .n_pages = link->hello.n_kv_pages,
                          .n_pages_used = told->stats.n_kv_pages_used};
    uint64_t first =
        CMI_MAX(told->n_taken, link->n_given - CMI_MIN(link->n_given, (uint64_t)CMI_ROUTER_GIFTS));
    for (uint64_t i = first; i < link->n_given; i++) { /* on their way, or not told of yet */
        const cmi_router_gift *gift = &link->gifts[i % CMI_ROUTER_GIFTS];
        load.n_requests++;
        load.n_tokens += gift->n_tokens;
        load.n_pages_used += gift->n_pages;
    }
    return load;
}

void cmi_router_loads(const cmi_router *r, uint64_t now_ns, cmi_rank_load *loads)
{
    for (uint32_t i = 0; i < r->n_ranks; i++) {
        loads[i] = load_of(&r->links[i], now_ns);
    }
}

/* ---- the door ---- */

static cmi_admission_request admission_of(const cmi_request *request)
{
    return (cmi_admission_request){.n_prompt = request->n_prompt_tokens,
                                   .max_tokens = request->max_tokens,
                                   .ttft_ns = request->ttft_target_us * US_NS,
                                   .tpot_ns = request->tpot_target_us * US_NS,
                                   .age_ns = request->age_us * US_NS};
}

/* Those that wait at all ranks, and here. Locked. */
static cmi_admission_queue whole_queue(const cmi_router *r)
{
    cmi_admission_queue queue = r->bounds;
    queue.n_requests = r->n_inbox + r->unplaced.n;
    queue.n_tokens = 0;
    for (uint32_t i = 0; i < r->n_ranks; i++) {
        const cmi_router_link *link = &r->links[i];
        if (link->state == CMI_ROUTER_UP) {
            queue.n_requests +=
                link->told.queue.n_requests +
                (uint32_t)(link->n_given - CMI_MIN(link->n_given, link->told.n_taken));
            queue.n_tokens += link->told.queue.n_tokens;
        }
    }
    return queue;
}

/* By the load of the rank that would be chosen now. Locked. */
static cmi_admission_verdict judge(cmi_router *r, const cmi_admission_request *request)
{
    cmi_rank_load loads[CMI_ROUTER_MAX_RANKS];
    const cmi_admission_queue queue = whole_queue(r);
    cmi_admission_verdict verdict = cmi_admission_check_queue(&queue, request->n_prompt);
    if (verdict.reason == CMI_ADMISSION_OK && r->n_free_slots == 0) {
        verdict.reason = CMI_ADMISSION_QUEUED_REQUESTS;
        verdict.retry_after_ms = CMI_ADMISSION_RETRY_MS;
    }
    if (verdict.reason == CMI_ADMISSION_OK) {
        cmi_router_loads(r, cmi_fabric_now_ns(r->fabric), loads);
        const uint32_t rank = cmi_route_rank(loads, r->n_ranks, 0, r->turn);
        if (rank != CMI_ROUTE_NONE) {
            const cmi_router_link *link = &r->links[rank];
            cmi_admission_queue own = {.n_requests = link->told.queue.n_requests,
                                       .max_requests = UINT32_MAX,
                                       .n_tokens = link->told.queue.n_tokens};
            cmi_admission_request aimed = *request;
            aimed.tpot_ns = cmi_pace_aim_ns(request->tpot_ns);
            verdict = cmi_admission_decide(&link->told.load, &own, &aimed);
        }
    }
    r->n_refused[verdict.reason] += verdict.reason != CMI_ADMISSION_OK ? 1 : 0;
    return verdict;
}

static bool has_room(cmi_engine *engine, const cmi_admission_request *request,
                     cmi_admission_verdict *verdict_out)
{
    cmi_router *r = of(engine);
    pthread_mutex_lock(&r->lock);
    *verdict_out = judge(r, request);
    pthread_mutex_unlock(&r->lock);
    return verdict_out->reason == CMI_ADMISSION_OK;
}

static cmi_status check(cmi_router *r, const cmi_request *request, cmi_error *err)
{
    pthread_mutex_lock(&r->lock);
    const cmi_link_hello info = r->info;
    const bool has_info = r->has_info;
    pthread_mutex_unlock(&r->lock);
    cmi_status st = cmi_request_check(request, request->n_bytes, err);
    if (st == CMI_OK && !has_info) {
        st = cmi_error_set(err, CMI_ERR_CLOSED, "no rank has come up yet");
    }
    if (st == CMI_OK) {
        st = cmi_engine_check_tokens(info.vocab_size, request, err);
    }
    if (st == CMI_OK && request->n_prompt_tokens >= info.max_model_len) {
        st = cmi_error_set(err, CMI_ERR_INVALID,
                           "the prompt has %u tokens, the context holds %u with the answer",
                           request->n_prompt_tokens, info.max_model_len);
    }
    if (st == CMI_OK && request->n_grammar_bytes > 0) {
        cmi_output_grammar *grammar = NULL;
        st = r->grammars != NULL
                 ? cmi_output_grammar_open(&grammar, r->grammars, r->vocab, request, err)
                 : cmi_error_set(err, CMI_ERR_UNSUPPORTED, "no vocabulary for grammars is here");
        cmi_output_grammar_close(grammar, r->grammars);
    }
    return st;
}

static void fill_slot(const cmi_router *r, cmi_router_slot *slot, const cmi_request *request)
{
    const uint32_t n_left = r->info.max_model_len - request->n_prompt_tokens;
    const uint32_t attempt = slot->attempt + 1; /* events of a request before are nobody's */
    *slot = (cmi_router_slot){.attempt = attempt, .rank = CMI_ROUTER_NOBODY};
    slot->max_output = CMI_MIN(request->max_tokens, n_left);
    slot->output = cmi_alloc(slot->max_output, sizeof *slot->output);
    slot->n_pages = (request->n_prompt_tokens + slot->max_output + r->info.kv_page_tokens - 1) /
                    r->info.kv_page_tokens;
    slot->submitted_ns = cmi_clock_monotonic_ns();
    slot->unplaced_ns = slot->submitted_ns;
    slot->request = cmi_alloc(1, request->n_bytes);
    memcpy(slot->request, request, request->n_bytes);
}

static cmi_status offer(cmi_engine *engine, const cmi_request *request,
                        cmi_admission_verdict *verdict_out, cmi_error *err)
{
    cmi_router *r = of(engine);
    const cmi_admission_request asked = admission_of(request);
    cmi_admission_verdict verdict = {.reason = CMI_ADMISSION_OK};
    cmi_status st = check(r, request, err);
    if (st != CMI_OK) {
        return st;
    }
    pthread_mutex_lock(&r->lock);
    if (r->stopping) {
        st = cmi_error_set(err, CMI_ERR_CLOSED, "the engine is stopping");
    } else {
        verdict = judge(r, &asked);
        if (verdict.reason != CMI_ADMISSION_OK) {
            const cmi_admission_queue queue = whole_queue(r);
            st = cmi_engine_say_refused(&queue, &asked, &verdict, err);
        }
    }
    if (st == CMI_OK) {
        const uint32_t idx = r->free_slots[--r->n_free_slots];
        fill_slot(r, &r->slots[idx], request);
        r->inbox[r->n_inbox++] = idx;
        cmi_fabric_wake(r->fabric);
    }
    pthread_mutex_unlock(&r->lock);
    if (verdict_out != NULL) {
        *verdict_out = verdict;
    }
    return st;
}

/* ---- other calls ---- */

static void cancel(cmi_engine *engine, uint64_t request_id)
{
    cmi_router *r = of(engine);
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->n_slots; i++) {
        cmi_router_slot *slot = &r->slots[i];
        if (slot->request != NULL && slot->request->request_id == request_id &&
            !slot->is_cancelled) {
            slot->is_cancelled = true;
            r->n_cancelled++;
            cmi_fabric_wake(r->fabric);
        }
    }
    pthread_mutex_unlock(&r->lock);
}

static void flush_prefix_cache(cmi_engine *engine)
{
    cmi_router *r = of(engine);
    pthread_mutex_lock(&r->lock);
    r->flush_asked = true;
    cmi_fabric_wake(r->fabric);
    pthread_mutex_unlock(&r->lock);
}

static size_t poll_events(cmi_engine *engine, cmi_event *events_out, size_t n_max)
{
    return cmi_event_ring_take(&of(engine)->ring, events_out, n_max);
}

static int event_fd(const cmi_engine *engine)
{
    return of_const(engine)->ring.fd;
}

static void info_get(const cmi_engine *engine, cmi_engine_info *info_out)
{
    const cmi_router *r = of_const(engine);
    *info_out = (cmi_engine_info){.vocab_size = r->info.vocab_size,
                                  .max_model_len = r->info.max_model_len,
                                  .max_queued_requests = r->bounds.max_requests,
                                  .max_queued_tokens = r->bounds.max_tokens,
                                  .n_kv_pages = r->info.n_kv_pages * r->n_ranks,
                                  .kv_page_tokens = r->info.kv_page_tokens,
                                  .max_drafts = r->info.max_drafts};
    cmi_engine_prefix_names(info_out);
}

static void stats_get(cmi_engine *engine, cmi_engine_stats *stats_out)
{
    cmi_router *r = of(engine);
    *stats_out = (cmi_engine_stats){0};
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->n_ranks; i++) {
        const cmi_router_link *link = &r->links[i];
        cmi_engine_stats_add(stats_out, &link->counted);
        if (link->state == CMI_ROUTER_UP) {
            cmi_engine_stats_add(stats_out, &link->told.stats);
            stats_out->n_running += link->told.stats.n_running;
            stats_out->n_kv_pages_used += link->told.stats.n_kv_pages_used;
        }
    }
    stats_out->n_ranks = r->n_ranks;
    stats_out->n_ranks_up = r->stats.n_open;
    stats_out->n_ranks_lost = r->stats.n_lost;
    stats_out->n_moved = r->stats.n_moved;
    const cmi_admission_queue queue = whole_queue(r);
    stats_out->n_waiting = queue.n_requests;
    stats_out->n_waiting_tokens = queue.n_tokens;
    memcpy(stats_out->n_refused, r->n_refused, sizeof stats_out->n_refused);
    pthread_mutex_unlock(&r->lock);
}

static uint32_t ranks_get(cmi_engine *engine, cmi_engine_rank *ranks_out, uint32_t n_max)
{
    cmi_router *r = of(engine);
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < CMI_MIN(r->n_ranks, n_max); i++) {
        const cmi_router_link *link = &r->links[i];
        ranks_out[i] = link->told.stats.rank; /* zeroed when it was lost */
        ranks_out[i].is_up = link->state == CMI_ROUTER_UP;
    }
    pthread_mutex_unlock(&r->lock);
    return r->n_ranks;
}

uint32_t cmi_router_wait(cmi_engine *engine, uint32_t n, uint64_t wait_ns)
{
    cmi_router *r = of(engine);
    const uint64_t at_ns = cmi_clock_monotonic_ns() + wait_ns;
    const struct timespec at = {.tv_sec = (time_t)(at_ns / SECOND),
                                .tv_nsec = (long)(at_ns % SECOND)};
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    while (r->stats.n_open < n && rc == 0) {
        rc = pthread_cond_timedwait(&r->changed, &r->lock, &at);
    }
    const uint32_t n_open = r->stats.n_open;
    pthread_mutex_unlock(&r->lock);
    return n_open;
}

void cmi_router_stats_get(cmi_engine *engine, cmi_router_stats *stats_out)
{
    cmi_router *r = of(engine);
    pthread_mutex_lock(&r->lock);
    *stats_out = r->stats;
    stats_out->n_ranks = r->n_ranks;
    stats_out->n_unplaced = r->unplaced.n;
    pthread_mutex_unlock(&r->lock);
}

/* ---- life ---- */

static void stop(cmi_engine *engine)
{
    cmi_router *r = of(engine);
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    cmi_fabric_wake(r->fabric);
    pthread_mutex_unlock(&r->lock);
    cmi_event_ring_close(&r->ring);
    if (r->has_thread) {
        pthread_join(r->thread, NULL);
    }
    cmi_fabric_destroy(r->fabric);
    for (uint32_t i = 0; i < r->n_ranks; i++) {
        cmi_free(r->links[i].sending);
    }
    cmi_grammar_cache_destroy(r->grammars);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    cmi_event_ring_deinit(&r->ring);
    cmi_free(r->inbox);
    cmi_free(r->ended);
    cmi_free(r->free_slots);
    cmi_free(r->slots);
    cmi_free(r->links);
    cmi_free(r);
}

static const cmi_engine_calls calls = {
    .stop = stop,
    .has_room = has_room,
    .offer = offer,
    .cancel = cancel,
    .flush_prefix_cache = flush_prefix_cache,
    .poll = poll_events,
    .event_fd = event_fd,
    .info_get = info_get,
    .stats_get = stats_get,
    .ranks_get = ranks_get,
};

static void make_tables(cmi_router *r, const cmi_router_options *opt)
{
    r->n_ranks = opt->n_ranks;
    r->bounds.max_requests =
        opt->max_queued_requests > 0 ? opt->max_queued_requests : CMI_DEFAULT_MAX_QUEUED_REQUESTS;
    r->bounds.max_tokens = opt->max_queued_tokens;
    r->n_slots = r->bounds.max_requests + r->n_ranks * opt->max_running;
    r->patience_ns = opt->patience_ns > 0 ? opt->patience_ns : 30 * SECOND;
    r->vocab = opt->vocab;
    r->links = cmi_alloc(r->n_ranks, sizeof *r->links);
    r->slots = cmi_alloc(r->n_slots, sizeof *r->slots);
    r->inbox = cmi_alloc(r->n_slots, sizeof *r->inbox);
    r->ended = cmi_alloc(r->n_slots, sizeof *r->ended);
    r->free_slots = cmi_alloc(r->n_slots, sizeof *r->free_slots);
    for (uint32_t i = r->n_slots; i-- > 0;) {
        /* A rank may still speak of requests of a router that is gone: its numbers are others. */
        r->slots[i].attempt = (uint32_t)cmi_random_seed();
        r->free_slots[r->n_free_slots++] = i;
    }
    if (r->vocab != NULL) {
        r->grammars = cmi_grammar_cache_create(r->vocab, 0);
    }
    for (uint32_t i = 0; i < r->n_ranks; i++) {
        snprintf(r->links[i].address, sizeof r->links[i].address, "%s", opt->addresses[i]);
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&r->lock, NULL);
}

cmi_status cmi_router_start(cmi_engine **engine_out, const cmi_router_options *opt, cmi_error *err)
{
    if (opt->n_ranks < 1 || opt->n_ranks > CMI_ROUTER_MAX_RANKS || opt->max_running < 1) {
        cmi_fabric_destroy(opt->fabric);
        return cmi_error_set(err, CMI_ERR_INVALID, "a router for %u ranks of %u sequences",
                             opt->n_ranks, opt->max_running);
    }
    cmi_router *r = cmi_alloc(1, sizeof *r);
    r->base.calls = &calls;
    r->fabric = opt->fabric;
    make_tables(r, opt);
    cmi_status st = cmi_event_ring_init(
        &r->ring, opt->n_events > 0 ? opt->n_events : CMI_DEFAULT_ENGINE_EVENTS, err);
    if (st == CMI_OK) {
        const int rc = pthread_create(&r->thread, NULL, cmi_router_main, r);
        r->has_thread = rc == 0;
        st = rc == 0 ? CMI_OK
                     : cmi_error_set(err, CMI_ERR_IO, "cannot start the router's thread: %s",
                                     strerror(rc));
    }
    if (st != CMI_OK) {
        stop((cmi_engine *)(void *)r);
        return st;
    }
    *engine_out = (cmi_engine *)(void *)r;
    return CMI_OK;
}
