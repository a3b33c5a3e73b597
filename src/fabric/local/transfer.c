/* fabric/local/transfer.c - operations and messages; see local_internal.h.
 *
 * A put is a memcpy into the peer's mapped region, so a short one is done inside the call. A long
 * one, and all behind it, wait in the endpoint's queue, which moves by a slice with each progress:
 * ten megabytes of KV must not keep a fabric from its other endpoints, and callers meet the
 * asynchrony that networks have. The queue's order is stronger than what fabric.h promises. */
#include "fabric/local/local_internal.h"

#include <string.h>

enum {
    INLINE_BYTES = 64 << 10, /* 10 us of copying */
    SLICE_BYTES = 256 << 10,
};

/* ---- what was given ---- */

static cmi_local_remote *find_remote(const cmi_local_fabric *f, const cmi_local_endpoint *ep,
                                     cmi_remote_id id)
{
    if (id.idx >= f->base.opt.n_remotes || id.gen == 0) {
        return NULL;
    }
    cmi_local_remote *remote = &f->remotes[id.idx];
    bool is_it = remote->gen == id.gen && remote->endpoint == cmi_local_endpoint_idx(f, ep);
    return is_it ? remote : NULL;
}

void *cmi_local_remote_memory(cmi_fabric *fabric, cmi_endpoint_id endpoint, cmi_remote_id id)
{
    const cmi_local_fabric *f = cmi_local_of(fabric);
    const cmi_local_endpoint *ep = cmi_local_find_endpoint(f, endpoint);
    const cmi_local_remote *remote = ep != NULL ? find_remote(f, ep, id) : NULL;
    bool is_mapped = remote != NULL && remote->share != NULL && remote->share->is_file;
    return is_mapped ? remote->share->bytes : NULL;
}

