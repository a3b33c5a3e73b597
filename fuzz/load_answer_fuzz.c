/* Any bytes as a server's answer to the load generator (the first one chooses the cuts): what they
 * come to does not depend on how they are cut, and every answer ends in an outcome. */
#include "cli/bench/load_answer.h"

#include <assert.h>
#include <string.h>

#include "base/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void read_answer(cmi_load_record *record, uint8_t options, bool cut, const char *bytes,
                        size_t n)
{
    cmi_load_answer answer;
    cmi_load_answer_init(&answer);
    cmi_load_answer_begin(&answer, record, true);
    size_t at = 0;
    bool is_over = false;
    for (uint64_t i = 0; at < n && !is_over; i++) {
        uint32_t w[4];
        cmi_philox4x32(options, i, 0, w);
        size_t piece = cut ? CMI_MIN(n - at, 1 + w[0] % 9) : n;
        is_over = cmi_load_answer_feed(&answer, bytes + at, piece, i);
        at += piece;
    }
    if (!is_over) {
        cmi_load_answer_end(&answer, n);
    }
    assert(record->outcome != CMI_LOAD_OPEN);
    assert((record->outcome == CMI_LOAD_COMPLETED) == (record->error == NULL));
    assert(record->outcome != CMI_LOAD_COMPLETED || record->n_chunks > 0);
    cmi_load_answer_deinit(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes == 0) {
        return 0;
    }
    const char *bytes = (const char *)data + 1;
    cmi_load_record whole = {0};
    cmi_load_record cut = {0};
    read_answer(&whole, data[0], false, bytes, n_bytes - 1);
    read_answer(&cut, data[0], true, bytes, n_bytes - 1);
    assert(whole.outcome == cut.outcome && whole.http_status == cut.http_status);
    assert(whole.n_chunks == cut.n_chunks && whole.has_usage == cut.has_usage);
    assert(whole.output_tokens == cut.output_tokens);
    assert(whole.error == NULL || strcmp(whole.error, cut.error) == 0);
    assert(whole.text.len == cut.text.len);
    assert(memcmp(cmi_buf_cstr(&whole.text), cmi_buf_cstr(&cut.text), cut.text.len) == 0);
    cmi_load_record_deinit(&whole);
    cmi_load_record_deinit(&cut);
    return 0;
}
