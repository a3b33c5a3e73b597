#include "policy/handover.h"

/* A state and one, so that 0 is what cannot happen. */
#define TO(state) ((state) + 1)

cmi_receive_state cmi_receive_next_state(cmi_receive_state state, cmi_receive_event event)
{
    static const uint8_t to[CMI_RECEIVE_N_STATES][CMI_RECEIVE_N_EVENTS] = {
        [CMI_RECEIVE_IDLE] = {[CMI_RECEIVE_ASK] = TO(CMI_RECEIVE_WAITING)},
        [CMI_RECEIVE_WAITING] =
            {[CMI_RECEIVE_SENT] = TO(CMI_RECEIVE_ASKED), [CMI_RECEIVE_DROP] = TO(CMI_RECEIVE_IDLE)},
        [CMI_RECEIVE_ASKED] = {[CMI_RECEIVE_ARRIVED] = TO(CMI_RECEIVE_IDLE),
                               [CMI_RECEIVE_DAMAGED] = TO(CMI_RECEIVE_WAITING),
                               [CMI_RECEIVE_ENDED] = TO(CMI_RECEIVE_WAITING),
                               [CMI_RECEIVE_LOST] = TO(CMI_RECEIVE_WAITING),
                               [CMI_RECEIVE_DROP] = TO(CMI_RECEIVE_LEAVING)},
        [CMI_RECEIVE_LEAVING] = {[CMI_RECEIVE_ARRIVED] = TO(CMI_RECEIVE_IDLE),
                                 [CMI_RECEIVE_DAMAGED] = TO(CMI_RECEIVE_IDLE),
                                 [CMI_RECEIVE_ENDED] = TO(CMI_RECEIVE_IDLE),
                                 [CMI_RECEIVE_LOST] = TO(CMI_RECEIVE_IDLE)},
    };
    return to[state][event] == 0 ? CMI_RECEIVE_N_STATES : (cmi_receive_state)(to[state][event] - 1);
}

cmi_send_state cmi_send_next_state(cmi_send_state state, cmi_send_event event)
{
    static const uint8_t to[CMI_SEND_N_STATES][CMI_SEND_N_EVENTS] = {
        [CMI_SEND_FREE] = {[CMI_SEND_ASKED] = TO(CMI_SEND_FETCHING)},
        [CMI_SEND_FETCHING] =
            {[CMI_SEND_FETCHED] = TO(CMI_SEND_RUNNING), [CMI_SEND_STOP] = TO(CMI_SEND_LEAVING)},
        [CMI_SEND_RUNNING] =
            {[CMI_SEND_PUT_ALL] = TO(CMI_SEND_CLOSING), [CMI_SEND_STOP] = TO(CMI_SEND_LEAVING)},
        [CMI_SEND_CLOSING] =
            {[CMI_SEND_FLUSHED] = TO(CMI_SEND_ENDING), [CMI_SEND_STOP] = TO(CMI_SEND_CLOSING)},
        [CMI_SEND_LEAVING] =
            {[CMI_SEND_FLUSHED] = TO(CMI_SEND_ENDING), [CMI_SEND_STOP] = TO(CMI_SEND_LEAVING)},
        [CMI_SEND_ENDING] =
            {[CMI_SEND_OVER] = TO(CMI_SEND_FREE), [CMI_SEND_STOP] = TO(CMI_SEND_ENDING)},
    };
    return to[state][event] == 0 ? CMI_SEND_N_STATES : (cmi_send_state)(to[state][event] - 1);
}
