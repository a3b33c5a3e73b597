/* policy/gang.h - how a gang of ranks agrees on who is in it, as a state machine and nothing else.
 *
 * A gang has slots, one for each rank that was started. A slot's process has a generation, higher
 * than that of every process that had the slot before. A view is a set of such processes that act
 * together; it has an epoch. Views follow each other; when a rank is lost or comes, the ranks that
 * live agree on the next one, without a centre that has to live:
 *
 *     propose   the leader tells the members that it wants what they would be in, and its epoch
 *     promise   a member that sees all the others takes it, stops acting, and says so when it has
 *     commit    all have: the leader says so, and whoever hears it, or hears somebody who acts in
 *               it, installs the view
 *
 * The leader is the rank with the latest view among those that can be seen, of equals the one with
 * the lowest slot. A leader that dies is lost like any other, and the next one proposes. All that a
 * rank knows of itself goes to everybody, when it changes and as a heartbeat (CMI_GANG_STATE).
 *
 * What holds, whatever dies, however late messages are:
 *  - An epoch names one view: its number holds a count, and who proposed it (below).
 *  - A rank acts in one epoch at a time, and they only grow. It says that it has left one before
 *    anybody acts in the next one with it: a view is installed when all its members have promised.
 *  - A rank that was left out learns so from whomever it meets (CMI_GANG_LEFT_OUT), and stops.
 * Once nothing more happens and the living see each other, one view has them all. Where they do not
 * see each other, a view holds ranks that do. With min_ranks above half of the slots at most one
 * view acts at a time, parted networks included; below, each part may go on with its own.
 *
 * The epoch: count (32 bits), slot of the proposer (10), low 22 bits of its generation. Two
 * generations of a slot that are equal in those bits could give one epoch to two views, if both
 * proposed with the same count, which needs the later one to see nobody who knows of the earlier.
 *
 * Links. The caller has a connection to each of the others, or tries to: what is sent on it arrives
 * once and in order, or the link goes down. A new link of a pair is told to both sides, before
 * messages that came over it.
 *
 * Pure: no clock, no allocation, no I/O; equal calls give equal results. Every call but the looks,
 * init included, is followed by cmi_gang_machine_next until that has no more (asserted). O(slots *
 * slots / 64) a call, O(1) for a heartbeat that says nothing new. Thread: one for each machine. */
#ifndef CMI_POLICY_GANG_H
#define CMI_POLICY_GANG_H

#include "base/compiler.h"

enum {
    CMI_GANG_MAX_RANKS = 1024, /* an epoch's 10 bits; more is refused, not served in part */
    CMI_GANG_NOBODY = UINT16_MAX,
};

/* ---- sets of slots ---- */

typedef struct cmi_gang_set {
    uint64_t words[CMI_GANG_MAX_RANKS / 64]; /* slot i: bit i % 64 of word i / 64 */
} cmi_gang_set;

static inline bool cmi_gang_set_has(const cmi_gang_set *set, uint32_t slot)
{
    return slot < CMI_GANG_MAX_RANKS && (set->words[slot / 64] >> slot % 64 & 1) != 0;
}

static inline void cmi_gang_set_add(cmi_gang_set *set, uint32_t slot)
{
    set->words[slot / 64] |= UINT64_C(1) << slot % 64;
}

static inline void cmi_gang_set_remove(cmi_gang_set *set, uint32_t slot)
{
    set->words[slot / 64] &= ~(UINT64_C(1) << slot % 64);
}

uint32_t cmi_gang_set_count(const cmi_gang_set *set);
bool cmi_gang_set_equal(const cmi_gang_set *a, const cmi_gang_set *b);
bool cmi_gang_set_holds(const cmi_gang_set *set, const cmi_gang_set *part); /* part is in set */

/* ---- epochs ---- */

uint64_t cmi_gang_epoch_make(uint32_t count, uint32_t slot, uint64_t generation);
uint32_t cmi_gang_epoch_count(uint64_t epoch);
uint32_t cmi_gang_epoch_slot(uint64_t epoch); /* who proposed it */

