/* Clients that leave and instances that die, at every state of a request and of a hand-over: no
 * page is lost or written by somebody who may not, and every request ends once. */
#include "tests/test.h"

#include <stdlib.h>

#include "policy/routing.h"
#include "tests/policy/handover_world.h"

enum { N_SEEDS = 100000 };

static void only_the_drawn_moves_exist(void **state)
{
    (void)state;
    enum { RN = CMI_RECEIVE_N_STATES, SN = CMI_SEND_N_STATES };
    /* ask, sent, arrived, damaged, ended, lost, drop */
    static const int receive[CMI_RECEIVE_N_STATES][CMI_RECEIVE_N_EVENTS] = {
        [CMI_RECEIVE_IDLE] = {CMI_RECEIVE_WAITING, RN, RN, RN, RN, RN, RN},
        [CMI_RECEIVE_WAITING] = {RN, CMI_RECEIVE_ASKED, RN, RN, RN, RN, CMI_RECEIVE_IDLE},
        [CMI_RECEIVE_ASKED] = {RN, RN, CMI_RECEIVE_IDLE, CMI_RECEIVE_WAITING, CMI_RECEIVE_WAITING,
                               CMI_RECEIVE_WAITING, CMI_RECEIVE_LEAVING},
        [CMI_RECEIVE_LEAVING] = {RN, RN, CMI_RECEIVE_IDLE, CMI_RECEIVE_IDLE, CMI_RECEIVE_IDLE,
                                 CMI_RECEIVE_IDLE, RN},
    };
    /* asked, fetched, put_all, stop, flushed, over */
    static const int send[CMI_SEND_N_STATES][CMI_SEND_N_EVENTS] = {
        [CMI_SEND_FREE] = {CMI_SEND_FETCHING, SN, SN, SN, SN, SN},
        [CMI_SEND_FETCHING] = {SN, CMI_SEND_RUNNING, SN, CMI_SEND_LEAVING, SN, SN},
        [CMI_SEND_RUNNING] = {SN, SN, CMI_SEND_CLOSING, CMI_SEND_LEAVING, SN, SN},
        [CMI_SEND_CLOSING] = {SN, SN, SN, CMI_SEND_CLOSING, CMI_SEND_ENDING, SN},
        [CMI_SEND_LEAVING] = {SN, SN, SN, CMI_SEND_LEAVING, CMI_SEND_ENDING, SN},
        [CMI_SEND_ENDING] = {SN, SN, SN, CMI_SEND_ENDING, SN, CMI_SEND_FREE},
    };
    for (int s = 0; s < CMI_RECEIVE_N_STATES; s++) {
        for (int e = 0; e < CMI_RECEIVE_N_EVENTS; e++) {
            assert_int_equal(cmi_receive_next_state(s, e), receive[s][e]);
        }
    }
    for (int s = 0; s < CMI_SEND_N_STATES; s++) {
        for (int e = 0; e < CMI_SEND_N_EVENTS; e++) {
            assert_int_equal(cmi_send_next_state(s, e), send[s][e]);
        }
    }
}

/* Every move that exists was made, and every blow met every state that it can meet. */
static void check_coverage(const world_coverage *c)
{
    static const int waits[] = {CMI_REQUEST_QUEUED, CMI_REQUEST_RECEIVE, CMI_REQUEST_DECODE};
    for (int s = 0; s < CMI_RECEIVE_N_STATES; s++) {
        for (int e = 0; e < CMI_RECEIVE_N_EVENTS; e++) {
            bool exists = cmi_receive_next_state(s, e) != CMI_RECEIVE_N_STATES;
            assert_int_equal(c->receive_moves[s][e] > 0, exists);
        }
        assert_true(s == CMI_RECEIVE_LEAVING || c->receives[BLOW_CANCEL][s] > 0);
    }
    for (int s = 0; s < CMI_SEND_N_STATES; s++) {
        for (int e = 0; e < CMI_SEND_N_EVENTS; e++) {
            bool exists = cmi_send_next_state(s, e) != CMI_SEND_N_STATES;
            assert_int_equal(c->send_moves[s][e] > 0, exists);
        }
        assert_true(c->sends[BLOW_PREFILL_DIES][s] > 0 && c->sends[BLOW_DECODE_DIES][s] > 0);
    }
    for (int b = 0; b < N_BLOWS; b++) {
        for (size_t i = 0; i < CMI_LEN(waits); i++) {
            assert_true(c->requests[b][waits[i]] > 0);
        }
    }
    assert_true(c->n_complete > c->n_requests / 4);
}

static void no_blow_loses_a_page_or_a_request(void **state)
{
    (void)state;
    world_coverage coverage = {0};
    const uint64_t n_seeds = getenv("CMI_FEW") != NULL ? N_SEEDS / 50 : N_SEEDS;
    for (uint64_t seed = 1; seed <= n_seeds; seed++) {
        world_run(seed, &coverage);
    }
    print_message("%llu histories: %llu requests, %llu of them complete, %llu events\n",
                  (unsigned long long)n_seeds, (unsigned long long)coverage.n_requests,
                  (unsigned long long)coverage.n_complete, (unsigned long long)coverage.n_ticks);
    check_coverage(&coverage);
}

static void the_least_loaded_open_instance_is_asked(void **state)
{
    (void)state;
    cmi_prefill_load loads[] = {{false, 0}, {true, 70}, {true, 30}, {true, 30}};
    assert_int_equal(cmi_route_prefill(loads, 4), 2);
    loads[2].is_open = loads[3].is_open = false;
    assert_int_equal(cmi_route_prefill(loads, 4), 1);
    loads[1].is_open = false;
    assert_int_equal(cmi_route_prefill(loads, 4), CMI_ROUTE_NONE);
    assert_int_equal(cmi_route_prefill(loads, 0), CMI_ROUTE_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_drawn_moves_exist),
        cmocka_unit_test(the_least_loaded_open_instance_is_asked),
        cmocka_unit_test(no_blow_loses_a_page_or_a_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
