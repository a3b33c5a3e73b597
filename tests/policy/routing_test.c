/* Requests over ranks: never to one that is away, nor to one that is full while another is not, and
 * evenly. */
#include "policy/routing.h"

#include "base/rng.h"
#include "tests/test.h"

enum { MAX_RANKS = 9 };

static uint32_t draw(uint64_t seed, uint64_t what, uint32_t n)
{
    uint32_t words[4];
    cmi_philox4x32(seed, what, 0, words);
    return words[0] % n;
}

static bool has_room(const cmi_rank_load *load, uint32_t n_pages)
{
    return load->is_open && load->n_requests < load->n_seats &&
           load->n_pages_used + n_pages <= load->n_pages;
}

static void no_rank_is_asked_for_what_another_could_do_at_once(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 20000; seed++) {
        cmi_rank_load loads[MAX_RANKS];
        const uint32_t n = 1 + draw(seed, 0, MAX_RANKS), n_pages = draw(seed, 1, 30);
        bool any_room = false, any_open = false;
        for (uint32_t i = 0; i < n; i++) {
            loads[i] = (cmi_rank_load){.is_open = draw(seed, 10 + i, 3) > 0,
                                       .n_seats = draw(seed, 20 + i, 5),
                                       .n_requests = draw(seed, 30 + i, 6),
                                       .n_tokens = draw(seed, 40 + i, 3) * 100,
                                       .n_pages = draw(seed, 50 + i, 60),
                                       .n_pages_used = draw(seed, 60 + i, 60)};
            any_room |= has_room(&loads[i], n_pages);
            any_open |= loads[i].is_open;
        }
        const uint32_t chosen = cmi_route_rank(loads, n, n_pages, seed);
        assert_int_equal(chosen != CMI_ROUTE_NONE, any_open);
        if (any_open) {
            assert_true(chosen < n && loads[chosen].is_open);
            assert_int_equal(has_room(&loads[chosen], n_pages), any_room);
        }
        for (uint32_t i = 0; any_open && i < n; i++) {
            assert_true(!loads[i].is_open || has_room(&loads[i], n_pages) != any_room ||
                        loads[i].n_tokens >= loads[chosen].n_tokens);
        }
    }
}

static void equal_requests_are_spread_evenly(void **state)
{
    (void)state;
    cmi_rank_load loads[MAX_RANKS];
    for (uint32_t i = 0; i < MAX_RANKS; i++) {
        loads[i] = (cmi_rank_load){.is_open = i != 4, .n_seats = 4, .n_pages = 1000};
    }
    for (uint32_t k = 0; k < 10 * (MAX_RANKS - 1); k++) {
        const uint32_t chosen = cmi_route_rank(loads, MAX_RANKS, 5, k);
        loads[chosen].n_requests++;
        loads[chosen].n_tokens += 70;
        loads[chosen].n_pages_used += 5;
    }
    for (uint32_t i = 0; i < MAX_RANKS; i++) {
        assert_int_equal(loads[i].n_requests, i == 4 ? 0 : 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_rank_is_asked_for_what_another_could_do_at_once),
        cmocka_unit_test(equal_requests_are_spread_evenly),
    };
    return cmocka_run_group_tests_name("routing", tests, NULL, NULL);
}
