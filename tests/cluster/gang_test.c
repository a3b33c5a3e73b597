/* Ranks as processes over the local fabric: they come together, survive each other, and come back.
 */
#include "tests/cluster/gang_ranks.h"

#include <signal.h>
#include <sys/wait.h>

enum { LONG_MS = 60000 };

static void start_all(const ranks_options *opt)
{
    ranks_begin(opt);
    for (uint32_t slot = opt->n; slot-- > 0;) {
        ranks_start(slot);
    }
    ranks_wait_view((1u << opt->n) - 1);
}

static void the_survivors_of_a_killed_rank_go_on(void **state)
{
    (void)state;
    start_all(&(ranks_options){.name = "kill", .n = 4, .min_ranks = 1, .silent_ms = LONG_MS});
    for (uint32_t slot = 0; slot < 4; slot++) { /* the leader, too */
        ranks_kill(slot);
        ranks_wait_view(0xF & ~(1u << slot));
        ranks_start(slot);
        ranks_wait_view(0xF);
    }
    ranks_end();
}

static void two_die_at_once(void **state)
{
    (void)state;
    start_all(&(ranks_options){.name = "two", .n = 5, .min_ranks = 3, .silent_ms = LONG_MS});
    ranks_signal(0, SIGKILL);
    ranks_signal(1, SIGKILL);
    ranks_wait_view(0x1C);
    ranks_kill(0);
    ranks_kill(1);
    ranks_end();
}

static void too_few_say_so(void **state)
{
    (void)state;
    ranks_begin(&(ranks_options){.name = "few", .n = 3, .min_ranks = 2, .silent_ms = LONG_MS});
    ranks_start(0);
    ranks_start(1);
    const pid_t last = ranks_start(2);
    ranks_wait_view(0x7);
    ranks_kill(0);
    ranks_wait_view(0x6);
    ranks_kill(1);
    ranks_wait_phase(last, CMI_GANG_TOO_FEW);
    ranks_start(1);
    ranks_wait_view(0x6);
    ranks_start(0);
    ranks_wait_view(0x7);
    ranks_end();
}

static void all_can_meet_at_slot_0(void **state)
{
    (void)state;
    start_all(&(ranks_options){
        .name = "meet", .n = 4, .min_ranks = 2, .silent_ms = LONG_MS, .meet_at_zero = true});
    ranks_kill(2);
    ranks_wait_view(0xB);
    ranks_start(2); /* at a new address, which 3 learns from 0 */
    ranks_wait_view(0xF);
    ranks_kill(0);
    ranks_wait_view(0xE);
    ranks_start(0);
    ranks_wait_view(0xF);
    ranks_end();
}

static void a_rank_that_hung_learns_that_it_was_left_out(void **state)
{
    (void)state;
    ranks_begin(&(ranks_options){.name = "hang", .n = 3, .min_ranks = 2, .silent_ms = 3000});
    ranks_start(0);
    const pid_t hung = ranks_start(1);
    ranks_start(2);
    ranks_wait_view(0x7);
    ranks_signal(1, SIGSTOP);
    ranks_wait_view(0x5);
    ranks_signal(1, SIGCONT);
    ranks_wait_phase(hung, CMI_GANG_LEFT_OUT);
    ranks_wait_view(0x7);
    ranks_end();
}

/* A damaged message ends its link, and with it the view: there is a next one. */
static void a_bad_network_does_no_harm(void **state)
{
    (void)state;
    start_all(&(ranks_options){
        .name = "bad", .n = 4, .min_ranks = 1, .silent_ms = LONG_MS, .has_faults = true});
    for (uint32_t slot = 0; slot < 4; slot++) {
        ranks_kill(slot);
        ranks_wait_view(0xF & ~(1u << slot));
        ranks_start(slot);
        ranks_wait_view(0xF);
    }
    ranks_end();
}

/* The later of two processes of a slot has it. */
static void a_second_process_takes_the_place(void **state)
{
    (void)state;
    ranks_begin(&(ranks_options){
        .name = "twice", .n = 3, .min_ranks = 3, .silent_ms = LONG_MS, .meet_at_zero = true});
    ranks_start(0);
    ranks_start(1);
    const pid_t first = ranks_start(2);
    ranks_wait_view(0x7);
    ranks_start(2);
    ranks_wait_phase(first, CMI_GANG_SUPERSEDED);
    ranks_wait_view(0x7);
    int status;
    kill(first, SIGKILL);
    assert_int_equal(waitpid(first, &status, 0), first);
    ranks_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_survivors_of_a_killed_rank_go_on),
        cmocka_unit_test(two_die_at_once),
        cmocka_unit_test(too_few_say_so),
        cmocka_unit_test(all_can_meet_at_slot_0),
        cmocka_unit_test(a_rank_that_hung_learns_that_it_was_left_out),
        cmocka_unit_test(a_bad_network_does_no_harm),
        cmocka_unit_test(a_second_process_takes_the_place),
    };
    return cmocka_run_group_tests_name("gang", tests, NULL, NULL);
}
