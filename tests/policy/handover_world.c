#include "tests/policy/handover_world.h"

#include "tests/test.h"

#include "base/alloc.h"
#include "base/rng.h"
#include "policy/routing.h"
#include "policy/scheduler.h"

enum {
    N_SLOTS = 6,
    N_SENDS = 8,
    MAX_SEQS = 3,
    N_PAGES = 12,
    MAX_TOKENS = 6 * CMI_PAGE_TOKENS,
    MAX_ROWS = 160,
    N_REQUESTS = 9,
    MAX_MESSAGES = 256,
    MAX_TICKS = 20000,
    PATIENCE = 60, /* looks of the receiver */
};

typedef struct side { /* an instance's scheduler */
    cmi_scheduler *s;
    cmi_page_pool *pool;
    cmi_prefix_cache *cache;
    void *memory[3];
    uint32_t n_slots;
} side;

typedef struct request {
    bool is_alive;
    uint32_t n_prompt, n_output, n_generated, family, n_ends;
    cmi_content_key keys[MAX_TOKENS / CMI_CONTENT_BLOCK_TOKENS];
} request;

typedef struct receive { /* of a slot of the decode side */
    cmi_receive_state state;
    uint64_t transfer;
    uint32_t peer, patience;
    bool is_lent, is_told, is_signalled;
    int end; /* to be told to the engine: 0 nothing, 1 stored, 2 dropped, 3 failed */
} receive;

typedef struct send {
    cmi_send_state state;
    uint64_t transfer;
    uint32_t to_slot, n_prompt, slot; /* slot: the prefill engine's */
    uint32_t family;
    bool is_in_engine, is_ending_in_engine, is_complete, is_early, has_operation;
} send;

typedef enum kind { ASK, CANCEL, DONE, ENDED, LOST } kind;

typedef struct message {
    kind kind;
    bool to_decode;
    uint32_t peer, slot;
    uint64_t transfer;
} message;

typedef struct world {
    uint64_t seed, n_draws, now_ns, n_transfers, n_ticks;
    world_coverage *coverage;
    side decode, prefills[WORLD_PREFILLS];
    bool is_up[WORLD_PREFILLS];
    bool is_known_down[WORLD_PREFILLS]; /* to the decode side */
    request requests[N_SLOTS];
    receive receives[N_SLOTS];
    send sends[WORLD_PREFILLS][N_SENDS];
    message messages[MAX_MESSAGES];
    uint32_t n_messages, n_to_come;
} world;

static uint32_t draw(world *w, uint32_t n)
{
    return (uint32_t)(cmi_philox_uniform(w->seed, w->n_draws++, 3) * (float)n) % n;
}

#define HOLDS(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail_msg("seed %llu, event %llu: %s", (unsigned long long)w->seed,                     \
                     (unsigned long long)w->n_ticks, #condition);                                  \
        }                                                                                          \
    } while (0)

/* ---- instances ---- */

static void make_side(side *i, cmi_instance_role role, uint32_t n_slots, uint32_t n_blocks)
{
    cmi_page_pool_options pool = {.n_pages = N_PAGES, .lease_max_ns = 1};
    cmi_prefix_cache_options cache = {.n_blocks = n_blocks};
    size_t n_bytes = cmi_page_pool_bytes(&pool);
    i->n_slots = n_slots;
    i->memory[0] = cmi_alloc_aligned(n_bytes, 64);
    assert_int_equal(cmi_page_pool_init(&i->pool, i->memory[0], n_bytes, &pool), CMI_OK);
    n_bytes = cmi_prefix_cache_bytes(&cache);
    i->memory[1] = cmi_alloc_aligned(n_bytes, 64);
    assert_int_equal(cmi_prefix_cache_init(&i->cache, i->memory[1], n_bytes, i->pool, &cache),
                     CMI_OK);
    cmi_scheduler_options opt = {.role = role,
                                 .n_slots = n_slots,
                                 .max_num_seqs = MAX_SEQS,
                                 .max_rows = MAX_ROWS,
                                 .max_decode_rows = MAX_SEQS + 4,
                                 .max_prefill_rows = MAX_ROWS,
                                 .max_span_rows = 4,
                                 .max_tokens = MAX_TOKENS,
                                 .pool = i->pool,
                                 .cache = i->cache};
    i->memory[2] = cmi_alloc(1, cmi_scheduler_bytes(&opt));
    i->s = cmi_scheduler_init(i->memory[2], &opt);
}

