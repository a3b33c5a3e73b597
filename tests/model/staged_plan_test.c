/* How prompts of a staged pass are chosen and cut. */
#include "tests/test.h"

#include "base/rng.h"
#include "model/staged_plan.h"

enum { MAX_RANKS = 5, MAX_PROMPTS = 8, MAX_PAGES = 40, MAX_ROWS = 100, PAGE = 64 };

typedef struct plan_memory {
    cmi_staged_prompt prompts[MAX_PAGES];
    uint32_t first_row[MAX_RANKS + 1], n_home_rows[MAX_RANKS];
    cmi_staged_plan plan;
} plan_memory;

static const cmi_staged_plan *make(plan_memory *m, uint32_t n_ranks, uint32_t max_pages,
                                   const cmi_stage_offer *offers, uint32_t min_rows_saved)
{
    const cmi_stage_shape shape = {n_ranks, MAX_ROWS, max_pages, min_rows_saved};
    m->plan = (cmi_staged_plan){
        .prompts = m->prompts, .first_row = m->first_row, .n_home_rows = m->n_home_rows};
    cmi_staged_plan_make(&m->plan, &shape, offers, PAGE);
    return &m->plan;
}

static void rows_are_cut_evenly_beside_what_stays_at_home(void **state)
{
    (void)state;
    plan_memory m;
    const cmi_stage_prompt of_0[] = {{3, 0}}, of_1[] = {{60, 0}, {30, 64}};
    const cmi_stage_offer offers[] = {{0, 1, of_0}, {0, 2, of_1}, {0, 0, NULL}, {40, 0, NULL}};
    const cmi_staged_plan *p = make(&m, 4, MAX_PAGES, offers, 0);
    /* 93 rows over three ranks, for the fourth has more than its part already */
    const uint32_t want[] = {0, 31, 62, 93, 93};
    assert_memory_equal(p->first_row, want, sizeof want);
    assert_int_equal(p->n_prompts, 3);
    assert_int_equal(p->prompts[2].home, 1);
    assert_int_equal(p->prompts[2].prompt_idx, 1);
    assert_int_equal(p->prompts[2].first_row, 63);
    assert_int_equal(p->prompts[2].home_row, 60);
    assert_int_equal(p->prompts[2].first_page, 2);
    assert_int_equal(p->prompts[2].n_pages, 2); /* 94 positions */
    const cmi_stage_offer few[] = {{2, 0, NULL}, {1, 1, of_0}, {2, 0, NULL}};
    const uint32_t want_few[] = {0, 1, 3, 3}; /* up to 2 each, then one more to the first */
    p = make(&m, 3, MAX_PAGES, few, 0);
    assert_memory_equal(p->first_row, want_few, sizeof want_few);
    const cmi_stage_offer nothing[] = {{2, 0, NULL}, {0, 0, NULL}};
    assert_int_equal(make(&m, 2, MAX_PAGES, nothing, 0)->first_row[2], 0);
}

static void what_finds_no_pages_stays_at_home(void **state)
{
    (void)state;
    plan_memory m;
    const cmi_stage_prompt of_0[] = {{10, 0}, {20, 190}, {1, 64}}, of_1[] = {{10, 54}, {2, 0}};
    const cmi_stage_offer offers[] = {{1, 3, of_0}, {0, 2, of_1}};
    const cmi_staged_plan *p = make(&m, 2, 4, offers, 0); /* 1, 4 too many, 2, 1, 1 too many */
    assert_int_equal(p->n_prompts, 3);
    assert_int_equal(p->n_pages, 4);
    assert_int_equal(p->prompts[1].prompt_idx, 2);
    assert_int_equal(p->prompts[1].home_row, 30); /* of what is offered, staged or not */
    assert_int_equal(p->prompts[2].home, 1);
    assert_int_equal(p->n_home_rows[0], 21);
    assert_int_equal(p->n_home_rows[1], 2);
    const uint32_t want[] = {0, 1, 21}; /* 21 + 1 and 2 + 20 */
    assert_memory_equal(p->first_row, want, sizeof want);
}

/* Any offers: every staged row is somebody's, nobody has more than fits, and nobody could give one
 * to another that has two less. */
