#include "policy/request_state.h"

/* Where an event leads from each state; 0 is FREE, so what cannot happen is left out here and asked
 * for below. */
static const struct {
    bool can_happen;
    cmi_request_state next;
} moves[CMI_REQUEST_N_STATES][CMI_REQUEST_N_EVENTS] = {
    [CMI_REQUEST_FREE] = {[CMI_REQUEST_ARRIVE] = {true, CMI_REQUEST_QUEUED}},
    [CMI_REQUEST_QUEUED] = {[CMI_REQUEST_ADMIT] = {true, CMI_REQUEST_PREFILL},
                            [CMI_REQUEST_RESERVE] = {true, CMI_REQUEST_RECEIVE},
                            [CMI_REQUEST_FINISH] = {true, CMI_REQUEST_FREE}},
    [CMI_REQUEST_PREFILL] = {[CMI_REQUEST_PROMPT_DONE] = {true, CMI_REQUEST_DECODE},
                             [CMI_REQUEST_HAND_OVER] = {true, CMI_REQUEST_SEND},
                             [CMI_REQUEST_PREEMPT] = {true, CMI_REQUEST_QUEUED},
                             [CMI_REQUEST_FINISH] = {true, CMI_REQUEST_FREE}},
    [CMI_REQUEST_DECODE] = {[CMI_REQUEST_PREEMPT] = {true, CMI_REQUEST_QUEUED},
                            [CMI_REQUEST_FINISH] = {true, CMI_REQUEST_FREE}},
    [CMI_REQUEST_SEND] = {[CMI_REQUEST_FINISH] = {true, CMI_REQUEST_FREE}},
    [CMI_REQUEST_RECEIVE] = {[CMI_REQUEST_RECEIVED] = {true, CMI_REQUEST_DECODE},
                             [CMI_REQUEST_LEAVE] = {true, CMI_REQUEST_DRAIN}},
    [CMI_REQUEST_DRAIN] = {[CMI_REQUEST_DRAINED] = {true, CMI_REQUEST_FREE}},
};

cmi_request_state cmi_request_next_state(cmi_request_state state, cmi_request_event event)
{
    return moves[state][event].can_happen ? moves[state][event].next : CMI_REQUEST_N_STATES;
}

const char *cmi_request_state_name(cmi_request_state state)
{
    static const char *const names[CMI_REQUEST_N_STATES] = {"free", "queued",  "prefill", "decode",
                                                            "send", "receive", "drain"};
    return names[state];
}
