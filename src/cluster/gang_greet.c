/* cluster/gang_greet.c - what comes over a gang's connections; see gang.h.
 *
 * Both sides greet; with the other's greeting the link is up. Where a rank greets again, on another
 * connection, that one takes the place of the first, whose end is not noticed yet. */
#include "cluster/gang_internal.h"

#include <inttypes.h>

#include "base/log.h"

/* ---- hearing ---- */

void cmi_gang_hear_event(cmi_gang *gang, const cmi_fabric_event *event)
{
    gang_link *link = cmi_gang_find_link(gang, event->endpoint);
    if (event->kind == CMI_EVENT_LOST) {
        if (link != NULL) {
            cmi_gang_break_link(gang, link);
        } else {
            cmi_endpoint_close(gang->opt.fabric, event->endpoint);
        }
        return;
    }
    if (link == NULL) {
        link = event->is_incoming
                   ? cmi_gang_take_link(gang, event->endpoint, LINK_GREETS, CMI_GANG_NOBODY)
                   : NULL;
    }
    if (link == NULL) { /* no room for it */
        cmi_endpoint_close(gang->opt.fabric, event->endpoint);
        return;
    }
    link->state = LINK_GREETS;
    link->owes_hello = true;
    (void)cmi_gang_send_waiting(gang, link);
}

/* The machine learns of its end from the new link's begin. If another process has it, that is told
 * that it is superseded. */
static void replace_link(cmi_gang *gang, gang_link *link, uint64_t generation)
{
    link->slot = CMI_GANG_NOBODY;
    if (link->state == LINK_BROKEN) {
        link->state = LINK_FREE;
    } else {
        cmi_gang_say_goodbye(gang, link, CMI_GANG_GOODBYE_SUPERSEDED, generation);
    }
}

static void take_hello(cmi_gang *gang, gang_link *link, const cmi_gang_hello *hello)
{
    gang_slot *own = &gang->slots[hello->slot];
    const uint16_t before = own->link;
    if (before != GANG_NO_LINK && before != cmi_gang_link_index(gang, link)) {
        replace_link(gang, &gang->links[before], hello->generation);
    }
    link->state = LINK_UP;
    link->slot = hello->slot;
    own->link = cmi_gang_link_index(gang, link);
    own->n_blob = hello->n_blob;
    memcpy(own->blob, hello->blob, hello->n_blob);
    (void)cmi_membership_hear(gang->opt.membership, hello->slot, hello->address, hello->generation);
    gang->counters.n_links++;
}

static bool hear_hello(cmi_gang *gang, gang_link *link, const cmi_gang_hello *hello)
{
    cmi_gang_machine *m = &gang->machine;
    const uint64_t own_generation = m->opt.generation;
    if (hello->gang != gang->name_hash || hello->n_slots != gang->n || hello->slot >= gang->n ||
        (link->slot != CMI_GANG_NOBODY && link->slot != hello->slot)) {
        cmi_log(CMI_LOG_WARN,
                "gang %s of %u: somebody who says to be rank %" PRIu32 " of %" PRIu32
                " is of another gang, or has another list of members",
                gang->name, gang->n, hello->slot, hello->n_slots);
        cmi_gang_say_goodbye(gang, link, CMI_GANG_GOODBYE_OTHER_GANG, 0);
        return false;
    }
    if (hello->slot == gang->self) {
        const bool is_later = hello->generation > own_generation;
        cmi_gang_say_goodbye(gang, link, CMI_GANG_GOODBYE_SUPERSEDED, own_generation);
        if (is_later) {
            cmi_gang_machine_superseded(m, CMI_MAX(cmi_fabric_now_ns(gang->opt.fabric), m->now_ns));
            cmi_gang_perform(gang);
        }
        return false;
    }
    if (hello->generation == 0 || hello->generation < gang->peers[hello->slot].generation) {
        cmi_gang_say_goodbye(gang, link, CMI_GANG_GOODBYE_SUPERSEDED,
                             gang->peers[hello->slot].generation);
        return false;
    }
    take_hello(gang, link, hello);
    const bool is_taken = cmi_gang_machine_link_up(
        m, CMI_MAX(cmi_fabric_now_ns(gang->opt.fabric), m->now_ns), hello->slot, hello->generation);
    cmi_gang_perform(gang);
    return is_taken;
}

static bool hear_goodbye(cmi_gang *gang, gang_link *link, const cmi_gang_goodbye *goodbye)
{
    cmi_gang_machine *m = &gang->machine;
    cmi_gang_break_link(gang, link);
    if (goodbye->reason == CMI_GANG_GOODBYE_SUPERSEDED && goodbye->generation > m->opt.generation) {
        cmi_log(CMI_LOG_ERROR, "gang %s: another process was started as rank %u", gang->name,
                gang->self);
        cmi_gang_machine_superseded(m, CMI_MAX(cmi_fabric_now_ns(gang->opt.fabric), m->now_ns));
        cmi_gang_perform(gang);
    } else if (goodbye->reason != CMI_GANG_GOODBYE_SUPERSEDED) {
        cmi_log(CMI_LOG_WARN, "gang %s: rank %u is refused: other ranks have another name or list",
                gang->name, gang->self);
    }
    return false;
}

static bool hear_machine(cmi_gang *gang, gang_link *link, const cmi_gang_message *message)
{
    cmi_gang_machine *m = &gang->machine;
    const bool is_good = cmi_gang_machine_hear(
        m, CMI_MAX(cmi_fabric_now_ns(gang->opt.fabric), m->now_ns), link->slot, message);
    cmi_gang_perform(gang);
    return is_good;
}

/* Frames whose payload is not what its type says. */
static bool refuse_frame(cmi_gang *gang, gang_link *link)
{
    gang->counters.n_bad_frames++;
    cmi_gang_break_link(gang, link);
    return false;
}

bool cmi_gang_hear_frame(cmi_gang *gang, gang_link *link, const cmi_frame *frame)
{
    union {
        cmi_gang_hello hello;
        cmi_gang_goodbye goodbye;
        cmi_gang_member member;
        cmi_gang_message message;
    } got;
    if (frame->type == CMI_GANG_FRAME_GOODBYE && cmi_gang_read_goodbye(frame, &got.goodbye)) {
        return hear_goodbye(gang, link, &got.goodbye);
    }
    if (link->state == LINK_GREETS) {
        return frame->type == CMI_GANG_FRAME_HELLO && cmi_gang_read_hello(frame, &got.hello)
                   ? hear_hello(gang, link, &got.hello)
                   : refuse_frame(gang, link);
    }
    if (frame->type == CMI_GANG_FRAME_MEMBER && cmi_gang_read_member(frame, &got.member)) {
        (void)cmi_membership_hear(gang->opt.membership, got.member.slot, got.member.address,
                                  got.member.generation);
        return true;
    }
    if (cmi_gang_read_message(frame, &got.message)) {
        return hear_machine(gang, link, &got.message) || refuse_frame(gang, link);
    }
    const bool is_known = frame->type >= CMI_GANG_FRAME_MACHINE + CMI_GANG_STATE &&
                          frame->type <= CMI_GANG_FRAME_MEMBER;
    if (!is_known && frame->minor > CMI_FRAME_MINOR) {
        gang->counters.n_unknown_frames++;
        return true;
    }
    return refuse_frame(gang, link);
}
