/* policy/expert_placement.h - which expert lies in which slot of which rank (EPLB, paper section
 * 4).
 *
 * A layer has n_experts routed experts and n_replicas slots for them, numbered through all ranks.
 * Experts in demand get several slots. The placement is that of DeepSeek's published algorithm
 * (github.com/deepseek-ai/EPLB):
 *
 *   hierarchical  when the nodes divide the groups: groups go to nodes, heaviest first, each to the
 *                 lightest node with room; every node then replicates and places its own experts
 *   global        otherwise: the same as if there were one group and one node
 *
 * The next replica goes to the expert with the most load a replica. Replicas go to ranks, heaviest
 * first, each to the lightest rank with room. Of equals the first one: the lower expert, the lower
 * replica, the lower rank. Where each rank (or node) gets one piece, piece i goes to rank i. A
 * layer without any load gives all further replicas to the first expert (of each node).
 *
 * Beyond the published algorithm, which wants everything divisible:
 *   - n_replicas need not be a multiple of the ranks: the first ranks (of each node) then have a
 *     slot more than the others, and with fewer replicas than ranks the last ones have none
 *   - where nodes or groups divide neither ranks nor replicas nor experts, placement is global
 *   - the first n_shared_ranks ranks hold copies of the shared expert and no slot (the paper's
 *     decode instance: 32 of 320); placement over several nodes is global then
 *
 * Loads are floats, since the published algorithm computes in float32: equal loads give equal bits
 * on every machine, in this order of operations, whether subnormals are flushed or not. Only the
 * sum of a group is ours: in double, then rounded. Whole numbers up to 2^24 are exact throughout.
 *
 * Pure: memory comes from the caller, whose it stays. Any thread, as long as nobody writes. */
#ifndef CMI_POLICY_EXPERT_PLACEMENT_H
#define CMI_POLICY_EXPERT_PLACEMENT_H

#include "base/status.h"

enum {
    CMI_EXPERTS_MAX = 1024,
    CMI_EXPERT_RANKS_MAX = 1024,
    CMI_EXPERT_REPLICAS_MAX = 4096, /* of a layer */
    CMI_EXPERT_NONE = UINT32_MAX,
};

/* A load is 0 or within these: no sum overflows, no quotient is subnormal. */
#define CMI_EXPERT_LOAD_MIN 1e-30f
#define CMI_EXPERT_LOAD_MAX 1e30f

typedef struct cmi_expert_layout {
    uint32_t n_experts;  /* routed ones, 1 .. CMI_EXPERTS_MAX */
    uint32_t n_replicas; /* slots, redundant ones included: n_experts .. CMI_EXPERT_REPLICAS_MAX */
    uint32_t n_groups;   /* of experts, as the gate has them, 1 .. CMI_EXPERTS_MAX */
    uint32_t n_nodes;    /* 1 .. CMI_EXPERT_RANKS_MAX; a node has consecutive ranks */
    uint32_t n_ranks;    /* 1 .. CMI_EXPERT_RANKS_MAX, those for the shared expert included */
    uint32_t n_shared_ranks; /* the first ones; 0: the shared expert is on every rank */
} cmi_expert_layout;

/* One layer's placement. */
typedef struct cmi_expert_placement {
    cmi_expert_layout layout;
    uint16_t *physical_to_logical; /* [n_replicas] the expert in a slot */
    uint16_t *first;               /* [n_experts + 1] where an expert begins in physical */
    uint16_t *physical; /* [n_replicas] slots: an expert's side by side, first replica first */
} cmi_expert_placement;

/* What is out of its range, as a static text, or NULL. */
const char *cmi_expert_layout_fault(const cmi_expert_layout *layout);

/* Which division that the published algorithm wants leaves a rest, or NULL. layout has no fault. */
const char *cmi_expert_layout_rest(const cmi_expert_layout *layout);

bool cmi_expert_layout_is_hierarchical(const cmi_expert_layout *layout);

/* Slots of a rank: *first_out .. *first_out + n - 1, where n is returned; 0 for shared ranks. */
uint32_t cmi_expert_rank_slots(const cmi_expert_layout *layout, uint32_t rank, uint32_t *first_out);
uint32_t cmi_expert_slot_rank(const cmi_expert_layout *layout, uint32_t slot);
uint32_t cmi_expert_rank_node(const cmi_expert_layout *layout, uint32_t rank);

/* Bytes for the arrays of a placement and for the work of making one; 0: the layout has a fault. */
size_t cmi_expert_placement_bytes(const cmi_expert_layout *layout);
size_t cmi_expert_placement_work_bytes(const cmi_expert_layout *layout);

/* Puts the arrays into memory (aligned for uint16_t), which must outlive p, with every expert once
 * and in order, slot i holding expert i; further slots begin again with expert 0.
 * CMI_ERR_INVALID: the layout has a fault. */
CMI_NODISCARD cmi_status cmi_expert_placement_init(cmi_expert_placement *p, void *memory,
                                                   const cmi_expert_layout *layout);

/* Places by loads [n_experts]. work is aligned for uint64_t. O(n_replicas * (n_ranks + n_experts)).
 * CMI_ERR_INVALID: a load is NaN or out of range; p is as it was. */
CMI_NODISCARD cmi_status cmi_expert_placement_make(cmi_expert_placement *p, const float *loads,
                                                   void *work);

/* After physical_to_logical was written: sets first and physical, slots ascending.
 * CMI_ERR_INVALID: a slot's expert is out of range, or an expert has no slot; p is of no use. */
CMI_NODISCARD cmi_status cmi_expert_placement_reindex(cmi_expert_placement *p);

static inline uint32_t cmi_expert_replica_count(const cmi_expert_placement *p, uint32_t expert)
{
    return (uint32_t)p->first[expert + 1] - p->first[expert];
}

/* How a load spreads over the ranks that are not kept for the shared expert, when the replicas of
 * an expert share its load evenly. */
typedef struct cmi_expert_balance {
    double max;   /* load of the rank that has the most */
    double mean;  /* of all of them */
    double ratio; /* max / mean; 1 when there is no load */
} cmi_expert_balance;

cmi_expert_balance cmi_expert_placement_balance(const cmi_expert_placement *p, const float *loads);

/* ---- who computes a row ---- */

typedef struct cmi_replica_source {
    uint32_t rank;        /* that has the row */
    uint32_t row;         /* its number there */
    bool prefer_node;     /* a replica of the own node goes before those of other nodes */
    const uint64_t *dead; /* bit rank % 64 of word rank / 64: not to be asked. NULL: all live */
} cmi_replica_source;

/* The slot to send a row to: one on the own rank, if there is, else (prefer_node) one on the own
 * node, else any, in turn by rank, row and expert. Where every rank has as many rows, the own
 * rank's replica is no busier for it; prefer_node saves traffic, and costs balance where an expert
 * has more replicas on one node than on another. Any choice gives the same results.
 * CMI_EXPERT_NONE: all ranks with the expert are dead. */
uint32_t cmi_expert_replica_choose(const cmi_expert_placement *p, uint32_t expert,
                                   const cmi_replica_source *source);

/* The rank whose shared expert serves a rank: itself, or one of the shared ranks, each of which
 * serves consecutive ranks. */
uint32_t cmi_expert_shared_rank(const cmi_expert_layout *layout, uint32_t rank);

#endif
