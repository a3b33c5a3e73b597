/* engine/disaggregation.h - prefill and decode as instances of one process (paper section 4.2).
 *
 * One decode instance, which clients talk to, and prefill instances that run its prompts; each has
 * its own threads, step and KV pages, all compute with the same weights. They reach each other by
 * engine/handover.h only, so that each can stand in a process of its own.
 *
 * Thread: the caller's, one at a time. */
#ifndef CMI_ENGINE_DISAGGREGATION_H
#define CMI_ENGINE_DISAGGREGATION_H

#include "engine/engine.h"
#include "engine/handover.h"
#include "engine/instance.h"

typedef struct cmi_disaggregation cmi_disaggregation;

/* patience_ns: how long a request waits while no prefill instance can be asked, before it ends with
 * CMI_ERR_PEER; 0: the default. CMI_ERR_IO, CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_disaggregation_create(cmi_disaggregation **d_out, uint64_t patience_ns,
                                                   cmi_error *err);

/* For tests: the fabrics of prefill instances that are added from now on do wrong what faults says
 * (fabric/fault.h), which outlives these calls. */
void cmi_disaggregation_set_faults(cmi_disaggregation *d, const struct cmi_fault_options *faults);

/* Makes options those of the decode instance: its pages lie where prefill instances reach them. */
void cmi_disaggregation_decode_options(cmi_disaggregation *d, cmi_instance_options *options);

/* Takes over the decode instance. Once. */
void cmi_disaggregation_set_decode(cmi_disaggregation *d, cmi_instance *decode);

/* A prefill instance more, on the decode instance's weights: threads, rows of a step, KV tokens and
 * ISA are the options', its model and types must be the decode instance's. After set_decode,
 * before start. CMI_ERR_NO_CAPACITY: CMI_HANDOVER_MAX_PEERS are there. */
CMI_NODISCARD cmi_status cmi_disaggregation_add_prefill(cmi_disaggregation *d,
                                                        const cmi_instance_options *options,
                                                        const cmi_engine_options *engine,
                                                        cmi_error *err);

/* Starts the decode side's engine, which stays d's. Its statistics are those of all, with the
 * requests and pages of the decode side. */
CMI_NODISCARD cmi_status cmi_disaggregation_start(cmi_disaggregation *d,
                                                  const cmi_engine_options *engine,
                                                  cmi_engine **engine_out, cmi_error *err);

/* Ends a prefill instance while others work; what it had goes to them. Once for each, and nobody
 * asks for statistics meanwhile. */
void cmi_disaggregation_stop_prefill(cmi_disaggregation *d, uint32_t idx);

void cmi_disaggregation_handover_stats(cmi_disaggregation *d, cmi_handover_stats *stats_out);

/* Stops all engines and closes all instances; NULL is fine. */
void cmi_disaggregation_destroy(cmi_disaggregation *d);

#endif
