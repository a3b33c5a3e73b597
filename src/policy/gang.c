/* policy/gang.c - what a rank hears and what it says; see gang.h.
 *
 * peers[self] is what this rank says of itself, and true at all times: promised, installed, flags,
 * sees. From it and the others' states everything is decided anew after each call (move_on). */
#include "policy/gang_internal.h"

#include <assert.h>

static const uint64_t MS = 1000000;

void cmi_gang_machine_options_default(cmi_gang_machine_options *opt)
{
    *opt = (cmi_gang_machine_options){.n_slots = 1,
                                      .min_ranks = 1,
                                      .generation = 1,
                                      .beat_ns = 100 * MS,
                                      .silent_ns = 500 * MS,
                                      .settle_ns = 200 * MS,
                                      .gather_ns = 60000 * MS,
                                      .join_ns = 100 * MS,
                                      .stop_ns = 2000 * MS,
                                      .retry_ns = 5 * MS};
}

static bool options_are_good(const cmi_gang_machine_options *opt)
{
    const uint64_t longest_ns = UINT64_C(1) << 60; /* sums with it do not overflow */
    return opt->n_slots >= 1 && opt->n_slots <= CMI_GANG_MAX_RANKS && opt->self < opt->n_slots &&
           opt->min_ranks >= 1 && opt->min_ranks <= opt->n_slots && opt->generation >= 1 &&
           opt->beat_ns >= 1 && opt->silent_ns > opt->beat_ns && opt->settle_ns > opt->beat_ns &&
           opt->silent_ns < longest_ns && opt->settle_ns < longest_ns &&
           opt->gather_ns < longest_ns && opt->join_ns < longest_ns && opt->stop_ns < longest_ns &&
           opt->retry_ns < longest_ns;
}

/* ---- what is said ---- */

static cmi_gang_message make_state(cmi_gang_machine *m)
{
    const cmi_gang_peer *self = cmi_gang_self(m);
    return (cmi_gang_message){.kind = CMI_GANG_STATE,
                              .flags = self->flags,
                              .leader = self->leader,
                              .epoch = self->promised,
                              .installed = self->installed,
                              .set = self->sees};
}

static void tell_everybody(cmi_gang_machine *m)
{
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        if (m->peers[i].is_linked) {
            cmi_gang_set_add(&m->to_state, i);
        }
    }
}

static void tell_news(cmi_gang_machine *m)
{
    cmi_gang_peer *self = cmi_gang_self(m);
    self->flags =
        (self->flags & ~(uint32_t)CMI_GANG_BUSY) | (m->is_stopping ? (uint32_t)CMI_GANG_BUSY : 0);
    const cmi_gang_message state = make_state(m);
    if (!cmi_gang_is_same_state(m, &state, &m->said)) {
        m->said = state;
        tell_everybody(m);
    }
}

static void move_on(cmi_gang_machine *m)
{
    if (!cmi_gang_has_ended(m)) {
        cmi_gang_keep_promise(m); /* before anybody is found late */
        cmi_gang_choose_leader(m);
        cmi_gang_lead(m);
        cmi_gang_keep_promise(m); /* one that it has just given */
        tell_news(m);
    }
}

static void drop_silent(cmi_gang_machine *m)
{
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        const cmi_gang_peer *peer = &m->peers[i];
        if (peer->is_linked && m->now_ns - peer->heard_ns >= m->opt.silent_ns) {
            cmi_gang_drop(m, i);
        }
    }
}

/* ---- calls ---- */

bool cmi_gang_machine_init(cmi_gang_machine *m, cmi_gang_peer *peers,
                           const cmi_gang_machine_options *opt, uint64_t now_ns)
{
    if (!options_are_good(opt)) {
        return false;
    }
    *m = (cmi_gang_machine){.opt = *opt,
                            .peers = peers,
                            .n_words = CMI_DIV_UP(opt->n_slots, 64u),
                            .start_ns = now_ns,
                            .now_ns = now_ns,
                            .broken_ns = now_ns,
                            .beat_at_ns = now_ns + opt->beat_ns,
                            .promise_to = CMI_GANG_NOBODY,
                            .refuse_to = CMI_GANG_NOBODY};
    for (uint32_t i = 0; i < opt->n_slots; i++) {
        peers[i] = (cmi_gang_peer){.leader = CMI_GANG_NOBODY};
    }
    peers[opt->self].generation = opt->generation;
    peers[opt->self].flags = CMI_GANG_GAVE_UP; /* of epoch 0, which is nobody's */
    cmi_gang_set_add(&peers[opt->self].sees, opt->self);
    move_on(m);
    return true;
}

static void begin(cmi_gang_machine *m, uint64_t now_ns)
{
    assert(m->is_drained && now_ns >= m->now_ns);
    m->is_drained = false;
    m->now_ns = now_ns;
}

bool cmi_gang_machine_link_up(cmi_gang_machine *m, uint64_t now_ns, uint32_t slot,
                              uint64_t generation)
{
    assert(slot < m->opt.n_slots && slot != m->opt.self);
    begin(m, now_ns);
    cmi_gang_peer *peer = &m->peers[slot];
    if (generation == 0 || generation < peer->generation) {
        return false;
    }
    cmi_gang_unlink(m, slot);
    if (!cmi_gang_has_ended(m)) {
        *peer = (cmi_gang_peer){.is_linked = true,
                                .leader = CMI_GANG_NOBODY,
                                .generation = generation,
                                .heard_ns = now_ns};
        cmi_gang_set_add(&m->to_state, slot);
    }
    move_on(m);
    return true;
}