static cmi_status find_open(const cmi_local_fabric *f, cmi_endpoint_id id,
                            cmi_local_endpoint **ep_out)
{
    cmi_local_endpoint *ep = cmi_local_find_endpoint(f, id);
    *ep_out = ep;
    if (ep == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    if (CMI_LIKELY(ep->state == ENDPOINT_OPEN)) {
        return CMI_OK;
    }
    return ep->state == ENDPOINT_LOST ? ep->status : CMI_ERR_NO_CAPACITY;
}

static cmi_status check_remote(const cmi_local_fabric *f, const cmi_local_endpoint *ep,
                               const cmi_transfer *t)
{
    if (t->kind == CMI_OP_FLUSH) {
        return CMI_OK;
    }
    const cmi_local_remote *remote = find_remote(f, ep, t->remote.id);
    if (remote == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    bool is_inside =
        t->remote.offset <= remote->n_bytes && t->n_bytes <= remote->n_bytes - t->remote.offset;
    return is_inside ? CMI_OK : CMI_ERR_INVALID;
}

/* ---- doing it ---- */

static void change_word(_Atomic uint64_t *word, cmi_signal kind, uint64_t operand)
{
    if (kind == CMI_SIGNAL_ADD) {
        atomic_fetch_add(word, operand);
        return;
    }
    uint64_t old = atomic_load(word);
    while (old < operand && !atomic_compare_exchange_weak(word, &old, operand)) {
    }
}

/* n bytes from `done` on. */
static cmi_status run_piece(cmi_local_fabric *f, const cmi_local_endpoint *ep,
                            const cmi_transfer *t, uint64_t done, uint64_t n)
{
    const cmi_local_remote *remote = find_remote(f, ep, t->remote.id);
    if (remote == NULL || !cmi_share_enter(remote->share)) {
        return CMI_ERR_NOT_FOUND;
    }
    uint8_t *there = remote->share->bytes + t->remote.offset + done;
    if (t->kind == CMI_OP_PUT) {
        memcpy(there, t->local + done, n);
    } else if (t->kind == CMI_OP_GET) {
        memcpy(t->local + done, there, n);
    } else {
        change_word((_Atomic uint64_t *)(void *)there, t->signal, t->operand);
    }
    cmi_share_leave(remote->share);
    if (t->kind == CMI_OP_SIGNAL) {
        cmi_local_nudge(ep);
    }
    return CMI_OK;
}

static cmi_status take_failure(cmi_local_endpoint *ep)
{
    cmi_status st = ep->failure;
    ep->failure = CMI_OK;
    return st;
}

cmi_status cmi_local_take_failure(cmi_fabric *fabric, cmi_endpoint_id id)
{
    cmi_local_endpoint *ep = cmi_local_find_endpoint(cmi_local_of(fabric), id);
    if (ep == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    cmi_status st = take_failure(ep);
    return ep->state == ENDPOINT_LOST ? ep->status : st;
}

bool cmi_local_is_settled(cmi_fabric *fabric, cmi_endpoint_id id)
{
    const cmi_local_endpoint *ep = cmi_local_find_endpoint(cmi_local_of(fabric), id);
    return ep == NULL || ep->n_ops == 0;
}

/* ---- slots ---- */

static cmi_local_op *take_op(cmi_local_fabric *f, const cmi_local_endpoint *ep,
                             const cmi_transfer *transfer, cmi_op *user_op)
{
    if (f->free_op == CMI_LOCAL_NONE) {
        return NULL;
    }
    uint32_t idx = f->free_op;
    cmi_local_op *op = &f->ops[idx];
    f->free_op = op->next;
    *op = (cmi_local_op){.gen = op->gen,
                         .state = OP_QUEUED,
                         .next = CMI_LOCAL_NONE,
                         .has_event = user_op != NULL,
                         .endpoint = cmi_local_endpoint_id(f, ep),
                         .transfer = *transfer};
    if (user_op != NULL) {
        op->tag = user_op->tag;
        user_op->id = (cmi_op_id){.idx = idx, .gen = op->gen};
    }
    return op;
}

static void end_op(cmi_local_fabric *f, cmi_local_endpoint *ep, cmi_local_op *op, cmi_status st)
{
    uint32_t idx = (uint32_t)(op - f->ops);
    op->status = st;
    op->next = CMI_LOCAL_NONE;
    if (st != CMI_OK && op->transfer.kind != CMI_OP_FLUSH) {
        cmi_fabric_count(&f->base.counters.n_failed, 1);
    }
    if (!op->has_event) {
        ep->failure = ep->failure == CMI_OK ? st : ep->failure;
        op->state = OP_FREE;
        op->gen = op->gen == UINT32_MAX ? 1 : op->gen + 1;
        op->next = f->free_op;
        f->free_op = idx;
        return;
    }
    op->state = OP_DONE;
    if (f->first_done == CMI_LOCAL_NONE) {
        f->first_done = idx;
    } else {
        f->ops[f->last_done].next = idx;
    }
    f->last_done = idx;
}

static void queue_op(cmi_local_fabric *f, cmi_local_endpoint *ep, cmi_local_op *op)
{
    uint32_t idx = (uint32_t)(op - f->ops);
    if (ep->first_op == CMI_LOCAL_NONE) {
        ep->first_op = idx;
    } else {
        f->ops[ep->last_op].next = idx;
    }
    ep->last_op = idx;
    ep->n_ops++;
    f->n_queued++;
}

static cmi_local_op *unqueue_op(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    cmi_local_op *op = &f->ops[ep->first_op];
    ep->first_op = op->next;
    if (ep->first_op == CMI_LOCAL_NONE) {
        ep->last_op = CMI_LOCAL_NONE;
    }
    ep->n_ops--;
    f->n_queued--;
    return op;
}

/* ---- beginning and moving on ---- */

static cmi_status run_whole(cmi_local_fabric *f, cmi_local_endpoint *ep, const cmi_transfer *t)
{
    return t->kind == CMI_OP_FLUSH ? take_failure(ep) : run_piece(f, ep, t, 0, t->n_bytes);
}

cmi_status cmi_local_check(const cmi_fabric *fabric, cmi_endpoint_id id,
                           const cmi_transfer *transfer)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    cmi_local_endpoint *ep;
    cmi_status st = find_open(f, id, &ep);
    return st == CMI_OK ? check_remote(f, ep, transfer) : st;
}

cmi_status cmi_local_begin(cmi_fabric *fabric, cmi_endpoint_id id, const cmi_transfer *transfer,
                           cmi_op *user_op)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    cmi_status st = cmi_local_check(fabric, id, transfer);
    if (st != CMI_OK) {
        return st;
    }
    cmi_local_endpoint *ep = &f->endpoints[id.idx];
    bool is_inline = ep->first_op == CMI_LOCAL_NONE && transfer->n_bytes <= INLINE_BYTES;
    if (is_inline && user_op == NULL) {
        return run_whole(f, ep, transfer);
    }
    cmi_local_op *op = take_op(f, ep, transfer, user_op);
    if (op == NULL) {
        return CMI_ERR_NO_CAPACITY;
    }
    if (is_inline) {
        end_op(f, ep, op, run_whole(f, ep, transfer));
    } else {
        queue_op(f, ep, op);
    }
    return CMI_OK;
}

static void run_queue(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    for (uint64_t left = SLICE_BYTES; left > 0 && ep->first_op != CMI_LOCAL_NONE;) {
        cmi_local_op *op = &f->ops[ep->first_op];
        const cmi_transfer *t = &op->transfer;
        cmi_status st;
        if (t->kind == CMI_OP_FLUSH || t->kind == CMI_OP_SIGNAL) {
            st = run_whole(f, ep, t);
            left -= CMI_MIN(left, (uint64_t)CMI_CACHE_LINE);
            op->done_bytes = t->n_bytes;
        } else {
            uint64_t n = CMI_MIN(left, t->n_bytes - op->done_bytes);
            st = run_piece(f, ep, t, op->done_bytes, n);
            left -= CMI_MAX(n, CMI_MIN(left, (uint64_t)CMI_CACHE_LINE));
            op->done_bytes += n;
        }
        if (st != CMI_OK || op->done_bytes == t->n_bytes) {
            end_op(f, ep, unqueue_op(f, ep), st);
        }
    }
}

void cmi_local_run_queues(cmi_local_fabric *f)
{
    for (uint32_t i = 0; i < f->n_endpoints_used && f->n_queued > 0; i++) {
        run_queue(f, &f->endpoints[i]);
    }
}

void cmi_local_end_ops(cmi_local_fabric *f, cmi_local_endpoint *ep, cmi_status st)
{
    while (ep->first_op != CMI_LOCAL_NONE) {
        end_op(f, ep, unqueue_op(f, ep), st);
    }
}

/* ---- messages ---- */

cmi_status cmi_local_send(cmi_fabric *fabric, cmi_endpoint_id id, const void *message,
                          size_t n_bytes)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    cmi_local_endpoint *ep;
    cmi_status st = find_open(f, id, &ep);
    if (st != CMI_OK) {
        return st;
    }
    if (n_bytes > ep->out.message_bytes) {
        return CMI_ERR_TOO_LARGE;
    }
    st = cmi_ring_write(&ep->out, message, (uint32_t)n_bytes);
    bool is_blocked = st == CMI_ERR_NO_CAPACITY;
    f->n_blocked += is_blocked - ep->is_blocked;
    ep->is_blocked = is_blocked;
    if (st == CMI_OK) {
        cmi_local_nudge(ep);
    }
    return st;
}

