/* Ranks that die, hang, come back and lose sight of each other: one view for an epoch, one epoch
 * at a time, and one view of all once it is quiet. */
#include "tests/test.h"

#include <stdlib.h>

#include "tests/policy/gang_world.h"

enum { N_SEEDS = 100000 };

/* ---- a few machines, and messages that arrive at once ---- */

enum { FEW = 5 };

static const uint64_t MS = 1000000;

static struct {
    uint32_t n;
    uint64_t now_ns;
    bool is_alive[FEW], stops_at_once;
    cmi_gang_machine machines[FEW];
    cmi_gang_peer peers[FEW][FEW];
} few;

static cmi_gang_machine_options few_options(uint32_t slot)
{
    cmi_gang_machine_options opt;
    cmi_gang_machine_options_default(&opt);
    opt.n_slots = few.n;
    opt.self = slot;
    opt.min_ranks = 2;
    opt.generation = 10 + slot;
    return opt;
}

/* One message after the other, depth first: what a receiver says to it comes before the rest. */
static void perform(uint32_t slot)
{
    cmi_gang_action actions[64];
    size_t n = 0;
    while (cmi_gang_machine_next(&few.machines[slot], &actions[n])) {
        n++;
        assert_true(n < CMI_LEN(actions));
    }
    for (size_t i = 0; i < n; i++) {
        const uint32_t to = actions[i].slot;
        if (actions[i].kind == CMI_GANG_SEND && few.is_alive[to]) {
            assert_true(
                cmi_gang_machine_hear(&few.machines[to], few.now_ns, slot, &actions[i].message));
            perform(to);
        } else if (actions[i].kind == CMI_GANG_DROP && few.is_alive[to]) {
            cmi_gang_machine_link_down(&few.machines[to], few.now_ns, slot);
            perform(to);
        } else if (actions[i].kind == CMI_GANG_STOP && few.stops_at_once) {
            cmi_gang_machine_stopped(&few.machines[slot], few.now_ns);
            perform(slot);
        }
    }
}

static void link_two(uint32_t a, uint32_t b)
{
    assert_true(
        cmi_gang_machine_link_up(&few.machines[a], few.now_ns, b, few.machines[b].opt.generation));
    cmi_gang_action held[8]; /* until the other side has the link, too */
    size_t n = 0;
    while (cmi_gang_machine_next(&few.machines[a], &held[n])) {
        n++;
    }
    assert_true(
        cmi_gang_machine_link_up(&few.machines[b], few.now_ns, a, few.machines[a].opt.generation));
    perform(b);
    for (size_t i = 0; i < n; i++) {
        if (held[i].kind == CMI_GANG_SEND) {
            assert_true(cmi_gang_machine_hear(&few.machines[held[i].slot], few.now_ns, a,
                                              &held[i].message));
            perform(held[i].slot);
        }
    }
}

/* The first n of n_slots. */
static void start_few(uint32_t n_slots, uint32_t n)
{
    few.n = n_slots;
    few.now_ns = 1000 * MS;
    few.stops_at_once = true;
    memset(few.is_alive, 0, sizeof few.is_alive);
    for (uint32_t i = 0; i < n; i++) {
        const cmi_gang_machine_options opt = few_options(i);
        assert_true(cmi_gang_machine_init(&few.machines[i], few.peers[i], &opt, few.now_ns));
        few.is_alive[i] = true;
        perform(i);
        for (uint32_t j = 0; j < i; j++) {
            link_two(i, j);
        }
    }
}

static void kill_one(uint32_t slot)
{
    few.is_alive[slot] = false;
    for (uint32_t i = 0; i < few.n; i++) {
        if (few.is_alive[i]) {
            cmi_gang_machine_link_down(&few.machines[i], few.now_ns, slot);
            perform(i);
        }
    }
}

static void let_pass(uint64_t ns)
{
    for (const uint64_t until_ns = few.now_ns + ns; few.now_ns < until_ns; few.now_ns += MS) {
        for (uint32_t i = 0; i < few.n; i++) {
            if (few.is_alive[i] && few.now_ns >= cmi_gang_machine_due_ns(&few.machines[i])) {
                cmi_gang_machine_tick(&few.machines[i], few.now_ns);
                perform(i);
            }
        }
    }
}

static void expect_view(uint32_t mask, uint32_t count)
{
    for (uint32_t i = 0; i < few.n; i++) {
        if ((mask >> i & 1) != 0) {
            const cmi_gang_machine *m = &few.machines[i];
            assert_int_equal(cmi_gang_machine_phase(m), CMI_GANG_READY);
            assert_int_equal(cmi_gang_machine_members(m)->words[0], mask);
            assert_int_equal(cmi_gang_epoch_count(cmi_gang_machine_epoch(m)), count);
        }
    }
}

