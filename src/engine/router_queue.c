#include "engine/router_internal.h"

#include <assert.h>

void cmi_router_queue_push(cmi_router *r, cmi_router_queue *queue, uint32_t idx)
{
    r->slots[idx].next = CMI_ROUTER_NOBODY;
    if (queue->n == 0) {
        queue->first = idx;
    } else {
        r->slots[queue->last].next = idx;
    }
    queue->last = idx;
    queue->n++;
}

void cmi_router_queue_remove(cmi_router *r, cmi_router_queue *queue, uint32_t idx)
{
    uint32_t before = CMI_ROUTER_NOBODY, at = queue->first;
    assert(queue->n > 0);
    while (at != idx) {
        before = at;
        at = r->slots[at].next;
        assert(at != CMI_ROUTER_NOBODY);
    }
    if (before == CMI_ROUTER_NOBODY) {
        queue->first = r->slots[idx].next;
    } else {
        r->slots[before].next = r->slots[idx].next;
    }
    if (queue->last == idx) {
        queue->last = before;
    }
    queue->n--;
}
