/* tests/ep/mesh.h - ranks of one process, a thread each, every one connected to all others. */
#ifndef CMI_TESTS_EP_MESH_H
#define CMI_TESTS_EP_MESH_H

#include <pthread.h>
#include <stdatomic.h>

#include "ep/group.h"
#include "fabric/fault.h"

enum { MESH_MAX_RANKS = 16 };

typedef struct mesh_rank {
    struct mesh *mesh;
    uint32_t rank;
    pthread_t thread;
    cmi_fabric *fabric;
    cmi_ep_peer peers[MESH_MAX_RANKS];
    cmi_region_id region;
    cmi_team *team;
    cmi_exchange *exchange, *second; /* second: NULL without a layout of it */
    bool is_good;
    bool may_be_lost; /* peers, at the end */
} mesh_rank;

typedef struct mesh {
    uint32_t n_ranks;
    const char *fabric; /* its kind */
    cmi_ep_layout layout;
    const cmi_ep_layout *second_layout; /* of another exchange between the ranks; NULL: none */
    const cmi_fault_options *faults;    /* NULL: memory is reached directly */
    uint32_t n_layers, n_experts;
    uint16_t *rank_of; /* [n_layers][n_experts], for all ranks */
    uint64_t patience_ns;
    bool (*run)(mesh_rank *rank); /* on the rank's thread, with its exchange */
    void *arg;
    /* the mesh's own */
    _Atomic uint32_t n_drained;
    pthread_barrier_t barrier;
    cmi_ep_group *group;
    mesh_rank ranks[MESH_MAX_RANKS];
} mesh;

/* Connects all ranks and runs them; true: every one has returned true. */
bool mesh_run(mesh *m);

#define MESH_NEED(condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

#endif
