#include "tests/test.h"

#include <math.h>

#include "tests/policy/expert_cases.h"

enum { N_CASES = 5000, ROOM = 1 << 16 };

static union {
    uint64_t align;
    uint8_t bytes[ROOM];
} memory, work;

static void place(cmi_expert_placement *p, const cmi_expert_layout *l, const float *loads)
{
    assert_true(cmi_expert_placement_bytes(l) > 0 && cmi_expert_placement_bytes(l) <= ROOM);
    assert_true(cmi_expert_placement_work_bytes(l) <= ROOM);
    assert_int_equal(cmi_expert_placement_init(p, memory.bytes, l), CMI_OK);
    assert_int_equal(cmi_expert_placement_make(p, loads, work.bytes), CMI_OK);
}

/* The example of the published program's README: what it prints, and for the other two maps what
 * the program gives. */
static void the_published_example_comes_out_as_published(void **state)
{
    (void)state;
    static const cmi_expert_layout layout = {
        .n_experts = 12, .n_replicas = 16, .n_groups = 4, .n_nodes = 2, .n_ranks = 8};
    static const float loads[2][12] = {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86},
                                       {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}};
    static const uint16_t experts[2][16] = {{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1},
                                            {7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}};
    static const uint16_t slots[2][16] = {{12, 15, 13, 11, 6, 7, 5, 0, 2, 1, 3, 4, 9, 8, 10, 14},
                                          {13, 15, 11, 8, 14, 9, 10, 12, 2, 4, 0, 6, 3, 7, 1, 5}};
    static const uint16_t counts[2][12] = {{1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1},
                                           {1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1}};
    for (int layer = 0; layer < 2; layer++) {
        cmi_expert_placement p;
        place(&p, &layout, loads[layer]);
        assert_memory_equal(p.physical_to_logical, experts[layer], sizeof experts[layer]);
        assert_memory_equal(p.physical, slots[layer], sizeof slots[layer]);
        for (uint32_t e = 0; e < 12; e++) {
            assert_int_equal(cmi_expert_replica_count(&p, e), counts[layer][e]);
        }
    }
}

/* Both maps agree, every expert has a slot, every slot an expert. */
static void check_maps(const cmi_expert_placement *p, uint64_t seed)
{
    const cmi_expert_layout *l = &p->layout;
    bool seen[EXPERT_CASE_MAX] = {false};
    uint32_t n = 0;
    assert_int_equal(p->first[0], 0);
    for (uint32_t e = 0; e < l->n_experts; e++) {
        if (cmi_expert_replica_count(p, e) < 1) {
            fail_msg("seed %llu: expert %u is nowhere", (unsigned long long)seed, e);
        }
        for (uint32_t i = p->first[e]; i < p->first[e + 1]; i++, n++) {
            const uint32_t slot = p->physical[i];
            if (slot >= l->n_replicas || seen[slot] || p->physical_to_logical[slot] != e) {
                fail_msg("seed %llu: expert %u, slot %u", (unsigned long long)seed, e, slot);
            }
            seen[slot] = true;
        }
    }
    assert_int_equal(n, l->n_replicas);
}

/* Groups lie on one node each, as many on each node. */
static void check_groups(const cmi_expert_placement *p, uint64_t seed)
{
    const cmi_expert_layout *l = &p->layout;
    uint32_t node_of[EXPERT_CASE_MAX], n_on[EXPERT_CASE_MAX] = {0};
    for (uint32_t g = 0; g < l->n_groups; g++) {
        node_of[g] = UINT32_MAX;
    }
    for (uint32_t slot = 0; slot < l->n_replicas; slot++) {
        const uint32_t g = p->physical_to_logical[slot] / (l->n_experts / l->n_groups);
        const uint32_t node = slot / (l->n_replicas / l->n_nodes);
        if (node_of[g] != UINT32_MAX && node_of[g] != node) {
            fail_msg("seed %llu: group %u on two nodes", (unsigned long long)seed, g);
        }
        n_on[node] += node_of[g] == UINT32_MAX;
        node_of[g] = node;
    }
    for (uint32_t node = 0; node < l->n_nodes; node++) {
        assert_int_equal(n_on[node], l->n_groups / l->n_nodes);
    }
}

