/* tests/fabric/rig.h - two sides of a fabric: here, in the test, and there, in a thread or a child.
 *
 * The world says which, over which backend, and whether both sides work under faults. What runs
 * there cannot use cmocka: it returns false through NEED. */
#ifndef CMI_TESTS_FABRIC_RIG_H
#define CMI_TESTS_FABRIC_RIG_H

#include "tests/test.h"

#include <pthread.h>
#include <sys/types.h>

#include "fabric/fabric.h"
#include "fabric/fault.h"

typedef struct rig_world {
    const char *name;
    const char *backend; /* as cmi_fabric_create knows it */
    bool is_process;
    bool has_faults;
} rig_world;

extern rig_world world;

static const uint64_t SECOND_NS = 1000000000u;
static const uint64_t PATIENCE_NS = 90000000000u; /* for what comes at once on a machine at rest */
enum { RIG_MAX_THERE = 8, RIG_MAX_MESSAGE = 4096 };

#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: there: %s\n", __FILE__, __LINE__, #condition);                 \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

typedef struct rig_there rig_there;
typedef bool rig_fn(rig_there *there);

struct rig_there {
    rig_fn *fn;
    uint32_t idx;
    char address[CMI_FABRIC_MAX_ADDRESS + 1];
    cmi_fabric_options opt;
    cmi_fabric *fabric; /* there only */
    cmi_endpoint_id here;
    pthread_t thread;
    pid_t process;
    cmi_fabric *to; /* here: progresses while it is joined; NULL when it is gone */
    bool is_running, is_good;
    _Atomic bool has_returned; /* a thread */
};

/* Before anything else in main. Over ucx, children are forked from a process that has never used
 * it: UCX has a thread of its own, which a fork does not copy. */
void rig_init(void);

/* Options with the tests' secret; the name is "here" or "there". */
cmi_fabric_options rig_options(const char *name);

/* A fabric of this world; it listens where asked to. Ends the test, or the process, on failure. */
cmi_fabric *rig_make(const cmi_fabric_options *opt, bool listens);

/* Starts fn on a fabric of its own, connected to the one at address. */
void rig_start(rig_there *there, rig_fn *fn, uint32_t idx, const cmi_fabric *to,
               const cmi_fabric_options *opt);

/* It must have returned true. The fabric here goes on meanwhile: networks may need it. */
void rig_join(rig_there *there);
void rig_kill(rig_there *there); /* a process */

/* The next event of the asked kind within PATIENCE_NS; others are thrown away. */
bool rig_event(cmi_fabric *fabric, cmi_event_kind kind, cmi_fabric_event *event_out);
cmi_endpoint_id rig_accept(cmi_fabric *fabric); /* zeroed on failure */

/* Again and again until there is room; false after ten seconds or on another status. */
bool rig_put(cmi_fabric *f, cmi_endpoint_id ep, const void *local, cmi_remote to, size_t n);
bool rig_signal(cmi_fabric *f, cmi_endpoint_id ep, cmi_remote to, cmi_signal kind, uint64_t value);
bool rig_get(cmi_fabric *f, cmi_endpoint_id ep, void *local, cmi_remote from,
             size_t n); /* flushed */
bool rig_send(cmi_fabric *f, cmi_endpoint_id ep, const void *message, size_t n);
bool rig_receive(cmi_fabric *f, cmi_endpoint_id *ep_out, void *message, size_t *n_out);
bool rig_wait(cmi_fabric *f, cmi_endpoint_id from, const void *word, uint64_t at_least);
bool rig_flush(cmi_fabric *f, cmi_endpoint_id ep);
bool rig_flush_last(cmi_fabric *f, cmi_endpoint_id ep); /* the peer may leave once it has it all */

bool rig_is_ucx(void);
bool rig_reaches_registered(void);     /* memory of the caller, in this world */
const char *rig_any_address(void);     /* to listen at */
const char *rig_nobodys_address(void); /* where nobody does */

/* A connection below the fabric to where it listens. */
int rig_dial_raw(const cmi_fabric *to);
void rig_send_raw(int fd, const void *bytes, size_t n);
bool rig_is_raw_closed(int fd); /* by the other side; reads what it says */

/* Rkeys travel as messages. */
bool rig_send_rkey(cmi_fabric *f, cmi_endpoint_id ep, cmi_region_id region);
bool rig_receive_rkey(cmi_fabric *f, cmi_endpoint_id *ep_out, cmi_remote_id *remote_out);

/* Bytes that depend on seed and place; n of them from `first` on. */
void rig_fill(void *bytes, size_t n, uint64_t seed);
bool rig_is_filled(const void *bytes, size_t n, uint64_t seed);

#endif