static cmi_request_state state_of(const side *i, uint32_t slot)
{
    return cmi_scheduler_slot_get(i->s, slot)->state;
}

/* Ends whatever is there; nobody holds a page then. */
static void destroy_side(world *w, side *i)
{
    for (uint32_t slot = 0; slot < i->n_slots; slot++) {
        if (state_of(i, slot) == CMI_REQUEST_RECEIVE) {
            cmi_scheduler_leave(i->s, slot);
        }
        if (state_of(i, slot) == CMI_REQUEST_DRAIN) {
            cmi_scheduler_drained(i->s, ++w->now_ns, slot);
        } else if (state_of(i, slot) != CMI_REQUEST_FREE) {
            cmi_scheduler_finish(i->s, ++w->now_ns, slot);
        }
    }
    HOLDS(cmi_prefix_cache_room(i->cache) == N_PAGES);
    cmi_prefix_cache_deinit(i->cache);
    cmi_page_pool_deinit(i->pool);
    for (size_t k = 0; k < CMI_LEN(i->memory); k++) {
        cmi_free(i->memory[k]);
    }
}

/* Pages owned = pages that can be reached from a slot. */
static void check_side(world *w, const side *i)
{
    bool is_reached[N_PAGES] = {false};
    uint32_t n_reached = 0;
    for (uint32_t slot = 0; slot < i->n_slots; slot++) {
        const cmi_scheduler_slot *seq = cmi_scheduler_slot_get(i->s, slot);
        for (uint32_t k = 0; k < seq->n_pages; k++) {
            n_reached += is_reached[seq->pages[k].idx] ? 0 : 1;
            is_reached[seq->pages[k].idx] = true;
        }
    }
    HOLDS(n_reached == N_PAGES - cmi_prefix_cache_room(i->cache));
}

/* ---- messages ---- */

static void post(world *w, message m)
{
    HOLDS(w->n_messages < MAX_MESSAGES);
    w->messages[w->n_messages++] = m;
}

static void forget_messages(world *w, uint32_t peer, bool to_decode)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_messages; i++) {
        const message *m = &w->messages[i];
        if (m->peer != peer || m->to_decode != to_decode) {
            w->messages[n++] = *m;
        }
    }
    w->n_messages = n;
}

/* The oldest of some connection and direction. */
static bool take_message(world *w, message *out)
{
    uint32_t peer = draw(w, WORLD_PREFILLS);
    bool to_decode = draw(w, 2) == 0;
    for (uint32_t i = 0; i < w->n_messages; i++) {
        *out = w->messages[i];
        if (out->peer == peer && out->to_decode == to_decode) {
            w->n_messages--;
            memmove(w->messages + i, w->messages + i + 1,
                    (w->n_messages - i) * sizeof *w->messages);
            return true;
        }
    }
    return false;
}

/* ---- the decode side's link ---- */

static void move_receive(world *w, receive *r, cmi_receive_event event)
{
    w->coverage->receive_moves[r->state][event]++;
    r->state = cmi_receive_next_state(r->state, event);
    HOLDS(r->state != CMI_RECEIVE_N_STATES);
}

static void leave_peer(world *w, receive *r, cmi_receive_event event)
{
    bool was_dropped = r->state == CMI_RECEIVE_LEAVING;
    move_receive(w, r, event);
    r->transfer = 0;
    r->is_signalled = false;
    r->patience = PATIENCE;
    if (r->state == CMI_RECEIVE_IDLE) {
        r->end = was_dropped ? 2 : 1;
    }
}

static void look_for_prefill(world *w, uint32_t slot)
{
    receive *r = &w->receives[slot];
    cmi_prefill_load loads[WORLD_PREFILLS] = {0};
    for (uint32_t i = 0; i < WORLD_PREFILLS; i++) {
        loads[i].is_open = !w->is_known_down[i];
        loads[i].n_tokens = draw(w, 3);
    }
    uint32_t peer = cmi_route_prefill(loads, WORLD_PREFILLS);
    if (peer != CMI_ROUTE_NONE) {
        move_receive(w, r, CMI_RECEIVE_SENT);
        r->transfer = ++w->n_transfers;
        r->peer = peer;
        r->is_told = r->is_signalled = false;
        post(w, (message){.kind = ASK, .peer = peer, .slot = slot, .transfer = r->transfer});
    } else if (--r->patience == 0) {
        move_receive(w, r, CMI_RECEIVE_DROP);
        r->end = 3;
    }
}

