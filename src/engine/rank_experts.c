#include "engine/rank_experts_internal.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "os/host_memory.h"

struct cmi_rank_experts {
    cmi_weights *weights;
    cmi_expert_source *source;
    uint64_t slab_bytes;
    uint32_t n_layers, n_experts, place;
    cmi_expert_placement *placements; /* [n_layers] */
    void *placement_memory;
    uint16_t *adopters; /* [n_layers][n_experts] */
    uint16_t *rank_of;  /* [n_layers][n_experts] */
    uint32_t *work;     /* [ranks] */
    void **slabs;       /* [n_layers][n_experts]; NULL: not here */
    void **spares;      /* [max_spares] slabs that are free */
    uint32_t n_spares, max_spares;
    uint64_t n_slabs, n_kept; /* that there are; of them what is not given back */
    uint8_t *block;           /* of the slabs that were read first */
    uint64_t block_bytes;
    uint64_t n_read;
};

static size_t index_of(const cmi_rank_experts *x, uint32_t layer, uint32_t expert)
{
    return (size_t)layer * x->n_experts + expert;
}

/* ---- slabs ---- */

static bool is_in_block(const cmi_rank_experts *x, const void *slab)
{
    const uint8_t *at = slab;
    return at >= x->block && at < x->block + x->block_bytes;
}

/* Memory of the block is never given back. */
void cmi_rank_experts_give_slab(cmi_rank_experts *x, void *slab)
{
    if (x->n_slabs > x->n_kept && !is_in_block(x, slab)) {
        cmi_host_memory_unmap(slab, x->slab_bytes);
        x->n_slabs--;
    } else {
        assert(x->n_spares < x->max_spares); /* those of the block, and as many as are kept */
        x->spares[x->n_spares++] = slab;
    }
}

static cmi_status make_slab(cmi_rank_experts *x, void **slab_out, cmi_error *err)
{
    cmi_status st = cmi_host_memory_map(slab_out, x->slab_bytes, "an expert", err);
    x->n_slabs += st == CMI_OK ? 1 : 0;
    return st;
}

cmi_status cmi_rank_experts_take_slab(cmi_rank_experts *x, void **slab_out, cmi_error *err)
{
    if (x->n_spares > 0) {
        *slab_out = x->spares[--x->n_spares];
        return CMI_OK;
    }
    if (cmi_host_memory_available() / 2 < x->slab_bytes) {
        return cmi_error_set(err, CMI_ERR_NO_MEMORY,
                             "rank %u has no memory for the experts of ranks that are gone",
                             x->place);
    }
    return make_slab(x, slab_out, err);
}

void cmi_rank_experts_hold(cmi_rank_experts *x, uint32_t layer, uint32_t expert, void *slab)
{
    const cmi_ffn view = cmi_expert_view(x->source, slab);
    x->slabs[index_of(x, layer, expert)] = slab;
    cmi_weights_set_expert(x->weights, layer, expert, &view);
}

static void let_go(cmi_rank_experts *x, uint32_t layer, uint32_t expert)
{
    void **slab = &x->slabs[index_of(x, layer, expert)];
    cmi_weights_set_expert(x->weights, layer, expert, NULL);
    cmi_rank_experts_give_slab(x, *slab);
    *slab = NULL;
}

static cmi_status read_one(cmi_rank_experts *x, uint32_t layer, uint32_t expert, cmi_error *err)
{
    cmi_expert_target target = {.id = {layer, expert}};
    cmi_status st = cmi_rank_experts_take_slab(x, &target.slab, err);
    if (st != CMI_OK) {
        return st;
    }
    st = cmi_expert_read(x->source, &target, err);
    if (st != CMI_OK) {
        cmi_rank_experts_give_slab(x, target.slab);
        return st;
    }
    cmi_rank_experts_hold(x, layer, expert, target.slab);
    x->n_read++;
    return CMI_OK;
}

/* ---- making ---- */

static bool wants(const cmi_rank_experts *x, uint32_t layer, uint32_t expert)
{
    return cmi_expert_source_has_layer(x->source, layer) &&
           cmi_expert_homes_holds(&x->placements[layer], x->adopters + index_of(x, layer, 0),
                                  x->place, expert);
}

