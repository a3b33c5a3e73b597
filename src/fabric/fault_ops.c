#include "fabric/fault_internal.h"

#include "base/rng.h"

uint64_t cmi_fault_random(cmi_fault_fabric *f, uint64_t n)
{
    uint32_t words[4];
    cmi_philox4x32(f->opt.seed, f->n_random++, 0, words);
    uint64_t wide = (uint64_t)words[0] << 32 | words[1];
    return n == 0 ? 0 : wide % n;
}

bool cmi_fault_chance(cmi_fault_fabric *f, uint32_t ppm)
{
    return ppm > 0 && cmi_fault_random(f, 1000000) < ppm;
}

cmi_status cmi_fault_judge(cmi_fault_fabric *f, cmi_endpoint_id endpoint, bool *is_corrupted_out,
                           bool *fails_out)
{
    uint64_t n = ++f->counts.n_given;
    *is_corrupted_out = cmi_fault_chance(f, f->opt.corrupt_ppm) || n == f->opt.corrupt_nth;
    *fails_out = n == f->opt.fail_nth;
    if (n == f->opt.drop_nth) {
        f->counts.n_dropped++;
        f->inner->backend->drop(f->inner, endpoint);
        return CMI_ERR_PEER;
    }
    if (cmi_fault_chance(f, f->opt.refuse_ppm)) {
        f->counts.n_refused++;
        return CMI_ERR_NO_CAPACITY;
    }
    return CMI_OK;
}

/* ---- slots ---- */

cmi_fault_endpoint *cmi_fault_endpoint_of(cmi_fault_fabric *f, cmi_endpoint_id id)
{
    cmi_fault_endpoint *ep = &f->endpoints[id.idx];
    if (ep->gen != id.gen) {
        *ep = (cmi_fault_endpoint){.gen = id.gen};
    }
    return ep;
}

static bool is_same(cmi_endpoint_id a, cmi_endpoint_id b)
{
    return a.idx == b.idx && a.gen == b.gen;
}

static void free_op(cmi_fault_fabric *f, cmi_fault_op *op)
{
    op->state = FAULT_FREE;
    op->gen++;
    f->n_live--;
}

static void end_op(cmi_fault_fabric *f, cmi_fault_op *op, cmi_status st)
{
    cmi_fault_endpoint *ep = cmi_fault_endpoint_of(f, op->endpoint);
    const cmi_transfer *t = &op->transfer;
    ep->n_ops--;
    if (t->kind == CMI_OP_FLUSH && st == CMI_OK) {
        st = ep->failure;
        ep->failure = CMI_OK;
    } else if (st != CMI_OK && t->kind != CMI_OP_FLUSH) {
        cmi_fabric_count(&f->base.counters.n_failed, 1);
    }
    if (op->is_corrupted && t->kind == CMI_OP_GET && st == CMI_OK) {
        t->local[op->bad_at] ^= op->bad_bit;
    }
    if (!op->has_event) {
        ep->failure = ep->failure == CMI_OK ? st : ep->failure;
        free_op(f, op);
        return;
    }
    op->state = FAULT_DONE;
    op->status = st;
    op->event_key = f->opt.shuffles_events ? cmi_fault_random(f, UINT64_MAX) : ++f->last_event_key;
}

static cmi_fault_op *take_op(cmi_fault_fabric *f, cmi_endpoint_id endpoint,
                             const cmi_transfer *transfer, cmi_op *user_op)
{
    for (uint32_t i = 0; i < f->opt.n_ops; i++) {
        cmi_fault_op *op = &f->ops[i];
        if (op->state != FAULT_FREE) {
            continue;
        }
        *op = (cmi_fault_op){.state = FAULT_HELD,
                             .gen = op->gen,
                             .has_event = user_op != NULL,
                             .seq = ++f->last_seq,
                             .endpoint = endpoint,
                             .transfer = *transfer};
        if (user_op != NULL) {
            op->tag = user_op->tag;
            user_op->id = (cmi_op_id){.idx = i, .gen = op->gen};
        }
        f->n_live++;
        cmi_fault_endpoint_of(f, endpoint)->n_ops++;
        return op;
    }
    return NULL;
}

