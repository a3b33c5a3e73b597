/* model/weights_place.c - which memory node has which part of the weights.
 *
 * Every matrix is cut into one slice of consecutive outputs for each node, in proportion to the
 * node's threads. The tasks of a product are dealt to the nodes in the same proportion (os/team.h),
 * so that mostly each node's threads read their own slice, whatever experts a step needs: whole
 * experts on a node would leave the others idle when few are active.
 *
 * A page gets its node by being touched first under that preference, not by a policy for its range:
 * slices of a large model's experts would make more ranges than a process may have (65530), and a
 * boundary inside a huge page would split it. So homes change at huge pages only, and of a slice of
 * some megabytes a part of one lies on the neighbour's node. */
#include "model/weights_internal.h"

#include <math.h>
#include <stdatomic.h>

#include "os/host_memory.h"

enum {
    TASK_BYTES = 64 << 20,
    UNIT_BYTES = 2 << 20, /* of a stretch at least: a huge page where there are any */
    SAMPLES = 1024,
};

/* The last span that begins at or before byte; NULL: none. */
static const cmi_weights_span *span_at(const cmi_weights_plan *plan, uint64_t byte)
{
    size_t low = 0, high = plan->n_spans;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (plan->spans[middle].begin <= byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? NULL : &plan->spans[low - 1];
}

uint64_t cmi_weights_whole_place(const cmi_weights_plan *plan, uint64_t byte)
{
    const cmi_weights_span *span = span_at(plan, byte);
    return byte + (span == NULL ? 0 : span->left_out);
}

uint32_t cmi_weights_home(const cmi_weights_plan *plan, const cmi_team *team, uint64_t byte)
{
    const cmi_weights_span *span = span_at(plan, byte);
    if (span == NULL || byte - span->begin >= span->n_bytes) {
        return 0;
    }
    uint32_t node = 0;
    while (cmi_team_share(team, node + 1, span->n_bytes) <= byte - span->begin) {
        node++;
    }
    return node;
}

/* Of the unit at begin: the home of its middle. */
static uint32_t unit_home(const cmi_weights_plan *plan, const cmi_team *team, uint64_t unit,
                          uint64_t begin)
{
    uint64_t end = CMI_MIN(begin + unit, plan->block_bytes);
    return cmi_weights_home(plan, team, begin + (end - begin) / 2);
}

uint64_t cmi_weights_stretch(const cmi_weights_plan *plan, const cmi_team *team, uint64_t unit,
                             uint64_t begin, uint32_t *node_out)
{
    *node_out = unit_home(plan, team, unit, begin);
    uint64_t end = begin + unit;
    while (end < plan->block_bytes && unit_home(plan, team, unit, end) == *node_out) {
        end += unit;
    }
    return CMI_MIN(end, plan->block_bytes);
}

/* ---- taking the memory ---- */

typedef struct place_run {
    const cmi_weights_plan *plan;
    const cmi_team *team;
    uint32_t n_parts;           /* of the block; each node has a task for every part */
    _Atomic cmi_status *status; /* of the first that failed */
} place_run;

static void take_memory(const place_run *run, uint64_t begin, uint64_t end)
{
    const cmi_weights_plan *plan = run->plan;
    if (plan->shared == NULL) {
        cmi_host_memory_touch(plan->block + begin, end - begin);
        return;
    }
    cmi_error err;
    cmi_status st = cmi_shared_block_reserve(plan->shared, begin, end - begin, &err);
    cmi_status none = CMI_OK;
    if (st != CMI_OK && atomic_compare_exchange_strong(run->status, &none, st)) {
        *plan->err = err;
    }
}

/* What of a part of the block belongs to a node. */
static void place_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const place_run *run = arg;
    const cmi_topology *topology = cmi_team_topology(run->team);
    uint32_t node = task / run->n_parts, home;
    uint64_t begin = (uint64_t)(task % run->n_parts) * TASK_BYTES;
    uint64_t part_end = CMI_MIN(begin + TASK_BYTES, run->plan->block_bytes);
    if (topology != NULL) {
        (void)cmi_topology_prefer_node(topology, node);
    }
    for (uint64_t end; begin < part_end; begin = end) {
        end = cmi_weights_stretch(run->plan, run->team, UNIT_BYTES, begin, &home);
        end = CMI_MIN(end, part_end);
        if (home == node) {
            take_memory(run, begin, end);
        }
    }
    if (topology != NULL) {
        (void)cmi_topology_prefer_none(topology);
    }
}

cmi_status cmi_weights_place(const cmi_weights_plan *plan, cmi_team *team)
{
    if (plan->shared == NULL && cmi_team_nodes(team) == 1) {
        return CMI_OK;
    }
    _Atomic cmi_status status = CMI_OK;
    place_run run = {.plan = plan,
                     .team = team,
                     .n_parts = (uint32_t)CMI_DIV_UP(plan->block_bytes, (uint64_t)TASK_BYTES),
                     .status = &status};
    uint32_t n_tasks[CMI_TOPOLOGY_MAX_NODES];
    for (uint32_t node = 0; node < cmi_team_nodes(team); node++) {
        n_tasks[node] = run.n_parts;
    }
    cmi_team_run_on_nodes(team, place_task, &run, n_tasks);
    if (cmi_team_topology(team) != NULL) {
        /* From now on: what writes the weights is not what will read them. */
        (void)cmi_topology_keep(cmi_team_topology(team), plan->block, plan->block_bytes);
    }
    return status;
}

double cmi_weights_share_at_home(const cmi_weights_plan *plan, const cmi_team *team)
{
    const cmi_topology *topology = cmi_team_topology(team);
    if (topology == NULL) {
        return 1;
    }
    uint32_t n_home = 0, n_known = 0;
    for (uint64_t i = 0; i < SAMPLES; i++) {
        uint64_t byte = plan->block_bytes / SAMPLES * i;
        uint32_t home = unit_home(plan, team, UNIT_BYTES, byte / UNIT_BYTES * UNIT_BYTES);
        int node = cmi_topology_node_of(topology, plan->block + byte);
        n_known += node >= 0;
        n_home += node == (int)home;
    }
    return n_known == 0 ? (double)NAN : (double)n_home / SAMPLES;
}
