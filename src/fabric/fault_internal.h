/* fabric/fault_internal.h - see fault.h. fault.c wraps the calls, fault_ops.c holds and begins
 * operations.
 *
 * Every operation has a slot here: held until it is due, then running as one or, when a bit is to
 * flip, three operations of the inner fabric, then done. A signal begins when nothing before it is
 * held, so that the inner fabric's order covers it; a flush when everything before it has ended. */
#ifndef CMI_FABRIC_FAULT_INTERNAL_H
#define CMI_FABRIC_FAULT_INTERNAL_H

#include "fabric/fabric_internal.h"
#include "fabric/fault.h"

enum { CMI_FAULT_PARTS = 3 };

typedef struct cmi_fault_op {
    enum { FAULT_FREE, FAULT_HELD, FAULT_RUNNING, FAULT_DONE } state;
    uint32_t gen;
    bool has_event;
    uint64_t seq; /* in the order of acceptance */
    uint64_t due_ns;
    uint64_t event_key; /* of done ones, the lowest is polled next */
    cmi_endpoint_id endpoint;
    cmi_transfer transfer;
    uint64_t tag;
    cmi_status status;
    bool is_corrupted;
    uint64_t bad_at; /* the byte */
    uint8_t bad_bit, bad_byte;
    uint32_t n_begun, n_ended; /* of the parts */
} cmi_fault_op;

typedef struct cmi_fault_endpoint {
    uint32_t gen; /* that the rest is about */
    uint32_t n_ops;
    cmi_status failure;
} cmi_fault_endpoint;

typedef struct cmi_fault_fabric {
    cmi_fabric base;
    cmi_fabric *inner;
    cmi_fault_options opt;
    cmi_fault_counts counts;
    uint64_t n_random; /* numbers drawn */
    uint64_t last_seq, last_event_key;
    uint32_t n_live; /* slots not free */
    cmi_fault_op *ops;
    cmi_fault_endpoint *endpoints;
    cmi_fabric_event *events; /* OPEN and LOST of inner, a ring of two for each endpoint */
    uint64_t n_events_in, n_events_out;
    uint8_t *message; /* a corrupted one */
} cmi_fault_fabric;

static inline cmi_fault_fabric *cmi_fault_of(const cmi_fabric *fabric)
{
    return (cmi_fault_fabric *)(uintptr_t)fabric;
}

/* Uniform in [0, n). */
uint64_t cmi_fault_random(cmi_fault_fabric *f, uint64_t n);
bool cmi_fault_chance(cmi_fault_fabric *f, uint32_t ppm);

/* Counts one more. CMI_OK: it goes on; else what its call returns. */
cmi_status cmi_fault_judge(cmi_fault_fabric *f, cmi_endpoint_id endpoint, bool *is_corrupted_out,
                           bool *fails_out);

cmi_fault_endpoint *cmi_fault_endpoint_of(cmi_fault_fabric *f, cmi_endpoint_id id);
cmi_status cmi_fault_begin(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                           const cmi_transfer *transfer, cmi_op *op);

/* Begins what is due. True: something could be begun at once but for inner's room. */
bool cmi_fault_run(cmi_fault_fabric *f, uint64_t now_ns);
void cmi_fault_take_inner_events(cmi_fault_fabric *f);

/* Held operations of the endpoint end with st. */
void cmi_fault_end_held(cmi_fault_fabric *f, cmi_endpoint_id endpoint, cmi_status st);
uint64_t cmi_fault_next_due_ns(const cmi_fault_fabric *f);
bool cmi_fault_poll_done(cmi_fault_fabric *f, cmi_fabric_event *event_out);
bool cmi_fault_has_done(const cmi_fault_fabric *f);

#endif
