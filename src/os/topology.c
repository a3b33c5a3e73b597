#include "os/topology.h"

#include <hwloc.h>

#include "base/alloc.h"

typedef struct node {
    hwloc_bitmap_t processors; /* of ours near it */
    hwloc_bitmap_t memory;     /* it alone */
    uint32_t n_processors;
} node;

struct cmi_topology {
    hwloc_topology_t hwloc;
    hwloc_bitmap_t processors; /* of ours, on all nodes */
    node nodes[CMI_TOPOLOGY_MAX_NODES];
    uint32_t n_nodes;
};

/* ---- finding the nodes ---- */

static cmi_status load(cmi_topology *t, const cmi_topology_options *opt, cmi_error *err)
{
    if (hwloc_topology_init(&t->hwloc) != 0) {
        t->hwloc = NULL;
        return cmi_error_set(err, CMI_ERR_NO_MEMORY, "no memory for the topology");
    }
    hwloc_topology_set_all_types_filter(t->hwloc, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
    hwloc_topology_set_io_types_filter(t->hwloc, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_icache_types_filter(t->hwloc, HWLOC_TYPE_FILTER_KEEP_NONE);
    if (opt->synthetic != NULL && hwloc_topology_set_synthetic(t->hwloc, opt->synthetic) != 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "\"%.100s\" is no topology", opt->synthetic);
    }
    if (hwloc_topology_load(t->hwloc) != 0) {
        return cmi_error_set(err, CMI_ERR_IO, "the host's topology cannot be read");
    }
    return CMI_OK;
}

static cmi_status find_processors(cmi_topology *t, const cmi_topology_options *opt, cmi_error *err)
{
    t->processors = hwloc_bitmap_alloc();
    if (opt->processors == NULL) {
        if (hwloc_get_cpubind(t->hwloc, t->processors, HWLOC_CPUBIND_THREAD) != 0) {
            hwloc_bitmap_fill(t->processors);
        }
    } else if (hwloc_bitmap_list_sscanf(t->processors, opt->processors) != 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "\"%.100s\" is no list of processors",
                             opt->processors);
    }
    hwloc_bitmap_and(t->processors, t->processors, hwloc_topology_get_allowed_cpuset(t->hwloc));
    return hwloc_bitmap_iszero(t->processors)
               ? cmi_error_set(err, CMI_ERR_INVALID, "there is no processor to run on")
               : CMI_OK;
}

/* NUMA nodes with memory that we may use. */
static hwloc_bitmap_t nodes_with_memory(const cmi_topology *t)
{
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    hwloc_obj_t obj = NULL;
    while ((obj = hwloc_get_next_obj_by_type(t->hwloc, HWLOC_OBJ_NUMANODE, obj)) != NULL) {
        if (obj->attr->numanode.local_memory > 0) {
            hwloc_bitmap_set(set, obj->os_index);
        }
    }
    hwloc_bitmap_and(set, set, hwloc_topology_get_allowed_nodeset(t->hwloc));
    return set;
}

/* The os index of the nearest of these nodes; -1: none. */
static int nearest_node(hwloc_const_bitmap_t nodes, hwloc_obj_t processor)
{
    hwloc_bitmap_t near = hwloc_bitmap_alloc();
    for (hwloc_obj_t obj = processor; obj != NULL && hwloc_bitmap_iszero(near); obj = obj->parent) {
        hwloc_bitmap_and(near, obj->nodeset, nodes);
    }
    int first = hwloc_bitmap_first(near);
    hwloc_bitmap_free(near);
    return first;
}

static void add_node(cmi_topology *t, hwloc_obj_t numa, hwloc_const_bitmap_t with_memory)
{
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    hwloc_obj_t processor = NULL;
    while ((processor = hwloc_get_next_obj_by_type(t->hwloc, HWLOC_OBJ_PU, processor)) != NULL) {
        if (hwloc_bitmap_isset(t->processors, processor->os_index) &&
            nearest_node(with_memory, processor) == (int)numa->os_index) {
            hwloc_bitmap_set(set, processor->os_index);
        }
    }
    if (hwloc_bitmap_iszero(set)) {
        hwloc_bitmap_free(set);
        return;
    }
    if (t->n_nodes < CMI_TOPOLOGY_MAX_NODES) {
        t->nodes[t->n_nodes] = (node){.processors = set,
                                      .memory = hwloc_bitmap_dup(numa->nodeset),
                                      .n_processors = (uint32_t)hwloc_bitmap_weight(set)};
    } else {
        hwloc_bitmap_free(set);
    }
    t->n_nodes++;
}

