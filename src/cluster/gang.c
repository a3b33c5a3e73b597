#include "cluster/gang_internal.h"

#include <assert.h>
#include <inttypes.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/strmap.h"
#include "os/clock.h"

static const uint64_t MS = 1000000;

void cmi_gang_options_default(cmi_gang_options *opt)
{
    *opt = (cmi_gang_options){.name = "", .connect_ns = 2000 * MS, .redial_ns = 20 * MS};
    cmi_gang_machine_options_default(&opt->machine);
    opt->machine.generation = 0;
}

/* In microseconds: no process of a slot starts in the same one as another. */
static uint64_t generation_by_clock(void)
{
    return cmi_clock_unix_ns() / 1000;
}

/* ---- making one ---- */

static cmi_status check(const cmi_gang_options *opt, cmi_error *err)
{
    const uint32_t n = cmi_membership_count(opt->membership);
    if (strlen(opt->name) > CMI_FABRIC_MAX_NAME || opt->blob_bytes > CMI_GANG_MAX_BLOB) {
        return cmi_error_set(err, CMI_ERR_INVALID, "gang: name or blob is too long");
    }
    if (n > CMI_GANG_MAX_RANKS || opt->machine.min_ranks < 1 || opt->machine.min_ranks > n) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "gang %s: %u ranks and at least %u of them; 1 to %d can be", opt->name,
                             n, opt->machine.min_ranks, CMI_GANG_MAX_RANKS);
    }
    return CMI_OK;
}

static void set_blob(cmi_gang *gang, const void *blob, size_t n_bytes)
{
    gang_slot *self = &gang->slots[gang->self];
    self->n_blob = (uint16_t)n_bytes;
    if (n_bytes > 0) {
        memcpy(self->blob, blob, n_bytes);
    }
}

/* With the options' generation; announces it. */
static cmi_status begin(cmi_gang *gang, cmi_error *err)
{
    const char *address = cmi_fabric_address(gang->opt.fabric);
    const cmi_member *self = cmi_membership_get(gang->opt.membership, gang->self, NULL);
    if (self->address[0] != '\0') {
        address = self->address; /* where others are told to look for it */
    }
    char copy[CMI_MEMBER_MAX_ADDRESS + 1] = "";
    memcpy(copy, address, CMI_MIN(strlen(address), sizeof copy - 1));
    cmi_status st = cmi_membership_announce(gang->opt.membership, copy,
                                            gang->opt.machine.generation, NULL, err);
    if (st == CMI_OK && !cmi_gang_machine_init(&gang->machine, gang->peers, &gang->opt.machine,
                                               cmi_fabric_now_ns(gang->opt.fabric))) {
        st = cmi_error_set(err, CMI_ERR_INVALID, "gang %s: a time is out of range", gang->name);
    }
    return st;
}