/* ---- messages ---- */

typedef enum cmi_gang_message_kind {
    CMI_GANG_STATE = 1,
    CMI_GANG_PROPOSE,
    CMI_GANG_PROMISE,
    CMI_GANG_REFUSE, /* to promise; why is in the state sent before */
    CMI_GANG_COMMIT,
} cmi_gang_message_kind;

enum {                             /* flags of STATE */
       CMI_GANG_GAVE_UP = 1u << 0, /* will not act in the promised epoch */
       CMI_GANG_SHORT = 1u << 1,   /* cannot lead: sees too few, or does not stop itself */
       CMI_GANG_BUSY = 1u << 2,    /* has not stopped acting in an epoch that it has left */
       CMI_GANG_ALL_FLAGS = (1u << 3) - 1,
};

typedef struct cmi_gang_message {
    cmi_gang_message_kind kind;
    uint32_t flags;     /* STATE */
    uint32_t leader;    /* STATE: whom the sender follows; CMI_GANG_NOBODY */
    uint64_t epoch;     /* STATE: the last promised one; others: whose this is */
    uint64_t installed; /* STATE: the last installed one, 0: never; at most epoch */
    uint64_t digest;    /* PROPOSE: of the members' slots and generations */
    cmi_gang_set set;   /* STATE: whom the sender sees, itself included; PROPOSE: the members */
} cmi_gang_message;

/* ---- the machine ---- */

typedef struct cmi_gang_machine_options {
    uint32_t n_slots;    /* 1 .. CMI_GANG_MAX_RANKS */
    uint32_t self;       /* own slot */
    uint32_t min_ranks;  /* 1 .. n_slots: fewer make no view */
    uint64_t generation; /* 1 or more */

    uint64_t beat_ns;   /* between heartbeats; how often silence is looked for */
    uint64_t silent_ns; /* whoever says nothing for so long is lost; several beats */
    uint64_t settle_ns; /* how long the living may take to see the same, before a view is proposed
                         * without those that do not; more than a beat */
    uint64_t gather_ns; /* from the start, how long the first view waits for all slots */
    uint64_t join_ns;   /* who comes while a view acts waits so long for others that come */
    uint64_t stop_ns;   /* how long a member may take to stop acting before the view goes on
                         * without it */
    uint64_t retry_ns;  /* after a refusal */
} cmi_gang_machine_options;

/* Fills in times for processes of a data centre: half a second of silence. */
void cmi_gang_machine_options_default(cmi_gang_machine_options *opt);

typedef enum cmi_gang_phase {
    CMI_GANG_FORMING,  /* no view; one is on its way */
    CMI_GANG_TOO_FEW,  /* no view, and fewer than min_ranks can be seen that see each other */
    CMI_GANG_READY,    /* the installed view may be acted in */
    CMI_GANG_STOPPING, /* the view is over: stop, then call cmi_gang_machine_stopped */
    CMI_GANG_LEFT_OUT, /* others went on without this rank: begin again with a higher generation */
    CMI_GANG_SUPERSEDED, /* another process has the slot: end */
} cmi_gang_phase;

typedef enum cmi_gang_action_kind {
    CMI_GANG_SEND,    /* message to slot */
    CMI_GANG_DROP,    /* end the link to slot, which is down for the machine; connect again */
    CMI_GANG_STOP,    /* the phase is now STOPPING */
    CMI_GANG_INSTALL, /* it is READY, in a new view */
    CMI_GANG_OUT,     /* it is LEFT_OUT or SUPERSEDED, perhaps after STOPPING */
} cmi_gang_action_kind;

typedef struct cmi_gang_action {
    cmi_gang_action_kind kind;
    uint32_t slot;            /* SEND, DROP */
    cmi_gang_message message; /* SEND */
} cmi_gang_action;

