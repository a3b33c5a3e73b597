/* fabric/local/control.c - datagrams in and out; see wire.h. */
#include "fabric/local/local_internal.h"

#include <unistd.h>

cmi_status cmi_local_tell(const cmi_local_endpoint *ep, const cmi_local_news *news, const int *fds,
                          uint32_t n_fds)
{
    cmi_local_news sent = *news;
    sent.magic = CMI_LOCAL_MAGIC;
    cmi_local_datagram datagram = {.bytes = &sent, .n_bytes = sizeof sent, .n_fds = n_fds};
    for (uint32_t i = 0; i < n_fds; i++) {
        datagram.fds[i] = fds[i];
    }
    return cmi_local_socket_send(ep->fd, &datagram);
}

static void close_fds(cmi_local_datagram *datagram)
{
    while (datagram->n_fds > 0) {
        close(datagram->fds[--datagram->n_fds]);
    }
}

static void hear_open(cmi_local_fabric *f, cmi_local_endpoint *ep, const cmi_local_news *news,
                      cmi_local_datagram *datagram)
{
    if (news->kind == LOCAL_REGION && news->region.serial > ep->heard_serial) {
        cmi_local_hear_region(f, ep, &news->region, datagram->n_fds > 0 ? datagram->fds[0] : -1);
    } else if (news->kind == LOCAL_REVOKE) {
        cmi_local_hear_revoke(f, ep, news->serial);
    } else if (news->kind == LOCAL_BYE) {
        cmi_local_lose(f, ep, CMI_ERR_CLOSED);
    } else {
        cmi_local_lose(f, ep, CMI_ERR_BAD_DATA);
    }
    close_fds(datagram);
}

/* False: nothing more to read now. */
static bool read_one(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    cmi_local_news news;
    cmi_local_datagram datagram = {.bytes = &news, .n_bytes = sizeof news};
    cmi_status st = cmi_local_socket_receive(ep->fd, &datagram);
    if (st == CMI_IN_PROGRESS) {
        return false;
    }
    if (st == CMI_OK && (datagram.n_bytes != sizeof news || news.magic != CMI_LOCAL_MAGIC)) {
        close_fds(&datagram);
        st = CMI_ERR_BAD_DATA;
    }
    if (st != CMI_OK) {
        cmi_local_lose(f, ep, st == CMI_ERR_PEER ? st : CMI_ERR_BAD_DATA);
        return false;
    }
    if (ep->state == ENDPOINT_OPEN) {
        hear_open(f, ep, &news, &datagram);
    } else {
        cmi_local_hear_handshake(f, ep, &news, &datagram);
    }
    return ep->state != ENDPOINT_FREE && ep->fd >= 0;
}

void cmi_local_read_socket(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    while (read_one(f, ep)) {
    }
}
