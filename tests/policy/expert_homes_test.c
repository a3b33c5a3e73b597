/* Whoever lives, every expert has one home that holds it; who is alive keeps what it has; and
 * orphans are spread evenly. */
#include "policy/expert_homes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"

typedef struct rig {
    cmi_expert_placement placement;
    void *memory;
    uint16_t adopters[CMI_EXPERTS_MAX], rank_of[CMI_EXPERTS_MAX];
    uint32_t work[CMI_EXPERT_RANKS_MAX];
    uint64_t dead[CMI_EXPERT_RANKS_MAX / 64];
} rig;

static void make(rig *r, const cmi_expert_layout *layout)
{
    memset(r, 0, sizeof *r);
    r->memory = cmi_alloc(1, cmi_expert_placement_bytes(layout));
    assert_int_equal(cmi_expert_placement_init(&r->placement, r->memory, layout), CMI_OK);
}

static bool lives(const rig *r, uint32_t rank)
{
    return (r->dead[rank / 64] >> rank % 64 & 1) == 0;
}

static void check_homes(rig *r)
{
    const cmi_expert_layout *l = &r->placement.layout;
    uint32_t n_adopted[CMI_EXPERT_RANKS_MAX] = {0};
    for (uint32_t e = 0; e < l->n_experts; e++) {
        bool is_orphan = true;
        for (uint32_t rank = 0; rank < l->n_ranks; rank++) {
            const bool is_placed = cmi_expert_homes_holds(&r->placement, r->adopters, rank, e) &&
                                   r->adopters[e] != rank;
            is_orphan = is_orphan && !(is_placed && lives(r, rank));
        }
        assert_int_equal(is_orphan, r->adopters[e] != CMI_EXPERT_NOT_ADOPTED);
        if (is_orphan) {
            n_adopted[r->adopters[e]]++;
        }
    }
    for (uint32_t source = 0; source < l->n_ranks; source++) {
        const cmi_replica_source from = {.rank = source, .dead = r->dead};
        cmi_expert_homes_choose(&r->placement, r->adopters, &from, r->rank_of);
        for (uint32_t e = 0; e < l->n_experts && lives(r, source); e++) {
            assert_true(lives(r, r->rank_of[e]));
            assert_true(cmi_expert_homes_holds(&r->placement, r->adopters, r->rank_of[e], e));
            if (cmi_expert_homes_holds(&r->placement, r->adopters, source, e)) {
                assert_int_equal(r->rank_of[e], source);
            }
        }
    }
    for (uint32_t a = l->n_shared_ranks; a < l->n_ranks;
         a++) { /* nobody could have given one away */
        for (uint32_t b = l->n_shared_ranks; b < l->n_ranks; b++) {
            uint32_t unused;
            const uint32_t n_a = cmi_expert_rank_slots(l, a, &unused) + n_adopted[a];
            const uint32_t n_b = cmi_expert_rank_slots(l, b, &unused) + n_adopted[b];
            assert_true(n_adopted[a] == 0 || !lives(r, b) || n_a <= n_b + 1);
        }
    }
}

static void every_expert_has_a_home(void **state)
{
    (void)state;
    const cmi_expert_layout layouts[] = {
        {.n_experts = 16, .n_replicas = 16, .n_groups = 1, .n_nodes = 1, .n_ranks = 4},
        {.n_experts = 16, .n_replicas = 20, .n_groups = 1, .n_nodes = 1, .n_ranks = 3},
        {.n_experts = 8, .n_replicas = 8, .n_groups = 1, .n_nodes = 1, .n_ranks = 16},
        {.n_experts = 256, .n_replicas = 288, .n_groups = 8, .n_nodes = 4, .n_ranks = 32},
        {.n_experts = 256,
         .n_replicas = 288,
         .n_groups = 1,
         .n_nodes = 1,
         .n_ranks = 80,
         .n_shared_ranks = 8},
    };
    for (size_t i = 0; i < CMI_LEN(layouts); i++) {
        static rig r;
        make(&r, &layouts[i]);
        for (uint32_t seed = 0; seed < 50; seed++) {
            for (uint32_t rank = 0; rank < layouts[i].n_ranks; rank++) {
                uint32_t words[4];
                cmi_philox4x32(seed, rank, 0, words);
                const uint64_t bit = UINT64_C(1) << rank % 64;
                const bool dies = rank >= layouts[i].n_shared_ranks && seed > 0 &&
                                  words[0] % 50 < seed && rank != layouts[i].n_ranks - 1;
                r.dead[rank / 64] = dies ? r.dead[rank / 64] | bit : r.dead[rank / 64] & ~bit;
            }
            assert_true(cmi_expert_homes_adopt(&r.placement, r.dead, r.adopters, r.work));
            check_homes(&r);
        }
        cmi_free(r.memory);
    }
}

static void nobody_is_left(void **state)
{
    (void)state;
    static rig r;
    make(&r, &(cmi_expert_layout){
                 .n_experts = 4, .n_replicas = 4, .n_groups = 1, .n_nodes = 1, .n_ranks = 2});
    r.dead[0] = 3;
    assert_false(cmi_expert_homes_adopt(&r.placement, r.dead, r.adopters, r.work));
    cmi_free(r.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_expert_has_a_home),
        cmocka_unit_test(nobody_is_left),
    };
    return cmocka_run_group_tests_name("expert_homes", tests, NULL, NULL);
}
