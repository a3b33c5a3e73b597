/* fabric/ucx/control.c - frames on the TCP connection of a link; see wire.h. */
#include "fabric/ucx/ucx_internal.h"

#include <string.h>
#include <unistd.h>

#include "os/tcp_socket.h"

void cmi_ucx_send_rest(cmi_ucx_link *link)
{
    cmi_ucx_control *c = link->control;
    size_t n = 0;
    if (link->fd < 0 || c->n_out == 0 || cmi_tcp_send(link->fd, c->out, c->n_out, &n) != CMI_OK) {
        return; /* a broken one is noticed when it is read */
    }
    memmove(c->out, c->out + n, c->n_out - n);
    c->n_out -= n;
}

cmi_status cmi_ucx_tell(cmi_ucx_link *link, const cmi_ucx_news *news)
{
    cmi_ucx_control *c = link->control;
    if (link->fd < 0) {
        return CMI_ERR_PEER;
    }
    if (sizeof c->out - c->n_out < CMI_UCX_MAX_FRAME) {
        cmi_ucx_send_rest(link);
    }
    if (sizeof c->out - c->n_out < CMI_UCX_MAX_FRAME) {
        return CMI_ERR_NO_CAPACITY;
    }
    c->n_out += cmi_ucx_frame_write(c->out + c->n_out, news);
    link->told_beat_ns = cmi_fabric_now_ns(&link->fabric->base);
    cmi_ucx_send_rest(link);
    return CMI_OK;
}

static void hear_bye(cmi_ucx_link *link, uint64_t n_numbered)
{
    link->has_heard_bye = true;
    link->bye_seq = n_numbered;
    link->bye_ns = cmi_fabric_now_ns(&link->fabric->base);
    cmi_ucx_stir(link);
}

/* In a link that UCX connects or has connected. */
static void hear_live(cmi_ucx_link *link, const cmi_ucx_news *news)
{
    switch (news->kind) {
    case UCX_REGION:
        cmi_ucx_hear_region(link, news->serial);
        break;
    case UCX_REVOKE:
        cmi_ucx_hear_revoke(link, news->revoke.serial, news->revoke.seq);
        break;
    case UCX_REVOKED:
        link->revoke_acked = CMI_MAX(link->revoke_acked, news->revoke.seq);
        break;
    case UCX_WIRED:
        link->heard_serial = CMI_MAX(link->heard_serial, news->serial);
        link->has_heard_wired = true;
        cmi_ucx_stir(link);
        break;
    case UCX_BEAT:
        break;
    case UCX_BYE:
        hear_bye(link, news->n_numbered);
        break;
    default:
        cmi_ucx_lose(link, CMI_ERR_BAD_DATA);
    }
}

/* The other side has closed. After a farewell it only waits for UCX. */
static void hear_end(cmi_ucx_link *link)
{
    cmi_watch_remove(&link->fabric->watch, link->fd);
    close(link->fd);
    link->fd = -1;
    cmi_ucx_stir(link);
    if (link->state != LINK_LEAVES && !link->has_heard_bye) {
        cmi_ucx_lose(link, CMI_ERR_PEER);
    }
}

static void hear(cmi_ucx_link *link, const cmi_ucx_news *news)
{
    if (link->state == LINK_LEAVES) {
        if (news->kind == UCX_BYE) {
            hear_end(link); /* both have closed: nobody waits for anything */
        }
        return;
    }
    link->beat_ns = cmi_fabric_now_ns(&link->fabric->base);
    if (link->state == LINK_WIRES || link->state == LINK_OPEN) {
        hear_live(link, news);
    } else {
        cmi_ucx_hear_handshake(link, news);
    }
}

/* False: no frame is whole, or there is nothing to read any more. */
static bool read_frame(cmi_ucx_link *link)
{
    cmi_ucx_control *c = link->control;
    cmi_ucx_news news;
    size_t n = 0;
    if (c->n_in == 0) {
        return false;
    }
    cmi_status st = cmi_ucx_frame_read(c->in, c->n_in, &news, &n);
    if (st == CMI_ERR_BAD_DATA) {
        cmi_ucx_lose(link, st);
    }
    if (st != CMI_OK) {
        return false;
    }
    memmove(c->in, c->in + n, c->n_in - n);
    c->n_in -= n;
    hear(link, &news);
    return link->fd >= 0;
}

void cmi_ucx_read_control(cmi_ucx_link *link)
{
    cmi_ucx_control *c = link->control;
    while (link->fd >= 0 && link->state != LINK_DIALS) {
        size_t n = 0;
        cmi_status st = cmi_tcp_receive(link->fd, c->in + c->n_in, sizeof c->in - c->n_in, &n);
        if (st == CMI_IN_PROGRESS) {
            return;
        }
        if (st != CMI_OK) {
            hear_end(link);
            return;
        }
        c->n_in += n;
        while (read_frame(link)) {
        }
    }
}
