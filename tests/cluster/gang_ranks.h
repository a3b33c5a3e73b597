/* tests/cluster/gang_ranks.h - the ranks of a gang as processes, which tell the test what they see.
 *
 * A rank that is READY sends a frame to each of the others and signals a word in its memory, and
 * says so once it has heard and seen the same from all of them. Whatever it says, the test checks
 * against what was said before: an epoch has one view.
 */
#ifndef CMI_TESTS_CLUSTER_GANG_RANKS_H
#define CMI_TESTS_CLUSTER_GANG_RANKS_H

#include "tests/test.h"

#include <stdbool.h>
#include <sys/types.h>

#include "policy/gang.h"

enum { RANKS_MAX = 6 };

typedef struct ranks_options {
    const char *name; /* of the gang */
    uint32_t n, min_ranks;
    bool meet_at_zero;  /* only slot 0's address is known */
    bool has_faults;    /* messages find no room, and some arrive damaged */
    uint64_t silent_ms; /* long where deaths are seen anyway, so that no busy host looks dead */
} ranks_options;

/* Before the first start of a test. */
void ranks_begin(const ranks_options *opt);

/* Starts a process for a slot, and forgets one that it had. */
pid_t ranks_start(uint32_t slot);
void ranks_kill(uint32_t slot); /* as kill -9 does, and waits for its end */
void ranks_signal(uint32_t slot, int signal);

/* Waits until the slots of the mask are all in one view of just them, later than any before, and
 * have heard from each other; returns its epoch. Fails the test after two minutes. */
uint64_t ranks_wait_view(uint32_t mask);

/* Waits until the process says that it is in a phase: TOO_FEW, LEFT_OUT or SUPERSEDED. */
void ranks_wait_phase(pid_t process, cmi_gang_phase phase);

void ranks_end(void); /* of all processes */

#endif
