/* Any bytes as what a rank of an instance says of itself, as a call to a pass, as counts of a
 * window and as the state of moves: refused, or inside the bounds that the header promises, and
 * written as the same bytes again. */
#include "ep/rank_wire.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static uint8_t out[CMI_MAX(CMI_EP_MAX_HELLO, CMI_EP_MAX_FRAME)];

static cmi_le_writer begin(void)
{
    return (cmi_le_writer){out, out + sizeof out, false};
}

static void compare(const cmi_le_writer *w, const cmi_frame *frame)
{
    assert(!w->is_bad && w->at - out == (ptrdiff_t)frame->n_bytes);
    assert(memcmp(out, frame->payload, frame->n_bytes) == 0);
}

static void read_counts(const cmi_frame *frame)
{
    uint32_t values[CMI_EP_MAX_COUNTS];
    cmi_ep_counts counts;
    if (cmi_ep_read_counts(frame, &counts)) {
        assert(counts.n <= CMI_EP_MAX_COUNTS);
        for (uint32_t i = 0; i < counts.n; i++) {
            values[i] = cmi_ep_count_at(&counts, i);
        }
        cmi_le_writer w = begin();
        cmi_ep_write_counts(&w, &counts, values);
        compare(&w, frame);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static cmi_ep_hello hello;
    cmi_ep_call call;
    cmi_ep_round round;
    const cmi_frame frame = {.minor = CMI_FRAME_MINOR,
                             .payload = data,
                             .n_bytes = (uint32_t)CMI_MIN(n_bytes, (size_t)UINT32_MAX)};
    if (cmi_ep_read_hello(data, n_bytes, &hello)) {
        assert(cmi_ep_write_hello(out, &hello) == n_bytes);
        assert(memcmp(out, data, n_bytes) == 0);
    }
    if (cmi_ep_read_call(&frame, &call)) {
        cmi_le_writer w = begin();
        cmi_ep_write_call(&w, &call);
        compare(&w, &frame);
    }
    if (cmi_ep_read_round(&frame, &round)) {
        cmi_le_writer w = begin();
        cmi_ep_write_round(&w, &round);
        compare(&w, &frame);
    }
    read_counts(&frame);
    return 0;
}
