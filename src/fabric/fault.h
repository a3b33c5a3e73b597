/* fabric/fault.h - a fabric that does to another's operations what networks do.
 *
 * Same calls, same promises, and as much disorder as fabric.h allows: operations are held back and
 * overtake each other, events come in any order, calls find no room, bits flip, endpoints break.
 * What it does is a function of the seed and of the calls made, and of time only where delays are
 * asked for; time is the wrapped fabric's clock. Messages are never held, only refused, corrupted
 * or failed. Thread: as the fabric itself. */
#ifndef CMI_FABRIC_FAULT_H
#define CMI_FABRIC_FAULT_H

#include "fabric/fabric.h"

typedef struct cmi_fault_options {
    uint64_t seed;
    uint32_t n_ops; /* held, under way, or with an event that was not polled; 1 .. 65536 */

    uint64_t min_delay_ns, max_delay_ns; /* between accepting an operation and beginning it */
    bool shuffles_events;
    uint32_t refuse_ppm;  /* of a million operations and messages: CMI_ERR_NO_CAPACITY */
    uint32_t corrupt_ppm; /* puts, gets and messages with one flipped bit */

    /* The n-th operation or message that the fabric is given, from 1; 0: none. */
    uint64_t fail_nth; /* ends with fail_status */
    cmi_status fail_status;
    uint64_t
        drop_nth; /* finds its endpoint lost, as if the peer had died; the peer sees the same */
    uint64_t corrupt_nth;
} cmi_fault_options;

/* The result owns inner, which is not to be used any more. CMI_ERR_INVALID: an option; inner is
 * still the caller's. */
CMI_NODISCARD cmi_status cmi_fabric_wrap_faults(cmi_fabric **fabric_out, cmi_fabric *inner,
                                                const cmi_fault_options *opt, cmi_error *err);

/* Other faults from now on; the count begins anew. n_ops and seed stay. */
void cmi_fault_set(cmi_fabric *fabric, const cmi_fault_options *opt);

/* Breaks an endpoint now, as drop_nth does. */
void cmi_fault_drop(cmi_fabric *fabric, cmi_endpoint_id endpoint);

typedef struct cmi_fault_counts {
    uint64_t n_given; /* operations and messages since the last set */
    uint64_t n_refused, n_corrupted, n_failed, n_dropped;
    uint64_t n_overtaken; /* operations that began after a later one of their endpoint */
} cmi_fault_counts;

void cmi_fault_get_counts(const cmi_fabric *fabric, cmi_fault_counts *counts_out);

#endif