static void run_receiver(world *w)
{
    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        receive *r = &w->receives[slot];
        if (r->state == CMI_RECEIVE_WAITING) {
            look_for_prefill(w, slot);
        } else if (r->state == CMI_RECEIVE_LEAVING && !r->is_told) {
            post(w, (message){.kind = CANCEL, .peer = r->peer, .transfer = r->transfer});
            r->is_told = true;
        }
    }
}

static void lose_prefill(world *w, uint32_t peer)
{
    w->is_known_down[peer] = !w->is_up[peer];
    forget_messages(w, peer, false); /* they were sent on the connection that is gone */
    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        receive *r = &w->receives[slot];
        if (r->transfer != 0 && r->peer == peer) {
            leave_peer(w, r, r->is_signalled ? CMI_RECEIVE_ARRIVED : CMI_RECEIVE_LOST);
        }
    }
}

static void on_decode_message(world *w, const message *m)
{
    if (m->kind == LOST) {
        lose_prefill(w, m->peer);
        return;
    }
    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        receive *r = &w->receives[slot];
        if (r->transfer != m->transfer || m->transfer == 0) {
            continue;
        }
        if (m->kind == DONE) {
            bool is_damaged = draw(w, 30) == 0;
            leave_peer(w, r, is_damaged ? CMI_RECEIVE_DAMAGED : CMI_RECEIVE_ARRIVED);
        } else {
            leave_peer(w, r, CMI_RECEIVE_ENDED);
        }
    }
}

/* ---- the decode side's engine ---- */

static void end_request(world *w, uint32_t slot)
{
    request *r = &w->requests[slot];
    HOLDS(r->is_alive);
    r->is_alive = false;
    HOLDS(++r->n_ends == 1);
    w->coverage->n_complete += r->n_generated == r->n_output ? 1 : 0;
    if (state_of(&w->decode, slot) != CMI_REQUEST_RECEIVE) {
        cmi_scheduler_finish(w->decode.s, ++w->now_ns, slot);
        return;
    }
    cmi_scheduler_leave(w->decode.s, slot);
    if (!w->receives[slot].is_lent) {
        cmi_scheduler_drained(w->decode.s, ++w->now_ns, slot);
    } else if (w->receives[slot].state != CMI_RECEIVE_IDLE) {
        move_receive(w, &w->receives[slot], CMI_RECEIVE_DROP);
        if (w->receives[slot].state == CMI_RECEIVE_IDLE) {
            w->receives[slot].end = 2;
        }
    }
}

static void take_ends(world *w)
{
    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        receive *r = &w->receives[slot];
        request *req = &w->requests[slot];
        int end = r->end;
        if (end == 0) {
            continue;
        }
        r->end = 0;
        r->is_lent = false;
        if (state_of(&w->decode, slot) == CMI_REQUEST_DRAIN) {
            cmi_scheduler_drained(w->decode.s, ++w->now_ns, slot);
        } else if (end == 1) {
            uint32_t n_new = req->n_generated == 0 ? 1 : 0;
            req->n_generated += n_new;
            cmi_scheduler_received(w->decode.s, ++w->now_ns, slot, n_new, 0);
            if (req->n_generated == req->n_output) {
                end_request(w, slot);
            }
        } else {
            HOLDS(end == 3);
            end_request(w, slot);
        }
    }
}

static void arrive(world *w)
{
    uint32_t slot = draw(w, N_SLOTS);
    if (w->requests[slot].is_alive || state_of(&w->decode, slot) != CMI_REQUEST_FREE) {
        return;
    }
    request *r = &w->requests[slot];
    *r = (request){.is_alive = true, .family = draw(w, 2)};
    r->n_prompt = 1 + draw(w, MAX_TOKENS - 40);
    r->n_output = 1 + draw(w, 40);
    r->n_generated = draw(w, 4) == 0 ? draw(w, r->n_output) : 0; /* elsewhere */
    cmi_scheduler_request order = {.n_prompt = r->n_prompt,
                                   .n_total = r->n_prompt + r->n_output,
                                   .n_generated = r->n_generated,
                                   .skips_cache = true,
                                   .skip_reason = CMI_PREFIX_LOSS_DISABLED};
    cmi_scheduler_arrive(w->decode.s, slot, &order);
    w->n_to_come--;
    w->coverage->n_requests++;
}

