#include "policy/gang_internal.h"

/* ---- what a rank can say ---- */

static bool set_is_good(const cmi_gang_machine *m, const cmi_gang_set *set, uint32_t from)
{
    for (uint32_t i = m->opt.n_slots; i < CMI_GANG_MAX_RANKS; i = (i / 64 + 1) * 64) {
        if (set->words[i / 64] >> i % 64 != 0) {
            return false;
        }
    }
    return cmi_gang_set_has(set, from);
}

static bool epoch_is_good(const cmi_gang_machine *m, uint64_t epoch)
{
    return epoch == 0 || (cmi_gang_epoch_count(epoch) < UINT32_MAX &&
                          cmi_gang_epoch_slot(epoch) < m->opt.n_slots);
}

bool cmi_gang_is_good_message(const cmi_gang_machine *m, uint32_t from, const cmi_gang_message *msg)
{
    const uint64_t theirs =
        cmi_gang_epoch_make(cmi_gang_epoch_count(msg->epoch), from, m->peers[from].generation);
    if (!epoch_is_good(m, msg->epoch)) {
        return false;
    }
    switch (msg->kind) {
    case CMI_GANG_STATE:
        return epoch_is_good(m, msg->installed) && msg->installed <= msg->epoch &&
               (msg->flags & ~(uint32_t)CMI_GANG_ALL_FLAGS) == 0 &&
               (msg->leader < m->opt.n_slots || msg->leader == CMI_GANG_NOBODY) &&
               set_is_good(m, &msg->set, from);
    case CMI_GANG_PROPOSE:
        return msg->epoch == theirs && msg->epoch != 0 && set_is_good(m, &msg->set, from) &&
               cmi_gang_set_has(&msg->set, m->opt.self);
    case CMI_GANG_COMMIT:
        return msg->epoch == theirs && msg->epoch != 0;
    case CMI_GANG_PROMISE:
    case CMI_GANG_REFUSE:
        return msg->epoch != 0;
    }
    return false;
}

static void hear_commit(cmi_gang_machine *m, uint64_t epoch)
{
    const cmi_gang_peer *self = cmi_gang_self(m);
    if (!m->is_proposing && epoch == self->promised && (self->flags & CMI_GANG_GAVE_UP) == 0 &&
        !m->is_promise_due && self->installed < self->promised) {
        cmi_gang_install(m);
    }
}

/* ---- what follows from it ---- */

bool cmi_gang_is_same_state(const cmi_gang_machine *m, const cmi_gang_message *a,
                            const cmi_gang_message *b)
{
    return a->flags == b->flags && a->leader == b->leader && a->epoch == b->epoch &&
           a->installed == b->installed && cmi_gang_words_hold(&a->set, &b->set, m->n_words) &&
           cmi_gang_words_hold(&b->set, &a->set, m->n_words);
}

/* True: it says something new. */
static bool hear_state(cmi_gang_machine *m, uint32_t from, const cmi_gang_message *msg)
{
    cmi_gang_peer *peer = &m->peers[from], *self = cmi_gang_self(m);
    const cmi_gang_message before = {.flags = peer->flags,
                                     .leader = peer->leader,
                                     .epoch = peer->promised,
                                     .installed = peer->installed,
                                     .set = peer->sees};
    peer->is_late = peer->is_late && (msg->flags & CMI_GANG_BUSY) != 0;
    if (peer->has_state && cmi_gang_is_same_state(m, &before, msg)) {
        return false;
    }
    peer->has_state = true;
    peer->flags = msg->flags;
    peer->leader = msg->leader;
    peer->promised = msg->epoch;
    peer->installed = msg->installed;
    peer->sees = msg->set;
    cmi_gang_set_add(&self->sees, from);
    if (self->installed > 0 && peer->installed > self->promised) {
        cmi_gang_end(m, &m->is_left_out); /* its members have all promised, so this rank is none */
        return true;
    }
    const bool has_left =
        peer->promised > self->promised ||
        (peer->promised == self->promised && (peer->flags & CMI_GANG_GAVE_UP) != 0);
    if (has_left && cmi_gang_set_has(&m->current, from)) {
        cmi_gang_give_up(m);
    }
    hear_commit(m, peer->installed); /* whoever acts in it knows that all have promised */
    return true;
}

static void hear_proposal(cmi_gang_machine *m, uint32_t from, const cmi_gang_message *msg)
{
    const cmi_gang_peer *self = cmi_gang_self(m);
    const bool fits = msg->epoch > self->promised && self->leader == from &&
                      cmi_gang_words_hold(&self->sees, &msg->set, m->n_words) &&
                      cmi_gang_digest(m, &msg->set) == msg->digest;
    if (fits) {
        cmi_gang_promise(m, msg->epoch, &msg->set);
    } else {
        m->refuse_to = from;
        m->refused = msg->epoch;
        cmi_gang_set_add(&m->to_state, from);
    }
}

static void hear_answer(cmi_gang_machine *m, uint32_t from, const cmi_gang_message *msg)
{
    if (!m->is_proposing || msg->epoch != cmi_gang_self(m)->promised ||
        !cmi_gang_set_has(&m->current, from)) {
        return;
    }
    if (msg->kind == CMI_GANG_PROMISE) {
        cmi_gang_set_add(&m->promises, from);
    } else {
        cmi_gang_give_up(m);
        m->retry_at_ns = m->now_ns + m->opt.retry_ns;
    }
}

bool cmi_gang_hear(cmi_gang_machine *m, uint32_t from, const cmi_gang_message *msg)
{
    switch (msg->kind) {
    case CMI_GANG_STATE:
        return hear_state(m, from, msg);
    case CMI_GANG_PROPOSE:
        hear_proposal(m, from, msg);
        break;
    case CMI_GANG_PROMISE:
    case CMI_GANG_REFUSE:
        hear_answer(m, from, msg);
        break;
    case CMI_GANG_COMMIT:
        hear_commit(m, msg->epoch);
        break;
    }
    return true;
}
