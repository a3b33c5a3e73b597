/* engine/handover.h - stored prompts from a prefill instance to a decode instance, over the fabric.
 *
 * Each side is a thread that owns the instance's fabric: kv_receiver on the decode side, kv_sender
 * on the prefill side. The protocol is policy/handover.h. What crosses:
 *
 *     decode -> prefill   HELLO (shape of pages, keys of memory), ASK, CANCEL
 *     prefill -> decode   WELCOME, PROMPT_EVENT, DONE, ENDED: small messages; and by put: slices
 *                         of pages, then the record of checksums and first token, then a signal
 *
 * Nothing is copied on the decode side: pages are written where they are read. A slice or
 * record that does not have its checksum is never used; the prompt is asked for again. Messages
 * rely on the fabric to bring them whole.
 *
 * A peer that is gone writes nothing any more; one that hangs and comes back could. So neither side
 * gives up a peer that only hangs (hung_after_ns of the fabric is off): between hosts that takes a
 * fence first.
 *
 * Lifetime. A receiver is made before its instance, whose KV pages lie in its memory
 * (cmi_kv_receiver_memory), runs while its engine does (cmi_engine_options.receiver), and is
 * destroyed after the instance. A sender is given to its engine likewise
 * (cmi_engine_options.sender). Engines start and stop them. */
#ifndef CMI_ENGINE_HANDOVER_H
#define CMI_ENGINE_HANDOVER_H

#include "base/error.h"

enum {
    CMI_HANDOVER_VERSION = 1,
    CMI_HANDOVER_SECRET_BYTES = 32,
    CMI_HANDOVER_MAX_PEERS = 64,
};

typedef struct cmi_kv_receiver cmi_kv_receiver;
typedef struct cmi_kv_sender cmi_kv_sender;

typedef struct cmi_handover_options {
    const char *name;                          /* of this side, for log lines */
    uint8_t secret[CMI_HANDOVER_SECRET_BYTES]; /* of the cluster */
    /* Of a receiver: how long a request waits while no prefill instance can be asked; 0: 30 s. It
     * ends with CMI_ERR_PEER then. */
    uint64_t patience_ns;
    /* Of a sender, for tests: what its fabric does wrong (fabric/fault.h); NULL: nothing. */
    const struct cmi_fault_options *faults;
} cmi_handover_options;

/* CMI_ERR_IO, CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_kv_receiver_create(cmi_kv_receiver **receiver_out,
                                                const cmi_handover_options *opt, cmi_error *err);
void cmi_kv_receiver_destroy(cmi_kv_receiver *receiver); /* NULL is fine */

/* A cmi_kv_memory_fn (engine/instance.h); arg is the receiver. Once. */
cmi_status cmi_kv_receiver_memory(void *receiver, size_t n_bytes, void **memory_out,
                                  cmi_error *err);

/* A prefill instance to ask, by its sender's address. Before the engine starts. */
CMI_NODISCARD cmi_status cmi_kv_receiver_add_peer(cmi_kv_receiver *receiver, const char *address,
                                                  cmi_error *err);

/* CMI_ERR_IO, CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_kv_sender_create(cmi_kv_sender **sender_out,
                                              const cmi_handover_options *opt, cmi_error *err);
void cmi_kv_sender_destroy(cmi_kv_sender *sender); /* NULL is fine */
const char *cmi_kv_sender_address(const cmi_kv_sender *sender);

/* What came to pass so far, for metrics and tests. Any thread. */
typedef struct cmi_handover_stats {
    uint64_t n_asked, n_arrived; /* transfers; asked again counts again */
    uint64_t n_damaged;          /* checksums that did not fit */
    uint64_t n_ended, n_lost;    /* by the prefill side; with the prefill side */
    uint64_t n_bytes;            /* of pages that arrived */
} cmi_handover_stats;

void cmi_kv_receiver_stats(cmi_kv_receiver *receiver, cmi_handover_stats *stats_out);

#endif
