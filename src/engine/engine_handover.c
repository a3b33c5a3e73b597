/* engine/engine_handover.c - the engine's part in hand-overs: as decode side between steps, as
 * prefill side around them. The protocol runs in kv_receiver.c and kv_sender.c. */
#include <assert.h>
#include <string.h>

#include "engine/engine_internal.h"
#include "os/clock.h"

/* ---- the decode side, from the receiver's thread -----------------------------------------------
 */

void cmi_engine_received(cmi_engine *engine, uint32_t seat, cmi_status st)
{
    pthread_mutex_lock(&engine->lock);
    assert(engine->n_seat_ends < engine->instance->max_num_seqs);
    engine->seat_ends[engine->n_seat_ends++] = (cmi_seat_end){.seat = seat, .status = st};
    cmi_engine_wake(engine);
    pthread_mutex_unlock(&engine->lock);
}

void cmi_engine_take_prompt_event(cmi_engine *engine, uint32_t seat, const cmi_event *event)
{
    pthread_mutex_lock(&engine->lock);
    while (engine->n_seat_events == CMI_MAX_SEAT_EVENTS && !engine->stopping) {
        pthread_cond_wait(&engine->seat_event_room, &engine->lock);
    }
    if (!engine->stopping) {
        engine->seat_events[engine->n_seat_events++] =
            (cmi_seat_event){.seat = seat, .event = *event};
        cmi_engine_wake(engine);
    }
    pthread_mutex_unlock(&engine->lock);
}

/* ---- the decode side, between steps ------------------------------------------------------------
 */

/* Pages of the prompt, and of the first token's row of the MTP layer. */
static uint32_t pages_to_hand_over(const cmi_engine *engine, uint32_t n_prompt)
{
    return cmi_kv_pages_for(n_prompt + (engine->max_drafts > 0 ? 1 : 0));
}

void cmi_engine_ask(cmi_engine *engine, uint32_t idx)
{
    cmi_engine_slot *slot = &engine->slots[idx];
    const cmi_scheduler_slot *seq = cmi_scheduler_slot_get(engine->scheduler, idx);
    uint32_t n_pages = pages_to_hand_over(engine, slot->request->n_prompt_tokens);
    assert(n_pages <= seq->n_pages);
    slot->seat->is_lent = true;
    cmi_kv_receiver_ask(engine->receiver, (uint32_t)(slot->seat - engine->seats), slot->request,
                        seq->pages, n_pages);
}

/* A prompt token's logprobs go on as ours. */
static void take_event(cmi_engine *engine, const cmi_seat_event *from)
{
    cmi_engine_slot *slot = &engine->slots[engine->seats[from->seat].slot];
    if (slot->request == NULL || slot->reason != CMI_FINISH_NONE ||
        from->event.index != slot->n_prompt_events ||
        from->event.index >= slot->request->n_prompt_tokens) {
        return; /* it has ended, or this was sent before its prompt had to be computed again */
    }
    cmi_event event =
        cmi_engine_event(engine, engine->seats[from->seat].slot, CMI_EVENT_PROMPT_TOKEN);
    event.index = from->event.index;
    event.token_id = cmi_request_prompt(slot->request)[event.index];
    event.logprob = from->event.logprob;
    event.n_top = from->event.n_top;
    memcpy(event.top, from->event.top, sizeof event.top);
    slot->n_prompt_events++;
    (void)cmi_event_ring_push(&engine->ring, &event);
}

static void take_first_token(cmi_engine *engine, uint32_t idx, const cmi_handover_record *record)
{
    cmi_engine_slot *slot = &engine->slots[idx];
    cmi_event event = cmi_engine_event(engine, idx, CMI_EVENT_TOKEN);
    event.token_id = record->first.token_id;
    event.logprob = record->first.logprob;
    event.n_top = record->first.n_top;
    memcpy(event.top, record->first.top, sizeof event.top);
    slot->output[0] = event.token_id;
    const cmi_output_step step =
        slot->grammar == NULL
            ? CMI_OUTPUT_GOES_ON
            : cmi_output_grammar_step(slot->grammar, slot->request, event.token_id);
    cmi_engine_accept_token(engine, slot, &event, step);
    if (slot->is_drafting) {
        memcpy(slot->drafts, record->drafts, sizeof record->drafts);
        slot->n_drafts = record->n_drafts;
    }
}

static void receive(cmi_engine *engine, uint32_t idx, uint32_t n_new, uint32_t n_drafts)
{
    const uint64_t now_ns = cmi_clock_monotonic_ns();
    cmi_scheduler_received(engine->scheduler, now_ns, idx, n_new, n_drafts);
    cmi_policy_recorder_received(engine->recorder, now_ns, idx, n_new, n_drafts);
}

