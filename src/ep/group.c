#include "ep/group.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "os/random.h"

enum { SECRET_BYTES = 32, MESSAGE_BYTES = 1024, RING_BYTES = 8192 };

/* A rank that was connected to may still be busy with its memory: join's patience decides. */
static const uint64_t handshake_ns = 600000000000u;

struct cmi_ep_group {
    uint32_t n_ranks;
    cmi_fabric **fabrics; /* [n_ranks], each its rank's */
    char (*addresses)[CMI_FABRIC_MAX_ADDRESS + 1];
};

/* ---- making ---- */

/* What it connects to is in its own process: nobody else knows the secret. */
static cmi_status make_fabric(cmi_ep_group *g, const char *kind, uint32_t rank,
                              const uint8_t *secret, cmi_ep_wrap_fn *wrap, void *arg,
                              cmi_error *err)
{
    char name[16];
    cmi_fabric_options opt;
    snprintf(name, sizeof name, "%u", rank);
    cmi_fabric_options_default(&opt);
    opt.name = name;
    opt.secret = secret;
    opt.secret_bytes = SECRET_BYTES;
    opt.n_endpoints = g->n_ranks + 1;
    opt.n_remotes = g->n_ranks * opt.n_regions;
    opt.message_bytes = MESSAGE_BYTES;
    opt.ring_bytes = RING_BYTES;
    opt.handshake_ns = handshake_ns;
    const char *address = strcmp(kind, "ucx") == 0 ? "ucx:127.0.0.1:0" : "local:";
    cmi_status st = cmi_fabric_create(&g->fabrics[rank], kind, &opt, err);
    st = st == CMI_OK && wrap != NULL ? wrap(arg, rank, &g->fabrics[rank], err) : st;
    st = st == CMI_OK ? cmi_fabric_listen(g->fabrics[rank], address, err) : st;
    if (st == CMI_OK) {
        snprintf(g->addresses[rank], sizeof g->addresses[rank], "%s",
                 cmi_fabric_address(g->fabrics[rank]));
    }
    return st;
}

cmi_status cmi_ep_group_create(cmi_ep_group **group_out, const char *kind, uint32_t n_ranks,
                               cmi_ep_wrap_fn *wrap, void *arg, cmi_error *err)
{
    uint8_t secret[SECRET_BYTES];
    if (n_ranks < 1 || n_ranks > CMI_EP_MAX_RANKS) {
        return cmi_error_set(err, CMI_ERR_INVALID, "a group has 1 to %d ranks, not %u",
                             CMI_EP_MAX_RANKS, n_ranks);
    }
    if (!cmi_random_bytes(secret, sizeof secret)) {
        return cmi_error_set(err, CMI_ERR_IO, "the kernel has no randomness for a secret");
    }
    cmi_status st = CMI_OK;
    cmi_ep_group *g = cmi_alloc(1, sizeof *g);
    g->n_ranks = n_ranks;
    g->fabrics = cmi_alloc(n_ranks, sizeof *g->fabrics);
    g->addresses = cmi_alloc(n_ranks, sizeof *g->addresses);
    for (uint32_t i = 0; st == CMI_OK && i < n_ranks; i++) {
        st = make_fabric(g, kind, i, secret, wrap, arg, err);
    }
    if (st != CMI_OK) {
        cmi_ep_group_destroy(g);
        return st;
    }
    *group_out = g;
    return CMI_OK;
}

void cmi_ep_group_destroy(cmi_ep_group *g)
{
    if (g == NULL) {
        return;
    }
    for (uint32_t i = 0; i < g->n_ranks; i++) {
        cmi_fabric_destroy(g->fabrics[i]);
    }
    cmi_free(g->fabrics);
    cmi_free(g->addresses);
    cmi_free(g);
}

cmi_fabric *cmi_ep_group_fabric(cmi_ep_group *g, uint32_t rank)
{
    return g->fabrics[rank];
}

/* ---- joining ---- */

typedef struct joining {
    cmi_ep_group *group;
    cmi_fabric *fabric;
    uint32_t rank;
    uint64_t until_ns;
    cmi_ep_peer *peers;
} joining;

/* CMI_OK: it is worth looking again. */
static cmi_status wait_a_bit(const joining *j)
{
    if (cmi_fabric_now_ns(j->fabric) >= j->until_ns) {
        return CMI_ERR_TIMEOUT;
    }
    cmi_fabric_sleep(j->fabric, j->until_ns);
    return CMI_OK;
}

/* The rank at the other end: its number is the name of its fabric. n_ranks: nobody's. */
static uint32_t rank_behind(const joining *j, cmi_endpoint_id endpoint)
{
    cmi_endpoint_info info;
    if (cmi_endpoint_get_info(j->fabric, endpoint, &info) != CMI_OK) {
        return j->group->n_ranks;
    }
    char *end;
    errno = 0;
    unsigned long rank = strtoul(info.peer_name, &end, 10);
    bool is_rank = errno == 0 && end != info.peer_name && *end == '\0' &&
                   rank < j->group->n_ranks && rank != j->rank;
    return is_rank ? (uint32_t)rank : j->group->n_ranks;
}

