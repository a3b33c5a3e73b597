/* policy/event_replay.h - a recorded log once more: the same calls on a scheduler made from the
 * recorded options, and every plan compared with the recorded one, byte for byte.
 *
 * Whatever the bytes are, no call is made that its callee would assert against: what cannot have
 * happened ends the replay as BAD.
 *
 * Pure: no I/O, no clock, no allocation after init. Thread: one for each replay. */
#ifndef CMI_POLICY_EVENT_REPLAY_H
#define CMI_POLICY_EVENT_REPLAY_H

#include "policy/event_log.h"

typedef struct cmi_policy_replay cmi_policy_replay;

typedef enum cmi_replay_status {
    CMI_REPLAY_SAME,    /* so far; there may be more */
    CMI_REPLAY_END,     /* of the log, and all was the same */
    CMI_REPLAY_DIFFERS, /* the scheduler answered otherwise */
    CMI_REPLAY_BAD,     /* the log says what cannot have happened */
} cmi_replay_status;

/* Where a replay is, and what it found there. Texts are static. */
typedef struct cmi_replay_state {
    uint64_t n_records, n_steps, n_requests, n_preempted;
    uint64_t n_rows; /* of all steps */
    uint64_t offset; /* of the record at hand, bytes */
    const char *why; /* BAD */
    /* DIFFERS: "span" 3, "n_rows", recorded 4, replayed 5. field is NULL where the whole is meant,
     * such as a digest of pages. */
    const char *what, *field;
    uint32_t idx;
    uint64_t recorded, replayed;
} cmi_replay_state;

/* Bytes of memory for a replay of a log that cmi_policy_log_check has taken; 0: its options are out
 * of range. A log of a few bytes can name options that need gigabytes: compare before allocating.
 */
size_t cmi_policy_replay_bytes(const cmi_policy_log_info *info);

/* Builds a replay in memory of that many bytes, aligned to 64. bytes, the log, and memory outlive
 * it; there is nothing to destroy. */
cmi_policy_replay *cmi_policy_replay_init(void *memory, const cmi_policy_log_info *info,
                                          const void *bytes, size_t n_bytes);

/* Performs the next record. After END and BAD the replay is over. After DIFFERS it can go on, with
 * its own plan instead of the recorded one, whose outcomes may soon make no sense for it. */
cmi_replay_status cmi_policy_replay_next(cmi_policy_replay *replay);

const cmi_replay_state *cmi_policy_replay_state(const cmi_policy_replay *replay);

#endif