/* No expert's last replica should have gone to another one of the same node: greed, seen from its
 * end. */
static void check_replicas(const cmi_expert_placement *p, const float *loads, uint64_t seed)
{
    const cmi_expert_layout *l = &p->layout;
    const uint32_t n_nodes = cmi_expert_layout_is_hierarchical(l) ? l->n_nodes : 1;
    const uint32_t n_in_node = l->n_replicas / n_nodes;
    for (uint32_t a = 0; a < l->n_experts; a++) {
        const float n_a = (float)cmi_expert_replica_count(p, a);
        for (uint32_t b = 0; b < l->n_experts; b++) {
            const uint32_t node_a = p->physical[p->first[a]] / n_in_node;
            const uint32_t node_b = p->physical[p->first[b]] / n_in_node;
            const float n_b = (float)cmi_expert_replica_count(p, b);
            if (node_a == node_b && n_a > 1 && loads[a] / (n_a - 1) < loads[b] / n_b) {
                fail_msg("seed %llu: expert %u has a replica that %u should have",
                         (unsigned long long)seed, a, b);
            }
        }
    }
}

static void placements_keep_their_promises(void **state)
{
    (void)state;
    uint32_t n_hierarchical = 0;
    for (uint64_t seed = 0; seed < N_CASES; seed++) {
        expert_random r = {.seed = seed};
        const cmi_expert_layout l =
            seed % 2 == 0 ? expert_random_layout(&r) : expert_random_wild_layout(&r);
        float loads[EXPERT_CASE_MAX];
        cmi_expert_placement p;
        expert_random_loads(&r, l.n_experts, loads);
        place(&p, &l, loads);
        assert_true(seed % 2 == 1 || cmi_expert_layout_rest(&l) == NULL);
        check_maps(&p, seed);
        check_replicas(&p, loads, seed);
        if (cmi_expert_layout_is_hierarchical(&l)) {
            n_hierarchical++;
            check_groups(&p, seed);
        }
    }
    assert_in_range(n_hierarchical, N_CASES / 4, N_CASES - N_CASES / 4);
}

static double heaviest_replica(const cmi_expert_placement *p, const float *loads)
{
    double heaviest = 0;
    for (uint32_t e = 0; e < p->layout.n_experts; e++) {
        /* not fmax: gcc 12 for AArch64 fails on a loop of it */
        double each = (double)loads[e] / cmi_expert_replica_count(p, e);
        heaviest = each > heaviest ? each : heaviest;
    }
    return heaviest;
}

/* Redundant experts can make the busiest rank busier than it was, where loads were even before: but
 * never by more than a replica over the mean, and in few of these cases. */
static void replicas_take_load_from_the_busiest_rank(void **state)
{
    (void)state;
    uint32_t n_better = 0, n_worse = 0;
    for (uint64_t seed = 0; seed < N_CASES; seed++) {
        expert_random r = {.seed = seed};
        cmi_expert_layout l = expert_random_layout(&r);
        l.n_groups = l.n_nodes = 1;
        float loads[EXPERT_CASE_MAX];
        expert_random_loads(&r, l.n_experts, loads);
        cmi_expert_placement p;
        place(&p, &l, loads);
        const double heaviest = heaviest_replica(&p, loads);
        const cmi_expert_balance with = cmi_expert_placement_balance(&p, loads);
        l.n_replicas = l.n_experts;
        place(&p, &l, loads);
        const cmi_expert_balance without = cmi_expert_placement_balance(&p, loads);
        const double rounding = 1 + 1e-6; /* placed by float32 sums, measured in double */
        if (heaviest > heaviest_replica(&p, loads) ||
            with.max > (with.mean + heaviest) * rounding) {
            fail_msg("seed %llu: %g over %g", (unsigned long long)seed, with.max, with.mean);
        }
        n_better += with.max * rounding < without.max;
        n_worse += with.max > without.max * rounding;
    }
    assert_in_range(n_better, N_CASES / 2, N_CASES);
    assert_in_range(n_worse, 0, N_CASES / 10);
}

