/* Any bytes as what a router and a rank say to each other, in a frame that is otherwise sound:
 * refused, or inside the bounds that its header promises, and written as the same bytes again. The
 * first byte is the type. */
#include "engine/link_wire.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void compare(const cmi_frame *frame, const uint8_t *written, size_t n_written)
{
    assert(n_written == CMI_FRAME_HEAD_BYTES + frame->n_bytes);
    assert(memcmp(written + CMI_FRAME_HEAD_BYTES, frame->payload, frame->n_bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static uint8_t out[CMI_LINK_MESSAGE_BYTES];
    static cmi_event events[CMI_LINK_MAX_EVENTS];
    cmi_link_hello hello;
    cmi_link_piece piece;
    cmi_link_refusal refusal;
    cmi_link_load load;
    uint64_t number;
    size_t n;
    if (n_bytes < 1 || n_bytes > CMI_LINK_PIECE_BYTES) {
        return 0;
    }
    const cmi_frame frame = {.minor = CMI_FRAME_MINOR,
                             .type = (uint16_t)(CMI_LINK_HELLO + data[0] % 7),
                             .payload = data + 1,
                             .n_bytes = (uint32_t)(n_bytes - 1)};
    if (cmi_link_read_hello(&frame, &hello)) {
        compare(&frame, out, cmi_link_write_hello(out, &hello));
    }
    if (cmi_link_read_piece(&frame, &piece)) {
        assert((uint64_t)piece.offset + piece.n_bytes <= piece.total_bytes);
        compare(&frame, out, cmi_link_write_piece(out, &piece));
    }
    if (cmi_link_read_number(&frame, &number)) {
        compare(&frame, out, cmi_link_write_number(out, CMI_LINK_CANCEL, number));
    }
    if (cmi_link_read_events(&frame, events, &n)) {
        assert(n >= 1 && n <= CMI_LINK_MAX_EVENTS);
        compare(&frame, out, cmi_link_write_events(out, events, n));
    }
    if (cmi_link_read_refusal(&frame, &refusal)) {
        compare(&frame, out, cmi_link_write_refusal(out, &refusal));
    }
    if (cmi_link_read_load(&frame, &load)) {
        compare(&frame, out, cmi_link_write_load(out, &load));
    }
    return 0;
}
