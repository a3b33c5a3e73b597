/* policy/expert_layout.c - the arithmetic of slots, ranks and nodes, and what goes by it. */
#include "policy/expert_placement.h"

const char *cmi_expert_layout_fault(const cmi_expert_layout *l)
{
    if (l->n_experts < 1 || l->n_experts > CMI_EXPERTS_MAX) {
        return "experts must be 1 to 1024";
    }
    if (l->n_replicas < l->n_experts) {
        return "there are fewer replicas than experts";
    }
    if (l->n_replicas > CMI_EXPERT_REPLICAS_MAX) {
        return "replicas must be at most 4096";
    }
    if (l->n_groups < 1 || l->n_groups > CMI_EXPERTS_MAX) {
        return "groups must be 1 to 1024";
    }
    if (l->n_nodes < 1 || l->n_nodes > CMI_EXPERT_RANKS_MAX) {
        return "nodes must be 1 to 1024";
    }
    if (l->n_ranks < 1 || l->n_ranks > CMI_EXPERT_RANKS_MAX) {
        return "ranks must be 1 to 1024";
    }
    return l->n_shared_ranks < l->n_ranks ? NULL : "no rank is left for routed experts";
}

const char *cmi_expert_layout_rest(const cmi_expert_layout *l)
{
    if (l->n_replicas % (l->n_ranks - l->n_shared_ranks) != 0) {
        return "replicas are no multiple of the ranks";
    }
    if (l->n_groups % l->n_nodes != 0) {
        return NULL; /* global: the rest does not matter */
    }
    if (l->n_experts % l->n_groups != 0) {
        return "experts are no multiple of the groups";
    }
    return l->n_ranks % l->n_nodes == 0 ? NULL : "ranks are no multiple of the nodes";
}

bool cmi_expert_layout_is_hierarchical(const cmi_expert_layout *l)
{
    return l->n_groups % l->n_nodes == 0 && l->n_experts % l->n_groups == 0 &&
           l->n_ranks % l->n_nodes == 0 && l->n_replicas % l->n_nodes == 0 &&
           (l->n_shared_ranks == 0 || l->n_nodes == 1);
}

/* Ranks that share out n_slots slots among themselves, the first ones with one more. */
typedef struct part {
    uint32_t n_ranks, n_slots;
} part;

static part part_of(const cmi_expert_layout *l)
{
    uint32_t n = cmi_expert_layout_is_hierarchical(l) ? l->n_nodes : 1;
    return (part){(l->n_ranks - l->n_shared_ranks) / n, l->n_replicas / n};
}

uint32_t cmi_expert_rank_slots(const cmi_expert_layout *l, uint32_t rank, uint32_t *first_out)
{
    *first_out = 0;
    if (rank < l->n_shared_ranks) {
        return 0;
    }
    const part p = part_of(l);
    const uint32_t i = (rank - l->n_shared_ranks) % p.n_ranks;
    const uint32_t n = p.n_slots / p.n_ranks, n_longer = p.n_slots % p.n_ranks;
    *first_out = (rank - l->n_shared_ranks) / p.n_ranks * p.n_slots + i * n + CMI_MIN(i, n_longer);
    return n + (i < n_longer);
}

uint32_t cmi_expert_slot_rank(const cmi_expert_layout *l, uint32_t slot)
{
    const part p = part_of(l);
    const uint32_t i = slot % p.n_slots;
    const uint32_t n = p.n_slots / p.n_ranks, n_longer = p.n_slots % p.n_ranks;
    const uint32_t in_longer = n_longer * (n + 1);
    const uint32_t rank = i < in_longer ? i / (n + 1) : n_longer + (i - in_longer) / n;
    return l->n_shared_ranks + slot / p.n_slots * p.n_ranks + rank;
}

uint32_t cmi_expert_rank_node(const cmi_expert_layout *l, uint32_t rank)
{
    return rank * l->n_nodes / l->n_ranks;
}

uint32_t cmi_expert_shared_rank(const cmi_expert_layout *l, uint32_t rank)
{
    return l->n_shared_ranks == 0 ? rank : rank * l->n_shared_ranks / l->n_ranks;
}

/* ---- a placement in use ---- */