static void slots_and_ranks_know_each_other(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < N_CASES; seed++) {
        expert_random r = {.seed = seed};
        const cmi_expert_layout l =
            seed % 2 == 0 ? expert_random_layout(&r) : expert_random_wild_layout(&r);
        uint32_t n = 0, fewest = UINT32_MAX, most = 0;
        for (uint32_t rank = 0; rank < l.n_ranks; rank++) {
            uint32_t first;
            const uint32_t n_here = cmi_expert_rank_slots(&l, rank, &first);
            assert_true(n_here == 0 || first == n);
            for (uint32_t slot = first; slot < first + n_here; slot++) {
                assert_int_equal(cmi_expert_slot_rank(&l, slot), rank);
            }
            n += n_here;
            if (rank < l.n_shared_ranks) {
                assert_int_equal(n_here, 0);
            } else {
                fewest = CMI_MIN(fewest, n_here);
                most = CMI_MAX(most, n_here);
            }
            assert_in_range(cmi_expert_rank_node(&l, rank), 0, l.n_nodes - 1);
            assert_in_range(cmi_expert_shared_rank(&l, rank), 0, l.n_ranks - 1);
        }
        assert_int_equal(n, l.n_replicas);
        assert_in_range(most - fewest, 0, seed % 2);
    }
}

/* Paper section 4: 320 ranks with one expert each, 32 of them the shared one's, 32 redundant. */
static void the_papers_decode_instance(void **state)
{
    (void)state;
    static const cmi_expert_layout l = {.n_experts = 256,
                                        .n_replicas = 288,
                                        .n_groups = 8,
                                        .n_nodes = 20,
                                        .n_ranks = 320,
                                        .n_shared_ranks = 32};
    float loads[256];
    uint32_t n_served[320] = {0};
    for (uint32_t e = 0; e < 256; e++) {
        loads[e] = (float)(e < 32 ? 1000 + e : 600);
    }
    cmi_expert_placement p;
    place(&p, &l, loads);
    for (uint32_t i = 0; i < 288; i++) {
        assert_int_equal(cmi_expert_slot_rank(&l, i), 32 + i);
        /* Each of the busy ones once more, the busiest first. */
        assert_int_equal(p.physical_to_logical[i], i < 256 ? i : 31 - (i - 256));
    }
    for (uint32_t rank = 0; rank < 320; rank++) {
        n_served[cmi_expert_shared_rank(&l, rank)]++;
    }
    for (uint32_t rank = 0; rank < 320; rank++) {
        assert_int_equal(n_served[rank], rank < 32 ? 10 : 0);
    }
    assert_int_equal(cmi_expert_shared_rank(&l, 9), 0);
    assert_int_equal(cmi_expert_shared_rank(&l, 10), 1);
}

static void of_equals_the_first_goes_first(void **state)
{
    (void)state;
    static const cmi_expert_layout l = {
        .n_experts = 3, .n_replicas = 8, .n_groups = 1, .n_nodes = 1, .n_ranks = 4};
    cmi_expert_placement p;
    /* 0 1 2 0 1 2 0 1, where a 2 has a load of 5 / 2, and the others one of 5 / 3. */
    place(&p, &l, (const float[]){5, 5, 5});
    static const uint16_t alike[8] = {2, 0, 2, 1, 0, 0, 1, 1};
    assert_memory_equal(p.physical_to_logical, alike, sizeof alike);
    place(&p, &l, (const float[]){0, 0, 0});
    assert_int_equal(cmi_expert_replica_count(&p, 0), 6);
    assert_int_equal(cmi_expert_replica_count(&p, 1), 1);
}

