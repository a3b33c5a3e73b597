#include "tests/ep/mesh.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t patience_ns = 120000000000u; /* to connect: sanitizers are slow */

static cmi_status wrap(void *arg, uint32_t rank, cmi_fabric **fabric_inout, cmi_error *err)
{
    (void)rank;
    cmi_fabric *inner = *fabric_inout;
    return cmi_fabric_wrap_faults(fabric_inout, inner, arg, err);
}

static bool make_exchange(const mesh_rank *r, const cmi_ep_layout *layout, cmi_region_id region,
                          const cmi_ep_peer *peers, cmi_exchange **exchange_out)
{
    cmi_error err = {0};
    const mesh *m = r->mesh;
    const cmi_ep_options opt = {.layout = *layout,
                                .rank = r->rank,
                                .team = r->team,
                                .fabric = r->fabric,
                                .region = region,
                                .peers = peers,
                                .n_layers = m->n_layers,
                                .n_experts = m->n_experts,
                                .rank_of = m->rank_of,
                                .patience_ns = m->patience_ns > 0 ? m->patience_ns : patience_ns};
    MESH_NEED(cmi_ep_create(exchange_out, &opt, &err) == CMI_OK);
    return true;
}

static bool make_second(mesh_rank *r)
{
    cmi_error err = {0};
    cmi_region_id region;
    cmi_ep_peer peers[MESH_MAX_RANKS];
    const cmi_ep_layout *layout = r->mesh->second_layout;
    if (layout == NULL) {
        return true;
    }
    pthread_barrier_wait(&r->mesh->barrier); /* all have joined */
    MESH_NEED(cmi_ep_group_share(r->mesh->group, r->rank, layout->region_bytes, patience_ns,
                                 r->peers, &region, peers, &err) == CMI_OK);
    return make_exchange(r, layout, region, peers, &r->second);
}

static bool set_up(mesh_rank *r)
{
    cmi_error err = {0};
    cmi_ep_group *group = r->mesh->group;
    r->fabric = cmi_ep_group_fabric(group, r->rank);
    MESH_NEED(cmi_team_create(&r->team, 1, &err) == CMI_OK);
    MESH_NEED(cmi_ep_group_join(group, r->rank, r->mesh->layout.region_bytes, patience_ns,
                                &r->region, r->peers, &err) == CMI_OK);
    return make_exchange(r, &r->mesh->layout, r->region, r->peers, &r->exchange) && make_second(r);
}

static void *rank_main(void *arg)
{
    mesh_rank *r = arg;
    r->is_good = set_up(r);
    if (!r->is_good) {
        abort(); /* the others would wait for it */
    }
    pthread_barrier_wait(&r->mesh->barrier); /* one that leaves at once would end others' set-up */
    r->is_good = r->mesh->run(r);
    /* what a rank sent last goes on only while it and its peers take part */
    r->is_good &= cmi_ep_drain(r->exchange) == CMI_OK || r->may_be_lost;
    atomic_fetch_add(&r->mesh->n_drained, 1);
    while (atomic_load(&r->mesh->n_drained) < r->mesh->n_ranks) {
        cmi_fabric_sleep(r->fabric, cmi_fabric_after_ns(r->fabric, 1000000));
    }
    pthread_barrier_wait(&r->mesh->barrier); /* nobody leaves while somebody needs its flags */
    cmi_ep_destroy(r->exchange);
    cmi_ep_destroy(r->second);
    cmi_team_destroy(r->team);
    return NULL;
}

bool mesh_run(mesh *m)
{
    bool is_good = true;
    cmi_error err = {0};
    cmi_fault_options faults = m->faults != NULL ? *m->faults : (cmi_fault_options){0};
    if (cmi_ep_group_create(&m->group, m->fabric, m->n_ranks, m->faults != NULL ? wrap : NULL,
                            &faults, &err) != CMI_OK) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    m->n_drained = 0;
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
    cmi_ep_group_destroy(m->group);
    return is_good;
}
