#include "tests/test.h"

#include <stdlib.h>

#include "policy/expert_moves.h"
#include "tests/policy/expert_cases.h"

enum { N_CASES = 20000, N_FEW = 2000, ROOM = 1 << 15 };

typedef union room {
    uint64_t align;
    uint8_t bytes[ROOM];
} room;

static room memory[3], work;

/* How many of n experts are on a rank. */
static uint32_t count_on(const cmi_expert_placement *p, uint32_t rank, uint32_t expert)
{
    uint32_t first, n_found = 0;
    const uint32_t n = cmi_expert_rank_slots(&p->layout, rank, &first);
    for (uint32_t i = first; i < first + n; i++) {
        n_found += p->physical_to_logical[i] == expert;
    }
    return n_found;
}

/* Experts that a rank has in `to` and lacks in `from`. */
static uint32_t count_needed(const cmi_expert_placement *from, const cmi_expert_placement *to)
{
    uint32_t n = 0;
    for (uint32_t rank = 0; rank < to->layout.n_ranks; rank++) {
        for (uint32_t e = 0; e < to->layout.n_experts; e++) {
            const uint32_t has = count_on(from, rank, e), wants = count_on(to, rank, e);
            n += wants > has ? wants - has : 0;
        }
    }
    return n;
}

/* What the caller of the moves does, with an own idea of what each slab holds. */
typedef struct world {
    cmi_expert_placement now;
    uint16_t slabs[EXPERT_CASE_MAX]; /* what a slot holds */
    uint16_t spare[EXPERT_CASE_MAX]; /* what arrived at a rank's spare slab; UINT16_MAX: nothing */
    uint64_t seed;
} world;

#define SAY(w, what) fail_msg("seed %llu: %s", (unsigned long long)(w)->seed, what)

static void begin_copy(world *w, const cmi_expert_move *move)
{
    const uint32_t rank = cmi_expert_slot_rank(&w->now.layout, move->to_slot);
    if (w->spare[rank] != UINT16_MAX) {
        SAY(w, "a rank receives two experts at once");
    }
    if (move->from_slot >= w->now.layout.n_replicas || w->slabs[move->from_slot] != move->expert) {
        SAY(w, "the source does not have it");
    }
    w->spare[rank] = move->expert;
}

static void commit(world *w, const cmi_expert_move *moves, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t rank = cmi_expert_slot_rank(&w->now.layout, moves[i].to_slot);
        if (w->spare[rank] != moves[i].expert) {
            SAY(w, "what is committed has not arrived");
        }
        w->slabs[moves[i].to_slot] = moves[i].expert;
        w->spare[rank] = UINT16_MAX;
    }
    bool has_slot[EXPERT_CASE_MAX] = {false};
    for (uint32_t i = 0; i < w->now.layout.n_replicas; i++) {
        has_slot[w->slabs[i]] = true;
        if (w->slabs[i] != w->now.physical_to_logical[i]) {
            SAY(w, "the placement names an expert that is not there");
        }
    }
    for (uint32_t e = 0; e < w->now.layout.n_experts; e++) {
        if (!has_slot[e]) {
            SAY(w, "an expert is nowhere");
        }
    }
}

/* Carries out the moves, a few a step; returns the number of rounds. */
static uint32_t carry_out(world *w, expert_random *r, const cmi_expert_move *moves, uint32_t n)
{
    cmi_expert_moving m;
    uint32_t n_rounds = 0;
    cmi_expert_moving_init(&m, moves, n);
    while (!cmi_expert_moving_is_over(&m)) {
        const cmi_expert_move *begun;
        const uint32_t n_begun = cmi_expert_moving_begin(&m, 1 + expert_random_below(r, 4), &begun);
        for (uint32_t i = 0; i < n_begun; i++) {
            begin_copy(w, &begun[i]);
        }
        if (n_begun == 0 && m.n_arrived == m.n_given) {
            SAY(w, "nothing to do, and not over");
        }
        const uint32_t n_arrived = expert_random_below(r, m.n_given - m.n_arrived + 1);
        if (cmi_expert_moving_arrive(&m, n_arrived)) {
            const cmi_expert_move *first = &moves[m.n_committed];
            commit(w, first, cmi_expert_moving_commit(&m, &w->now));
            n_rounds++;
        }
    }
    return n_rounds;
}

