#include "policy/gang_internal.h"

/* ---- leaving and promising ---- */

static void stop_acting(cmi_gang_machine *m)
{
    m->is_proposing = false;
    m->is_promise_due = false;
    m->broken_ns = m->now_ns;
    if (m->is_acting) {
        m->is_acting = false;
        m->is_stopping = true;
        m->has_stop = true;
    }
}

void cmi_gang_give_up(cmi_gang_machine *m)
{
    cmi_gang_peer *self = cmi_gang_self(m);
    if ((self->flags & CMI_GANG_GAVE_UP) == 0) {
        self->flags |= CMI_GANG_GAVE_UP;
        m->current = (cmi_gang_set){{0}};
        m->to_propose = m->to_commit = (cmi_gang_set){{0}};
        stop_acting(m);
    }
}

void cmi_gang_promise(cmi_gang_machine *m, uint64_t epoch, const cmi_gang_set *members)
{
    cmi_gang_peer *self = cmi_gang_self(m);
    stop_acting(m);
    self->promised = epoch;
    self->flags &= ~(uint32_t)CMI_GANG_GAVE_UP;
    m->current = *members;
    m->is_promise_due = true;
}

/* ---- links ---- */

void cmi_gang_unlink(cmi_gang_machine *m, uint32_t slot)
{
    cmi_gang_peer *peer = &m->peers[slot];
    peer->is_linked = peer->has_state = peer->is_late = false;
    peer->leader = CMI_GANG_NOBODY;
    cmi_gang_set_remove(&cmi_gang_self(m)->sees, slot);
    cmi_gang_set_remove(&m->to_state, slot);
    cmi_gang_set_remove(&m->to_propose, slot);
    cmi_gang_set_remove(&m->to_commit, slot);
    m->promise_to = m->promise_to == slot ? CMI_GANG_NOBODY : m->promise_to;
    m->refuse_to = m->refuse_to == slot ? CMI_GANG_NOBODY : m->refuse_to;
    if (cmi_gang_set_has(&m->current, slot)) {
        cmi_gang_give_up(m);
    }
}

void cmi_gang_drop(cmi_gang_machine *m, uint32_t slot)
{
    cmi_gang_unlink(m, slot);
    cmi_gang_set_add(&m->to_drop, slot);
}

static void drop_all(cmi_gang_machine *m)
{
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        if (m->peers[i].is_linked) {
            cmi_gang_drop(m, i);
        }
    }
}

/* ---- a new view ---- */

/* Those that are not in the view and may still act in an older one must not reach into memory. */
static void drop_strangers(cmi_gang_machine *m)
{
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        const cmi_gang_peer *peer = &m->peers[i];
        const bool may_act = peer->installed > 0 && peer->promised == peer->installed &&
                             (peer->flags & CMI_GANG_GAVE_UP) == 0;
        if (peer->has_state && !cmi_gang_set_has(&m->view, i) &&
            (may_act || (peer->flags & CMI_GANG_BUSY) != 0)) {
            cmi_gang_drop(m, i);
        }
    }
}

void cmi_gang_install(cmi_gang_machine *m)
{
    cmi_gang_peer *self = cmi_gang_self(m);
    self->installed = self->promised;
    m->view = m->current;
    m->is_proposing = false;
    m->is_acting = true;
    m->has_install = true;
    drop_strangers(m);
}

static void say_promise(cmi_gang_machine *m)
{
    if (!m->is_promise_due || m->is_stopping) {
        return;
    }
    m->is_promise_due = false;
    if (m->is_proposing) {
        cmi_gang_set_add(&m->promises, m->opt.self);
    } else {
        m->promise_to = cmi_gang_epoch_slot(cmi_gang_self(m)->promised);
    }
}

static void commit(cmi_gang_machine *m)
{
    if (m->is_proposing && cmi_gang_words_hold(&m->promises, &m->current, m->n_words)) {
        m->to_commit = m->current;
        cmi_gang_set_remove(&m->to_commit, m->opt.self);
        cmi_gang_install(m);
    }
}

void cmi_gang_keep_promise(cmi_gang_machine *m)
{
    say_promise(m);
    commit(m);
}

/* ---- the end ---- */

bool cmi_gang_has_ended(const cmi_gang_machine *m)
{
    return m->is_left_out || m->is_superseded;
}

void cmi_gang_end(cmi_gang_machine *m, bool *why)
{
    if (!cmi_gang_has_ended(m)) {
        *why = true;
        cmi_gang_give_up(m);
        drop_all(m);
        m->has_out = true;
    }
}