static void what_does_not_divide_is_spread(void **state)
{
    (void)state;
    const cmi_expert_layout l = {
        .n_experts = 5, .n_replicas = 7, .n_groups = 1, .n_nodes = 1, .n_ranks = 3};
    const float loads[5] = {60, 10, 10, 10, 10};
    /* 20 20 20 of the first one, then the others in order to whoever has least and has room. */
    static const uint16_t want[7] = {0, 1, 4, 0, 2, 0, 3};
    cmi_expert_placement p;
    place(&p, &l, loads);
    assert_memory_equal(p.physical_to_logical, want, sizeof want);
    assert_string_equal(cmi_expert_layout_rest(&l), "replicas are no multiple of the ranks");
    cmi_expert_layout more_ranks = l;
    more_ranks.n_ranks = 9;
    place(&p, &more_ranks, loads);
    for (uint32_t i = 0; i < 7; i++) {
        assert_int_equal(cmi_expert_slot_rank(&more_ranks, i), i);
    }
    const cmi_expert_balance b = cmi_expert_placement_balance(&p, loads);
    assert_true(b.max == 20 && b.mean == 100.0 / 9 && b.ratio == b.max / b.mean);
}

static void layouts_and_loads_out_of_range_are_refused(void **state)
{
    (void)state;
    const cmi_expert_layout good = {
        .n_experts = 4, .n_replicas = 4, .n_groups = 1, .n_nodes = 1, .n_ranks = 2};
    cmi_expert_layout bad[9];
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        bad[i] = good;
    }
    bad[0].n_experts = 0;
    bad[1].n_replicas = 3;
    bad[2].n_replicas = CMI_EXPERT_REPLICAS_MAX + 1;
    bad[3].n_groups = 0;
    bad[4].n_nodes = CMI_EXPERT_RANKS_MAX + 1;
    bad[5].n_ranks = 0;
    bad[6].n_shared_ranks = 2;
    bad[7].n_experts = bad[7].n_replicas = CMI_EXPERTS_MAX + 1;
    bad[8].n_ranks = UINT32_MAX;
    cmi_expert_placement p;
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        assert_non_null(cmi_expert_layout_fault(&bad[i]));
        assert_int_equal(cmi_expert_placement_bytes(&bad[i]), 0);
        assert_int_equal(cmi_expert_placement_work_bytes(&bad[i]), 0);
        assert_int_equal(cmi_expert_placement_init(&p, memory.bytes, &bad[i]), CMI_ERR_INVALID);
    }
    const float wrong[] = {NAN, -1, INFINITY, -INFINITY, 2e30f, 1e-31f};
    place(&p, &good, (const float[]){1, 2, 3, 4});
    const uint16_t before[4] = {3, 0, 2, 1};
    for (size_t i = 0; i < CMI_LEN(wrong); i++) {
        const float loads[4] = {0, 1e30f, 1e-30f, wrong[i]};
        assert_int_equal(cmi_expert_placement_make(&p, loads, work.bytes), CMI_ERR_INVALID);
        assert_memory_equal(p.physical_to_logical, before, sizeof before);
    }
    p.physical_to_logical[2] = 0; /* expert 2 is nowhere */
    assert_int_equal(cmi_expert_placement_reindex(&p), CMI_ERR_INVALID);
    p.physical_to_logical[2] = 4;
    assert_int_equal(cmi_expert_placement_reindex(&p), CMI_ERR_INVALID);
}

static void the_largest_layout_is_placed(void **state)
{
    (void)state;
    static const cmi_expert_layout l = {.n_experts = CMI_EXPERTS_MAX,
                                        .n_replicas = CMI_EXPERT_REPLICAS_MAX,
                                        .n_groups = CMI_EXPERTS_MAX,
                                        .n_nodes = CMI_EXPERT_RANKS_MAX,
                                        .n_ranks = CMI_EXPERT_RANKS_MAX};
    static float loads[CMI_EXPERTS_MAX];
    expert_random r = {.seed = 1};
    for (uint32_t e = 0; e < l.n_experts; e++) {
        loads[e] = (float)expert_random_below(&r, 1000);
    }
    cmi_expert_placement p;
    place(&p, &l, loads); /* a group of one expert on each node, four times */
    for (uint32_t i = 0; i < l.n_replicas; i++) {
        assert_int_equal(p.physical_to_logical[i], i / 4);
    }
    cmi_expert_layout global = l;
    global.n_groups = 1;
    place(&p, &global, loads);
    assert_int_equal(p.first[l.n_experts], l.n_replicas);
}