static bool receive_from(cmi_local_fabric *f, cmi_local_endpoint *ep, void *buffer,
                         size_t *n_bytes_out)
{
    if (!ep->is_shown || ep->state == ENDPOINT_FREE || ep->rings_share == NULL) {
        return false;
    }
    bool was_wanted;
    cmi_status st = cmi_ring_read(&ep->in, buffer, n_bytes_out, &was_wanted);
    if (st == CMI_ERR_BAD_DATA) {
        cmi_local_lose(f, ep, st);
        cmi_share_release(ep->rings_share);
        ep->rings_share = NULL;
    }
    if (was_wanted) {
        cmi_local_nudge(ep);
    }
    return st == CMI_OK;
}

bool cmi_local_receive(cmi_fabric *fabric, cmi_endpoint_id *endpoint_out, void *buffer,
                       size_t *n_bytes_out)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    for (uint32_t i = 0; i < f->n_endpoints_used; i++) {
        uint32_t idx = f->next_to_receive;
        f->next_to_receive = idx + 1 >= f->n_endpoints_used ? 0 : idx + 1;
        if (receive_from(f, &f->endpoints[idx], buffer, n_bytes_out)) {
            *endpoint_out = cmi_local_endpoint_id(f, &f->endpoints[idx]);
            return true;
        }
    }
    return false;
}
