#include "tests/ep/mesh.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t secret[] = "a secret of the ranks for tests";
static const uint64_t patience_ns = 120000000000u; /* to connect: sanitizers are slow */

static bool make_fabric(mesh_rank *r)
{
    cmi_error err = {0};
    cmi_fabric_options opt;
    char name[16];
    snprintf(name, sizeof name, "%u", r->rank);
    cmi_fabric_options_default(&opt);
    opt.name = name;
    opt.secret = secret;
    opt.secret_bytes = sizeof secret;
    opt.version = 1;
    opt.n_endpoints = opt.n_remotes = 2 * MESH_MAX_RANKS;
    opt.handshake_ns = patience_ns;
    MESH_NEED(cmi_fabric_create_local(&r->fabric, &opt, &err) == CMI_OK);
    if (r->mesh->faults != NULL) {
        cmi_fabric *wrapped;
        MESH_NEED(cmi_fabric_wrap_faults(&wrapped, r->fabric, r->mesh->faults, &err) == CMI_OK);
        r->fabric = wrapped;
    }
    MESH_NEED(cmi_fabric_listen(r->fabric, "local:", &err) == CMI_OK);
    snprintf(r->mesh->addresses[r->rank], sizeof r->mesh->addresses[0], "%s",
             cmi_fabric_address(r->fabric));
    return true;
}

/* Which rank an open endpoint leads to is in the name of the fabric there. */
static bool connect_all(mesh_rank *r)
{
    cmi_fabric *f = r->fabric;
    const uint64_t until_ns = cmi_fabric_after_ns(f, patience_ns);
    for (uint32_t i = r->rank + 1; i < r->mesh->n_ranks; i++) {
        cmi_endpoint_id unused;
        MESH_NEED(cmi_fabric_connect(f, r->mesh->addresses[i], until_ns, &unused) == CMI_OK);
    }
    for (uint32_t n_open = 1; n_open < r->mesh->n_ranks;) {
        cmi_fabric_event event;
        cmi_endpoint_info info;
        MESH_NEED(cmi_fabric_now_ns(f) < until_ns);
        if (!cmi_fabric_poll(f, &event)) {
            cmi_fabric_sleep(f, until_ns);
            continue;
        }
        MESH_NEED(event.kind == CMI_EVENT_OPEN);
        MESH_NEED(cmi_endpoint_get_info(f, event.endpoint, &info) == CMI_OK);
        r->peers[atoi(info.peer_name)].endpoint = event.endpoint;
        n_open++;
    }
    return true;
}

static bool send_rkey(mesh_rank *r, uint32_t to, const cmi_rkey *rkey)
{
    cmi_status st;
    do {
        (void)cmi_fabric_progress(r->fabric);
        st = cmi_endpoint_send(r->fabric, r->peers[to].endpoint, rkey, sizeof *rkey);
    } while (st == CMI_ERR_NO_CAPACITY);
    return st == CMI_OK;
}

static bool open_rkey(mesh_rank *r, cmi_endpoint_id from, const cmi_rkey *rkey)
{
    for (uint32_t i = 0; i < r->mesh->n_ranks; i++) {
        if (i != r->rank && r->peers[i].endpoint.idx == from.idx) {
            cmi_status st;
            do {
                (void)cmi_fabric_progress(r->fabric);
                st = cmi_endpoint_open_rkey(r->fabric, from, rkey, &r->peers[i].region);
            } while (st == CMI_ERR_NO_CAPACITY);
            return st == CMI_OK;
        }
    }
    return false;
}

static bool exchange_rkeys(mesh_rank *r)
{
    static _Thread_local uint8_t message[CMI_FABRIC_MAX_MESSAGE];
    const uint64_t until_ns = cmi_fabric_after_ns(r->fabric, patience_ns);
    cmi_rkey rkey;
    MESH_NEED(cmi_region_get_rkey(r->fabric, r->region, &rkey) == CMI_OK);
    for (uint32_t i = 0; i < r->mesh->n_ranks; i++) {
        MESH_NEED(i == r->rank || send_rkey(r, i, &rkey));
    }
    for (uint32_t n = 1; n < r->mesh->n_ranks;) {
        cmi_endpoint_id from;
        size_t n_bytes;
        MESH_NEED(cmi_fabric_now_ns(r->fabric) < until_ns);
        if (!cmi_fabric_receive(r->fabric, &from, message, &n_bytes)) {
            cmi_fabric_sleep(r->fabric, until_ns);
            continue;
        }
        MESH_NEED(n_bytes == sizeof rkey);
        memcpy(&rkey, message, sizeof rkey);
        MESH_NEED(open_rkey(r, from, &rkey));
        n++;
    }
    return true;
}

static bool make_exchange(mesh_rank *r)
{
    cmi_error err = {0};
    const mesh *m = r->mesh;
    const cmi_ep_options opt = {.layout = m->layout,
                                .rank = r->rank,
                                .team = r->team,
                                .fabric = r->fabric,
                                .region = r->region,
                                .peers = r->peers,
                                .n_layers = m->n_layers,
                                .n_experts = m->n_experts,
                                .rank_of = m->rank_of,
                                .patience_ns = m->patience_ns > 0 ? m->patience_ns : patience_ns};
    MESH_NEED(cmi_ep_create(&r->exchange, &opt, &err) == CMI_OK);
    return true;
}

static bool set_up(mesh_rank *r)
{
    cmi_error err = {0};
    MESH_NEED(cmi_team_create(&r->team, 1, &err) == CMI_OK);
    MESH_NEED(make_fabric(r));
    pthread_barrier_wait(&r->mesh->barrier);
    MESH_NEED(cmi_fabric_alloc(r->fabric, r->mesh->layout.region_bytes, "windows", &r->region,
                               &err) == CMI_OK);
    MESH_NEED(connect_all(r) && exchange_rkeys(r) && make_exchange(r));
    return true;
}

static void *rank_main(void *arg)
{
    mesh_rank *r = arg;
    r->is_good = set_up(r);
    if (!r->is_good) {
        abort(); /* the others would wait for it */
    }
    r->is_good = r->mesh->run(r);
    /* what a rank sent last goes on only while it takes part */
    r->is_good &= cmi_ep_drain(r->exchange) == CMI_OK || r->may_be_lost;
    pthread_barrier_wait(&r->mesh->barrier); /* nobody leaves while somebody needs its flags */
    cmi_ep_destroy(r->exchange);
    cmi_fabric_destroy(r->fabric);
    cmi_team_destroy(r->team);
    return NULL;
}

bool mesh_run(mesh *m)
{
    bool is_good = true;
    pthread_barrier_init(&m->barrier, NULL, m->n_ranks);
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        m->ranks[i] = (mesh_rank){.mesh = m, .rank = i};
        if (pthread_create(&m->ranks[i].thread, NULL, rank_main, &m->ranks[i]) != 0) {
            abort();
        }
    }
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        pthread_join(m->ranks[i].thread, NULL);
        is_good &= m->ranks[i].is_good;
    }
    pthread_barrier_destroy(&m->barrier);
    return is_good;
}
