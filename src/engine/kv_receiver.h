/* engine/kv_receiver.h - what an engine says to the decode side of its hand-over.
 *
 * A seat has at most one transfer. cmi_engine_received tells its end, once for each ask. */
#ifndef CMI_ENGINE_KV_RECEIVER_H
#define CMI_ENGINE_KV_RECEIVER_H

#include "engine/handover_internal.h"
#include "policy/page_pool.h"

struct cmi_engine;

/* Once, when the engine's tables are there; its seats are known from here. CMI_ERR_NO_MEMORY,
 * CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_kv_receiver_start(cmi_kv_receiver *receiver, struct cmi_engine *engine,
                                               cmi_error *err);
/* Joins the thread and lets go of all peers: nobody writes into the pages any more. */
void cmi_kv_receiver_stop(cmi_kv_receiver *receiver);

/* Wants the prompt's KV in these pages, which are the prefill side's from now on. Copies all. */
void cmi_kv_receiver_ask(cmi_kv_receiver *receiver, uint32_t seat, const cmi_request *request,
                         const cmi_page_id *pages, uint32_t n_pages);

/* Does not want it any more; the pages are free to use when the end is told. */
void cmi_kv_receiver_drop(cmi_kv_receiver *receiver, uint32_t seat);

/* After an end with CMI_OK, until the next ask. */
const cmi_handover_record *cmi_kv_receiver_record(const cmi_kv_receiver *receiver, uint32_t seat);

#endif
