#include "policy/request_state.h"

cmi_request_state cmi_request_next_state(cmi_request_state state, cmi_request_event event)
{
    if (event == CMI_REQUEST_FINISH) {
        return state == CMI_REQUEST_FREE ? CMI_REQUEST_N_STATES : CMI_REQUEST_FREE;
    }
    switch (state) {
    case CMI_REQUEST_FREE:
        return event == CMI_REQUEST_ARRIVE ? CMI_REQUEST_QUEUED : CMI_REQUEST_N_STATES;
    case CMI_REQUEST_QUEUED:
        return event == CMI_REQUEST_ADMIT ? CMI_REQUEST_PREFILL : CMI_REQUEST_N_STATES;
    case CMI_REQUEST_PREFILL:
        if (event == CMI_REQUEST_PROMPT_DONE) {
            return CMI_REQUEST_DECODE;
        }
        return event == CMI_REQUEST_PREEMPT ? CMI_REQUEST_QUEUED : CMI_REQUEST_N_STATES;
    case CMI_REQUEST_DECODE:
        return event == CMI_REQUEST_PREEMPT ? CMI_REQUEST_QUEUED : CMI_REQUEST_N_STATES;
    default:
        return CMI_REQUEST_N_STATES;
    }
}

const char *cmi_request_state_name(cmi_request_state state)
{
    static const char *const names[CMI_REQUEST_N_STATES] = {"free", "queued", "prefill", "decode"};
    return names[state];
}
