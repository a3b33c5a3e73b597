/* tests/fabric/rig.h - two sides of a fabric: here, in the test, and there, in a thread or a child.
 *
 * The world says which, and whether both sides work under faults. What runs there cannot use
 * cmocka: it returns false through NEED. */
#ifndef CMI_TESTS_FABRIC_RIG_H
#define CMI_TESTS_FABRIC_RIG_H

#include "tests/test.h"

#include <pthread.h>
#include <sys/types.h>

#include "fabric/fabric.h"
#include "fabric/fault.h"

typedef struct rig_world {
    const char *name;
    bool is_process;
    bool has_faults;
} rig_world;

extern rig_world world;

static const uint64_t SECOND_NS = 1000000000u;
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
    bool is_running, is_good;
};

/* Options with the tests' secret; the name is "here" or "there". */
cmi_fabric_options rig_options(const char *name);

/* A fabric of this world; it listens where asked to. Ends the test, or the process, on failure. */
cmi_fabric *rig_make(const cmi_fabric_options *opt, bool listens);

/* Starts fn on a fabric of its own, connected to the one at address. */
void rig_start(rig_there *there, rig_fn *fn, uint32_t idx, const cmi_fabric *to,
               const cmi_fabric_options *opt);

/* It must have returned true. */
void rig_join(rig_there *there);
void rig_kill(rig_there *there); /* a process */

/* The next event within two seconds of the asked kind; others are thrown away. */
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

/* Rkeys travel as messages. */
bool rig_send_rkey(cmi_fabric *f, cmi_endpoint_id ep, cmi_region_id region);
bool rig_receive_rkey(cmi_fabric *f, cmi_endpoint_id *ep_out, cmi_remote_id *remote_out);

/* Bytes that depend on seed and place; n of them from `first` on. */
void rig_fill(void *bytes, size_t n, uint64_t seed);
bool rig_is_filled(const void *bytes, size_t n, uint64_t seed);

#endif