static void plan_corruption(cmi_fault_fabric *f, cmi_fault_op *op)
{
    const cmi_transfer *t = &op->transfer;
    if (t->n_bytes == 0 || (t->kind != CMI_OP_PUT && t->kind != CMI_OP_GET)) {
        return;
    }
    f->counts.n_corrupted++;
    op->is_corrupted = true;
    op->bad_at = cmi_fault_random(f, t->n_bytes);
    op->bad_bit = (uint8_t)(1u << cmi_fault_random(f, 8));
}

cmi_status cmi_fault_begin(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                           const cmi_transfer *transfer, cmi_op *user_op)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    bool is_corrupted, fails;
    cmi_status st = f->inner->backend->check(f->inner, endpoint, transfer);
    if (st == CMI_OK) {
        st = cmi_fault_judge(f, endpoint, &is_corrupted, &fails);
    }
    if (st != CMI_OK) {
        return st;
    }
    cmi_fault_op *op = take_op(f, endpoint, transfer, user_op);
    if (op == NULL) {
        return CMI_ERR_NO_CAPACITY;
    }
    if (fails) {
        f->counts.n_failed++;
        end_op(f, op, f->opt.fail_status);
        return CMI_OK;
    }
    if (is_corrupted) {
        plan_corruption(f, op);
    }
    uint64_t spread = f->opt.max_delay_ns - CMI_MIN(f->opt.min_delay_ns, f->opt.max_delay_ns);
    op->due_ns = cmi_fabric_after_ns(fabric, f->opt.min_delay_ns +
                                                 (spread == 0 ? 0 : cmi_fault_random(f, spread)));
    return CMI_OK;
}

/* ---- running ---- */

/* Something of the endpoint that was accepted before op is in a state that op must wait for. */
static bool must_wait(const cmi_fault_fabric *f, const cmi_fault_op *op)
{
    if (op->transfer.kind == CMI_OP_PUT || op->transfer.kind == CMI_OP_GET) {
        return false;
    }
    bool waits_for_ends = op->transfer.kind == CMI_OP_FLUSH;
    for (uint32_t i = 0, left = f->n_live; i < f->opt.n_ops && left > 0; i++) {
        const cmi_fault_op *other = &f->ops[i];
        left -= other->state != FAULT_FREE;
        bool is_under_way =
            other->state == FAULT_HELD || (waits_for_ends && other->state == FAULT_RUNNING);
        if (is_under_way && other->seq < op->seq && is_same(other->endpoint, op->endpoint)) {
            return true;
        }
    }
    return false;
}

static uint32_t count_parts(const cmi_fault_op *op)
{
    return op->is_corrupted && op->transfer.kind == CMI_OP_PUT ? CMI_FAULT_PARTS : 1;
}

/* What lies before the flipped byte, the byte, and what lies behind it. */
static cmi_transfer make_part(cmi_fault_op *op, uint32_t part)
{
    cmi_transfer t = op->transfer;
    if (count_parts(op) == 1) {
        return t;
    }
    uint64_t begin = part == 0 ? 0 : op->bad_at + (part - 1);
    uint64_t n = part == 0 ? op->bad_at : part == 1 ? 1 : t.n_bytes - op->bad_at - 1;
    op->bad_byte = (uint8_t)(op->transfer.local[op->bad_at] ^ op->bad_bit);
    t.local = part == 1 ? &op->bad_byte : t.local + begin;
    t.remote.offset += begin;
    t.n_bytes = n;
    return t;
}

static void count_overtaken(cmi_fault_fabric *f, const cmi_fault_op *op)
{
    for (uint32_t i = 0, left = f->n_live; i < f->opt.n_ops && left > 0; i++) {
        const cmi_fault_op *other = &f->ops[i];
        left -= other->state != FAULT_FREE;
        if (other->state == FAULT_HELD && other->seq < op->seq &&
            is_same(other->endpoint, op->endpoint)) {
            f->counts.n_overtaken++;
            return;
        }
    }
}