/* To those with higher ranks; the others come. */
static cmi_status connect_all(const joining *j)
{
    const uint32_t n_ranks = j->group->n_ranks;
    cmi_status st = CMI_OK;
    for (uint32_t i = j->rank + 1; st == CMI_OK && i < n_ranks; i++) {
        cmi_endpoint_id unused; /* the event has it again */
        st = cmi_fabric_connect(j->fabric, j->group->addresses[i], j->until_ns, &unused);
    }
    for (uint32_t n_open = 1; st == CMI_OK && n_open < n_ranks;) {
        cmi_fabric_event event;
        if (!cmi_fabric_poll(j->fabric, &event)) {
            st = wait_a_bit(j);
        } else if (event.kind == CMI_EVENT_LOST) {
            st = event.status;
        } else if (event.kind == CMI_EVENT_OPEN) {
            uint32_t rank = rank_behind(j, event.endpoint);
            st = rank == n_ranks ? CMI_ERR_BAD_DATA : CMI_OK;
            j->peers[st == CMI_OK ? rank : j->rank].endpoint = event.endpoint;
            n_open++;
        }
    }
    return st;
}

static cmi_status tell_rkey(const joining *j, const cmi_rkey *rkey)
{
    cmi_status st = CMI_OK;
    for (uint32_t i = 0; st == CMI_OK && i < j->group->n_ranks; i++) {
        while (i != j->rank) {
            st = cmi_endpoint_send(j->fabric, j->peers[i].endpoint, rkey->bytes, rkey->n_bytes);
            if (st != CMI_ERR_NO_CAPACITY || (st = wait_a_bit(j)) != CMI_OK) {
                break;
            }
        }
    }
    return st;
}

static cmi_status open_rkey(const joining *j, cmi_endpoint_id from, const cmi_rkey *rkey)
{
    const uint32_t rank = rank_behind(j, from);
    cmi_status st = rank == j->group->n_ranks ? CMI_ERR_BAD_DATA : CMI_ERR_NO_CAPACITY;
    while (st == CMI_ERR_NO_CAPACITY) { /* the region is announced by another way */
        (void)cmi_fabric_progress(j->fabric);
        st = cmi_endpoint_open_rkey(j->fabric, from, rkey, &j->peers[rank].region);
        if (st == CMI_ERR_NO_CAPACITY && cmi_fabric_now_ns(j->fabric) >= j->until_ns) {
            st = CMI_ERR_TIMEOUT;
        }
    }
    return st;
}

static cmi_status hear_rkeys(const joining *j)
{
    uint8_t message[MESSAGE_BYTES];
    cmi_status st = CMI_OK;
    for (uint32_t n = 1; st == CMI_OK && n < j->group->n_ranks;) {
        cmi_endpoint_id from;
        cmi_rkey rkey;
        size_t n_bytes;
        if (!cmi_fabric_receive(j->fabric, &from, message, &n_bytes)) {
            st = wait_a_bit(j);
        } else if (n_bytes > sizeof rkey.bytes) {
            st = CMI_ERR_BAD_DATA;
        } else {
            rkey.n_bytes = (uint16_t)n_bytes;
            memcpy(rkey.bytes, message, n_bytes);
            st = open_rkey(j, from, &rkey);
            n++;
        }
    }
    return st;
}

/* A region of this rank's, and those of the others. */
static cmi_status share_region(const joining *j, size_t n_bytes, bool is_first,
                               cmi_region_id *region_out, cmi_error *err)
{
    cmi_rkey rkey;
    cmi_status st = cmi_fabric_alloc(j->fabric, n_bytes, "exchange windows", region_out, err);
    if (st != CMI_OK) {
        return st;
    }
    st = cmi_region_get_rkey(j->fabric, *region_out, &rkey);
    st = st == CMI_OK && is_first ? connect_all(j) : st;
    st = st == CMI_OK ? tell_rkey(j, &rkey) : st;
    st = st == CMI_OK ? hear_rkeys(j) : st;
    if (st != CMI_OK) {
        return cmi_error_set(err, st, "rank %u does not find the other %u: %s", j->rank,
                             j->group->n_ranks - 1, cmi_status_text(st));
    }
    return CMI_OK;
}

cmi_status cmi_ep_group_join(cmi_ep_group *g, uint32_t rank, size_t n_bytes, uint64_t patience_ns,
                             cmi_region_id *region_out, cmi_ep_peer *peers_out, cmi_error *err)
{
    const joining j = {.group = g,
                       .fabric = g->fabrics[rank],
                       .rank = rank,
                       .until_ns = cmi_fabric_after_ns(g->fabrics[rank], patience_ns),
                       .peers = peers_out};
    memset(peers_out, 0, g->n_ranks * sizeof *peers_out);
    return share_region(&j, n_bytes, true, region_out, err);
}

cmi_status cmi_ep_group_share(cmi_ep_group *g, uint32_t rank, size_t n_bytes, uint64_t patience_ns,
                              const cmi_ep_peer *joined, cmi_region_id *region_out,
                              cmi_ep_peer *peers_out, cmi_error *err)
{
    const joining j = {.group = g,
                       .fabric = g->fabrics[rank],
                       .rank = rank,
                       .until_ns = cmi_fabric_after_ns(g->fabrics[rank], patience_ns),
                       .peers = peers_out};
    memcpy(peers_out, joined, g->n_ranks * sizeof *peers_out);
    return share_region(&j, n_bytes, false, region_out, err);
}