/* The prompt is stored. Returns whether the request ends with its first token. */
static bool start_decode(cmi_engine *engine, uint32_t idx, const cmi_handover_record *record)
{
    cmi_engine_slot *slot = &engine->slots[idx];
    const bool is_first = slot->n_output == 0;
    if (slot->n_output == slot->n_given) {
        slot->n_cached = record->n_cached;
    }
    if (slot->reason == CMI_FINISH_NONE && is_first) {
        take_first_token(engine, idx, record);
        receive(engine, idx, 1, slot->n_drafts);
        return slot->reason != CMI_FINISH_NONE;
    }
    receive(engine, idx, is_first ? 1 : 0, 0);
    return false;
}

/* Gives back the slot of a request that had ended while its pages were a peer's. */
static void drain(cmi_engine *engine, uint32_t idx)
{
    const uint64_t now_ns = cmi_clock_monotonic_ns();
    cmi_scheduler_drained(engine->scheduler, now_ns, idx);
    cmi_policy_recorder_drained(engine->recorder, now_ns, idx);
    cmi_engine_leave_seat(engine, idx);
    cmi_engine_free_slot(engine, idx);
}

/* Returns whether the request is to end. */
static bool take_end(cmi_engine *engine, const cmi_seat_end *end)
{
    cmi_seat *seat = &engine->seats[end->seat];
    const uint32_t idx = seat->slot;
    cmi_engine_slot *slot = &engine->slots[idx];
    seat->is_lent = false;
    if (cmi_scheduler_slot_get(engine->scheduler, idx)->state == CMI_REQUEST_DRAIN) {
        drain(engine, idx);
        return false;
    }
    if (end->status == CMI_OK) {
        return start_decode(engine, idx, cmi_kv_receiver_record(engine->receiver, end->seat));
    }
    if (slot->reason != CMI_FINISH_NONE) {
        return false; /* it is in the list already */
    }
    slot->reason = CMI_FINISH_ERROR;
    slot->status = end->status;
    return true;
}

uint32_t cmi_engine_take_handovers(cmi_engine *engine, uint32_t n_ends, uint32_t n_events,
                                   uint32_t n_ended)
{
    for (uint32_t i = 0; i < n_events; i++) {
        take_event(engine, &engine->seat_events_taken[i]);
    }
    for (uint32_t i = 0; i < n_ends; i++) {
        uint32_t idx = engine->seats[engine->seat_ends_taken[i].seat].slot;
        if (take_end(engine, &engine->seat_ends_taken[i])) {
            engine->ended[n_ended++] = idx;
        }
    }
    return n_ended;
}

bool cmi_engine_end_in_scheduler(cmi_engine *engine, uint32_t idx)
{
    const uint64_t now_ns = cmi_clock_monotonic_ns();
    cmi_seat *seat = engine->slots[idx].seat;
    if (cmi_scheduler_slot_get(engine->scheduler, idx)->state != CMI_REQUEST_RECEIVE) {
        cmi_scheduler_finish(engine->scheduler, now_ns, idx);
        cmi_policy_recorder_finish(engine->recorder, now_ns, idx);
        return true;
    }
    cmi_scheduler_leave(engine->scheduler, idx);
    cmi_policy_recorder_leave(engine->recorder, idx);
    if (seat->is_lent) {
        cmi_kv_receiver_drop(engine->receiver, (uint32_t)(seat - engine->seats));
        return false;
    }
    cmi_scheduler_drained(engine->scheduler, now_ns, idx);
    cmi_policy_recorder_drained(engine->recorder, now_ns, idx);
    return true;
}

void cmi_engine_take_back_all(cmi_engine *engine)
{
    for (uint32_t i = 0; i < engine->instance->max_num_seqs; i++) {
        if (engine->seats[i].is_lent) {
            engine->seats[i].is_lent = false;
            drain(engine, engine->seats[i].slot);
        }
    }
}

/* ---- the prefill side --------------------------------------------------------------------------
 */

static bool ends_prompt(const cmi_engine_slot *slot, const cmi_scheduler_span *span)
{
    return span->position + span->n_rows == slot->request->n_prompt_tokens;
}

/* Before its last rows only full pages of a prompt are final. */
void cmi_engine_step_sends(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        const cmi_scheduler_span *span = &plan->spans[i];
        const cmi_engine_slot *slot = &engine->slots[span->slot];
        const uint32_t end = span->position + span->n_rows;
        cmi_kv_sender_step_adds(engine->sender, slot->request->request_id, slot->seat->page_ids,
                                ends_prompt(slot, span) ? pages_to_hand_over(engine, end)
                                                        : end / CMI_KV_PAGE_TOKENS);
    }
    cmi_kv_sender_step_begins(engine->sender);
}

void cmi_engine_step_sent(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    uint32_t n_sampled = 0;
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        const cmi_engine_slot *slot = &engine->slots[plan->spans[i].slot];
        if (plan->spans[i].samples) {
            cmi_handover_record record = {.first = engine->sampled[n_sampled++].events[0],
                                          .n_drafts = slot->n_drafts,
                                          .n_cached = slot->n_cached};
            memcpy(record.drafts, slot->drafts, sizeof record.drafts);
            cmi_kv_sender_complete(engine->sender, slot->request->request_id, &record);
        }
    }
    cmi_kv_sender_step_ends(engine->sender);
}