static void run_decode(world *w)
{
    cmi_scheduler_plan plan;
    cmi_scheduler_outcome outcomes[MAX_SEQS];
    uint32_t n_sealed, ended[MAX_SEQS], n_ended = 0;
    take_ends(w);
    bool any = cmi_scheduler_plan_step(w->decode.s, ++w->now_ns, &plan);
    for (uint32_t i = 0; i < plan.n_admitted; i++) {
        receive *r = &w->receives[plan.admitted[i]];
        HOLDS(!r->is_lent);
        move_receive(w, r, CMI_RECEIVE_ASK);
        r->is_lent = true;
        r->patience = PATIENCE;
    }
    for (uint32_t i = 0; i < plan.n_spans; i++) {
        request *r = &w->requests[plan.spans[i].slot];
        HOLDS(r->is_alive && !plan.spans[i].is_prefill);
        outcomes[i] = (cmi_scheduler_outcome){.n_new = 1};
        r->n_generated += plan.spans[i].samples ? 1 : 0;
        if (r->n_generated == r->n_output) {
            ended[n_ended++] = plan.spans[i].slot;
        }
    }
    if (any) {
        (void)cmi_scheduler_step_done(w->decode.s, ++w->now_ns, outcomes, &n_sealed);
    }
    for (uint32_t i = 0; i < n_ended; i++) {
        end_request(w, ended[i]);
    }
}

/* ---- a prefill side ---- */

static void move_send(world *w, send *s, cmi_send_event event)
{
    w->coverage->send_moves[s->state][event]++;
    s->state = cmi_send_next_state(s->state, event);
    HOLDS(s->state != CMI_SEND_N_STATES);
}

static void end_early(world *w, send *s)
{
    cmi_send_state before = s->state;
    move_send(w, s, CMI_SEND_STOP);
    s->is_early |= s->state == CMI_SEND_LEAVING && before != CMI_SEND_LEAVING;
}

static void on_ask(world *w, uint32_t peer, const message *m)
{
    for (uint32_t i = 0; i < N_SENDS; i++) {
        send *s = &w->sends[peer][i];
        if (s->state == CMI_SEND_FREE) {
            *s = (send){.transfer = m->transfer, .to_slot = m->slot, .has_operation = true};
            s->n_prompt = w->requests[m->slot].n_prompt; /* read by the fetch, see below */
            s->family = w->requests[m->slot].family;
            move_send(w, s, CMI_SEND_ASKED);
            return;
        }
    }
    post(w, (message){.kind = ENDED, .to_decode = true, .peer = peer, .transfer = m->transfer});
}

static void on_prefill_message(world *w, uint32_t peer, const message *m)
{
    for (uint32_t i = 0; i < N_SENDS && m->kind != ASK; i++) {
        send *s = &w->sends[peer][i];
        bool is_meant = m->kind == LOST || s->transfer == m->transfer;
        if (s->state != CMI_SEND_FREE && is_meant) {
            end_early(w, s);
        }
    }
    if (m->kind == ASK) {
        on_ask(w, peer, m);
    }
}

/* Where a transfer's bytes go must be promised to it. */
static void check_promise(world *w, uint32_t peer, const send *s)
{
    const receive *r = &w->receives[s->to_slot];
    HOLDS(r->transfer == s->transfer && r->peer == peer && r->is_lent);
    cmi_request_state state = state_of(&w->decode, s->to_slot);
    HOLDS(state == CMI_REQUEST_RECEIVE || state == CMI_REQUEST_DRAIN);
    HOLDS(cmi_scheduler_slot_get(w->decode.s, s->to_slot)->n_pages > 0);
}

static void submit(world *w, uint32_t peer, send *s)
{
    side *i = &w->prefills[peer];
    uint32_t slot = 0;
    while (slot < i->n_slots && state_of(i, slot) != CMI_REQUEST_FREE) {
        slot++;
    }
    if (slot == i->n_slots || draw(w, 20) == 0) { /* its queue is full */
        end_early(w, s);
        move_send(w, s, CMI_SEND_FLUSHED);
        return;
    }
    static cmi_content_key keys[2][MAX_TOKENS / CMI_CONTENT_BLOCK_TOKENS];
    for (uint32_t f = 0; f < 2; f++) {
        for (uint32_t k = 0; k < CMI_LEN(keys[f]); k++) {
            uint64_t words[2] = {f, k + 1};
            memcpy(keys[f][k].bytes, words, sizeof words);
        }
    }
    cmi_scheduler_request order = {.n_prompt = s->n_prompt,
                                   .n_total = s->n_prompt + 1,
                                   .keys = keys[s->family],
                                   .n_keys = s->n_prompt / CMI_CONTENT_BLOCK_TOKENS};
    cmi_scheduler_arrive(i->s, slot, &order);
    s->slot = slot;
    s->is_in_engine = true;
    move_send(w, s, CMI_SEND_FETCHED);
}

