/* engine/engine_loop.c - the engine's thread: takes what happened, asks policy/scheduler.h for a
 * plan, performs it on the instance, and tells the outcome.
 *
 * The lock is taken between steps only, for what other threads left (new requests, cancellations)
 * and for the statistics. Nothing is allocated here. */
#include <assert.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "engine/engine_internal.h"
#include "os/clock.h"

#define US_NS UINT64_C(1000)

/* ---- seats -------------------------------------------------------------------------------------
 */

static void take_seat(cmi_engine *engine, uint32_t idx)
{
    cmi_engine_slot *slot = &engine->slots[idx];
    const cmi_scheduler_slot *seq = cmi_scheduler_slot_get(engine->scheduler, idx);
    assert(slot->seat == NULL && engine->n_free_seats > 0);
    slot->seat = engine->free_seats[--engine->n_free_seats];
    slot->seat->slot = idx;
    if (slot->started_ns == 0) {
        slot->started_ns = cmi_clock_monotonic_ns();
        slot->n_cached = seq->n_cached;
        slot->is_drafting = cmi_engine_starts_drafting(engine, slot->request);
    }
    if (engine->max_drafts > 0 && seq->n_blocks > 0) {
        const size_t width = engine->instance->config.hidden_size;
        memcpy(slot->seat->hidden, engine->block_hidden + seq->tip.idx * width,
               width * sizeof *slot->seat->hidden);
    }
}

void cmi_engine_leave_seat(cmi_engine *engine, uint32_t slot)
{
    cmi_seat *seat = engine->slots[slot].seat;
    if (seat != NULL) {
        engine->free_seats[engine->n_free_seats++] = seat;
        engine->slots[slot].seat = NULL;
        engine->slots[slot].n_drafts = 0;
    }
}

static void write_page_ids(cmi_seat *seat, const cmi_scheduler_span *span)
{
    for (uint32_t i = 0; i < span->n_pages; i++) {
        seat->page_ids[i] = span->pages[i].idx;
    }
}

/* ---- the end of requests -----------------------------------------------------------------------
 */

static cmi_event finished_event(const cmi_engine *engine, uint32_t slot_idx)
{
    const cmi_engine_slot *slot = &engine->slots[slot_idx];
    cmi_event event = cmi_engine_event(engine, slot_idx, CMI_EVENT_FINISHED);
    event.finish_reason = slot->reason;
    event.stop_token_id = slot->stop_token_id;
    event.status = (int32_t)slot->status;
    event.n_prompt_tokens = slot->request->n_prompt_tokens;
    event.n_cached_tokens = slot->n_cached;
    event.n_output_tokens = slot->n_output;
    return event;
}

/* What admission goes by until the next time. Locked. */
static void publish_load(cmi_engine *engine)
{
    cmi_scheduler_load(engine->scheduler, &engine->load);
    if (engine->n_coming + engine->n_inbox == 0) {
        engine->door_limit_ns = CMI_ADMISSION_NO_LIMIT;
    }
    engine->load.limit_ns = CMI_MIN(engine->load.limit_ns, engine->door_limit_ns);
}

/* The counters as other threads see them. Locked. */
static void publish_stats(cmi_engine *engine)
{
    const cmi_prefix_account *prefix = cmi_scheduler_prefix_account(engine->scheduler);
    engine->queue.n_requests =
        engine->n_coming + engine->n_inbox + cmi_scheduler_n_waiting(engine->scheduler);
    engine->queue.n_tokens = engine->n_coming_tokens + engine->n_inbox_tokens +
                             cmi_scheduler_n_waiting_tokens(engine->scheduler);
    engine->counts.n_kv_pages_used =
        cmi_page_pool_size(engine->pool) - cmi_prefix_cache_room(engine->cache);
    if (engine->receiver == NULL) { /* prompts are looked up where they run */
        cmi_engine_prefix_publish(&engine->counts, prefix);
    }
    engine->counts.n_running = cmi_scheduler_n_running(engine->scheduler);
    cmi_engine_rank_count(engine);
    engine->stats = engine->counts;
    publish_load(engine);
}

static void publish(cmi_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    publish_stats(engine);
    pthread_mutex_unlock(&engine->lock);
}

void cmi_engine_free_slot(cmi_engine *engine, uint32_t slot)
{
    pthread_mutex_lock(&engine->lock);
    engine->free_slots[engine->n_free_slots++] = slot;
    publish_stats(engine);
    pthread_mutex_unlock(&engine->lock);
}