/* False: inner has no room. */
static bool run_op(cmi_fault_fabric *f, cmi_fault_op *op)
{
    if (op->n_begun == 0) {
        count_overtaken(f, op);
    }
    while (op->n_begun < count_parts(op)) {
        cmi_transfer part = make_part(op, op->n_begun);
        cmi_op inner = {.tag = (uint64_t)(op - f->ops)};
        cmi_status st = f->inner->backend->begin(f->inner, op->endpoint, &part, &inner);
        if (st == CMI_ERR_NO_CAPACITY) {
            return false;
        }
        if (st != CMI_OK && op->n_begun == op->n_ended) {
            end_op(f, op, st);
            return true;
        }
        op->n_begun++;
        if (st != CMI_OK) { /* those that were begun end it */
            op->status = st;
            op->n_ended++;
        }
    }
    op->state = FAULT_RUNNING;
    return true;
}

bool cmi_fault_run(cmi_fault_fabric *f, uint64_t now_ns)
{
    bool is_moving = false;
    for (uint32_t i = 0, left = f->n_live; i < f->opt.n_ops && left > 0; i++) {
        cmi_fault_op *op = &f->ops[i];
        left -= op->state != FAULT_FREE;
        if (op->state == FAULT_HELD && op->due_ns <= now_ns && !must_wait(f, op)) {
            is_moving |= !run_op(f, op);
        }
    }
    return is_moving;
}

static void take_done(cmi_fault_fabric *f, const cmi_fabric_event *event)
{
    cmi_fault_op *op = &f->ops[event->tag];
    op->n_ended++;
    if (event->status != CMI_OK) {
        op->status = event->status;
    }
    if (op->n_ended == count_parts(op)) {
        end_op(f, op, op->status);
    }
}

void cmi_fault_take_inner_events(cmi_fault_fabric *f)
{
    cmi_fabric_event event;
    uint64_t n_places = 2 * (uint64_t)f->base.opt.n_endpoints;
    while (f->n_events_in - f->n_events_out < n_places &&
           f->inner->backend->poll(f->inner, &event)) {
        if (event.kind == CMI_EVENT_DONE) {
            take_done(f, &event);
            continue;
        }
        if (event.kind == CMI_EVENT_LOST) {
            cmi_fault_end_held(f, event.endpoint, event.status);
        }
        f->events[f->n_events_in++ % n_places] = event;
    }
}

/* One with parts under way ends with them. */
void cmi_fault_end_held(cmi_fault_fabric *f, cmi_endpoint_id endpoint, cmi_status st)
{
    for (uint32_t i = 0; i < f->opt.n_ops; i++) {
        cmi_fault_op *op = &f->ops[i];
        if (op->state != FAULT_HELD || !is_same(op->endpoint, endpoint)) {
            continue;
        }
        if (op->n_begun == op->n_ended) {
            end_op(f, op, st);
            continue;
        }
        op->status = st;
        op->n_ended += count_parts(op) - op->n_begun;
        op->n_begun = count_parts(op);
        op->state = FAULT_RUNNING;
    }
}

uint64_t cmi_fault_next_due_ns(const cmi_fault_fabric *f)
{
    uint64_t due_ns = UINT64_MAX;
    for (uint32_t i = 0, left = f->n_live; i < f->opt.n_ops && left > 0; i++) {
        left -= f->ops[i].state != FAULT_FREE;
        if (f->ops[i].state == FAULT_HELD && !must_wait(f, &f->ops[i])) {
            due_ns = CMI_MIN(due_ns, f->ops[i].due_ns);
        }
    }
    return due_ns;
}

/* ---- events ---- */

static cmi_fault_op *find_done(const cmi_fault_fabric *f)
{
    cmi_fault_op *first = NULL;
    for (uint32_t i = 0, left = f->n_live; i < f->opt.n_ops && left > 0; i++) {
        cmi_fault_op *op = &f->ops[i];
        left -= op->state != FAULT_FREE;
        if (op->state == FAULT_DONE && (first == NULL || op->event_key < first->event_key)) {
            first = op;
        }
    }
    return first;
}

bool cmi_fault_has_done(const cmi_fault_fabric *f)
{
    return find_done(f) != NULL;
}

bool cmi_fault_poll_done(cmi_fault_fabric *f, cmi_fabric_event *event_out)
{
    cmi_fault_op *op = find_done(f);
    if (op == NULL) {
        return false;
    }
    *event_out = (cmi_fabric_event){.kind = CMI_EVENT_DONE,
                                    .status = op->status,
                                    .endpoint = op->endpoint,
                                    .op = {.idx = (uint32_t)(op - f->ops), .gen = op->gen},
                                    .tag = op->tag};
    free_op(f, op);
    return true;
}
