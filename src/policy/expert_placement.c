/* policy/expert_placement.c - placement by load, as expert_placement.h says.
 *
 * Experts are first brought into the order of their nodes; then each node is a small global
 * placement over a row of consecutive experts, slots and ranks. All comparisons and sums are those
 * of the published program, in its order, since its results are wanted and not only as good ones.
 */
#include "policy/expert_placement.h"

#include <string.h>

/* What lies in the caller's work memory; sizes in expert_placement_work_bytes. */
typedef struct work {
    float *expert_loads; /* [n_experts] in the order of nodes; then load a replica */
    float *item_loads;   /* [n_replicas] or [n_groups]: what pack() places */
    float *pack_loads;   /* [ranks] or [nodes] */
    uint16_t *pack_sizes;
    uint16_t *experts;      /* [n_experts] in the order of nodes */
    uint16_t *counts;       /* [n_experts] replicas, in that order */
    uint16_t *item_experts; /* [n_replicas] places in that order */
    uint16_t *item_numbers; /* [n_replicas] which replica of its expert */
    uint16_t *places;       /* [n_replicas] or [n_groups]: where pack() put an item */
    uint16_t *sorted;       /* [n_replicas] or [n_groups] */
} work;

static uint32_t n_items_max(const cmi_expert_layout *l)
{
    return CMI_MAX(l->n_replicas, l->n_groups);
}

static uint32_t n_packs_max(const cmi_expert_layout *l)
{
    return CMI_MAX(l->n_ranks, l->n_nodes);
}

size_t cmi_expert_placement_work_bytes(const cmi_expert_layout *l)
{
    if (cmi_expert_layout_fault(l) != NULL) {
        return 0;
    }
    const size_t n_items = n_items_max(l), n_packs = n_packs_max(l), n_experts = l->n_experts;
    return (n_experts + n_items + n_packs) * sizeof(float) +
           (2 * n_experts + 4 * n_items + n_packs) * sizeof(uint16_t);
}

static work make_work(void *memory, const cmi_expert_layout *l)
{
    const size_t n_items = n_items_max(l), n_packs = n_packs_max(l), n_experts = l->n_experts;
    work w;
    w.expert_loads = memory;
    w.item_loads = w.expert_loads + n_experts;
    w.pack_loads = w.item_loads + n_items;
    w.pack_sizes = (uint16_t *)(void *)(w.pack_loads + n_packs);
    w.experts = w.pack_sizes + n_packs;
    w.counts = w.experts + n_experts;
    w.item_experts = w.counts + n_experts;
    w.item_numbers = w.item_experts + n_items;
    w.places = w.item_numbers + n_items;
    w.sorted = w.places + n_items;
    return w;
}

/* sorted: 0 .. n - 1, heaviest first, of equals the lower number. Shell's sort: short, in place,
 * and that it is not stable does not show in a total order. */
static void sort_by_load(uint16_t *sorted, const float *loads, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        sorted[i] = (uint16_t)i;
    }
    for (uint32_t gap = n / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11) {
        for (uint32_t i = gap; i < n; i++) {
            const uint16_t item = sorted[i];
            uint32_t at = i;
            for (; at >= gap; at -= gap) {
                const uint16_t before = sorted[at - gap];
                if (loads[before] > loads[item] ||
                    (loads[before] == loads[item] && before < item)) {
                    break;
                }
                sorted[at] = before;
            }
            sorted[at] = item;
        }
    }
}

/* w->places[i]: the place of item i among n_items places, which are those of pack 0, then those of
 * pack 1, ...; the first n_items % n_packs packs have one more. */
static void pack(const work *w, uint32_t n_items, uint32_t n_packs)
{
    const uint32_t n_each = n_items / n_packs, n_longer = n_items % n_packs;
    if (n_items <= n_packs) {
        for (uint32_t i = 0; i < n_items; i++) {
            w->places[i] = (uint16_t)i;
        }
        return;
    }
    for (uint32_t k = 0; k < n_packs; k++) {
        w->pack_loads[k] = 0;
        w->pack_sizes[k] = 0;
    }
    sort_by_load(w->sorted, w->item_loads, n_items);
    for (uint32_t i = 0; i < n_items; i++) {
        uint32_t best = CMI_EXPERT_NONE;
        for (uint32_t k = 0; k < n_packs; k++) {
            if (w->pack_sizes[k] < n_each + (k < n_longer) &&
                (best == CMI_EXPERT_NONE || w->pack_loads[k] < w->pack_loads[best])) {
                best = k;
            }
        }
        const uint16_t item = w->sorted[i];
        const uint32_t begin = best * n_each + CMI_MIN(best, n_longer);
        w->places[item] = (uint16_t)(begin + w->pack_sizes[best]++);
        w->pack_loads[best] += w->item_loads[item];
    }
}