typedef struct cmi_gang_peer { /* what is known of a slot; the machine's own */
    bool is_linked, has_state;
    bool is_late; /* did not stop in time; no member until it has */
    uint32_t flags, leader;
    uint64_t generation; /* the highest seen */
    uint64_t heard_ns;
    uint64_t promised, installed;
    cmi_gang_set sees;
} cmi_gang_peer;

typedef struct cmi_gang_machine { /* to be looked at through the functions below */
    cmi_gang_machine_options opt;
    cmi_gang_peer *peers; /* [n_slots]; [self] is what this rank says of itself */
    uint32_t n_words;     /* of sets that are used */
    uint64_t start_ns, now_ns, beat_at_ns, broken_ns;

    bool is_acting, is_stopping;
    bool is_promise_due; /* to be said once nothing acts */
    bool is_left_out, is_superseded;
    cmi_gang_set current; /* members of the promised epoch, where it is not given up */
    cmi_gang_set view;    /* members of the installed epoch */

    bool is_proposing; /* the promised epoch is this rank's, and not committed */
    cmi_gang_set promises;
    uint64_t stop_at_ns, retry_at_ns;
    cmi_gang_set wanted; /* who would be in the next view, and since when */
    uint64_t wanted_ns;

    /* what next gives out */
    bool is_drained;
    cmi_gang_message said; /* the state that everybody was told last */
    cmi_gang_set to_drop, to_state, to_propose, to_commit;
    uint32_t promise_to, refuse_to;
    uint64_t refused;
    bool has_stop, has_install, has_out;
} cmi_gang_machine;

/* peers: [n_slots], the caller's for as long as the machine is used. False: an option is out of
 * range; nothing is changed. now_ns of all calls never falls. */
CMI_NODISCARD bool cmi_gang_machine_init(cmi_gang_machine *m, cmi_gang_peer *peers,
                                         const cmi_gang_machine_options *opt, uint64_t now_ns);

/* A link to another slot's process can be used; one that it had before is down. False: that process
 * is older than one seen in the slot, and superseded; nothing is changed. */
CMI_NODISCARD bool cmi_gang_machine_link_up(cmi_gang_machine *m, uint64_t now_ns, uint32_t slot,
                                            uint64_t generation);
void cmi_gang_machine_link_down(cmi_gang_machine *m, uint64_t now_ns, uint32_t slot);

/* From a slot that is linked. False: no rank says such a thing; nothing is changed, and the link is
 * best ended. */
CMI_NODISCARD bool cmi_gang_machine_hear(cmi_gang_machine *m, uint64_t now_ns, uint32_t slot,
                                         const cmi_gang_message *message);

/* The caller does nothing more in epochs up to the last installed one, and members of the next view
 * may write into its memory. Only in STOPPING. */
void cmi_gang_machine_stopped(cmi_gang_machine *m, uint64_t now_ns);

/* A process of a higher generation has this rank's slot. */
void cmi_gang_machine_superseded(cmi_gang_machine *m, uint64_t now_ns);

/* Time has passed; see cmi_gang_machine_due_ns. */
void cmi_gang_machine_tick(cmi_gang_machine *m, uint64_t now_ns);

/* What is to be done, in this order. False: nothing more. */
CMI_NODISCARD bool cmi_gang_machine_next(cmi_gang_machine *m, cmi_gang_action *action_out);

/* ---- looks ---- */

cmi_gang_phase cmi_gang_machine_phase(const cmi_gang_machine *m);
uint64_t cmi_gang_machine_due_ns(const cmi_gang_machine *m); /* of the next tick */
/* The last installed view. It may be acted in only while READY. Epoch 0: there was none. */
uint64_t cmi_gang_machine_epoch(const cmi_gang_machine *m);
const cmi_gang_set *cmi_gang_machine_members(const cmi_gang_machine *m);
uint32_t cmi_gang_machine_leader(const cmi_gang_machine *m); /* CMI_GANG_NOBODY */
uint32_t cmi_gang_machine_n_seen(const cmi_gang_machine *m); /* living ranks, this one included */

#endif