/* All of this place, in one block. */
static cmi_status read_own(cmi_rank_experts *x, const cmi_weights_options *reading, cmi_error *err)
{
    const size_t n_max = (size_t)x->n_layers * x->n_experts;
    cmi_expert_target *targets = cmi_alloc(n_max, sizeof *targets);
    size_t n = 0;
    for (uint32_t layer = 0; layer < x->n_layers; layer++) {
        for (uint32_t e = 0; e < x->n_experts; e++) {
            if (wants(x, layer, e)) {
                targets[n++].id = (cmi_expert_id){layer, e};
            }
        }
    }
    x->block_bytes = n * x->slab_bytes;
    cmi_status st =
        n == 0 ? CMI_OK : cmi_host_memory_map((void **)&x->block, x->block_bytes, "experts", err);
    for (size_t i = 0; st == CMI_OK && i < n; i++) {
        targets[i].slab = x->block + i * x->slab_bytes;
    }
    st = st == CMI_OK && n > 0 ? cmi_expert_read_many(x->source, targets, n, reading, err) : st;
    for (size_t i = 0; st == CMI_OK && i < n; i++) {
        cmi_rank_experts_hold(x, targets[i].id.layer_idx, targets[i].id.expert, targets[i].slab);
    }
    x->n_read = n;
    x->n_slabs = n;
    x->n_kept = n + 1;
    cmi_free(targets);
    return st;
}

/* A rank has as many slabs as slots, and one more for what is on its way: whatever moves, there is
 * memory for it, and none to be given back. Slots with the same expert share a slab now. */
static cmi_status make_spares(cmi_rank_experts *x, cmi_error *err)
{
    cmi_status st = CMI_OK;
    x->n_kept = 1;
    for (uint32_t layer = 0; layer < x->n_layers; layer++) {
        uint32_t first;
        x->n_kept += cmi_expert_source_has_layer(x->source, layer)
                         ? cmi_expert_rank_slots(&x->placements[layer].layout, x->place, &first)
                         : 0;
    }
    while (st == CMI_OK && x->n_slabs < x->n_kept) {
        st = make_slab(x, &x->spares[x->n_spares], err);
        x->n_spares += st == CMI_OK ? 1 : 0;
    }
    return st;
}

static void make_tables(cmi_rank_experts *x, const cmi_expert_layout *layout)
{
    const size_t n = (size_t)x->n_layers * x->n_experts;
    const size_t n_bytes = CMI_ROUND_UP(cmi_expert_placement_bytes(layout), sizeof(uint64_t));
    x->placements = cmi_alloc(x->n_layers, sizeof *x->placements);
    x->placement_memory = cmi_alloc(x->n_layers, n_bytes);
    for (uint32_t layer = 0; layer < x->n_layers; layer++) {
        cmi_status st = cmi_expert_placement_init(
            &x->placements[layer], (uint8_t *)x->placement_memory + layer * n_bytes, layout);
        assert(st == CMI_OK);
    }
    x->adopters = cmi_alloc(n, sizeof *x->adopters);
    memset(x->adopters, 0xFF, n * sizeof *x->adopters);
    x->rank_of = cmi_alloc(n, sizeof *x->rank_of);
    x->work = cmi_alloc(layout->n_ranks, sizeof *x->work);
    x->slabs = cmi_alloc(n, sizeof *x->slabs);
    x->max_spares = 2 * (x->n_layers * layout->n_replicas + 1);
    x->spares = cmi_alloc(x->max_spares, sizeof *x->spares);
}

cmi_status cmi_rank_experts_create(cmi_rank_experts **experts_out,
                                   const cmi_rank_experts_options *opt, cmi_error *err)
{
    cmi_rank_experts *x = cmi_alloc(1, sizeof *x);
    x->weights = opt->weights;
    x->source = opt->source;
    x->slab_bytes = opt->slab_bytes;
    x->n_layers = opt->n_layers;
    x->n_experts = opt->layout->n_experts;
    x->place = opt->place;
    make_tables(x, opt->layout);
    cmi_status st = read_own(x, opt->reading, err);
    st = st == CMI_OK && opt->moves ? make_spares(x, err) : st;
    if (st != CMI_OK) {
        cmi_rank_experts_destroy(x);
        return st;
    }
    *experts_out = x;
    return CMI_OK;
}

void cmi_rank_experts_destroy(cmi_rank_experts *x)
{
    if (x == NULL) {
        return;
    }
    for (size_t i = 0; i < (size_t)x->n_layers * x->n_experts; i++) {
        if (x->slabs[i] != NULL && !is_in_block(x, x->slabs[i])) {
            cmi_host_memory_unmap(x->slabs[i], x->slab_bytes);
        }
    }
    for (uint32_t i = 0; i < x->n_spares; i++) {
        if (!is_in_block(x, x->spares[i])) {
            cmi_host_memory_unmap(x->spares[i], x->slab_bytes);
        }
    }
    cmi_host_memory_unmap(x->block, x->block_bytes);
    cmi_expert_source_close(x->source);
    cmi_free(x->spares);
    cmi_free(x->slabs);
    cmi_free(x->work);
    cmi_free(x->rank_of);
    cmi_free(x->adopters);
    cmi_free(x->placement_memory);
    cmi_free(x->placements);
    cmi_free(x);
}

