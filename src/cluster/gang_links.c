/* cluster/gang_links.c - a gang's connections; see gang.h.
 *
 * A rank connects to those below it, so that a pair has one connection and slot 0 is where all can
 * meet. */
#include "cluster/gang_internal.h"

#include <inttypes.h>

#include "base/log.h"

/* ---- one link ---- */

gang_link *cmi_gang_take_link(cmi_gang *gang, cmi_endpoint_id endpoint, gang_link_state state,
                              uint32_t slot)
{
    for (uint32_t i = 0; i < gang->n_links; i++) {
        gang_link *link = &gang->links[i];
        if (link->state == LINK_FREE) {
            *link = (gang_link){.state = state,
                                .slot = slot,
                                .endpoint = endpoint,
                                .deadline_ns =
                                    cmi_fabric_after_ns(gang->opt.fabric, gang->opt.connect_ns)};
            gang->link_of[endpoint.idx % GANG_ENDPOINTS] = (uint16_t)i;
            return link;
        }
    }
    return NULL;
}

gang_link *cmi_gang_find_link(cmi_gang *gang, cmi_endpoint_id endpoint)
{
    const uint16_t i = gang->link_of[endpoint.idx % GANG_ENDPOINTS];
    if (i == GANG_NO_LINK) {
        return NULL;
    }
    gang_link *link = &gang->links[i];
    const bool is_it = link->state != LINK_FREE && link->state != LINK_BROKEN &&
                       link->endpoint.idx == endpoint.idx && link->endpoint.gen == endpoint.gen;
    return is_it ? link : NULL;
}

static bool is_of_slot(const cmi_gang *gang, const gang_link *link)
{
    return link->slot < gang->n && gang->slots[link->slot].link == cmi_gang_link_index(gang, link);
}

/* The slot has no link then, and is called again after a while. */
static void leave_slot(cmi_gang *gang, const gang_link *link)
{
    if (is_of_slot(gang, link)) {
        gang_slot *slot = &gang->slots[link->slot];
        slot->link = GANG_NO_LINK;
        slot->redial_ns = cmi_fabric_after_ns(gang->opt.fabric, gang->opt.redial_ns);
    }
}

void cmi_gang_break_link(cmi_gang *gang, gang_link *link)
{
    const bool was_up = link->state == LINK_UP && is_of_slot(gang, link);
    cmi_endpoint_close(gang->opt.fabric, link->endpoint);
    gang->link_of[link->endpoint.idx % GANG_ENDPOINTS] = GANG_NO_LINK;
    if (was_up) {
        gang->counters.n_lost++;
        link->state = LINK_BROKEN;
    } else {
        leave_slot(gang, link);
        link->state = LINK_FREE;
    }
}

static void forget_broken(cmi_gang *gang, gang_link *link)
{
    leave_slot(gang, link);
    link->state = LINK_FREE;
}

void cmi_gang_drop_slot(cmi_gang *gang, uint32_t slot)
{
    const uint16_t i = gang->slots[slot].link;
    if (i != GANG_NO_LINK) {
        if (gang->links[i].state != LINK_BROKEN) {
            cmi_gang_break_link(gang, &gang->links[i]);
        }
        if (gang->links[i].state == LINK_BROKEN) {
            forget_broken(gang, &gang->links[i]);
        }
    }
}

void cmi_gang_close_links(cmi_gang *gang)
{
    for (uint32_t i = 0; i < gang->n_links; i++) {
        gang_link *link = &gang->links[i];
        if (link->state != LINK_FREE && link->state != LINK_BROKEN) {
            cmi_gang_break_link(gang, link);
        }
        if (link->state == LINK_BROKEN) {
            forget_broken(gang, link);
        }
    }
}

/* ---- sending ---- */

static cmi_status send_frame(cmi_gang *gang, gang_link *link, size_t n_bytes)
{
    return cmi_endpoint_send(gang->opt.fabric, link->endpoint, gang->frame, n_bytes);
}

/* False: it has to wait. A link that is lost says so by an event. */
static bool is_sent(cmi_gang *gang, gang_link *link, size_t n_bytes)
{
    return send_frame(gang, link, n_bytes) != CMI_ERR_NO_CAPACITY;
}

static bool send_hello(cmi_gang *gang, gang_link *link)
{
    const gang_slot *self = &gang->slots[gang->self];
    const cmi_member *member = cmi_membership_get(gang->opt.membership, gang->self, NULL);
    cmi_gang_hello hello = {.slot = gang->self,
                            .n_slots = gang->n,
                            .generation = gang->machine.opt.generation,
                            .gang = gang->name_hash,
                            .n_blob = self->n_blob};
    memcpy(hello.address, member->address, sizeof hello.address);
    memcpy(hello.blob, self->blob, self->n_blob);
    return is_sent(gang, link, cmi_gang_write_hello(gang->frame, &hello));
}

void cmi_gang_say_goodbye(cmi_gang *gang, gang_link *link, cmi_gang_goodbye_reason reason,
                          uint64_t generation)
{
    const cmi_gang_goodbye goodbye = {.reason = reason, .generation = generation};
    (void)is_sent(gang, link, cmi_gang_write_goodbye(gang->frame, &goodbye)); /* it asks again */
    cmi_gang_break_link(gang, link);
}

/* What is not sent yet is sent, in order. True: all is. */
bool cmi_gang_send_waiting(cmi_gang *gang, gang_link *link)
{
    if (link->owes_hello) {
        if (!send_hello(gang, link)) {
            return false;
        }
        link->owes_hello = false;
    }
    uint32_t n_sent = 0;
    while (n_sent < link->n_out &&
           is_sent(gang, link, cmi_gang_write_message(gang->frame, &link->out[n_sent]))) {
        n_sent++;
    }
    link->n_out -= n_sent;
    memmove(link->out, link->out + n_sent, link->n_out * sizeof link->out[0]);
    return link->n_out == 0;
}

