/* os/topology.h - memory nodes and the processors near them (hwloc).
 *
 * A node here is a NUMA node that has memory, and processors that this process may use (its
 * affinity mask and cgroup): other processors count to the nearest such node, and nodes without
 * processors of ours are left out. Nodes are numbered from 0 in hwloc's order. A host without NUMA
 * has one.
 *
 * Immutable after creation; any thread. Binding is advice: the functions return whether the system
 * took it (a container may forbid memory policies), and nothing but speed depends on it. On a
 * made-up topology they succeed and do nothing. */
#ifndef CMI_OS_TOPOLOGY_H
#define CMI_OS_TOPOLOGY_H

#include "base/error.h"

enum { CMI_TOPOLOGY_MAX_NODES = 16 }; /* a host with more counts as one node */

typedef struct cmi_topology cmi_topology;

typedef struct cmi_topology_options {
    const char
        *synthetic; /* a made-up host in hwloc's words, "node:2 core:4 pu:1"; NULL: this one */
    const char *processors; /* to use, "0-3,8"; NULL: the affinity mask of the calling thread */
} cmi_topology_options;

/* CMI_ERR_INVALID: an option cannot be read, or leaves no processor. */
CMI_NODISCARD cmi_status cmi_topology_create(cmi_topology **topology_out,
                                             const cmi_topology_options *opt, cmi_error *err);
void cmi_topology_destroy(cmi_topology *topology); /* NULL is fine */

uint32_t cmi_topology_nodes(const cmi_topology *topology);
uint32_t cmi_topology_processors(const cmi_topology *topology, uint32_t node);

/* Spreads n things over the nodes in proportion to their processors: node k gets begin[k] ..
 * begin[k + 1], node 0 at least one. begin has room for CMI_TOPOLOGY_MAX_NODES + 1. */
void cmi_topology_spread(const cmi_topology *topology, uint32_t n, uint32_t *begin);

/* The calling thread runs on the node's processors only. The threads that it starts inherit that.
 */
bool cmi_topology_bind_thread(const cmi_topology *topology, uint32_t node);

/* Pages that the calling thread touches first, in memory without a policy of its own, come from the
 * node while it has some. */
bool cmi_topology_prefer_node(const cmi_topology *topology, uint32_t node);
bool cmi_topology_prefer_none(const cmi_topology *topology); /* from where the thread runs */

/* Pages of the block stay where they are, and the kernel does not try to find them better places.
 */
bool cmi_topology_keep(const cmi_topology *topology, const void *block, size_t n_bytes);

/* Where the page with this byte is; -1: not known, or it has not been touched. */
int cmi_topology_node_of(const cmi_topology *topology, const void *byte);

#endif