/* ---- views ---- */

static bool arrange_layer(cmi_rank_experts *x, uint32_t layer, const uint64_t *dead)
{
    uint16_t *adopters = x->adopters + index_of(x, layer, 0);
    const cmi_replica_source source = {.rank = x->place, .dead = dead};
    if (!cmi_expert_homes_adopt(&x->placements[layer], dead, adopters, x->work)) {
        return false;
    }
    cmi_expert_homes_choose(&x->placements[layer], adopters, &source,
                            x->rank_of + index_of(x, layer, 0));
    return true;
}

void cmi_rank_experts_choose(cmi_rank_experts *x, uint32_t layer)
{
    static const uint64_t nobody[CMI_EXPERT_RANKS_MAX / 64];
    const bool is_there = arrange_layer(x, layer, nobody);
    assert(is_there);
    (void)is_there;
}

void cmi_rank_experts_drop_unplaced(cmi_rank_experts *x, uint32_t layer)
{
    for (uint32_t e = 0; e < x->n_experts; e++) {
        if (x->slabs[index_of(x, layer, e)] != NULL && !wants(x, layer, e)) {
            let_go(x, layer, e);
        }
    }
}

static void place_as_at_first(cmi_rank_experts *x, uint32_t layer)
{
    cmi_expert_placement *p = &x->placements[layer];
    for (uint32_t slot = 0; slot < p->layout.n_replicas; slot++) {
        p->physical_to_logical[slot] = (uint16_t)(slot % x->n_experts);
    }
    cmi_status st = cmi_expert_placement_reindex(p);
    assert(st == CMI_OK);
    (void)st;
}

cmi_status cmi_rank_experts_arrange(cmi_rank_experts *x, const uint64_t *dead,
                                    cmi_rank_experts_go_on_fn *go_on, void *arg, cmi_error *err)
{
    for (uint32_t layer = 0; layer < x->n_layers; layer++) {
        place_as_at_first(x, layer);
        if (!arrange_layer(x, layer, dead)) {
            return cmi_error_set(err, CMI_ERR_PEER, "no rank is left for experts");
        }
        cmi_rank_experts_drop_unplaced(x, layer); /* first what makes room */
        for (uint32_t e = 0; e < x->n_experts; e++) {
            if (x->slabs[index_of(x, layer, e)] != NULL || !wants(x, layer, e)) {
                continue;
            }
            cmi_status st = read_one(x, layer, e, err);
            if (st != CMI_OK) {
                return st;
            }
            if (!go_on(arg)) {
                return cmi_error_set(err, CMI_ERR_PEER, "the view is over");
            }
        }
    }
    return CMI_OK;
}

/* ---- looks ---- */

uint32_t cmi_rank_experts_n_layers(const cmi_rank_experts *x)
{
    return x->n_layers;
}

uint32_t cmi_rank_experts_place(const cmi_rank_experts *x)
{
    return x->place;
}

bool cmi_rank_experts_has_layer(const cmi_rank_experts *x, uint32_t layer)
{
    return cmi_expert_source_has_layer(x->source, layer);
}

const cmi_expert_source *cmi_rank_experts_source(const cmi_rank_experts *x)
{
    return x->source;
}

cmi_expert_placement *cmi_rank_experts_placement(cmi_rank_experts *x, uint32_t layer)
{
    return &x->placements[layer];
}

bool cmi_rank_experts_has(const cmi_rank_experts *x, uint32_t layer, uint32_t expert)
{
    return x->slabs[index_of(x, layer, expert)] != NULL;
}

const uint16_t *cmi_rank_experts_rank_of(const cmi_rank_experts *x)
{
    return x->rank_of;
}

uint64_t cmi_rank_experts_n_adopted(const cmi_rank_experts *x)
{
    uint64_t n = 0;
    for (uint32_t layer = 0; layer < x->n_layers; layer++) {
        for (uint32_t e = 0; e < x->n_experts && cmi_expert_source_has_layer(x->source, layer);
             e++) {
            n += x->adopters[index_of(x, layer, e)] == x->place ? 1 : 0;
        }
    }
    return n;
}

uint64_t cmi_rank_experts_n_read(const cmi_rank_experts *x)
{
    return x->n_read;
}
