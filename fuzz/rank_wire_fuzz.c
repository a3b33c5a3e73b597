/* Any bytes as what a rank of an instance says of itself, and as a call to a pass: refused, or
 * written as the same bytes again. */
#include "ep/rank_wire.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static cmi_ep_hello hello;
    cmi_ep_call call;
    uint8_t out[CMI_EP_MAX_HELLO];
    const cmi_frame frame = {.minor = CMI_FRAME_MINOR,
                             .type = CMI_EP_FRAME_CALL,
                             .payload = data,
                             .n_bytes = (uint32_t)CMI_MIN(n_bytes, (size_t)UINT32_MAX)};
    if (cmi_ep_read_hello(data, n_bytes, &hello)) {
        assert(cmi_ep_write_hello(out, &hello) == n_bytes);
        assert(memcmp(out, data, n_bytes) == 0);
    }
    if (cmi_ep_read_call(&frame, &call)) {
        cmi_le_writer w = {out, out + sizeof out, false};
        cmi_ep_write_call(&w, &call);
        assert(w.at - out == (ptrdiff_t)n_bytes && memcmp(out, data, n_bytes) == 0);
    }
    return 0;
}