/* Whether a request got what it wanted, as far as it came. */
static void count_targets(cmi_engine *engine, const cmi_engine_slot *slot)
{
    const cmi_request *r = slot->request;
    cmi_engine_stats *c = &engine->counts;
    if (r->ttft_target_us > 0 && slot->first_token_ns > 0 && slot->n_given == 0) {
        uint64_t ttft_ns = slot->first_token_ns - slot->submitted_ns + r->age_us * US_NS;
        c->n_ttft_targets++;
        c->n_ttft_missed += ttft_ns > r->ttft_target_us * US_NS ? 1 : 0;
    }
    const uint32_t n_output = slot->n_output - slot->n_given;
    if (r->tpot_target_us > 0 && n_output > 1) {
        uint64_t taken_ns = slot->last_token_ns - slot->first_token_ns;
        c->n_tpot_targets++;
        c->n_tpot_missed += taken_ns > (n_output - 1) * (r->tpot_target_us * US_NS) ? 1 : 0;
    }
}

/* A request is over for cancel and statistics before its FINISHED event can be seen. */
static void end_requests(cmi_engine *engine, uint32_t n_ended)
{
    for (uint32_t i = 0; i < n_ended; i++) {
        uint32_t idx = engine->ended[i];
        cmi_engine_slot *slot = &engine->slots[idx];
        count_targets(engine, slot);
        const bool is_free = cmi_engine_end_in_scheduler(engine, idx);
        cmi_event event = finished_event(engine, idx);
        const cmi_engine_slot over = *slot;
        pthread_mutex_lock(&engine->lock);
        engine->n_cancelled -= slot->is_cancelled ? 1 : 0;
        *slot = (cmi_engine_slot){.seat = over.seat};
        publish_stats(engine);
        pthread_mutex_unlock(&engine->lock);
        if (is_free) {
            cmi_engine_leave_seat(engine, idx);
            cmi_engine_free_slot(engine, idx);
        }
        cmi_free(over.request);
        cmi_free(over.output);
        cmi_free(over.keys);
        cmi_output_grammar_close(over.grammar, engine->grammars);
        (void)cmi_event_ring_push(&engine->ring, &event);
    }
    if (n_ended > 0 && engine->sender != NULL) {
        cmi_kv_sender_wake(engine->sender);
    }
}

/* ---- between steps -----------------------------------------------------------------------------
 */

static cmi_expiry expiry_of(const cmi_engine_slot *slot)
{
    const cmi_request *r = slot->request;
    const bool has_started = slot->started_ns > 0 || slot->n_given > 0;
    return cmi_admission_expiry(slot->submitted_ns - r->age_us * US_NS,
                                r->timeout_ms * (1000 * US_NS), r->ttft_target_us * US_NS,
                                has_started);
}

/* Returns whether the request ends with the output that came with it; for the scheduler, which it
 * leaves at once, it has none then. */
static bool arrive(cmi_engine *engine, uint32_t idx)
{
    const cmi_engine_slot *slot = &engine->slots[idx];
    const bool goes_on = slot->reason == CMI_FINISH_NONE;
    bool with_logits = (slot->request->flags & CMI_REQUEST_PROMPT_LOGPROBS) != 0;
    cmi_scheduler_request request = {.n_prompt = slot->request->n_prompt_tokens,
                                     .n_total = slot->request->n_prompt_tokens + slot->max_output,
                                     .n_generated = goes_on ? slot->n_output : 0,
                                     .priority = slot->request->priority,
                                     .tenant = slot->request->tenant,
                                     .tpot_ns = slot->request->tpot_target_us * US_NS,
                                     .keys = slot->keys,
                                     .n_keys = slot->n_keys,
                                     .space_tag = slot->space_tag,
                                     .skips_cache = with_logits || engine->n_blocks == 0,
                                     .skip_reason = with_logits ? CMI_PREFIX_LOSS_PROMPT_LOGITS
                                                                : CMI_PREFIX_LOSS_DISABLED};
    cmi_scheduler_arrive(engine->scheduler, idx, &request);
    cmi_policy_recorder_arrive(engine->recorder, idx, &request);
    engine->next_expiry_ns = CMI_MIN(engine->next_expiry_ns, expiry_of(slot).at_ns);
    return !goes_on && slot->reason != CMI_FINISH_ABORT; /* those that are cancelled end anyway */
}

