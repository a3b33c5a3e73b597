/* One or two microbatches: that which pays is run most of the time, and all ranks run the same. */
#include "tests/test.h"

#include "base/rng.h"
#include "policy/microbatch.h"

static const cmi_microbatch_kind DECODE = CMI_MICROBATCH_DECODE, PREFILL = CMI_MICROBATCH_PREFILL;

/* What a step costs for each unit of work, and how much of it is chance. */
typedef struct host {
    double one, two, noise;
    uint64_t n_drawn;
} host;

static double draw(host *h)
{
    uint32_t words[4];
    cmi_philox4x32(11, h->n_drawn++, 0, words);
    return words[0] / 4294967296.0;
}

/* Runs steps by the wish of one rank; returns how many ran as two. */
static uint32_t run(cmi_microbatch *m, cmi_microbatch_kind kind, host *h, uint32_t n_steps)
{
    uint32_t n_two = 0;
    for (uint32_t i = 0; i < n_steps; i++) {
        const uint32_t n = cmi_microbatch_wish(m, kind);
        const double work = 1 + 100 * draw(h);
        const double cost = (n == 1 ? h->one : h->two) * (1 + h->noise * draw(h));
        assert_true(n == 1 || n == 2);
        cmi_microbatch_note(m, kind, n, work, work * cost);
        n_two += n - 1;
    }
    return n_two;
}

static void two_run_when_they_pay(void **state)
{
    (void)state;
    cmi_microbatch m;
    host h = {.one = 10, .two = 8};
    cmi_microbatch_init(&m);
    assert_int_equal(cmi_microbatch_wish(&m, DECODE), 1);
    assert_int_equal(run(&m, DECODE, &h, 16), 0);
    assert_int_equal(cmi_microbatch_wish(&m, DECODE), 2); /* tried */
    run(&m, DECODE, &h, 4);
    assert_true(run(&m, DECODE, &h, 10000) > 9900);
}

static void trials_that_do_not_pay_become_rare(void **state)
{
    (void)state;
    cmi_microbatch m;
    host h = {.one = 8, .two = 10};
    cmi_microbatch_init(&m);
    assert_in_range(run(&m, PREFILL, &h, 1000), 4, 40);
    assert_in_range(run(&m, PREFILL, &h, 100000), 4 * 20, 150);
}

static void a_gain_next_to_none_changes_nothing(void **state)
{
    (void)state;
    cmi_microbatch m;
    host h = {.one = 10, .two = 9.8};
    cmi_microbatch_init(&m);
    assert_true(run(&m, DECODE, &h, 10000) < 100);
    h.two = 9;
    run(&m, DECODE, &h, 10000);
    assert_int_equal(cmi_microbatch_wish(&m, DECODE), 2);
    h.two = 10.2; /* a loss as small does not, either */
    assert_true(run(&m, DECODE, &h, 10000) > 9900);
}

static void it_follows_what_changes(void **state)
{
    (void)state;
    cmi_microbatch m;
    host h = {.one = 10, .two = 12, .noise = 0.3};
    cmi_microbatch_init(&m);
    run(&m, DECODE, &h, 3000);
    h.one = 20; /* a slower network */
    run(&m, DECODE, &h, 9000);
    assert_true(run(&m, DECODE, &h, 1000) > 900);
    h.one = 10;
    run(&m, DECODE, &h, 9000);
    assert_true(run(&m, DECODE, &h, 1000) < 100);
}

static void kinds_are_apart(void **state)
{
    (void)state;
    cmi_microbatch m;
    host slow = {.one = 10, .two = 5}, fast = {.one = 10, .two = 15};
    cmi_microbatch_init(&m);
    for (int i = 0; i < 500; i++) {
        run(&m, PREFILL, &slow, 1);
        run(&m, DECODE, &fast, 1);
    }
    assert_true(run(&m, PREFILL, &slow, 100) > 90);
    assert_true(run(&m, DECODE, &fast, 100) < 10);
}

static void chance_seldom_decides(void **state)
{
    (void)state;
    cmi_microbatch m;
    host h = {.one = 10, .two = 9, .noise = 0.1};
    cmi_microbatch_init(&m);
    assert_true(run(&m, DECODE, &h, 20000) > 16000);
    h = (host){.one = 9, .two = 10, .noise = 0.1};
    cmi_microbatch_init(&m);
    assert_true(run(&m, DECODE, &h, 20000) < 4000);
}

/* Ranks whose opinion differs, and one without rows: all run the same, by one rank's trials. */
static void all_ranks_run_what_one_decides(void **state)
{
    (void)state;
    enum { N = 4 };
    cmi_microbatch m[N];
    uint32_t n = 1, n_two = 0;
    for (uint32_t rank = 0; rank < N; rank++) {
        cmi_microbatch_init(&m[rank]);
    }
    for (uint32_t step = 0; step < 2000; step++) {
        uint32_t heard = 0;
        for (uint32_t rank = 0; rank + 1 < N; rank++) { /* the last one has no rows */
            const cmi_microbatch_kind kind = rank == 1 ? PREFILL : DECODE;
            const double cost = rank == 1 ? (n == 2 ? 8 : 10) : (n == 2 ? 10 : 8);
            cmi_microbatch_note(&m[rank], kind, n, 1, cost);
            const uint32_t vote =
                cmi_microbatch_vote(kind, rank, cmi_microbatch_wish(&m[rank], kind));
            heard = CMI_MAX(heard, vote);
        }
        n = cmi_microbatch_agreed(heard);
        assert_int_equal(n, cmi_microbatch_wish(&m[1], PREFILL)); /* who has a prompt */
        n_two += n - 1;
    }
    assert_true(n_two > 1900);
}

static void votes_are_ordered(void **state)
{
    (void)state;
    assert_int_equal(cmi_microbatch_agreed(0), 1);
    uint32_t last = 0;
    for (uint32_t kind = DECODE; kind <= PREFILL; kind++) {
        static const uint32_t ranks[] = {0, 1, 319, 65535};
        for (size_t i = 0; i < CMI_LEN(ranks); i++) {
            for (uint32_t n = 1; n <= 2; n++) {
                const uint32_t vote = cmi_microbatch_vote((cmi_microbatch_kind)kind, ranks[i], n);
                assert_true(vote > last);
                assert_int_equal(cmi_microbatch_agreed(vote), n);
                last = vote;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_run_when_they_pay),
        cmocka_unit_test(trials_that_do_not_pay_become_rare),
        cmocka_unit_test(a_gain_next_to_none_changes_nothing),
        cmocka_unit_test(it_follows_what_changes),
        cmocka_unit_test(kinds_are_apart),
        cmocka_unit_test(chance_seldom_decides),
        cmocka_unit_test(all_ranks_run_what_one_decides),
        cmocka_unit_test(votes_are_ordered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