static void survivors_form_a_view_at_once(void **state)
{
    (void)state;
    start_few(5, 5);
    expect_view(0x1F, 1);
    kill_one(0);      /* who led: no time passes */
    let_pass(5 * MS); /* one refusal at most: some hear of it before they see it */
    expect_view(0x1E, cmi_gang_epoch_count(cmi_gang_machine_epoch(&few.machines[1])));
    kill_one(3);
    let_pass(5 * MS);
    expect_view(0x16, cmi_gang_epoch_count(cmi_gang_machine_epoch(&few.machines[1])));
    kill_one(1);
    let_pass(5 * MS);
    kill_one(2);
    assert_int_equal(cmi_gang_machine_phase(&few.machines[4]), CMI_GANG_TOO_FEW);
    assert_int_equal(cmi_gang_machine_n_seen(&few.machines[4]), 1);
}

/* The first view waits for all, but not for ever. */
static void a_start_waits_for_all_of_them(void **state)
{
    (void)state;
    start_few(5, 4);
    const uint64_t gather_ns = few.machines[0].opt.gather_ns;
    let_pass(gather_ns - MS);
    assert_int_equal(cmi_gang_machine_phase(&few.machines[0]), CMI_GANG_FORMING);
    let_pass(3 * MS);
    expect_view(0xF, 1);
}

static void who_does_not_stop_is_left_out(void **state)
{
    (void)state;
    start_few(4, 4);
    few.stops_at_once = false;
    kill_one(0);
    cmi_gang_machine_stopped(&few.machines[1], few.now_ns);
    perform(1);
    cmi_gang_machine_stopped(&few.machines[3], few.now_ns);
    perform(3);
    const uint64_t stop_ns = few.machines[0].opt.stop_ns;
    let_pass(stop_ns - 10 * MS);
    assert_int_equal(cmi_gang_machine_phase(&few.machines[1]), CMI_GANG_FORMING);
    assert_int_equal(cmi_gang_machine_phase(&few.machines[2]), CMI_GANG_STOPPING);
    let_pass(300 * MS);
    expect_view(0xA, cmi_gang_epoch_count(cmi_gang_machine_epoch(&few.machines[1])));
    cmi_gang_machine_stopped(&few.machines[2], few.now_ns);
    perform(2);
    link_two(2, 1); /* its links were ended; it comes back, and learns */
    assert_int_equal(cmi_gang_machine_phase(&few.machines[2]), CMI_GANG_LEFT_OUT);
}

static void the_silent_are_lost_in_time(void **state)
{
    (void)state;
    start_few(3, 3);
    let_pass(1000 * MS);
    expect_view(0x7, 1);
    few.is_alive[1] = false; /* it hangs: its links are there, it hears and says nothing */
    let_pass(few.machines[0].opt.silent_ns + few.machines[0].opt.beat_ns + 20 * MS);
    expect_view(0x5, cmi_gang_epoch_count(cmi_gang_machine_epoch(&few.machines[0])));
    assert_false(cmi_gang_set_has(cmi_gang_machine_members(&few.machines[0]), 1));
}

static void an_older_process_is_superseded(void **state)
{
    (void)state;
    start_few(3, 3);
    assert_false(cmi_gang_machine_link_up(&few.machines[0], few.now_ns, 2, 11));
    perform(0);
    expect_view(0x7, 1);
    cmi_gang_machine_superseded(&few.machines[2], few.now_ns);
    perform(2);
    assert_int_equal(cmi_gang_machine_phase(&few.machines[2]), CMI_GANG_SUPERSEDED);
    assert_int_equal(cmi_gang_machine_phase(&few.machines[0]), CMI_GANG_READY);
    expect_view(0x3, cmi_gang_epoch_count(cmi_gang_machine_epoch(&few.machines[0])));
}