size_t cmi_expert_placement_bytes(const cmi_expert_layout *l)
{
    return cmi_expert_layout_fault(l) != NULL
               ? 0
               : (2 * (size_t)l->n_replicas + l->n_experts + 1) * sizeof(uint16_t);
}

cmi_status cmi_expert_placement_init(cmi_expert_placement *p, void *memory,
                                     const cmi_expert_layout *layout)
{
    if (cmi_expert_layout_fault(layout) != NULL) {
        return CMI_ERR_INVALID;
    }
    uint16_t *at = memory;
    p->layout = *layout;
    p->physical_to_logical = at;
    p->first = at + layout->n_replicas;
    p->physical = p->first + layout->n_experts + 1;
    for (uint32_t i = 0; i < layout->n_replicas; i++) {
        p->physical_to_logical[i] = (uint16_t)(i % layout->n_experts);
    }
    return cmi_expert_placement_reindex(p);
}

cmi_status cmi_expert_placement_reindex(cmi_expert_placement *p)
{
    const uint32_t n_experts = p->layout.n_experts, n_replicas = p->layout.n_replicas;
    for (uint32_t e = 0; e <= n_experts; e++) {
        p->first[e] = 0;
    }
    for (uint32_t i = 0; i < n_replicas; i++) {
        if (p->physical_to_logical[i] >= n_experts) {
            return CMI_ERR_INVALID;
        }
        p->first[p->physical_to_logical[i]]++;
    }
    uint32_t end = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        if (p->first[e] == 0) {
            return CMI_ERR_INVALID;
        }
        end += p->first[e];
        p->first[e] = (uint16_t)end;
    }
    p->first[n_experts] = (uint16_t)end;
    for (uint32_t i = n_replicas; i-- > 0;) { /* backwards: each end moves down to its beginning */
        p->physical[--p->first[p->physical_to_logical[i]]] = (uint16_t)i;
    }
    return CMI_OK;
}

cmi_expert_balance cmi_expert_placement_balance(const cmi_expert_placement *p, const float *loads)
{
    const cmi_expert_layout *l = &p->layout;
    double sum = 0, max = 0;
    for (uint32_t rank = l->n_shared_ranks; rank < l->n_ranks; rank++) {
        uint32_t first;
        const uint32_t n = cmi_expert_rank_slots(l, rank, &first);
        double load = 0;
        for (uint32_t i = first; i < first + n; i++) {
            const uint32_t e = p->physical_to_logical[i];
            load += (double)loads[e] / cmi_expert_replica_count(p, e);
        }
        max = CMI_MAX(max, load);
        sum += load;
    }
    const double mean = sum / (l->n_ranks - l->n_shared_ranks);
    return (cmi_expert_balance){max, mean, mean > 0 ? max / mean : 1};
}

/* 0: on the own rank, 1: on the own node and that counts, 2: elsewhere, 3: dead. */
static uint32_t distance(const cmi_expert_layout *l, const cmi_replica_source *source,
                         uint32_t rank)
{
    if (source->dead != NULL && (source->dead[rank / 64] >> rank % 64 & 1) != 0) {
        return 3;
    }
    if (rank == source->rank) {
        return 0;
    }
    return source->prefer_node &&
                   cmi_expert_rank_node(l, rank) == cmi_expert_rank_node(l, source->rank)
               ? 1
               : 2;
}

uint32_t cmi_expert_replica_choose(const cmi_expert_placement *p, uint32_t expert,
                                   const cmi_replica_source *source)
{
    const uint32_t begin = p->first[expert], end = p->first[expert + 1];
    uint32_t nearest = 3, n = 0;
    for (uint32_t i = begin; i < end; i++) {
        const uint32_t rank = cmi_expert_slot_rank(&p->layout, p->physical[i]);
        const uint32_t d = distance(&p->layout, source, rank);
        n = d < nearest ? 0 : n;
        nearest = CMI_MIN(nearest, d);
        n += d == nearest;
    }
    if (nearest == 3) {
        return CMI_EXPERT_NONE;
    }
    uint32_t left = (uint32_t)(((uint64_t)source->rank + source->row + expert) % n);
    uint32_t i = begin;
    for (;; i++) {
        const uint32_t rank = cmi_expert_slot_rank(&p->layout, p->physical[i]);
        if (distance(&p->layout, source, rank) == nearest && left-- == 0) {
            return p->physical[i];
        }
    }
}