static void advance_send(world *w, uint32_t peer, send *s)
{
    switch (s->state) {
    case CMI_SEND_FETCHING:
        check_promise(w, peer, s); /* reads the order there */
        s->has_operation = false;
        submit(w, peer, s);
        break;
    case CMI_SEND_RUNNING:
        check_promise(w, peer, s); /* a slice is put */
        HOLDS(cmi_scheduler_slot_get(w->prefills[peer].s, s->slot)->n_pages > 0 || !s->is_complete);
        s->has_operation = true;
        if (s->is_complete) {
            w->receives[s->to_slot].is_signalled = true;
            post(w,
                 (message){.kind = DONE, .to_decode = true, .peer = peer, .transfer = s->transfer});
            move_send(w, s, CMI_SEND_PUT_ALL);
        }
        break;
    case CMI_SEND_CLOSING:
    case CMI_SEND_LEAVING:
        HOLDS(!s->is_in_engine || state_of(&w->prefills[peer], s->slot) != CMI_REQUEST_FREE);
        move_send(w, s, CMI_SEND_FLUSHED);
        break;
    case CMI_SEND_ENDING:
        if (!s->is_in_engine) {
            if (s->is_early) {
                post(w,
                     (message){
                         .kind = ENDED, .to_decode = true, .peer = peer, .transfer = s->transfer});
            }
            move_send(w, s, CMI_SEND_OVER);
        }
        break;
    default:
        break;
    }
}

/* The engine ends what the link has told it to, between steps. */
static void run_prefill(world *w, uint32_t peer)
{
    side *i = &w->prefills[peer];
    cmi_scheduler_plan plan;
    cmi_scheduler_outcome outcomes[MAX_SEQS];
    uint32_t n_sealed;
    for (uint32_t k = 0; k < N_SENDS; k++) {
        send *s = &w->sends[peer][k];
        if (s->state == CMI_SEND_ENDING && s->is_in_engine) {
            cmi_scheduler_finish(i->s, ++w->now_ns, s->slot);
            s->is_in_engine = false;
        }
    }
    if (!cmi_scheduler_plan_step(i->s, ++w->now_ns, &plan)) {
        return;
    }
    for (uint32_t k = 0; k < plan.n_spans; k++) {
        outcomes[k] = (cmi_scheduler_outcome){.n_new = 1};
    }
    (void)cmi_scheduler_step_done(i->s, ++w->now_ns, outcomes, &n_sealed);
    for (uint32_t k = 0; k < N_SENDS; k++) {
        send *s = &w->sends[peer][k];
        s->is_complete |= s->is_in_engine && state_of(i, s->slot) == CMI_REQUEST_SEND;
    }
}

/* ---- blows ---- */

static void note_blow(world *w, world_blow blow, uint32_t slot)
{
    w->coverage->requests[blow][state_of(&w->decode, slot)]++;
    w->coverage->receives[blow][w->receives[slot].state]++;
}

static void cancel_somebody(world *w)
{
    uint32_t slot = draw(w, N_SLOTS);
    if (!w->requests[slot].is_alive || w->receives[slot].end != 0) {
        return; /* the engine takes what it was told first */
    }
    note_blow(w, BLOW_CANCEL, slot);
    for (uint32_t i = 0; i < WORLD_PREFILLS; i++) {
        for (uint32_t k = 0; k < N_SENDS; k++) {
            const send *s = &w->sends[i][k];
            if (s->state != CMI_SEND_FREE && s->transfer == w->receives[slot].transfer) {
                w->coverage->sends[BLOW_CANCEL][s->state]++;
            }
        }
    }
    end_request(w, slot);
}

static void kill_or_revive_prefill(world *w)
{
    uint32_t peer = draw(w, WORLD_PREFILLS);
    if (!w->is_up[peer]) {
        /* It comes back empty, when the decode side knows that it was gone. */
        w->is_up[peer] = w->is_known_down[peer];
        w->is_known_down[peer] = w->is_known_down[peer] && !w->is_up[peer];
        return;
    }
    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        if (w->requests[slot].is_alive && w->receives[slot].peer == peer) {
            note_blow(w, BLOW_PREFILL_DIES, slot);
        }
    }
    for (uint32_t k = 0; k < N_SENDS; k++) {
        w->coverage->sends[BLOW_PREFILL_DIES][w->sends[peer][k].state]++;
        w->sends[peer][k] = (send){0};
    }
    w->is_up[peer] = false;
    destroy_side(w, &w->prefills[peer]);
    make_side(&w->prefills[peer], CMI_ROLE_PREFILL, N_SENDS, N_PAGES / CMI_BLOCK_PAGES);
    forget_messages(w, peer, false);
    post(w, (message){.kind = LOST, .to_decode = true, .peer = peer});
}