/* What the receiver has left. Locked. */
static void take_seat_news(cmi_engine *engine, uint32_t *n_ends_out, uint32_t *n_events_out)
{
    *n_ends_out = engine->n_seat_ends;
    *n_events_out = engine->n_seat_events;
    if (engine->n_seat_ends + engine->n_seat_events > 0) {
        memcpy(engine->seat_ends_taken, engine->seat_ends,
               engine->n_seat_ends * sizeof *engine->seat_ends);
        memcpy(engine->seat_events_taken, engine->seat_events,
               engine->n_seat_events * sizeof *engine->seat_events);
        engine->n_seat_ends = engine->n_seat_events = 0;
        pthread_cond_signal(&engine->seat_event_room);
    }
}

/* Ends those whose time is up, behind the n_ended that end anyway, and finds out when to look next.
 * Returns how many there are now. */
static uint32_t expire(cmi_engine *engine, uint64_t now_ns, uint32_t n_ended)
{
    if (now_ns < engine->next_expiry_ns) {
        return n_ended;
    }
    engine->next_expiry_ns = UINT64_MAX;
    for (uint32_t i = 0; i < engine->n_slots; i++) {
        cmi_engine_slot *slot = &engine->slots[i];
        const cmi_scheduler_slot *seq = cmi_scheduler_slot_get(engine->scheduler, i);
        if (seq->state == CMI_REQUEST_FREE || seq->state == CMI_REQUEST_DRAIN ||
            slot->reason != CMI_FINISH_NONE) {
            continue; /* not there, still in the inbox, over, or ending already */
        }
        const cmi_expiry expiry = expiry_of(slot);
        if (now_ns < expiry.at_ns) {
            engine->next_expiry_ns = CMI_MIN(engine->next_expiry_ns, expiry.at_ns);
            continue;
        }
        slot->reason = CMI_FINISH_ERROR;
        slot->status = expiry.is_timeout ? CMI_ERR_TIMEOUT : CMI_ERR_NO_CAPACITY;
        engine->counts.n_timed_out += expiry.is_timeout ? 1 : 0;
        engine->counts.n_given_up += expiry.is_timeout ? 0 : 1;
        engine->ended[n_ended++] = i;
    }
    return n_ended;
}

/* Until somebody signals, or the time of a request is up. Locked. */
static void wait_for_work(cmi_engine *engine)
{
    const uint64_t second_ns = 1000000000, at_ns = engine->next_expiry_ns;
    if (engine->instance->rank != NULL && !engine->is_lost) {
        pthread_mutex_unlock(&engine->lock);
        cmi_engine_rank_wait(engine, at_ns);
        cmi_engine_rank_count(engine);
        pthread_mutex_lock(&engine->lock);
        engine->stats.rank = engine->counts.rank;
        return;
    }
    if (at_ns == UINT64_MAX || engine->is_lost) {
        pthread_cond_wait(&engine->work, &engine->lock);
        return;
    }
    const struct timespec at = {.tv_sec = (time_t)(at_ns / second_ns),
                                .tv_nsec = (long)(at_ns % second_ns)};
    (void)pthread_cond_timedwait(&engine->work, &engine->lock, &at);
}

/* Waits until there is something to do, and takes it over: new requests, and which are to end.
 * Returns those in engine->ended; *run_out is false when the engine stops, which ends all. */