static void drop_nodes(cmi_topology *t)
{
    for (uint32_t i = 0; i < CMI_MIN(t->n_nodes, (uint32_t)CMI_TOPOLOGY_MAX_NODES); i++) {
        hwloc_bitmap_free(t->nodes[i].processors);
        hwloc_bitmap_free(t->nodes[i].memory);
    }
    t->n_nodes = 0;
}

static void find_nodes(cmi_topology *t)
{
    hwloc_bitmap_t with_memory = nodes_with_memory(t);
    hwloc_obj_t obj = NULL;
    while ((obj = hwloc_get_next_obj_by_type(t->hwloc, HWLOC_OBJ_NUMANODE, obj)) != NULL) {
        add_node(t, obj, with_memory);
    }
    if (t->n_nodes == 0 || t->n_nodes > CMI_TOPOLOGY_MAX_NODES) {
        drop_nodes(t);
        t->n_nodes = 1;
        t->nodes[0] = (node){.processors = hwloc_bitmap_dup(t->processors),
                             .memory = hwloc_bitmap_dup(with_memory),
                             .n_processors = (uint32_t)hwloc_bitmap_weight(t->processors)};
    }
    hwloc_bitmap_free(with_memory);
}

cmi_status cmi_topology_create(cmi_topology **topology_out, const cmi_topology_options *opt,
                               cmi_error *err)
{
    cmi_topology *t = cmi_alloc(1, sizeof *t);
    cmi_status st = load(t, opt, err);
    if (st == CMI_OK) {
        st = find_processors(t, opt, err);
    }
    if (st != CMI_OK) {
        cmi_topology_destroy(t);
        return st;
    }
    find_nodes(t);
    *topology_out = t;
    return CMI_OK;
}

void cmi_topology_destroy(cmi_topology *t)
{
    if (t == NULL) {
        return;
    }
    drop_nodes(t);
    hwloc_bitmap_free(t->processors);
    if (t->hwloc != NULL) {
        hwloc_topology_destroy(t->hwloc);
    }
    cmi_free(t);
}

/* ---- looking ---- */

uint32_t cmi_topology_nodes(const cmi_topology *t)
{
    return t->n_nodes;
}

uint32_t cmi_topology_processors(const cmi_topology *t, uint32_t idx)
{
    return t->nodes[idx].n_processors;
}

void cmi_topology_spread(const cmi_topology *t, uint32_t n, uint32_t *begin)
{
    uint64_t total = 0, before = 0;
    for (uint32_t i = 0; i < t->n_nodes; i++) {
        total += t->nodes[i].n_processors;
    }
    for (uint32_t i = 0; i <= t->n_nodes; i++) {
        begin[i] = (uint32_t)CMI_DIV_UP(n * before, total);
        before += i < t->n_nodes ? t->nodes[i].n_processors : 0;
    }
}

int cmi_topology_node_of(const cmi_topology *t, const void *byte)
{
    int found = -1;
    hwloc_bitmap_t where = hwloc_bitmap_alloc();
    if (hwloc_get_area_memlocation(t->hwloc, byte, 1, where, HWLOC_MEMBIND_BYNODESET) == 0 &&
        hwloc_bitmap_weight(where) == 1) {
        for (uint32_t i = 0; i < t->n_nodes; i++) {
            found = hwloc_bitmap_isincluded(where, t->nodes[i].memory) ? (int)i : found;
        }
    }
    hwloc_bitmap_free(where);
    return found;
}

/* ---- binding ---- */

bool cmi_topology_bind_thread(const cmi_topology *t, uint32_t idx)
{
    return hwloc_set_cpubind(t->hwloc, t->nodes[idx].processors, HWLOC_CPUBIND_THREAD) == 0;
}

bool cmi_topology_prefer_node(const cmi_topology *t, uint32_t idx)
{
    /* Without HWLOC_MEMBIND_STRICT the kernel takes another node when this one is full. */
    return hwloc_set_membind(t->hwloc, t->nodes[idx].memory, HWLOC_MEMBIND_BIND,
                             HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET) == 0;
}

bool cmi_topology_prefer_none(const cmi_topology *t)
{
    return hwloc_set_membind(t->hwloc, hwloc_topology_get_topology_nodeset(t->hwloc),
                             HWLOC_MEMBIND_DEFAULT,
                             HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET) == 0;
}

bool cmi_topology_keep(const cmi_topology *t, const void *block, size_t n_bytes)
{
    /* Memory with any policy of its own is exempt from automatic balancing, and without
     * HWLOC_MEMBIND_MIGRATE the policy is for pages to come, of which there are none. */
    return hwloc_set_area_membind(t->hwloc, block, n_bytes,
                                  hwloc_topology_get_topology_nodeset(t->hwloc),
                                  HWLOC_MEMBIND_INTERLEAVE, HWLOC_MEMBIND_BYNODESET) == 0;
}
