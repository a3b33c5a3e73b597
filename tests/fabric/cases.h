/* tests/fabric/cases.h - the tests that every backend must pass, by file. */
#ifndef CMI_TESTS_FABRIC_CASES_H
#define CMI_TESTS_FABRIC_CASES_H

#include "tests/fabric/rig.h"

/* data_cases.c: bytes, signals, order */
void bits_arrive(void **state);
void signals_follow_puts(void **state);
void layers_are_handed_over(void **state);
void sums_of_many_peers_are_exact(void **state);
void what_is_outside_is_refused(void **state);
void operations_have_one_event_each(void **state);
void memory_of_the_caller_can_be_a_region(void **state);
void a_fabric_can_be_its_own_peer(void **state);

/* message_cases.c */
void messages_come_in_order_around_the_ring(void **state);
void a_full_ring_changes_nothing(void **state);
void messages_of_many_peers_take_turns(void **state);
void a_wake_ends_a_sleep(void **state);

/* life_cases.c: coming, going, dying */
void strangers_are_refused(void **state);
void what_does_not_speak_is_dropped(void **state);
void a_full_house_says_so(void **state);
void a_farewell_is_not_a_death(void **state);
void handles_do_not_outlive_their_things(void **state);
void tables_are_full_and_empty_again(void **state);
void waits_have_deadlines(void **state);
void a_killed_peer_is_noticed(void **state);
void a_killed_peer_ends_a_wait(void **state);
void a_hung_peer_is_noticed(void **state);
void an_idle_peer_is_not_hung(void **state);

#endif
