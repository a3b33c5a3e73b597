/* engine/policy_recorder.h - writes what a live scheduler is told and answers to a file
 * (policy/event_log.h), for a replay.
 *
 * The engine's thread puts records into a bounded ring, and a thread of the recorder moves them to
 * the file: within a step nothing is allocated or locked, and the system is not called. When the
 * ring is full, or the file cannot be written, recording ends, with a mark in the log where that
 * can be; serving goes on.
 *
 * Threads: start and stop are for whoever owns the engine, before its thread begins and after it
 * has ended; all others for the engine's thread, or for the owner when that has ended. */
#ifndef CMI_ENGINE_POLICY_RECORDER_H
#define CMI_ENGINE_POLICY_RECORDER_H

#include "base/error.h"
#include "policy/event_log.h"

enum { CMI_POLICY_RECORDER_RING_BYTES = 4 << 20 };

typedef struct cmi_policy_recorder cmi_policy_recorder;

/* Opens the file, which is emptied, and starts the thread. ring_bytes
 * 0: CMI_POLICY_RECORDER_RING_BYTES; it holds cmi_policy_log_bytes_max() at least. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_policy_recorder_start(cmi_policy_recorder **recorder_out,
                                                   const char *path, const cmi_policy_options *opt,
                                                   size_t ring_bytes, cmi_error *err);

/* Writes what is left and the end's mark, and says in the log how much it was. NULL is fine. */
void cmi_policy_recorder_stop(cmi_policy_recorder *recorder);

/* The events, as policy/event_log.h has them. A NULL recorder records nothing. */
void cmi_policy_recorder_arrive(cmi_policy_recorder *recorder, uint32_t slot,
                                const cmi_scheduler_request *request);
void cmi_policy_recorder_finish(cmi_policy_recorder *recorder, uint64_t now_ns, uint32_t slot);
void cmi_policy_recorder_observed(cmi_policy_recorder *recorder, const cmi_step_shape *shape,
                                  uint64_t duration_ns);
void cmi_policy_recorder_settled(cmi_policy_recorder *recorder);
void cmi_policy_recorder_flushed(cmi_policy_recorder *recorder, uint64_t now_ns);
void cmi_policy_recorder_mtp(cmi_policy_recorder *recorder, uint32_t n_passes, uint32_t n_rows,
                             uint32_t n_head_rows);
void cmi_policy_recorder_received(cmi_policy_recorder *recorder, uint64_t now_ns, uint32_t slot,
                                  uint32_t n_new, uint32_t n_drafts);
void cmi_policy_recorder_leave(cmi_policy_recorder *recorder, uint32_t slot);
void cmi_policy_recorder_drained(cmi_policy_recorder *recorder, uint64_t now_ns, uint32_t slot);
void cmi_policy_recorder_plan(cmi_policy_recorder *recorder, uint64_t now_ns,
                              const cmi_scheduler_plan *plan);
void cmi_policy_recorder_done(cmi_policy_recorder *recorder, uint64_t now_ns,
                              const cmi_scheduler_plan *plan,
                              const cmi_scheduler_outcome *outcomes);
void cmi_policy_recorder_sealed(cmi_policy_recorder *recorder, const cmi_scheduler_sealed *sealed,
                                uint32_t n_sealed);

#endif