void cmi_gang_post(cmi_gang *gang, uint32_t slot, const cmi_gang_message *message)
{
    const uint16_t i = gang->slots[slot].link;
    gang_link *link = i != GANG_NO_LINK ? &gang->links[i] : NULL;
    if (link == NULL || link->state != LINK_UP) {
        return; /* broken, which the machine is told next */
    }
    if (link->n_out > 0 && message->kind == CMI_GANG_STATE &&
        link->out[link->n_out - 1].kind == CMI_GANG_STATE) {
        link->out[link->n_out - 1] = *message; /* says all that the one before it said */
        return;
    }
    if (link->n_out == GANG_OUTBOX) {
        cmi_log(CMI_LOG_WARN, "gang %s: rank %u does not read what it is sent", gang->name, slot);
        cmi_gang_break_link(gang, link);
        return;
    }
    link->out[link->n_out++] = *message;
    (void)cmi_gang_send_waiting(gang, link);
}

/* Slot 0 tells the others where everybody is, the longest known first. */
static void tell_members(cmi_gang *gang, gang_link *link)
{
    const cmi_membership *ms = gang->opt.membership;
    while (gang->self == 0 && link->told_version < cmi_membership_version(ms)) {
        uint32_t next = gang->n;
        uint64_t changed, next_changed = UINT64_MAX;
        for (uint32_t i = 1; i < gang->n; i++) {
            const cmi_member *member = cmi_membership_get(ms, i, &changed);
            if (changed > link->told_version && changed < next_changed && member->generation != 0) {
                next = i;
                next_changed = changed;
            }
        }
        if (next == gang->n) {
            link->told_version = cmi_membership_version(ms);
            return;
        }
        const cmi_member *member = cmi_membership_get(ms, next, NULL);
        cmi_gang_member told = {.slot = next, .generation = member->generation};
        memcpy(told.address, member->address, sizeof told.address);
        if (!is_sent(gang, link, cmi_gang_write_member(gang->frame, &told))) {
            return;
        }
        link->told_version = next_changed;
    }
}

/* ---- connecting ---- */

static void dial_slot(cmi_gang *gang, uint32_t slot, uint64_t now_ns)
{
    gang_slot *own = &gang->slots[slot];
    const cmi_member *member = cmi_membership_get(gang->opt.membership, slot, NULL);
    if (own->link != GANG_NO_LINK || member->address[0] == '\0' || now_ns < own->redial_ns) {
        return;
    }
    own->redial_ns = now_ns + gang->opt.redial_ns;
    cmi_endpoint_id endpoint;
    const uint64_t deadline_ns = cmi_fabric_after_ns(gang->opt.fabric, gang->opt.connect_ns);
    if (cmi_fabric_connect(gang->opt.fabric, member->address, deadline_ns, &endpoint) != CMI_OK) {
        return; /* no room, or no such address: later */
    }
    gang_link *link = cmi_gang_take_link(gang, endpoint, LINK_DIALS, slot);
    if (link == NULL) {
        cmi_endpoint_close(gang->opt.fabric, endpoint);
        return;
    }
    own->link = cmi_gang_link_index(gang, link);
}

void cmi_gang_tend_links(cmi_gang *gang)
{
    const uint64_t now_ns = cmi_fabric_now_ns(gang->opt.fabric);
    for (uint32_t i = 0; i < gang->n_links; i++) {
        gang_link *link = &gang->links[i];
        if (link->state == LINK_BROKEN) {
            const uint32_t slot = link->slot;
            forget_broken(gang, link);
            cmi_gang_machine_link_down(&gang->machine, CMI_MAX(now_ns, gang->machine.now_ns), slot);
            cmi_gang_perform(gang);
        } else if ((link->state == LINK_DIALS || link->state == LINK_GREETS) &&
                   now_ns >= link->deadline_ns) {
            cmi_gang_break_link(gang, link);
        } else if ((link->state == LINK_UP || link->state == LINK_GREETS) &&
                   cmi_gang_send_waiting(gang, link) && link->state == LINK_UP) {
            tell_members(gang, link);
        }
    }
    const cmi_gang_phase phase = cmi_gang_machine_phase(&gang->machine);
    for (uint32_t slot = 0; slot < gang->self && phase < CMI_GANG_LEFT_OUT; slot++) {
        dial_slot(gang, slot, now_ns);
    }
}

uint64_t cmi_gang_links_due_ns(const cmi_gang *gang)
{
    static const uint64_t soon_ns = 1000000;
    const uint64_t now_ns = cmi_fabric_now_ns(gang->opt.fabric);
    uint64_t due_ns = UINT64_MAX;
    for (uint32_t i = 0; i < gang->n_links; i++) {
        const gang_link *link = &gang->links[i];
        if (link->state == LINK_BROKEN || link->owes_hello || link->n_out > 0) {
            due_ns = CMI_MIN(due_ns, now_ns + soon_ns); /* room may come without a sign */
        } else if (link->state == LINK_DIALS || link->state == LINK_GREETS) {
            due_ns = CMI_MIN(due_ns, link->deadline_ns);
        }
    }
    for (uint32_t slot = 0; slot < gang->self; slot++) {
        if (gang->slots[slot].link == GANG_NO_LINK) {
            due_ns = CMI_MIN(due_ns, CMI_MAX(gang->slots[slot].redial_ns, now_ns + soon_ns));
        }
    }
    return due_ns;
}
