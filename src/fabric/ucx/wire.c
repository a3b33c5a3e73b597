#include "fabric/ucx/wire.h"

#include <stddef.h>
#include <string.h>

#include "base/crc32c.h"

/* ---- frames ---- */

enum {
    BODY_AT = offsetof(cmi_ucx_news, hello), /* every member of the union begins there */
    ENTER_BYTES = CMI_PROOF_BYTES + offsetof(cmi_ucx_entrance, worker),
};

/* What follows a head of this kind, but for the worker's address; 0: no such kind. */
static size_t body_bytes(uint32_t kind)
{
    static const size_t n_bytes[CMI_UCX_N_KINDS] = {
        [UCX_HELLO] = sizeof(cmi_ucx_hello) + CMI_PROOF_BYTES,
        [UCX_CHALLENGE] = sizeof(cmi_ucx_hello) + CMI_PROOF_BYTES,
        [UCX_PROOF] = ENTER_BYTES,
        [UCX_WELCOME] = ENTER_BYTES,
        [UCX_REFUSE] = 8,
        [UCX_REGION] = 8,
        [UCX_WIRED] = 8,
        [UCX_REVOKE] = 16,
        [UCX_REVOKED] = 16,
        [UCX_BEAT] = 8,
        [UCX_BYE] = 8};
    return kind < CMI_UCX_N_KINDS ? n_bytes[kind] : 0;
}

static bool has_worker(uint32_t kind)
{
    return kind == UCX_PROOF || kind == UCX_WELCOME;
}

size_t cmi_ucx_frame_write(uint8_t out[CMI_UCX_MAX_FRAME], const cmi_ucx_news *news)
{
    size_t n = body_bytes(news->kind);
    if (has_worker(news->kind)) {
        n += news->enter.entrance.n_worker;
    }
    cmi_ucx_frame_head head = {
        .magic = CMI_UCX_MAGIC, .kind = (uint16_t)news->kind, .n_bytes = (uint16_t)n};
    memcpy(out, &head, sizeof head);
    memcpy(out + sizeof head, (const uint8_t *)news + BODY_AT, n);
    return sizeof head + n;
}

static bool is_right_size(const cmi_ucx_frame_head *head)
{
    size_t n = body_bytes(head->kind);
    if (has_worker(head->kind)) {
        return head->n_bytes > n && head->n_bytes <= n + CMI_UCX_MAX_WORKER;
    }
    return n > 0 && head->n_bytes == n;
}

cmi_status cmi_ucx_frame_read(const uint8_t *bytes, size_t n, cmi_ucx_news *news_out,
                              size_t *n_used_out)
{
    cmi_ucx_frame_head head = {.magic = CMI_UCX_MAGIC};
    size_t n_magic = CMI_MIN(n, sizeof head.magic);
    if (memcmp(bytes, &head.magic, n_magic) != 0) {
        return CMI_ERR_BAD_DATA; /* a stranger is not waited for */
    }
    if (n < sizeof head) {
        return CMI_IN_PROGRESS;
    }
    memcpy(&head, bytes, sizeof head);
    if (!is_right_size(&head)) {
        return CMI_ERR_BAD_DATA;
    }
    if (n - sizeof head < head.n_bytes) {
        return CMI_IN_PROGRESS;
    }
    *news_out = (cmi_ucx_news){.kind = head.kind};
    memcpy((uint8_t *)news_out + BODY_AT, bytes + sizeof head, head.n_bytes);
    *n_used_out = sizeof head + head.n_bytes;
    bool is_whole = !has_worker(head.kind) ||
                    news_out->enter.entrance.n_worker == head.n_bytes - body_bytes(head.kind);
    return is_whole ? CMI_OK : CMI_ERR_BAD_DATA;
}

/* ---- active messages ---- */

static bool read_data(const void *header, size_t n_header, const uint8_t *bytes, size_t n,
                      cmi_ucx_am_view *view_out)
{
    cmi_ucx_am_data *data = &view_out->data;
    if (n_header != sizeof *data) {
        return false;
    }
    memcpy(data, header, n_header);
    view_out->am = data->am;
    view_out->message = bytes;
    view_out->n_message = n;
    if (data->am.kind == UCX_AM_PUT) {
        return n > 0;
    }
    return data->am.kind == UCX_AM_GOT &&
           (n > 0 ? data->status == CMI_OK : data->status == CMI_ERR_NOT_FOUND);
}

