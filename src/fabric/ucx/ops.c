/* fabric/ucx/ops.c - the slots of operations, from taking to their events; see ucx_internal.h. */
#include "fabric/ucx/ucx_internal.h"

static uint32_t next_gen(uint32_t gen)
{
    return gen == UINT32_MAX ? 1 : gen + 1;
}

static void append(cmi_ucx_link *link, cmi_ucx_op *op)
{
    cmi_ucx_fabric *f = link->fabric;
    uint32_t idx = (uint32_t)(op - f->ops);
    op->prev = link->last_op;
    op->next = CMI_UCX_NONE;
    if (link->last_op == CMI_UCX_NONE) {
        link->first_op = idx;
    } else {
        f->ops[link->last_op].next = idx;
    }
    link->last_op = idx;
    link->n_ops++;
}

static void take_out(cmi_ucx_link *link, const cmi_ucx_op *op)
{
    cmi_ucx_fabric *f = link->fabric;
    if (op->prev == CMI_UCX_NONE) {
        link->first_op = op->next;
    } else {
        f->ops[op->prev].next = op->next;
    }
    if (op->next == CMI_UCX_NONE) {
        link->last_op = op->prev;
    } else {
        f->ops[op->next].prev = op->prev;
    }
    link->n_ops--;
}

static void begin_op(cmi_ucx_link *link, cmi_ucx_op *op, const cmi_transfer *transfer)
{
    *op = (cmi_ucx_op){.gen = op->gen,
                       .state = OP_UNDER_WAY,
                       .next_held = CMI_UCX_NONE,
                       .link = cmi_ucx_link_idx(link->fabric, link),
                       .endpoint = link->id,
                       .transfer = *transfer,
                       .fabric = link->fabric};
    append(link, op);
}

cmi_ucx_op *cmi_ucx_take_op(cmi_ucx_link *link, const cmi_transfer *transfer, cmi_op *user_op)
{
    cmi_ucx_fabric *f = link->fabric;
    if (f->free_op == CMI_UCX_NONE) {
        return NULL;
    }
    uint32_t idx = f->free_op;
    cmi_ucx_op *op = &f->ops[idx];
    f->free_op = op->next;
    begin_op(link, op, transfer);
    if (user_op != NULL) {
        op->has_event = true;
        op->tag = user_op->tag;
        user_op->id = (cmi_op_id){.idx = idx, .gen = op->gen};
    }
    return op;
}

cmi_ucx_op *cmi_ucx_take_internal_op(cmi_ucx_link *link)
{
    cmi_ucx_fabric *f = link->fabric;
    cmi_ucx_op *op = &f->ops[f->base.opt.n_ops + cmi_ucx_link_idx(f, link)];
    if (op->state != OP_FREE) {
        return NULL;
    }
    cmi_transfer flush = {.kind = CMI_OP_FLUSH};
    begin_op(link, op, &flush);
    op->is_internal = true;
    return op;
}

static void free_op(cmi_ucx_fabric *f, cmi_ucx_op *op)
{
    op->state = OP_FREE;
    op->gen = next_gen(op->gen);
    if (!op->is_internal) {
        op->next = f->free_op;
        f->free_op = (uint32_t)(op - f->ops);
    }
}

void cmi_ucx_end_op(cmi_ucx_link *link, cmi_ucx_op *op, cmi_status st)
{
    cmi_ucx_fabric *f = link->fabric;
    uint32_t idx = (uint32_t)(op - f->ops);
    take_out(link, op);
    if (st != CMI_OK && op->transfer.kind != CMI_OP_FLUSH) {
        cmi_fabric_count(&f->base.counters.n_failed, 1);
    }
    if (!op->has_event) {
        if (!op->is_internal && link->failure == CMI_OK) {
            link->failure = st;
        }
        free_op(f, op);
        return;
    }
    op->status = st;
    op->state = OP_DONE;
    op->next = CMI_UCX_NONE;
    if (f->first_done == CMI_UCX_NONE) {
        f->first_done = idx;
    } else {
        f->ops[f->last_done].next = idx;
    }
    f->last_done = idx;
}

void cmi_ucx_end_ops(cmi_ucx_link *link)
{
    cmi_ucx_fabric *f = link->fabric;
    link->first_held = link->last_held = CMI_UCX_NONE;
    for (uint32_t at = link->first_op, next; at != CMI_UCX_NONE; at = next) {
        next = f->ops[at].next;
        if (!f->ops[at].is_pending) {
            cmi_ucx_end_op(link, &f->ops[at], link->status);
        }
    }
}

bool cmi_ucx_poll_op(cmi_ucx_fabric *f, cmi_fabric_event *event_out)
{
    if (f->first_done == CMI_UCX_NONE) {
        return false;
    }
    cmi_ucx_op *op = &f->ops[f->first_done];
    *event_out = (cmi_fabric_event){.kind = CMI_EVENT_DONE,
                                    .status = op->status,
                                    .endpoint = op->endpoint,
                                    .op = {.idx = f->first_done, .gen = op->gen},
                                    .tag = op->tag};
    f->first_done = op->next;
    if (f->first_done == CMI_UCX_NONE) {
        f->last_done = CMI_UCX_NONE;
    }
    free_op(f, op);
    return true;
}

void cmi_ucx_hold(cmi_ucx_link *link, cmi_ucx_op *op)
{
    cmi_ucx_fabric *f = link->fabric;
    uint32_t idx = (uint32_t)(op - f->ops);
    if (link->first_held == CMI_UCX_NONE) {
        link->first_held = idx;
    } else {
        f->ops[link->last_held].next_held = idx;
    }
    link->last_held = idx;
}

void cmi_ucx_unhold(cmi_ucx_link *link)
{
    link->first_held = link->fabric->ops[link->first_held].next_held;
    if (link->first_held == CMI_UCX_NONE) {
        link->last_held = CMI_UCX_NONE;
    }
}