/* w->experts: group by group, in the order of the nodes that they go to. */
static void order_experts(const work *w, const cmi_expert_layout *l, const float *loads)
{
    const bool is_hierarchical = cmi_expert_layout_is_hierarchical(l);
    const uint32_t n_groups = is_hierarchical ? l->n_groups : 1;
    const uint32_t n_in_group = l->n_experts / n_groups;
    for (uint32_t g = 0; g < n_groups; g++) {
        double sum = 0;
        for (uint32_t i = 0; i < n_in_group; i++) {
            sum += (double)loads[g * n_in_group + i];
        }
        w->item_loads[g] = (float)sum;
    }
    pack(w, n_groups, is_hierarchical ? l->n_nodes : 1);
    for (uint32_t e = 0; e < l->n_experts; e++) {
        w->experts[w->places[e / n_in_group] * n_in_group + e % n_in_group] = (uint16_t)e;
    }
}

/* Items 0 .. n_items - 1 are replicas of the n experts from place begin on: each once, then the
 * redundant ones. */
static void replicate(const work *w, const float *loads, uint32_t begin, uint32_t n,
                      uint32_t n_items)
{
    for (uint32_t i = begin; i < begin + n; i++) {
        w->counts[i] = 1;
        w->expert_loads[i] = loads[w->experts[i]];
    }
    for (uint32_t item = 0; item < n_items; item++) {
        uint32_t best = begin + item;
        if (item >= n) {
            best = begin;
            for (uint32_t i = begin + 1; i < begin + n; i++) {
                best = w->expert_loads[i] > w->expert_loads[best] ? i : best;
            }
            w->counts[best]++;
            w->expert_loads[best] = loads[w->experts[best]] / (float)w->counts[best];
        }
        w->item_experts[item] = (uint16_t)best;
        w->item_numbers[item] = (uint16_t)(w->counts[best] - 1);
    }
    for (uint32_t item = 0; item < n_items; item++) {
        w->item_loads[item] = w->expert_loads[w->item_experts[item]];
    }
}

static bool are_loads_fine(const float *loads, uint32_t n)
{
    for (uint32_t e = 0; e < n; e++) {
        if (loads[e] != 0 &&
            !(loads[e] >= CMI_EXPERT_LOAD_MIN && loads[e] <= CMI_EXPERT_LOAD_MAX)) {
            return false;
        }
    }
    return true;
}

/* Writes the experts of the slots; p->first holds counts, p->physical replica numbers of slots. */
static void place(const cmi_expert_placement *p, const work *w, const float *loads)
{
    const cmi_expert_layout *l = &p->layout;
    const uint32_t n_nodes = cmi_expert_layout_is_hierarchical(l) ? l->n_nodes : 1;
    const uint32_t n_experts = l->n_experts / n_nodes, n_replicas = l->n_replicas / n_nodes;
    for (uint32_t node = 0; node < n_nodes; node++) {
        replicate(w, loads, node * n_experts, n_experts, n_replicas);
        for (uint32_t i = node * n_experts; i < (node + 1) * n_experts; i++) {
            p->first[w->experts[i]] = w->counts[i];
        }
        pack(w, n_replicas, (l->n_ranks - l->n_shared_ranks) / n_nodes);
        for (uint32_t item = 0; item < n_replicas; item++) {
            const uint32_t slot = node * n_replicas + w->places[item];
            p->physical_to_logical[slot] = w->experts[w->item_experts[item]];
            p->physical[slot] = w->item_numbers[item];
        }
    }
}

/* From what place() left in first and physical to what they are for. */
static void index_by_number(const cmi_expert_placement *p, const work *w)
{
    const cmi_expert_layout *l = &p->layout;
    uint16_t *numbers = w->item_numbers;
    memcpy(numbers, p->physical, l->n_replicas * sizeof *numbers);
    uint32_t begin = 0;
    for (uint32_t e = 0; e < l->n_experts; e++) {
        const uint32_t n = p->first[e];
        p->first[e] = (uint16_t)begin;
        begin += n;
    }
    p->first[l->n_experts] = (uint16_t)begin;
    for (uint32_t slot = 0; slot < l->n_replicas; slot++) {
        p->physical[p->first[p->physical_to_logical[slot]] + numbers[slot]] = (uint16_t)slot;
    }
}

cmi_status cmi_expert_placement_make(cmi_expert_placement *p, const float *loads, void *memory)
{
    if (!are_loads_fine(loads, p->layout.n_experts)) {
        return CMI_ERR_INVALID;
    }
    const work w = make_work(memory, &p->layout);
    order_experts(&w, &p->layout, loads);
    place(p, &w, loads);
    index_by_number(p, &w);
    return CMI_OK;
}