bool cmi_ucx_am_read(const void *header, size_t n_header, const uint8_t *bytes, size_t n,
                     cmi_ucx_am_view *view_out)
{
    if (n_header > 0) {
        return read_data(header, n_header, bytes, n, view_out);
    }
    if (n < sizeof view_out->am) {
        return false;
    }
    memcpy(&view_out->am, bytes, sizeof view_out->am);
    switch (view_out->am.kind) {
    case UCX_AM_MESSAGE:
        view_out->message = bytes + sizeof view_out->am;
        view_out->n_message = n - sizeof view_out->am;
        return view_out->n_message > 0;
    case UCX_AM_SIGNAL:
        if (n != sizeof view_out->signal) {
            return false;
        }
        memcpy(&view_out->signal, bytes, n);
        return view_out->signal.signal <= CMI_SIGNAL_MAX &&
               view_out->signal.offset % sizeof(uint64_t) == 0;
    case UCX_AM_NOTE:
        if (n != sizeof view_out->note) {
            return false;
        }
        memcpy(&view_out->note, bytes, n);
        return true;
    case UCX_AM_GET:
        if (n != sizeof view_out->get) {
            return false;
        }
        memcpy(&view_out->get, bytes, n);
        return view_out->get.n_bytes > 0;
    default:
        return false;
    }
}

/* ---- rkeys ---- */

static uint32_t crc_of(const cmi_ucx_rkey *rkey, const void *packed)
{
    cmi_ucx_rkey summed = *rkey;
    summed.crc = 0;
    return cmi_crc32c(cmi_crc32c(0, &summed, sizeof summed), packed, rkey->n_packed);
}

void cmi_ucx_rkey_write(cmi_rkey *rkey_out, cmi_ucx_rkey *rkey, const void *packed)
{
    rkey->crc = crc_of(rkey, packed);
    *rkey_out = (cmi_rkey){.n_bytes = (uint16_t)(sizeof *rkey + rkey->n_packed)};
    memcpy(rkey_out->bytes, rkey, sizeof *rkey);
    memcpy(rkey_out->bytes + sizeof *rkey, packed, rkey->n_packed);
}

bool cmi_ucx_rkey_read(const cmi_rkey *rkey, cmi_ucx_rkey *rkey_out,
                       uint8_t packed_out[CMI_UCX_MAX_PACKED])
{
    if (rkey->n_bytes < sizeof *rkey_out || rkey->n_bytes > CMI_FABRIC_MAX_RKEY) {
        return false;
    }
    memcpy(rkey_out, rkey->bytes, sizeof *rkey_out);
    if (rkey_out->n_packed != rkey->n_bytes - sizeof *rkey_out) {
        return false;
    }
    memset(packed_out, 0, CMI_UCX_MAX_PACKED);
    memcpy(packed_out, rkey->bytes + sizeof *rkey_out, rkey_out->n_packed);
    return rkey_out->crc == crc_of(rkey_out, packed_out);
}

/* ---- addresses ---- */

bool cmi_ucx_address_read(const char *address, char host_out[CMI_FABRIC_MAX_ADDRESS + 1],
                          uint16_t *port_out)
{
    static const char scheme[] = "ucx:";
    if (strncmp(address, scheme, sizeof scheme - 1) != 0 ||
        strlen(address) > CMI_FABRIC_MAX_ADDRESS) {
        return false;
    }
    const char *host = address + sizeof scheme - 1;
    const char *colon = strrchr(host, ':');
    if (colon == NULL || colon == host || colon[1] == '\0') {
        return false;
    }
    const char *end = colon;
    if (host[0] == '[' && end[-1] == ']') {
        host++;
        end--;
    }
    uint32_t port = 0;
    for (const char *p = colon + 1; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || (port = port * 10 + (uint32_t)(*p - '0')) > UINT16_MAX) {
            return false;
        }
    }
    if (end <= host) {
        return false;
    }
    memcpy(host_out, host, (size_t)(end - host));
    host_out[end - host] = '\0';
    *port_out = (uint16_t)port;
    return true;
}
