/* tests/policy/handover_world.h - a decode instance and prefill instances as policy/ sees them, in
 * one thread: messages that take their time, clients that leave, instances that die.
 *
 * Every draw comes from the seed, so a seed is a history. After each event the world checks what
 * must always hold: a page belongs to whom it can be reached from; nobody writes pages of the
 * decode side that are not promised to him; a request ends once. */
#ifndef CMI_TESTS_POLICY_HANDOVER_WORLD_H
#define CMI_TESTS_POLICY_HANDOVER_WORLD_H

#include "policy/handover.h"
#include "policy/request_state.h"

enum { WORLD_PREFILLS = 2 };

typedef enum world_blow {              /* what befalls a request */
                          BLOW_CANCEL, /* its client leaves, or its deadline passes */
                          BLOW_PREFILL_DIES,
                          BLOW_DECODE_DIES,
                          N_BLOWS,
} world_blow;

/* How often each blow met a request in each state, on both sides, over all worlds. */
typedef struct world_coverage {
    uint64_t requests[N_BLOWS][CMI_REQUEST_N_STATES]; /* the decode side's */
    uint64_t receives[N_BLOWS][CMI_RECEIVE_N_STATES];
    uint64_t sends[N_BLOWS][CMI_SEND_N_STATES];
    uint64_t receive_moves[CMI_RECEIVE_N_STATES][CMI_RECEIVE_N_EVENTS];
    uint64_t send_moves[CMI_SEND_N_STATES][CMI_SEND_N_EVENTS];
    uint64_t n_requests, n_complete, n_ticks;
} world_coverage;

/* Runs the history of a seed to its end, which must come. Fails the test with the seed in the
 * message. */
void world_run(uint64_t seed, world_coverage *coverage);

#endif