static void what_no_rank_says_is_refused(void **state)
{
    (void)state;
    start_few(3, 3);
    const uint64_t theirs = cmi_gang_epoch_make(9, 1, 11);
    const cmi_gang_message wrong[] = {
        {.kind = (cmi_gang_message_kind)0, .epoch = theirs},
        {.kind = (cmi_gang_message_kind)9, .epoch = theirs},
        {.kind = CMI_GANG_STATE, .leader = 3, .set.words[0] = 2},
        {.kind = CMI_GANG_STATE, .flags = 8, .set.words[0] = 2},
        {.kind = CMI_GANG_STATE, .set.words[0] = 1},                 /* does not see itself */
        {.kind = CMI_GANG_STATE, .set.words[0] = 2 | 8},             /* a slot that is none */
        {.kind = CMI_GANG_STATE, .set.words = {2, 1}},               /* another */
        {.kind = CMI_GANG_STATE, .installed = 1, .set.words[0] = 2}, /* not promised */
        {.kind = CMI_GANG_STATE, .epoch = UINT64_MAX, .set.words[0] = 2},
        {.kind = CMI_GANG_PROPOSE, .epoch = theirs, .set.words[0] = 2}, /* without the hearer */
        {.kind = CMI_GANG_PROPOSE, .epoch = cmi_gang_epoch_make(9, 2, 12), .set.words[0] = 7},
        {.kind = CMI_GANG_PROPOSE, .epoch = cmi_gang_epoch_make(9, 1, 10), .set.words[0] = 7},
        {.kind = CMI_GANG_COMMIT, .epoch = cmi_gang_epoch_make(1, 0, 10)},
        {.kind = CMI_GANG_PROMISE},
    };
    for (size_t i = 0; i < CMI_LEN(wrong); i++) {
        assert_false(cmi_gang_machine_hear(&few.machines[0], few.now_ns, 1, &wrong[i]));
        perform(0);
    }
    expect_view(0x7, 1);
}

/* What rank 1 answers to a proposal of 0. */
static cmi_gang_message_kind answer(uint64_t epoch, uint64_t digest)
{
    cmi_gang_machine *m = &few.machines[1];
    cmi_gang_message said = {.kind = CMI_GANG_PROPOSE, .epoch = epoch, .digest = digest};
    cmi_gang_message_kind kind = CMI_GANG_STATE;
    cmi_gang_action action;
    said.set.words[0] = 0x7;
    assert_true(cmi_gang_machine_hear(m, few.now_ns, 0, &said));
    while (cmi_gang_machine_next(m, &action)) {
        if (action.kind == CMI_GANG_SEND && action.message.kind != CMI_GANG_STATE) {
            kind = action.message.kind;
        } else if (action.kind == CMI_GANG_STOP) {
            kind = CMI_GANG_PROPOSE; /* taken, and to be promised when it has stopped */
        }
    }
    return kind;
}

static void only_what_fits_is_promised(void **state)
{
    (void)state;
    start_few(3, 3);
    const uint64_t epoch = cmi_gang_machine_epoch(&few.machines[1]);
    const uint64_t later = cmi_gang_epoch_make(2, 0, 10);
    uint64_t digest = 0; /* of these three, as docs/WIRE.md has it */
    for (uint64_t i = 0; i < 3; i++) {
        uint64_t x = 10 + i;
        for (int times = 0; times < 2; times++) {
            x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
            x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
            x = (x ^ x >> 31) + (times == 0 ? i + 1 : 0);
        }
        digest += x;
    }
    assert_int_equal(answer(epoch, digest), CMI_GANG_REFUSE);     /* not a later one */
    assert_int_equal(answer(later, digest + 1), CMI_GANG_REFUSE); /* other processes */
    expect_view(0x7, 1);
    assert_int_equal(answer(later, digest), CMI_GANG_PROPOSE);
    assert_int_equal(cmi_gang_machine_phase(&few.machines[1]), CMI_GANG_STOPPING);
}

/* Two that see the leader, but not each other: one of them goes, after a while. */
static void who_sees_not_all_is_not_waited_for(void **state)
{
    (void)state;
    start_few(3, 3);
    cmi_gang_machine_link_down(&few.machines[1], few.now_ns, 2);
    perform(1);
    cmi_gang_machine_link_down(&few.machines[2], few.now_ns, 1);
    perform(2);
    let_pass(few.machines[0].opt.settle_ns - 10 * MS);
    assert_int_equal(cmi_gang_machine_phase(&few.machines[0]), CMI_GANG_FORMING);
    let_pass(20 * MS);
    expect_view(0x3, cmi_gang_epoch_count(cmi_gang_machine_epoch(&few.machines[0])));
    assert_int_equal(cmi_gang_machine_phase(&few.machines[2]), CMI_GANG_LEFT_OUT);
}

static void options_have_limits(void **state)
{
    (void)state;
    static cmi_gang_machine m;
    static cmi_gang_peer peers[CMI_GANG_MAX_RANKS];
    few.n = 3;
    cmi_gang_machine_options opt = few_options(2);
    assert_true(cmi_gang_machine_init(&m, peers, &opt, 0));
    opt.n_slots = CMI_GANG_MAX_RANKS + 1;
    assert_false(cmi_gang_machine_init(&m, peers, &opt, 0));
    opt = few_options(3);
    assert_false(cmi_gang_machine_init(&m, peers, &opt, 0));
    opt = few_options(2);
    opt.min_ranks = 4;
    assert_false(cmi_gang_machine_init(&m, peers, &opt, 0));
    opt = few_options(2);
    opt.generation = 0;
    assert_false(cmi_gang_machine_init(&m, peers, &opt, 0));
    opt = few_options(2);
    opt.silent_ns = opt.beat_ns;
    assert_false(cmi_gang_machine_init(&m, peers, &opt, 0));
}

