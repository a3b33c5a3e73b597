/* tests/policy/gang_world.h - a gang's machines in one thread: links that come, break and are late,
 * processes that die, start again, hang, and take their time to stop.
 *
 * Every draw comes from the seed, so a seed is a history. After each event the world checks what
 * must always hold; once nothing more befalls it, the living must come to one view. */
#ifndef CMI_TESTS_POLICY_GANG_WORLD_H
#define CMI_TESTS_POLICY_GANG_WORLD_H

#include "policy/gang.h"

enum { WORLD_MAX_RANKS = 16 };

typedef enum world_blow {
    BLOW_KILL,         /* a process dies, and is perhaps started again */
    BLOW_KILL_TWO,     /* at once */
    BLOW_KILL_LEADER,  /* whom somebody follows */
    BLOW_BREAK,        /* a link */
    BLOW_PART,         /* two groups do not reach each other for a while */
    BLOW_HANG,         /* a process does nothing for a while */
    BLOW_SLOW_TO_STOP, /* and one stops acting late, or far too late */
    N_BLOWS,
} world_blow;

typedef struct world_coverage { /* over all worlds */
    uint64_t n_events, n_views, n_shrunk, n_left_out, n_too_few, n_refused, n_ends;
    uint64_t n_blows[N_BLOWS];
    uint64_t in_phase[N_BLOWS][CMI_GANG_SUPERSEDED + 1]; /* of whom a blow met */
    uint64_t most_ns;                                    /* from the last blow to the last view */
} world_coverage;

/* Runs the history of a seed to its end, which must come. Fails the test with the seed in the
 * message. */
void world_run(uint64_t seed, world_coverage *coverage);

#endif