cmi_status cmi_gang_create(cmi_gang **gang_out, const cmi_gang_options *opt, cmi_error *err)
{
    cmi_status st = check(opt, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_gang *gang = cmi_alloc(1, sizeof *gang);
    gang->opt = *opt;
    gang->n = cmi_membership_count(opt->membership);
    gang->self = cmi_membership_self(opt->membership);
    memcpy(gang->name, opt->name, strlen(opt->name));
    gang->opt.name = gang->name;
    gang->opt.blob = NULL;
    gang->opt.machine.n_slots = gang->n;
    gang->opt.machine.self = gang->self;
    if (gang->opt.machine.generation == 0) {
        gang->opt.machine.generation = generation_by_clock();
    }
    gang->name_hash = cmi_hash_bytes(gang->name, strlen(gang->name));
    gang->n_links = 2 * gang->n + 8; /* those that greet, or take another's place, too */
    gang->peers = cmi_alloc(gang->n, sizeof *gang->peers);
    gang->slots = cmi_alloc(gang->n, sizeof *gang->slots);
    gang->links = cmi_alloc(gang->n_links, sizeof *gang->links);
    gang->link_of = cmi_alloc(GANG_ENDPOINTS, sizeof *gang->link_of);
    gang->ranks = cmi_alloc(gang->n, sizeof *gang->ranks);
    gang->blobs = cmi_alloc(gang->n, CMI_GANG_MAX_BLOB);
    memset(gang->link_of, 0xFF, GANG_ENDPOINTS * sizeof *gang->link_of);
    for (uint32_t i = 0; i < gang->n; i++) {
        gang->slots[i].link = GANG_NO_LINK;
    }
    gang->over_ns = cmi_fabric_now_ns(opt->fabric);
    set_blob(gang, opt->blob, opt->blob_bytes);
    st = begin(gang, err);
    if (st != CMI_OK) {
        cmi_gang_destroy(gang);
        return st;
    }
    *gang_out = gang;
    cmi_gang_perform(gang);
    return CMI_OK;
}

void cmi_gang_destroy(cmi_gang *gang)
{
    if (gang == NULL) {
        return;
    }
    cmi_gang_close_links(gang);
    cmi_membership_leave(gang->opt.membership);
    cmi_free(gang->peers);
    cmi_free(gang->slots);
    cmi_free(gang->links);
    cmi_free(gang->link_of);
    cmi_free(gang->ranks);
    cmi_free(gang->blobs);
    cmi_free(gang);
}

/* ---- what the machine says ---- */

static cmi_gang_rank make_rank(cmi_gang *gang, uint32_t slot, uint8_t *blob)
{
    const gang_slot *own = &gang->slots[slot];
    memcpy(blob, own->blob, own->n_blob);
    return (cmi_gang_rank){.slot = slot,
                           .generation = gang->peers[slot].generation,
                           .endpoint = slot != gang->self && own->link != GANG_NO_LINK
                                           ? gang->links[own->link].endpoint
                                           : (cmi_endpoint_id){0},
                           .blob = blob,
                           .blob_bytes = own->n_blob};
}

static void install_view(cmi_gang *gang)
{
    const cmi_gang_set *members = cmi_gang_machine_members(&gang->machine);
    cmi_gang_view *view = &gang->view;
    *view = (cmi_gang_view){.epoch = cmi_gang_machine_epoch(&gang->machine), .ranks = gang->ranks};
    for (uint32_t slot = 0; slot < gang->n; slot++) {
        if (cmi_gang_set_has(members, slot)) {
            view->rank = slot == gang->self ? view->n_ranks : view->rank;
            gang->ranks[view->n_ranks] =
                make_rank(gang, slot, gang->blobs + (size_t)view->n_ranks * CMI_GANG_MAX_BLOB);
            view->n_ranks++;
        }
    }
    gang->counters.n_views++;
    gang->counters.last_reform_ns = gang->machine.now_ns - gang->over_ns;
    cmi_log(CMI_LOG_INFO, "gang %s: rank %u of %u in view %" PRIu32 " (%u of %u places)",
            gang->name, view->rank, view->n_ranks, cmi_gang_epoch_count(view->epoch), view->n_ranks,
            gang->n);
}

void cmi_gang_perform(cmi_gang *gang)
{
    cmi_gang_action action;
    while (cmi_gang_machine_next(&gang->machine, &action)) {
        switch (action.kind) {
        case CMI_GANG_SEND:
            cmi_gang_post(gang, action.slot, &action.message);
            break;
        case CMI_GANG_DROP:
            cmi_gang_drop_slot(gang, action.slot);
            break;
        case CMI_GANG_STOP:
            gang->over_ns = gang->machine.now_ns;
            break;
        case CMI_GANG_INSTALL:
            install_view(gang);
            break;
        case CMI_GANG_OUT:
            gang->counters.n_left_out++;
            break;
        }
    }
}

/* ---- getting on ---- */

static uint64_t now(const cmi_gang *gang)
{
    return CMI_MAX(cmi_fabric_now_ns(gang->opt.fabric), gang->machine.now_ns);
}

/* The sender's rank in the view; n_ranks: it is not in it. */
static uint32_t find_rank(const cmi_gang *gang, uint32_t slot)
{
    uint32_t low = 0, high = gang->view.n_ranks;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (gang->ranks[middle].slot < slot) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < gang->view.n_ranks && gang->ranks[low].slot == slot ? low : gang->view.n_ranks;
}

/* True: it is for the caller. */
static bool hear_message(cmi_gang *gang, cmi_endpoint_id from, size_t n_bytes,
                         cmi_gang_event *event_out)
{
    gang_link *link = cmi_gang_find_link(gang, from);
    cmi_frame frame;
    if (link == NULL) {
        return false;
    }
    if (cmi_frame_read(gang->received, n_bytes, &frame) != CMI_OK) {
        gang->counters.n_bad_frames++;
        cmi_gang_break_link(gang, link);
        return false;
    }
    if (link->state != LINK_UP || frame.type < CMI_FRAME_EP) {
        (void)cmi_gang_hear_frame(gang, link, &frame);
        return false;
    }
    const uint32_t rank = find_rank(gang, link->slot);
    if (cmi_gang_machine_phase(&gang->machine) != CMI_GANG_READY ||
        frame.epoch != gang->view.epoch || rank == gang->view.n_ranks) {
        gang->counters.n_stale_frames++;
        return false;
    }
    *event_out = (cmi_gang_event){.kind = CMI_GANG_FRAME, .rank = rank, .frame = frame};
    return true;
}

bool cmi_gang_poll(cmi_gang *gang, cmi_gang_event *event_out)
{
    cmi_fabric *fabric = gang->opt.fabric;
    cmi_fabric_progress(fabric);
    cmi_endpoint_id from;
    size_t n_bytes;
    /* Messages first: what a lost peer has sent is gone with its endpoint. */
    while (cmi_fabric_receive(fabric, &from, gang->received, &n_bytes)) {
        if (hear_message(gang, from, n_bytes, event_out)) {
            return true;
        }
    }
    while (cmi_fabric_poll(fabric, &event_out->done)) {
        if (event_out->done.kind == CMI_EVENT_DONE) {
            event_out->kind = CMI_GANG_DONE;
            return true;
        }
        cmi_gang_hear_event(gang, &event_out->done);
    }
    if (now(gang) >= cmi_gang_machine_due_ns(&gang->machine)) {
        cmi_gang_machine_tick(&gang->machine, now(gang));
        cmi_gang_perform(gang);
    }
    cmi_gang_tend_links(gang);
    return false;
}

void cmi_gang_sleep(cmi_gang *gang, uint64_t deadline_ns)
{
    uint64_t due_ns = CMI_MIN(deadline_ns, cmi_gang_machine_due_ns(&gang->machine));
    cmi_fabric_sleep(gang->opt.fabric, CMI_MIN(due_ns, cmi_gang_links_due_ns(gang)));
}

/* ---- phases and views ---- */

cmi_gang_phase cmi_gang_get_phase(const cmi_gang *gang)
{
    return cmi_gang_machine_phase(&gang->machine);
}

uint32_t cmi_gang_n_seen(const cmi_gang *gang)
{
    return cmi_gang_machine_n_seen(&gang->machine);
}

const cmi_gang_view *cmi_gang_get_view(const cmi_gang *gang)
{
    const cmi_gang_phase phase = cmi_gang_get_phase(gang);
    return phase == CMI_GANG_READY || phase == CMI_GANG_STOPPING ? &gang->view : NULL;
}

void cmi_gang_stopped(cmi_gang *gang)
{
    cmi_gang_machine_stopped(&gang->machine, now(gang));
    cmi_gang_perform(gang);
}

cmi_status cmi_gang_rejoin(cmi_gang *gang, const void *blob, size_t blob_bytes, cmi_error *err)
{
    assert(cmi_gang_get_phase(gang) == CMI_GANG_LEFT_OUT);
    if (blob_bytes > CMI_GANG_MAX_BLOB) {
        return cmi_error_set(err, CMI_ERR_INVALID, "gang %s: the blob is too long", gang->name);
    }
    cmi_gang_close_links(gang);
    set_blob(gang, blob, blob_bytes);
    gang->opt.machine
        .generation++; /* not by the clock: a process that was started later is later */
    cmi_status st = begin(gang, err);
    assert(st == CMI_OK); /* all of it was good before */
    cmi_gang_perform(gang);
    return st;
}

cmi_status cmi_gang_send(cmi_gang *gang, uint32_t rank, uint16_t type, uint8_t *frame,
                         const cmi_le_writer *w)
{
    assert(cmi_gang_get_phase(gang) == CMI_GANG_READY && type >= CMI_FRAME_EP);
    assert(rank < gang->view.n_ranks && rank != gang->view.rank);
    const size_t n_bytes = cmi_frame_end(frame, w, type, gang->view.epoch);
    if (n_bytes == 0) {
        return CMI_ERR_TOO_LARGE;
    }
    const gang_link *link = cmi_gang_find_link(gang, gang->ranks[rank].endpoint);
    if (link == NULL) {
        return CMI_ERR_PEER;
    }
    if (link->owes_hello || link->n_out > 0) {
        return CMI_ERR_NO_CAPACITY; /* in order: what says that the view is installed goes first */
    }
    return cmi_endpoint_send(gang->opt.fabric, link->endpoint, frame, n_bytes);
}

void cmi_gang_get_counters(const cmi_gang *gang, cmi_gang_counters *counters_out)
{
    *counters_out = gang->counters;
}
