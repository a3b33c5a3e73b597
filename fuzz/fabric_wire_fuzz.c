/* What a stranger may write on a ucx fabric's port, and a peer in active messages and rkeys. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/ucx/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_frames(const uint8_t *data, size_t size)
{
    static cmi_ucx_news news;
    static uint8_t again[CMI_UCX_MAX_FRAME];
    size_t n = 0;
    while (size > 0 && cmi_ucx_frame_read(data, size, &news, &n) == CMI_OK) {
        if (n == 0 || n > size || cmi_ucx_frame_write(again, &news) != n ||
            memcmp(again, data, n) != 0) {
            abort();
        }
        data += n;
        size -= n;
    }
}

static void read_rkey(const uint8_t *data, size_t size)
{
    cmi_rkey rkey = {.n_bytes = (uint16_t)CMI_MIN(size, (size_t)CMI_FABRIC_MAX_RKEY)};
    cmi_ucx_rkey opened;
    uint8_t packed[CMI_UCX_MAX_PACKED];
    memcpy(rkey.bytes, data, rkey.n_bytes);
    if (cmi_ucx_rkey_read(&rkey, &opened, packed) && opened.n_packed > CMI_UCX_MAX_PACKED) {
        abort();
    }
}

static void read_address(const uint8_t *data, size_t size)
{
    char address[200], host[CMI_FABRIC_MAX_ADDRESS + 1];
    uint16_t port;
    size_t n = CMI_MIN(size, sizeof address - 1);
    memcpy(address, data, n);
    address[n] = '\0';
    if (cmi_ucx_address_read(address, host, &port) && strlen(host) >= strlen(address)) {
        abort();
    }
}

static void read_carried(const uint8_t *data, size_t size)
{
    cmi_ucx_am_view view;
    const size_t n_header = CMI_MIN(size, sizeof(cmi_ucx_am_data));
    if (cmi_ucx_am_read(data, n_header, data + n_header, size - n_header, &view) &&
        (view.message != data + n_header || view.n_message != size - n_header)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    cmi_ucx_am_view view;
    switch (data[0] % 5) {
    case 0:
        read_frames(data + 1, size - 1);
        break;
    case 1:
        if (cmi_ucx_am_read(NULL, 0, data + 1, size - 1, &view) && view.am.kind == UCX_AM_MESSAGE &&
            view.message + view.n_message != data + size) {
            abort();
        }
        break;
    case 2:
        read_rkey(data + 1, size - 1);
        break;
    case 4:
        read_carried(data + 1, size - 1);
        break;
    default:
        read_address(data + 1, size - 1);
    }
    return 0;
}