static void every_change_is_carried_out_with_every_expert_in_place(void **state)
{
    (void)state;
    static cmi_expert_move moves[EXPERT_CASE_MAX];
    const uint64_t n_cases = getenv("CMI_FEW") != NULL ? N_FEW : N_CASES;
    uint32_t n_moves = 0, n_rounds = 0;
    for (uint64_t seed = 0; seed < n_cases; seed++) {
        expert_random r = {.seed = seed};
        const cmi_expert_layout l =
            seed % 2 == 0 ? expert_random_layout(&r) : expert_random_wild_layout(&r);
        world w = {.seed = seed};
        cmi_expert_placement to;
        expert_random_placement(&r, &l, memory[0].bytes, work.bytes, &w.now);
        expert_random_placement(&r, &l, memory[1].bytes, work.bytes, &to);
        memcpy(w.slabs, w.now.physical_to_logical, l.n_replicas * sizeof w.slabs[0]);
        memset(w.spare, 0xff, sizeof w.spare);
        assert_true(cmi_expert_moves_work_bytes(&l) <= ROOM);
        const uint32_t n = cmi_expert_moves_plan(moves, 7, &w.now, &to, work.bytes);
        if (n != count_needed(&w.now, &to)) {
            SAY(&w, "more or fewer moves than are needed");
        }
        assert_true(n == 0 || moves[0].layer == 7);
        n_rounds += carry_out(&w, &r, moves, n);
        n_moves += n;
        if (count_needed(&w.now, &to) != 0 || count_needed(&to, &w.now) != 0) {
            SAY(&w, "the ranks have not what they should");
        }
    }
    assert_true(n_rounds < n_moves / 5); /* 6.8 moves a round: most ranks take part in most */
}

static void nothing_to_move_is_over_at_once(void **state)
{
    (void)state;
    static const cmi_expert_layout l = {
        .n_experts = 4, .n_replicas = 4, .n_groups = 1, .n_nodes = 1, .n_ranks = 2};
    cmi_expert_placement from, to;
    cmi_expert_move moves[4];
    assert_int_equal(cmi_expert_placement_init(&from, memory[0].bytes, &l), CMI_OK);
    assert_int_equal(cmi_expert_placement_init(&to, memory[1].bytes, &l), CMI_OK);
    to.physical_to_logical[0] = 1; /* other slots of the same rank */
    to.physical_to_logical[1] = 0;
    assert_int_equal(cmi_expert_placement_reindex(&to), CMI_OK);
    assert_int_equal(cmi_expert_moves_plan(moves, 0, &from, &to, work.bytes), 0);
    cmi_expert_moving m;
    cmi_expert_moving_init(&m, moves, 0);
    assert_true(cmi_expert_moving_is_over(&m));
}

/* Two experts without a second replica change ranks: possible because copies wait beside. */
static void two_experts_change_places_at_once(void **state)
{
    (void)state;
    static const cmi_expert_layout l = {
        .n_experts = 3, .n_replicas = 3, .n_groups = 1, .n_nodes = 1, .n_ranks = 3};
    cmi_expert_placement from, to;
    cmi_expert_move moves[3];
    assert_int_equal(cmi_expert_placement_init(&from, memory[0].bytes, &l), CMI_OK);
    assert_int_equal(cmi_expert_placement_init(&to, memory[1].bytes, &l), CMI_OK);
    to.physical_to_logical[0] = 2;
    to.physical_to_logical[2] = 0;
    assert_int_equal(cmi_expert_placement_reindex(&to), CMI_OK);
    assert_int_equal(cmi_expert_moves_plan(moves, 0, &from, &to, work.bytes), 2);
    cmi_expert_moving m;
    const cmi_expert_move *begun;
    cmi_expert_moving_init(&m, moves, 2);
    assert_int_equal(cmi_expert_moving_begin(&m, 1, &begun), 1);
    assert_false(cmi_expert_moving_arrive(&m, 1));
    assert_int_equal(cmi_expert_moving_begin(&m, 5, &begun), 1);
    assert_int_equal(cmi_expert_moving_begin(&m, 5, &begun), 0);
    assert_int_equal(from.physical_to_logical[0], 0); /* until the commit */
    assert_true(cmi_expert_moving_arrive(&m, 1));
    assert_int_equal(cmi_expert_moving_commit(&m, &from), 2);
    assert_memory_equal(from.physical_to_logical, to.physical_to_logical, 3 * sizeof(uint16_t));
    assert_true(cmi_expert_moving_is_over(&m));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_change_is_carried_out_with_every_expert_in_place),
        cmocka_unit_test(nothing_to_move_is_over_at_once),
        cmocka_unit_test(two_experts_change_places_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