static uint32_t take_work(cmi_engine *engine, bool *run_out)
{
    uint32_t n_ended = 0, n_arrived, n_seat_ends, n_seat_events;
    pthread_mutex_lock(&engine->lock);
    publish_stats(engine);
    while (!engine->stopping &&
           (engine->is_lost ||
            (engine->n_inbox == 0 && engine->n_cancelled == 0 && engine->n_seat_ends == 0 &&
             engine->n_seat_events == 0 && engine->is_idle && !engine->flush_asked &&
             cmi_clock_monotonic_ns() < engine->next_expiry_ns))) {
        wait_for_work(engine);
    }
    *run_out = !engine->stopping;
    bool flush = engine->flush_asked;
    engine->flush_asked = false;
    n_arrived = engine->n_inbox;
    memcpy(engine->arrived, engine->inbox, n_arrived * sizeof *engine->inbox);
    engine->n_inbox = 0;
    engine->n_inbox_tokens = 0;
    for (uint32_t i = 0; i < engine->n_slots && (engine->n_cancelled > 0 || !*run_out); i++) {
        cmi_engine_slot *slot = &engine->slots[i];
        if (slot->request != NULL && (slot->is_cancelled || !*run_out)) {
            slot->reason = CMI_FINISH_ABORT;
            engine->ended[n_ended++] = i;
        }
    }
    take_seat_news(engine, &n_seat_ends, &n_seat_events);
    pthread_mutex_unlock(&engine->lock);
    if (flush) { /* before those that arrived look; no system call, no allocation */
        const uint64_t now_ns = cmi_clock_monotonic_ns();
        (void)cmi_prefix_cache_evict(engine->cache, now_ns, UINT32_MAX);
        cmi_policy_recorder_flushed(engine->recorder, now_ns);
    }
    for (uint32_t i = 0; i < n_arrived; i++) {
        if (arrive(engine, engine->arrived[i])) {
            engine->ended[n_ended++] = engine->arrived[i];
        }
    }
    if (n_arrived > 0) {
        publish(engine);
    }
    n_ended = cmi_engine_take_handovers(engine, n_seat_ends, n_seat_events, n_ended);
    return expire(engine, cmi_clock_monotonic_ns(), n_ended);
}

/* ---- a step ------------------------------------------------------------------------------------
 */

/* The tokens of a span's positions: of the prompt, or generated before, then drafts. */
static void write_tokens(const cmi_engine_slot *slot, const cmi_scheduler_span *span, uint32_t *to)
{
    const uint32_t n_prompt = slot->request->n_prompt_tokens;
    const uint32_t n_known = span->n_rows - span->n_drafts;
    const uint32_t *from = span->is_prefill ? cmi_request_prompt(slot->request) + span->position
                                            : slot->output + (span->position - n_prompt);
    memcpy(to, from, n_known * sizeof *to);
    memcpy(to + n_known, slot->drafts, span->n_drafts * sizeof *to);
}

/* False: nothing can be computed any more. */
static bool run_batch(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    uint32_t row_idx = 0;
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        const cmi_scheduler_span *span = &plan->spans[i];
        write_page_ids(engine->slots[span->slot].seat, span);
        write_tokens(&engine->slots[span->slot], span, engine->token_ids + row_idx);
        engine->spans[i] = (cmi_batch_span){.page_ids = engine->slots[span->slot].seat->page_ids,
                                            .row_idx = row_idx,
                                            .n_rows = span->n_rows,
                                            .position = span->position,
                                            .is_prefill = span->is_prefill};
        row_idx += span->n_rows;
    }
    cmi_batch batch = {.token_ids = engine->token_ids,
                       .spans = engine->spans,
                       .n_rows = plan->n_rows,
                       .n_spans = plan->n_spans};
    if (engine->sender != NULL) {
        cmi_engine_step_sends(engine, plan);
        batch.n_layers_done = cmi_kv_sender_layers_done(engine->sender);
    }
    return cmi_engine_run_main(engine, &batch);
}

/* Tokens from the spans that have some. Returns the requests that end with them. */
static uint32_t sample(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    uint32_t n_sampled = 0, n_ended = 0, row_idx = 0;
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        const cmi_scheduler_span *span = &plan->spans[i];
        const cmi_request *request = engine->slots[span->slot].request;
        if (span->is_prefill && (request->flags & CMI_REQUEST_PROMPT_LOGPROBS) != 0) {
            cmi_engine_push_prompt_logprobs(engine, span, row_idx);
        }
        row_idx += span->n_rows;
        if (span->samples) {
            cmi_sampled_span *sampled = &engine->sampled[n_sampled++];
            sampled->slot = span->slot;
            sampled->n_rows = 1 + span->n_drafts;
            sampled->row_idx = row_idx - sampled->n_rows;
        }
    }
    cmi_engine_sample_spans(engine, n_sampled);
    for (uint32_t i = 0; i < n_sampled && engine->sender == NULL; i++) {
        if (engine->slots[engine->sampled[i].slot].reason != CMI_FINISH_NONE) {
            engine->ended[n_ended++] = engine->sampled[i].slot;
        }
    }
    return n_ended;
}