/* ---- who computes a row ---- */

/* Experts 0 and 1 on all four ranks of two nodes, expert 2 on ranks 0, 1 and 2, expert 3 on rank 3.
 */
static void make_spread(cmi_expert_placement *p)
{
    static const cmi_expert_layout l = {
        .n_experts = 4, .n_replicas = 12, .n_groups = 1, .n_nodes = 2, .n_ranks = 4};
    static const uint16_t experts[12] = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 3};
    assert_int_equal(cmi_expert_placement_init(p, memory.bytes, &l), CMI_OK);
    memcpy(p->physical_to_logical, experts, sizeof experts);
    assert_int_equal(cmi_expert_placement_reindex(p), CMI_OK);
}

static uint32_t chosen_rank(const cmi_expert_placement *p, uint32_t expert,
                            const cmi_replica_source *source)
{
    const uint32_t slot = cmi_expert_replica_choose(p, expert, source);
    assert_true(slot == CMI_EXPERT_NONE || p->physical_to_logical[slot] == expert);
    return slot == CMI_EXPERT_NONE ? CMI_EXPERT_NONE : cmi_expert_slot_rank(&p->layout, slot);
}

static void rows_stay_near_and_spread_evenly(void **state)
{
    (void)state;
    cmi_expert_placement p;
    make_spread(&p);
    uint32_t n_rows[2][4] = {{0}};
    for (uint32_t rank = 0; rank < 4; rank++) {
        for (uint32_t row = 0; row < 300; row++) {
            const cmi_replica_source any = {.rank = rank, .row = row};
            const cmi_replica_source node = {.rank = rank, .row = row, .prefer_node = true};
            assert_int_equal(chosen_rank(&p, 0, &any), rank);
            assert_int_equal(chosen_rank(&p, 3, &node), 3);
            n_rows[0][chosen_rank(&p, 2, &any)]++;
            n_rows[1][chosen_rank(&p, 2, &node)]++;
        }
    }
    static const uint32_t want[2][4] = {{400, 400, 400, 0}, {300, 300, 600, 0}};
    assert_memory_equal(n_rows, want, sizeof want);
}

static void dead_ranks_are_not_asked(void **state)
{
    (void)state;
    cmi_expert_placement p;
    make_spread(&p);
    const uint64_t dead[] = {1 << 1 | 1 << 3};
    uint32_t n_rows[4] = {0};
    for (uint32_t row = 0; row < 300; row++) {
        const cmi_replica_source source = {.rank = 3, .row = row, .dead = dead};
        n_rows[chosen_rank(&p, 2, &source)]++;
        assert_int_equal(chosen_rank(&p, 3, &source), CMI_EXPERT_NONE);
    }
    static const uint32_t want[4] = {150, 0, 150, 0};
    assert_memory_equal(n_rows, want, sizeof want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_example_comes_out_as_published),
        cmocka_unit_test(placements_keep_their_promises),
        cmocka_unit_test(replicas_take_load_from_the_busiest_rank),
        cmocka_unit_test(slots_and_ranks_know_each_other),
        cmocka_unit_test(the_papers_decode_instance),
        cmocka_unit_test(of_equals_the_first_goes_first),
        cmocka_unit_test(what_does_not_divide_is_spread),
        cmocka_unit_test(layouts_and_loads_out_of_range_are_refused),
        cmocka_unit_test(the_largest_layout_is_placed),
        cmocka_unit_test(rows_stay_near_and_spread_evenly),
        cmocka_unit_test(dead_ranks_are_not_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
