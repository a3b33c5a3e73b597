/* Any bytes as a log of a scheduler's events, and any records in a log that is otherwise sound: an
 * error, or calls that the scheduler takes.
 *
 * A checksum keeps bytes that were changed out of everything behind it. So the input is read twice:
 * as a log, and as records (a byte that says how long each is, then its type and fields) that get
 * the frames and checksums that belong to them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "policy/event_replay.h"

enum { LOG_BYTES_MAX = 1 << 16, MEMORY_BYTES_MAX = 1 << 22, HEAD_BYTES = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void replay(const uint8_t *bytes, size_t n_bytes)
{
    cmi_policy_log_info info;
    if (cmi_policy_log_check(bytes, n_bytes, &info) != CMI_OK) {
        assert(info.why != NULL && info.offset <= n_bytes);
        return;
    }
    size_t memory_bytes = cmi_policy_replay_bytes(&info);
    if (memory_bytes == 0 || memory_bytes > MEMORY_BYTES_MAX) {
        return;
    }
    void *memory = cmi_alloc_aligned(memory_bytes, CMI_CACHE_LINE);
    cmi_policy_replay *r = cmi_policy_replay_init(memory, &info, bytes, n_bytes);
    cmi_replay_status st;
    do {
        st = cmi_policy_replay_next(r);
    } while (st == CMI_REPLAY_SAME || st == CMI_REPLAY_DIFFERS);
    const cmi_replay_state *state = cmi_policy_replay_state(r);
    assert((st == CMI_REPLAY_BAD) == (state->why != NULL));
    assert(state->n_records <= info.n_records + 1 && state->offset <= n_bytes);
    cmi_free(memory);
}

static void replay_records(cmi_instance_role role, const uint8_t *data, size_t n_bytes)
{
    static uint8_t bytes[LOG_BYTES_MAX + HEAD_BYTES + UINT8_MAX];
    const cmi_policy_options opt = {.pool = {.n_pages = 12, .lease_max_ns = 1},
                                    .cache = {.n_blocks = 3},
                                    .scheduler = {.role = role,
                                                  .n_slots = 4,
                                                  .max_num_seqs = 3,
                                                  .max_rows = 200,
                                                  .max_decode_rows = 6,
                                                  .max_prefill_rows = 100,
                                                  .max_span_rows = 2,
                                                  .max_drafts = 2,
                                                  .max_tokens = 768}};
    cmi_policy_log log;
    cmi_policy_log_init(&log, bytes, sizeof bytes);
    size_t n = cmi_policy_log_begin(&log, &opt);
    uint32_t crc = log.crc;
    for (size_t at = 0; at < n_bytes && n < LOG_BYTES_MAX;) {
        uint32_t n_record = (uint32_t)CMI_MIN((size_t)data[at], n_bytes - at - 1);
        crc = cmi_crc32c(crc, &n_record, sizeof n_record);
        crc = cmi_crc32c(crc, data + at + 1, n_record);
        memcpy(bytes + n, &n_record, sizeof n_record);
        memcpy(bytes + n + sizeof n_record, &crc, sizeof crc);
        memcpy(bytes + n + HEAD_BYTES, data + at + 1, n_record);
        n += HEAD_BYTES + n_record;
        at += 1 + n_record;
    }
    replay(bytes, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    replay(data, n_bytes);
    for (int role = CMI_ROLE_BOTH; role <= CMI_ROLE_DECODE; role++) {
        replay_records((cmi_instance_role)role, data, n_bytes);
    }
    return 0;
}
