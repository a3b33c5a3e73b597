/* engine/engine_resume.c - requests that were begun elsewhere: the output that they bring.
 *
 * To the steps such a request is one that was preempted here: its prompt runs through prefill, its
 * output through decode, and the next token is sampled behind it. What a token depends on beside
 * the logits is a function of the output, its grammar's state too, so it goes on with the same
 * bits.
 *
 * A prefill instance gets such a request for its prompt, and begins it anew: the decode instance
 * that asks does the rest and leaves out the events that were sent. */
#include "engine/engine_internal.h"

static cmi_output_step step_grammar(cmi_engine_slot *slot, uint32_t token_id)
{
    return slot->grammar == NULL ? CMI_OUTPUT_GOES_ON
                                 : cmi_output_grammar_step(slot->grammar, slot->request, token_id);
}

cmi_status cmi_engine_resume(const cmi_engine *engine, cmi_engine_slot *slot, cmi_error *err)
{
    const uint32_t *tokens = cmi_request_output(slot->request);
    const uint32_t n = slot->request->n_output_tokens;
    if (engine->sender != NULL) {
        return CMI_OK;
    }
    if (n > slot->max_output) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "the output has %u tokens already, the context holds %u behind the "
                             "prompt",
                             n, slot->max_output);
    }
    slot->n_prompt_events = slot->request->n_prompt_events;
    for (uint32_t i = 0; i < n; i++) {
        if (slot->reason != CMI_FINISH_NONE) {
            return cmi_error_set(err, CMI_ERR_INVALID, "output token %u comes behind the end", i);
        }
        slot->output[slot->n_output++] = tokens[i];
        cmi_engine_decide_end(slot, tokens[i], step_grammar(slot, tokens[i]));
    }
    slot->n_given = n;
    return CMI_OK;
}