static uint32_t count_actions(cmi_gang_machine *m, cmi_gang_action_kind kind)
{
    uint32_t n = 0;
    cmi_gang_action action;
    while (cmi_gang_machine_next(m, &action)) {
        n += action.kind == kind;
    }
    return n;
}

/* As many as there may be, from the last one's side. */
static void a_gang_of_1024_has_room(void **state)
{
    (void)state;
    enum { N = CMI_GANG_MAX_RANKS };
    static cmi_gang_machine m;
    static cmi_gang_peer peers[N];
    cmi_gang_machine_options opt;
    cmi_gang_machine_options_default(&opt);
    opt.n_slots = opt.min_ranks = N;
    assert_true(cmi_gang_machine_init(&m, peers, &opt, 1));
    count_actions(&m, CMI_GANG_SEND);
    cmi_gang_message said = {.kind = CMI_GANG_STATE, .flags = CMI_GANG_GAVE_UP};
    memset(&said.set, 0xFF, sizeof said.set);
    for (uint32_t i = 1; i < N; i++) {
        assert_true(cmi_gang_machine_link_up(&m, 1, i, 1));
        assert_int_equal(count_actions(&m, CMI_GANG_SEND), 1);
    }
    uint32_t n_sent = 0;
    for (uint32_t i = 1; i < N; i++) {
        assert_true(cmi_gang_machine_hear(&m, 1, i, &said));
        n_sent = count_actions(&m, CMI_GANG_SEND);
    }
    assert_int_equal(n_sent, 2 * (N - 1)); /* what it sees, and a proposal */
    assert_int_equal(m.peers[0].promised, cmi_gang_epoch_make(1, 0, 1));
    const cmi_gang_message promise = {.kind = CMI_GANG_PROMISE,
                                      .epoch = cmi_gang_epoch_make(1, 0, 1)};
    for (uint32_t i = 1; i < N; i++) {
        assert_int_equal(cmi_gang_machine_phase(&m), CMI_GANG_FORMING);
        assert_true(cmi_gang_machine_hear(&m, 1, i, &promise));
        n_sent = count_actions(&m, CMI_GANG_SEND);
    }
    assert_int_equal(cmi_gang_machine_phase(&m), CMI_GANG_READY);
    assert_int_equal(cmi_gang_set_count(cmi_gang_machine_members(&m)), N);
}

static void whatever_happens_the_living_agree(void **state)
{
    (void)state;
    world_coverage c = {0};
    const uint64_t n_seeds = getenv("CMI_FEW") != NULL ? N_SEEDS / 50 : N_SEEDS;
    for (uint64_t seed = 1; seed <= n_seeds; seed++) {
        world_run(seed, &c);
    }
    print_message("%llu histories: %llu events, %llu views, %llu left out, %llu refusals, longest "
                  "%llu ms\n",
                  (unsigned long long)c.n_ends, (unsigned long long)c.n_events,
                  (unsigned long long)c.n_views, (unsigned long long)c.n_left_out,
                  (unsigned long long)c.n_refused, (unsigned long long)(c.most_ns / 1000000));
    assert_true(c.n_left_out > n_seeds / 100 && c.n_refused > 0);
    for (int blow = 0; blow < N_BLOWS; blow++) {
        assert_true(c.n_blows[blow] > 0);
        for (int phase = CMI_GANG_FORMING; phase <= CMI_GANG_STOPPING; phase++) {
            assert_true(c.in_phase[blow][phase] > 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survivors_form_a_view_at_once),
        cmocka_unit_test(a_start_waits_for_all_of_them),
        cmocka_unit_test(who_does_not_stop_is_left_out),
        cmocka_unit_test(the_silent_are_lost_in_time),
        cmocka_unit_test(an_older_process_is_superseded),
        cmocka_unit_test(what_no_rank_says_is_refused),
        cmocka_unit_test(only_what_fits_is_promised),
        cmocka_unit_test(who_sees_not_all_is_not_waited_for),
        cmocka_unit_test(options_have_limits),
        cmocka_unit_test(a_gang_of_1024_has_room),
        cmocka_unit_test(whatever_happens_the_living_agree),
    };
    return cmocka_run_group_tests_name("gang", tests, NULL, NULL);
}
