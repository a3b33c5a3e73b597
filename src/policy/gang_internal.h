/* policy/gang_internal.h - the parts of the machine: gang.c hears, gang_lead.c decides who leads
 * and what is proposed, gang_set.c counts. */
#ifndef CMI_POLICY_GANG_INTERNAL_H
#define CMI_POLICY_GANG_INTERNAL_H

#include "policy/gang.h"

static inline cmi_gang_peer *cmi_gang_self(cmi_gang_machine *m)
{
    return &m->peers[m->opt.self];
}

/* part is in set, in the first n_words. */
static inline bool cmi_gang_words_hold(const cmi_gang_set *set, const cmi_gang_set *part,
                                       uint32_t n_words)
{
    uint64_t missing = 0;
    for (uint32_t i = 0; i < n_words; i++) {
        missing |= part->words[i] & ~set->words[i];
    }
    return missing == 0;
}

static inline void cmi_gang_words_keep(cmi_gang_set *set, const cmi_gang_set *kept,
                                       uint32_t n_words)
{
    for (uint32_t i = 0; i < n_words; i++) {
        set->words[i] &= kept->words[i];
    }
}

/* Of slots and generations as they are known here; 0 bits of a set of strangers. */
uint64_t cmi_gang_digest(const cmi_gang_machine *m, const cmi_gang_set *members);

/* ---- gang_state.c ---- */

/* Never acts in the promised epoch, or no longer. */
void cmi_gang_give_up(cmi_gang_machine *m);

/* Never acts in an epoch below this one any more. */
void cmi_gang_promise(cmi_gang_machine *m, uint64_t epoch, const cmi_gang_set *members);

/* Acts in the promised epoch. */
void cmi_gang_install(cmi_gang_machine *m);

/* Says a promise that is due, and commits what all have promised, when it can. */
void cmi_gang_keep_promise(cmi_gang_machine *m);

void cmi_gang_unlink(cmi_gang_machine *m, uint32_t slot);
void cmi_gang_drop(cmi_gang_machine *m, uint32_t slot);

/* For good; why is one of the machine's reasons, which becomes true. */
void cmi_gang_end(cmi_gang_machine *m, bool *why);

bool cmi_gang_has_ended(const cmi_gang_machine *m);

/* ---- gang_hear.c ---- */

bool cmi_gang_is_good_message(const cmi_gang_machine *m, uint32_t from,
                              const cmi_gang_message *message);

/* A good one, of a linked slot. True: it says something new. */
bool cmi_gang_hear(cmi_gang_machine *m, uint32_t from, const cmi_gang_message *message);

/* Both are states. */
bool cmi_gang_is_same_state(const cmi_gang_machine *m, const cmi_gang_message *a,
                            const cmi_gang_message *b);

/* ---- gang_lead.c ---- */

/* Whom this rank follows, and whether it could lead itself. */
void cmi_gang_choose_leader(cmi_gang_machine *m);

/* What a leader does now. */
void cmi_gang_lead(cmi_gang_machine *m);

#endif