/* What the scheduler wants to know of each span. */
static void tell_outcomes(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    uint32_t n_sampled = 0;
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        if (plan->spans[i].samples) {
            engine->outcomes[i] =
                (cmi_scheduler_outcome){.n_new = engine->sampled[n_sampled++].n_new,
                                        .n_drafts = engine->slots[plan->spans[i].slot].n_drafts};
        }
    }
    if (engine->max_drafts > 0) {
        cmi_scheduler_count_mtp(engine->scheduler, engine->n_mtp_passes, engine->n_mtp_rows,
                                engine->n_mtp_head_rows);
        cmi_policy_recorder_mtp(engine->recorder, engine->n_mtp_passes, engine->n_mtp_rows,
                                engine->n_mtp_head_rows);
    }
    uint32_t n_sealed;
    const uint64_t now_ns = cmi_clock_monotonic_ns();
    cmi_policy_recorder_done(engine->recorder, now_ns, plan, engine->outcomes);
    const cmi_scheduler_sealed *sealed =
        cmi_scheduler_step_done(engine->scheduler, now_ns, engine->outcomes, &n_sealed);
    cmi_policy_recorder_sealed(engine->recorder, sealed, n_sealed);
    if (engine->max_drafts > 0) {
        cmi_engine_keep_block_ends(engine, sealed, n_sealed);
    }
}

static void count(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    engine->counts.n_steps++;
    engine->counts.n_step_tokens += plan->n_rows;
    engine->counts.n_prompt_tokens += plan->n_rows - plan->n_decode_rows;
    engine->counts.n_preemptions += plan->n_preempted;
}

static void count_duration(cmi_engine *engine, const cmi_scheduler_plan *plan, uint64_t measured_ns)
{
    const uint64_t predicted_ns = (uint64_t)plan->predicted_ns;
    if (predicted_ns > 0) {
        engine->counts.n_predicted_steps++;
        engine->counts.predicted_ns += predicted_ns;
        engine->counts.measured_ns += measured_ns;
        engine->counts.misjudged_ns +=
            measured_ns > predicted_ns ? measured_ns - predicted_ns : predicted_ns - measured_ns;
    }
}

static void step(cmi_engine *engine)
{
    cmi_scheduler_plan plan;
    const uint64_t begin_ns = cmi_clock_monotonic_ns();
    engine->is_idle = !cmi_scheduler_plan_step(engine->scheduler, begin_ns, &plan);
    cmi_policy_recorder_plan(engine->recorder, begin_ns, &plan);
    for (uint32_t i = 0; i < plan.n_preempted; i++) {
        cmi_engine_leave_seat(engine, plan.preempted[i]);
    }
    for (uint32_t i = 0; i < plan.n_admitted; i++) {
        take_seat(engine, plan.admitted[i]);
        if (engine->receiver != NULL) {
            cmi_engine_ask(engine, plan.admitted[i]);
        }
    }
    if (plan.n_preempted + plan.n_admitted > 0) { /* who waits is known at once */
        publish(engine);
    }
    if (plan.n_spans == 0) {
        return;
    }
    (void)cmi_alloc_forbid(true);
    if (!run_batch(engine, &plan)) {
        (void)cmi_alloc_forbid(false);
        return;
    }
    count(engine, &plan);
    uint32_t n_ended = sample(engine, &plan);
    if (engine->max_drafts > 0) {
        cmi_engine_speculate(engine, &plan);
    }
    if (engine->sender != NULL) {
        cmi_engine_step_sent(engine, &plan);
    }
    tell_outcomes(engine, &plan);
    count_duration(engine, &plan, cmi_clock_monotonic_ns() - begin_ns);
    (void)cmi_alloc_forbid(false);
    end_requests(engine, n_ended);
}

void *cmi_engine_main(void *arg)
{
    cmi_engine *engine = arg;
    bool run = true;
    cmi_team_own(engine->instance->team);
    cmi_error err = {0};
    cmi_status st = cmi_engine_rank_begin(engine, &err);
    if (st == CMI_OK && engine->probe_ns > 0) {
        cmi_engine_probe(engine, engine->probe_ns);
    }
    pthread_mutex_lock(&engine->lock);
    publish_stats(engine);
    engine->is_up = true;
    engine->up_st = st;
    engine->up_err = err;
    pthread_cond_signal(&engine->up);
    pthread_mutex_unlock(&engine->lock);
    while (run && st == CMI_OK) {
        const uint32_t n_ended = take_work(engine, &run);
        if (engine->is_lost) {
            break; /* in the middle of a step */
        }
        end_requests(engine, n_ended);
        if (run) {
            step(engine);
        }
    }
    return NULL;
}
