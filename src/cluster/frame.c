#include "cluster/frame.h"

#include "base/crc32c.h"

enum {
    AT_MAGIC = 0,
    AT_MAJOR = 4,
    AT_MINOR = 5,
    AT_TYPE = 6,
    AT_BYTES = 8,
    AT_CRC = 12,
    AT_EPOCH = 16
};

static uint32_t checksum(const uint8_t *frame, size_t n_bytes)
{
    static const uint8_t none[4] = {0};
    const size_t behind = AT_CRC + sizeof none;
    uint32_t crc = cmi_crc32c(0, frame, AT_CRC);
    crc = cmi_crc32c(crc, none, sizeof none);
    return cmi_crc32c(crc, frame + behind, n_bytes - behind);
}

cmi_le_writer cmi_frame_begin(uint8_t *buffer, size_t n_bytes)
{
    const bool fits = n_bytes >= CMI_FRAME_HEAD_BYTES;
    return (cmi_le_writer){.at = fits ? buffer + CMI_FRAME_HEAD_BYTES : buffer,
                           .end = fits ? buffer + n_bytes : buffer,
                           .is_bad = !fits};
}

size_t cmi_frame_end(uint8_t *buffer, const cmi_le_writer *w, uint16_t type, uint64_t epoch)
{
    if (w->is_bad || w->at - buffer > UINT32_MAX) {
        return 0;
    }
    const size_t n_bytes = (size_t)(w->at - buffer);
    cmi_le_store32(buffer + AT_MAGIC, CMI_FRAME_MAGIC);
    buffer[AT_MAJOR] = CMI_FRAME_MAJOR;
    buffer[AT_MINOR] = CMI_FRAME_MINOR;
    cmi_le_store16(buffer + AT_TYPE, type);
    cmi_le_store32(buffer + AT_BYTES, (uint32_t)(n_bytes - CMI_FRAME_HEAD_BYTES));
    cmi_le_store64(buffer + AT_EPOCH, epoch);
    cmi_le_store32(buffer + AT_CRC, checksum(buffer, n_bytes));
    return n_bytes;
}

cmi_status cmi_frame_read(const void *bytes, size_t n_bytes, cmi_frame *frame_out)
{
    const uint8_t *frame = bytes;
    if (n_bytes < CMI_FRAME_HEAD_BYTES || cmi_le_load32(frame + AT_MAGIC) != CMI_FRAME_MAGIC) {
        return CMI_ERR_BAD_DATA;
    }
    if (frame[AT_MAJOR] != CMI_FRAME_MAJOR) {
        return CMI_ERR_UNSUPPORTED; /* only magic and version are sure to lie where they do */
    }
    if (cmi_le_load32(frame + AT_BYTES) != n_bytes - CMI_FRAME_HEAD_BYTES ||
        cmi_le_load32(frame + AT_CRC) != checksum(frame, n_bytes)) {
        return CMI_ERR_BAD_DATA;
    }
    *frame_out = (cmi_frame){.minor = frame[AT_MINOR],
                             .type = cmi_le_load16(frame + AT_TYPE),
                             .epoch = cmi_le_load64(frame + AT_EPOCH),
                             .payload = frame + CMI_FRAME_HEAD_BYTES,
                             .n_bytes = (uint32_t)(n_bytes - CMI_FRAME_HEAD_BYTES)};
    return CMI_OK;
}
