/* policy/gang_lead.c - who leads, and what a leader proposes; see gang.h. */
#include "policy/gang_internal.h"

/* ---- who could be in a view ---- */

/* Ranks that see each other, this one among them: those of its own last epoch first, so that nobody
 * who comes takes the place of one who acts, then in the order of slots. */
static cmi_gang_set find_clique(cmi_gang_machine *m)
{
    const cmi_gang_peer *self = cmi_gang_self(m);
    cmi_gang_set clique = {{0}}, seen_by_all = self->sees;
    cmi_gang_set_add(&clique, m->opt.self);
    cmi_gang_set_remove(&seen_by_all, m->opt.self);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < m->opt.n_slots; i++) {
            const cmi_gang_peer *peer = &m->peers[i];
            const bool is_turn = (peer->installed == self->installed) == (pass == 0);
            if (is_turn && !peer->is_late && cmi_gang_set_has(&seen_by_all, i) &&
                cmi_gang_words_hold(&peer->sees, &clique, m->n_words)) {
                cmi_gang_set_add(&clique, i);
                cmi_gang_words_keep(&seen_by_all, &peer->sees, m->n_words);
            }
        }
    }
    return clique;
}

/* Of a clique those that follow this rank. */
static cmi_gang_set find_followers(const cmi_gang_machine *m, cmi_gang_set clique)
{
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        if (i != m->opt.self && m->peers[i].leader != m->opt.self) {
            cmi_gang_set_remove(&clique, i);
        }
    }
    return clique;
}

/* ---- who leads ---- */

void cmi_gang_choose_leader(cmi_gang_machine *m)
{
    cmi_gang_peer *self = cmi_gang_self(m);
    const cmi_gang_set clique = find_clique(m);
    const bool is_short = self->is_late || cmi_gang_set_count(&clique) < m->opt.min_ranks;
    self->flags =
        (self->flags & ~(uint32_t)CMI_GANG_SHORT) | (is_short ? (uint32_t)CMI_GANG_SHORT : 0);
    uint32_t best = CMI_GANG_NOBODY;
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        const cmi_gang_peer *peer = &m->peers[i];
        if (cmi_gang_set_has(&self->sees, i) && (peer->flags & CMI_GANG_SHORT) == 0 &&
            (best == CMI_GANG_NOBODY || peer->installed > m->peers[best].installed)) {
            best = i;
        }
    }
    self->leader = best;
}

/* ---- proposing ---- */

static void propose(cmi_gang_machine *m, const cmi_gang_set *members)
{
    const cmi_gang_peer *self = cmi_gang_self(m);
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        if (cmi_gang_set_has(&self->sees, i)) {
            count = CMI_MAX(count, cmi_gang_epoch_count(m->peers[i].promised));
        }
    }
    if (count == UINT32_MAX) {
        return; /* after 4 billion views; hear lets no such epoch in */
    }
    const cmi_gang_set all = *members;
    cmi_gang_promise(m, cmi_gang_epoch_make(count + 1, m->opt.self, self->generation), &all);
    m->is_proposing = true;
    m->promises = (cmi_gang_set){{0}};
    m->stop_at_ns = m->now_ns + m->opt.stop_ns;
    m->to_propose = all;
    cmi_gang_set_remove(&m->to_propose, m->opt.self);
}

/* Everybody of the last view who lives and stops in time is among them. */
static bool has_all_survivors(cmi_gang_machine *m, const cmi_gang_set *members)
{
    cmi_gang_set survivors = m->view;
    cmi_gang_words_keep(&survivors, &cmi_gang_self(m)->sees, m->n_words);
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        if (m->peers[i].is_late) {
            cmi_gang_set_remove(&survivors, i);
        }
    }
    return cmi_gang_words_hold(members, &survivors, m->n_words);
}

/* These would be the next view's members; is it time? */
static bool is_time(cmi_gang_machine *m, const cmi_gang_set *members)
{
    if (!cmi_gang_set_equal(&m->wanted, members)) {
        m->wanted = *members;
        m->wanted_ns = m->now_ns;
    }
    const uint32_t n = cmi_gang_set_count(members);
    if (n < m->opt.min_ranks) {
        return false;
    }
    if (m->is_acting) {
        return n > cmi_gang_set_count(&m->view) && cmi_gang_set_holds(members, &m->view) &&
               m->now_ns - m->wanted_ns >= m->opt.join_ns;
    }
    if (cmi_gang_self(m)->installed == 0) {
        return n == m->opt.n_slots || m->now_ns - m->start_ns >= m->opt.gather_ns;
    }
    return has_all_survivors(m, members) || m->now_ns - m->broken_ns >= m->opt.settle_ns;
}

/* Whoever has not promised in time does not stop, or it is this rank itself that does not. */
static void give_up_on_late_ones(cmi_gang_machine *m)
{
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        if (cmi_gang_set_has(&m->current, i) && !cmi_gang_set_has(&m->promises, i)) {
            m->peers[i].is_late = true;
        }
    }
    cmi_gang_give_up(m);
    cmi_gang_choose_leader(m);
}

void cmi_gang_lead(cmi_gang_machine *m)
{
    if (m->is_proposing && m->now_ns >= m->stop_at_ns) {
        give_up_on_late_ones(m);
    }
    if (m->is_proposing || cmi_gang_self(m)->leader != m->opt.self || m->now_ns < m->retry_at_ns) {
        return;
    }
    const cmi_gang_set members = find_followers(m, find_clique(m));
    if (is_time(m, &members)) {
        propose(m, &members);
    }
}

/* ---- when ---- */

static uint64_t sooner(uint64_t due_ns, uint64_t at_ns, uint64_t now_ns)
{
    return at_ns > now_ns ? CMI_MIN(due_ns, at_ns) : due_ns;
}

uint64_t cmi_gang_machine_due_ns(const cmi_gang_machine *m)
{
    uint64_t due_ns = m->beat_at_ns;
    if (m->is_proposing) {
        due_ns = CMI_MIN(due_ns, m->stop_at_ns);
    } else if (m->peers[m->opt.self].leader == m->opt.self) {
        due_ns = sooner(due_ns, m->retry_at_ns, m->now_ns);
        due_ns = sooner(due_ns, m->wanted_ns + m->opt.join_ns, m->now_ns);
        due_ns = sooner(due_ns, m->start_ns + m->opt.gather_ns, m->now_ns);
        due_ns = sooner(due_ns, m->broken_ns + m->opt.settle_ns, m->now_ns);
    }
    return due_ns;
}
