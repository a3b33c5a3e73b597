/* engine/kv_sender.h - what an engine says to the prefill side of its hand-over.
 *
 * A request that the sender submitted has the number of its transfer here as its request_id. The
 * engine keeps its pages until the sender cancels it. Thread: the engine's, where nothing else is
 * said. */
#ifndef CMI_ENGINE_KV_SENDER_H
#define CMI_ENGINE_KV_SENDER_H

#include "engine/handover_internal.h"

struct cmi_engine;

/* Listens; requests come from here on. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_kv_sender_start(cmi_kv_sender *sender, struct cmi_engine *engine,
                                             cmi_error *err);
/* Joins the thread and closes all connections. */
void cmi_kv_sender_stop(cmi_kv_sender *sender);

/* A step begins, which makes the first n_pages pages of a request final, in the order of layers;
 * the MTP layer's at the end of the step. page_ids: [n_pages] of them. For every span of a prompt,
 * then cmi_kv_sender_step_begins. */
void cmi_kv_sender_step_adds(cmi_kv_sender *sender, uint64_t request_id, const uint32_t *page_ids,
                             uint32_t n_pages);
void cmi_kv_sender_step_begins(cmi_kv_sender *sender);

/* For cmi_batch.n_layers_done of the step. */
_Atomic uint32_t *cmi_kv_sender_layers_done(cmi_kv_sender *sender);

/* A request's prompt is complete with the step that runs; the record has its first token and its
 * drafts. Its transfer and checksums are filled in here. */
void cmi_kv_sender_complete(cmi_kv_sender *sender, uint64_t request_id,
                            const cmi_handover_record *record);

/* All pages of the step are final. */
void cmi_kv_sender_step_ends(cmi_kv_sender *sender);

/* Events of the engine are there. */
void cmi_kv_sender_wake(cmi_kv_sender *sender);

#endif