static void any_cut_is_whole_and_even(void **state)
{
    (void)state;
    plan_memory m;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        cmi_stage_prompt prompts[MAX_RANKS][MAX_PROMPTS];
        cmi_stage_offer offers[MAX_RANKS] = {0};
        uint32_t words[4], n_rows = 0, least = UINT32_MAX;
        cmi_philox4x32(seed, 0, 0, words);
        const uint32_t n_ranks = 1 + words[0] % MAX_RANKS, max_pages = 1 + words[1] % MAX_PAGES;
        for (uint32_t rank = 0; rank < n_ranks; rank++) {
            cmi_philox4x32(seed, 1, rank, words);
            uint32_t n_left = MAX_ROWS;
            offers[rank].n_own_rows = words[0] % 4 == 0 ? words[1] % (MAX_ROWS + 1) : 0;
            n_left -= offers[rank].n_own_rows;
            offers[rank].prompts = prompts[rank];
            for (uint32_t i = 0; i < words[2] % (MAX_PROMPTS + 1) && n_left > 0; i++) {
                uint32_t of_prompt[4];
                cmi_philox4x32(seed, 2 + rank, i, of_prompt);
                prompts[rank][i] =
                    (cmi_stage_prompt){1 + of_prompt[0] % n_left, of_prompt[1] % 300};
                n_left -= prompts[rank][i].n_rows;
                offers[rank].n_prompts++;
            }
        }
        const cmi_staged_plan *p = make(&m, n_ranks, max_pages, offers, 0);
        for (uint32_t i = 0; i < p->n_prompts; i++) {
            assert_int_equal(p->prompts[i].first_row, n_rows);
            n_rows += p->prompts[i].n_rows;
        }
        assert_int_equal(p->n_rows, n_rows);
        assert_int_equal(p->first_row[n_ranks], n_rows);
        assert_true(p->n_pages <= max_pages);
        for (uint32_t rank = 0; rank < n_ranks; rank++) {
            least =
                CMI_MIN(least, p->n_home_rows[rank] + p->first_row[rank + 1] - p->first_row[rank]);
        }
        for (uint32_t rank = 0; rank < n_ranks; rank++) {
            const uint32_t share = p->first_row[rank + 1] - p->first_row[rank];
            assert_true(p->n_home_rows[rank] + share <= MAX_ROWS);
            assert_true(share == 0 || p->n_home_rows[rank] + share <= least + 1);
        }
    }
}

static void even_prompts_stay_at_home(void **state)
{
    (void)state;
    plan_memory m;
    const cmi_stage_prompt of_0[] = {{80, 0}}, of_1[] = {{40, 0}};
    cmi_stage_offer offers[] = {{0, 1, of_0}, {0, 1, of_1}}; /* 80 or 60 */
    assert_int_equal(make(&m, 2, MAX_PAGES, offers, 20)->n_prompts, 2);
    const cmi_staged_plan *p = make(&m, 2, MAX_PAGES, offers, 21);
    assert_int_equal(p->n_prompts, 0);
    assert_int_equal(p->first_row[2], 0);
    offers[1].n_own_rows = 24; /* 80 or 72: less than an eighth */
    assert_int_equal(make(&m, 2, MAX_PAGES, offers, 1)->n_prompts, 0);
    assert_int_equal(make(&m, 2, MAX_PAGES, offers, 0)->n_prompts, 2);
    offers[1].n_own_rows = 20;
    assert_int_equal(make(&m, 2, MAX_PAGES, offers, 10)->n_prompts, 2);
}

static void heads_are_dealt_out(void **state)
{
    (void)state;
    uint32_t n;
    assert_int_equal(cmi_staged_heads(16, 3, 0, &n), 0);
    assert_int_equal(n, 6);
    assert_int_equal(cmi_staged_heads(16, 3, 1, &n), 6);
    assert_int_equal(n, 5);
    assert_int_equal(cmi_staged_heads(16, 3, 2, &n), 11);
    assert_int_equal(n, 5);
    assert_int_equal(cmi_staged_heads(2, 4, 3, &n), 2);
    assert_int_equal(n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_cut_evenly_beside_what_stays_at_home),
        cmocka_unit_test(what_finds_no_pages_stays_at_home),
        cmocka_unit_test(any_cut_is_whole_and_even),
        cmocka_unit_test(even_prompts_stay_at_home),
        cmocka_unit_test(heads_are_dealt_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