void cmi_gang_machine_link_down(cmi_gang_machine *m, uint64_t now_ns, uint32_t slot)
{
    assert(slot < m->opt.n_slots && slot != m->opt.self);
    begin(m, now_ns);
    if (m->peers[slot].is_linked) {
        cmi_gang_unlink(m, slot);
        move_on(m);
    }
}

void cmi_gang_machine_stopped(cmi_gang_machine *m, uint64_t now_ns)
{
    begin(m, now_ns);
    assert(m->is_stopping);
    m->is_stopping = false;
    cmi_gang_self(m)->is_late = false;
    move_on(m);
}

void cmi_gang_machine_superseded(cmi_gang_machine *m, uint64_t now_ns)
{
    begin(m, now_ns);
    cmi_gang_end(m, &m->is_superseded);
}

void cmi_gang_machine_tick(cmi_gang_machine *m, uint64_t now_ns)
{
    begin(m, now_ns);
    if (now_ns >= m->beat_at_ns) {
        m->beat_at_ns = now_ns + m->opt.beat_ns;
        drop_silent(m);
        tell_everybody(m);
    }
    move_on(m);
}

bool cmi_gang_machine_hear(cmi_gang_machine *m, uint64_t now_ns, uint32_t slot,
                           const cmi_gang_message *msg)
{
    assert(slot < m->opt.n_slots && slot != m->opt.self);
    begin(m, now_ns);
    if (cmi_gang_has_ended(m) || !m->peers[slot].is_linked) {
        return true;
    }
    if (!cmi_gang_is_good_message(m, slot, msg)) {
        return false;
    }
    m->peers[slot].heard_ns = now_ns;
    if (cmi_gang_hear(m, slot, msg)) {
        move_on(m);
    }
    return true;
}

/* ---- doing ---- */

static bool take(cmi_gang_machine *m, cmi_gang_set *set, uint32_t *slot_out)
{
    for (uint32_t i = 0; i < m->n_words; i++) {
        if (set->words[i] != 0) {
            *slot_out = i * 64 + (uint32_t)__builtin_ctzll(set->words[i]);
            set->words[i] &= set->words[i] - 1;
            return true;
        }
    }
    return false;
}

static bool take_one(uint32_t *from, uint32_t *slot_out)
{
    *slot_out = *from;
    *from = CMI_GANG_NOBODY;
    return *slot_out != CMI_GANG_NOBODY;
}

static bool take_flag(bool *flag)
{
    const bool was = *flag;
    *flag = false;
    return was;
}

static bool next_message(cmi_gang_machine *m, cmi_gang_action *action_out)
{
    const uint64_t promised = cmi_gang_self(m)->promised;
    cmi_gang_message *msg = &action_out->message;
    action_out->kind = CMI_GANG_SEND;
    if (take(m, &m->to_state, &action_out->slot)) {
        *msg = m->said;
    } else if (take_one(&m->refuse_to, &action_out->slot)) {
        *msg = (cmi_gang_message){.kind = CMI_GANG_REFUSE, .epoch = m->refused};
    } else if (take_one(&m->promise_to, &action_out->slot)) {
        *msg = (cmi_gang_message){.kind = CMI_GANG_PROMISE, .epoch = promised};
    } else if (take(m, &m->to_propose, &action_out->slot)) {
        *msg = (cmi_gang_message){.kind = CMI_GANG_PROPOSE,
                                  .epoch = promised,
                                  .digest = cmi_gang_digest(m, &m->current),
                                  .set = m->current};
    } else if (take(m, &m->to_commit, &action_out->slot)) {
        *msg = (cmi_gang_message){.kind = CMI_GANG_COMMIT, .epoch = promised};
    } else {
        return false;
    }
    return true;
}

bool cmi_gang_machine_next(cmi_gang_machine *m, cmi_gang_action *action_out)
{
    if (take(m, &m->to_drop, &action_out->slot)) {
        action_out->kind = CMI_GANG_DROP;
    } else if (take_flag(&m->has_stop)) {
        action_out->kind = CMI_GANG_STOP;
    } else if (next_message(m, action_out)) {
        return true;
    } else if (take_flag(&m->has_install)) {
        action_out->kind = CMI_GANG_INSTALL;
    } else if (take_flag(&m->has_out)) {
        action_out->kind = CMI_GANG_OUT;
    } else {
        m->is_drained = true;
        return false;
    }
    return true;
}

/* ---- looks ---- */

cmi_gang_phase cmi_gang_machine_phase(const cmi_gang_machine *m)
{
    if (m->is_stopping) {
        return CMI_GANG_STOPPING;
    }
    if (m->is_superseded) {
        return CMI_GANG_SUPERSEDED;
    }
    if (m->is_left_out) {
        return CMI_GANG_LEFT_OUT;
    }
    if (m->is_acting) {
        return CMI_GANG_READY;
    }
    const bool is_short = (m->peers[m->opt.self].flags & CMI_GANG_SHORT) != 0;
    return is_short ? CMI_GANG_TOO_FEW : CMI_GANG_FORMING;
}

uint64_t cmi_gang_machine_epoch(const cmi_gang_machine *m)
{
    return m->peers[m->opt.self].installed;
}

const cmi_gang_set *cmi_gang_machine_members(const cmi_gang_machine *m)
{
    return &m->view;
}

uint32_t cmi_gang_machine_leader(const cmi_gang_machine *m)
{
    return m->peers[m->opt.self].leader;
}

uint32_t cmi_gang_machine_n_seen(const cmi_gang_machine *m)
{
    return cmi_gang_set_count(&m->peers[m->opt.self].sees);
}