/* All of its requests are over, with an error; the prefill sides hear of it. */
static void kill_decode(world *w)
{
    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        if (w->requests[slot].is_alive) {
            note_blow(w, BLOW_DECODE_DIES, slot);
            w->requests[slot].is_alive = false;
            HOLDS(++w->requests[slot].n_ends == 1);
        }
        w->receives[slot] = (receive){0};
    }
    destroy_side(w, &w->decode);
    make_side(&w->decode, CMI_ROLE_DECODE, N_SLOTS, 0);
    for (uint32_t i = 0; i < WORLD_PREFILLS; i++) {
        for (uint32_t k = 0; k < N_SENDS; k++) {
            send *s = &w->sends[i][k];
            w->coverage->sends[BLOW_DECODE_DIES][s->state]++;
            if (s->state != CMI_SEND_FREE) {
                end_early(w, s); /* its endpoint is lost: nothing is put from here on */
            }
        }
        forget_messages(w, i, true);
        forget_messages(w, i, false);
        w->is_known_down[i] = !w->is_up[i];
    }
}

/* ---- history ---- */

static bool is_over(const world *w)
{
    bool over = w->n_to_come == 0 && w->n_messages == 0;
    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        over =
            over && !w->requests[slot].is_alive && state_of(&w->decode, slot) == CMI_REQUEST_FREE;
    }
    for (uint32_t i = 0; i < WORLD_PREFILLS; i++) {
        for (uint32_t k = 0; k < N_SENDS; k++) {
            over = over && w->sends[i][k].state == CMI_SEND_FREE;
        }
    }
    return over;
}

static void deliver(world *w)
{
    message m;
    if (!take_message(w, &m)) {
        return;
    }
    if (m.to_decode) {
        on_decode_message(w, &m);
    } else if (w->is_up[m.peer]) {
        on_prefill_message(w, m.peer, &m);
    }
}

static void happen(world *w)
{
    uint32_t peer = draw(w, WORLD_PREFILLS);
    switch (draw(w, 16)) {
    case 0:
        if (w->n_to_come > 0) {
            arrive(w);
        }
        break;
    case 1:
        if (draw(w, 6) == 0) {
            cancel_somebody(w);
        }
        break;
    case 2:
        if (!w->is_up[peer] || draw(w, 20) == 0) {
            kill_or_revive_prefill(w);
        }
        break;
    case 3:
        if (draw(w, 400) == 0) {
            kill_decode(w);
        }
        break;
    case 4:
    case 5:
        run_receiver(w);
        break;
    case 6:
    case 7:
    case 8:
        deliver(w);
        break;
    case 9:
    case 10:
        if (w->is_up[peer]) {
            run_prefill(w, peer);
        }
        break;
    case 11:
    case 12:
    case 13:
        if (w->is_up[peer]) {
            advance_send(w, peer, &w->sends[peer][draw(w, N_SENDS)]);
        }
        break;
    default:
        run_decode(w);
    }
}

void world_run(uint64_t seed, world_coverage *coverage)
{
    world own = {.seed = seed, .coverage = coverage, .n_to_come = N_REQUESTS}, *w = &own;
    make_side(&w->decode, CMI_ROLE_DECODE, N_SLOTS, 0);
    for (uint32_t i = 0; i < WORLD_PREFILLS; i++) {
        make_side(&w->prefills[i], CMI_ROLE_PREFILL, N_SENDS, N_PAGES / CMI_BLOCK_PAGES);
        w->is_up[i] = true;
    }
    while (!is_over(w)) {
        HOLDS(++w->n_ticks < MAX_TICKS);
        happen(w);
        check_side(w, &w->decode);
        check_side(w, &w->prefills[w->n_ticks % WORLD_PREFILLS]);
    }
    coverage->n_ticks += w->n_ticks;
    destroy_side(w, &w->decode);
    for (uint32_t i = 0; i < WORLD_PREFILLS; i++) {
        destroy_side(w, &w->prefills[i]);
    }
}
