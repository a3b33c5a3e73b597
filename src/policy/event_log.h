/* policy/event_log.h - what a scheduler was told and what it answered, as bytes.
 *
 * A log begins with the options that pool, cache and scheduler were made from; then come the calls
 * in order, and what came of them. event_replay.h makes the same calls again and compares.
 *
 *     8 bytes "CMIEVLOG", then records:
 *     4 bytes n | 4 bytes CRC32C | n bytes: a type, then fields
 *
 * Numbers are little-endian; fields are varints (7 bits a byte, the lowest first), signed ones in
 * zigzag. The CRC runs on from record to record, so a record that is lost, changed or out of place
 * is noticed. Which fields there are say the tables of event_fields.c, one line each; the first
 * record holds their signature, so that a log is read only by a program with the same ones.
 *
 * Keys of blocks are in the log as they are: they are keyed hashes and say nothing of the text.
 *
 * Pure: no I/O, no clock, no allocation. Thread: one for each log. */
#ifndef CMI_POLICY_EVENT_LOG_H
#define CMI_POLICY_EVENT_LOG_H

#include "policy/scheduler.h"

typedef struct cmi_policy_options {
    cmi_page_pool_options pool;
    cmi_prefix_cache_options cache;
    cmi_scheduler_options scheduler; /* without its pointers */
} cmi_policy_options;

/* ---- writing ---- */

/* Each function below writes one record to out and returns its bytes. A record that the caller then
 * cannot keep is taken back by restoring the struct as it was. */
typedef struct cmi_policy_log {
    uint8_t *out; /* [out_bytes], the caller's */
    size_t out_bytes;
    uint32_t crc;
    uint64_t n_steps;
} cmi_policy_log;

/* Bytes that any record of a log with these options fits in. */
size_t cmi_policy_log_bytes_max(const cmi_policy_options *opt);

/* out_bytes: cmi_policy_log_bytes_max at least; the functions below assert that it is enough. */
void cmi_policy_log_init(cmi_policy_log *log, void *out, size_t out_bytes);

/* The first record, with what stands before it. */
size_t cmi_policy_log_begin(cmi_policy_log *log, const cmi_policy_options *opt);

size_t cmi_policy_log_arrive(cmi_policy_log *log, uint32_t slot,
                             const cmi_scheduler_request *request);
size_t cmi_policy_log_finish(cmi_policy_log *log, uint64_t now_ns, uint32_t slot);

/* The calls for a request in RECEIVE and DRAIN, and what they were told. */
size_t cmi_policy_log_received(cmi_policy_log *log, uint64_t now_ns, uint32_t slot, uint32_t n_new,
                               uint32_t n_drafts);
size_t cmi_policy_log_leave(cmi_policy_log *log, uint32_t slot);
size_t cmi_policy_log_drained(cmi_policy_log *log, uint64_t now_ns, uint32_t slot);

/* What predictions rest on: a step of the owner's own, then that those are over; and what
 * cmi_scheduler_count_mtp is told. */
size_t cmi_policy_log_observed(cmi_policy_log *log, const cmi_step_shape *shape,
                               uint64_t duration_ns);
size_t cmi_policy_log_settled(cmi_policy_log *log);
size_t cmi_policy_log_mtp(cmi_policy_log *log, uint32_t n_passes, uint32_t n_rows,
                          uint32_t n_head_rows);

/* The owner emptied the prefix cache of its idle blocks. */
size_t cmi_policy_log_flushed(cmi_policy_log *log, uint64_t now_ns);

/* What cmi_scheduler_plan_step gave, also when it was nothing. O(pages of the plan). */
size_t cmi_policy_log_plan(cmi_policy_log *log, uint64_t now_ns, const cmi_scheduler_plan *plan);

/* Before cmi_scheduler_step_done, what it is told; and behind it what it returned. */
size_t cmi_policy_log_done(cmi_policy_log *log, uint64_t now_ns, const cmi_scheduler_plan *plan,
                           const cmi_scheduler_outcome *outcomes);
size_t cmi_policy_log_sealed(cmi_policy_log *log, const cmi_scheduler_sealed *sealed,
                             uint32_t n_sealed);

/* The last record. is_cut: more happened than was recorded. */
size_t cmi_policy_log_end(cmi_policy_log *log, bool is_cut);

/* ---- reading ---- */

typedef enum cmi_policy_log_ending {
    CMI_POLICY_LOG_WHOLE,
    CMI_POLICY_LOG_CUT,    /* recording ended before the scheduler did */
    CMI_POLICY_LOG_BROKEN, /* without a mark: whoever wrote it was killed */
} cmi_policy_log_ending;

typedef struct cmi_policy_log_info {
    cmi_policy_options options;
    uint64_t n_records;
    uint64_t n_steps; /* plans with a span */
    uint64_t n_keys;  /* of all requests together */
    cmi_policy_log_ending ending;
    /* When it is no good: */
    uint64_t offset; /* of the record, bytes */
    const char *why; /* static text */
} cmi_policy_log_info;

/* Looks at frames, checksums and the first record; a record that is incomplete at the very end is
 * left out (BROKEN). CMI_ERR_BAD_DATA: a checksum is wrong, or it is no log. CMI_ERR_UNSUPPORTED:
 * its fields are other ones. O(bytes). */
CMI_NODISCARD cmi_status cmi_policy_log_check(const void *bytes, size_t n_bytes,
                                              cmi_policy_log_info *info_out);

#endif
