/* engine/engine_drafts.c - for whom the MTP layer works, and how many drafts it makes.
 *
 * With durations known, policy/speculation.h decides. Otherwise a request whose drafts are seldom
 * right is not drafted for any more, and neither are new ones while that holds for all drafts so
 * far. Either way one of PROBE_EVERY new requests is tried while it does not pay. */
#include "engine/engine_internal.h"

enum { TRIED_ENOUGH = 16, PROBE_EVERY = 16 };

/* Below it a verification row and the layer's own pass cost more than they bring, mostly. */
static const double right_share_min = 0.3;

/* What is believed of drafts before any was tried; DeepSeek-V3's paper has 0.85 to 0.9. */
static const double acceptance_prior = 0.7;

static bool is_by_cost(const cmi_engine *engine)
{
    return engine->drafts_by_cost && cmi_step_cost_is_known(cmi_scheduler_cost(engine->scheduler));
}

bool cmi_engine_starts_drafting(cmi_engine *engine, const cmi_request *request)
{
    const cmi_engine_stats *c = &engine->counts;
    if (engine->max_drafts == 0 || request->max_drafts == 0) {
        return false;
    }
    bool pays = is_by_cost(engine)
                    ? engine->layer_pays
                    : c->n_drafts < TRIED_ENOUGH ||
                          (double)c->n_accepted_at[0] >= right_share_min * (double)c->n_drafts;
    return pays || engine->n_started++ % PROBE_EVERY == 0;
}

/* Without costs: as many as the request may have, while enough of them hold. */
static void judge(const cmi_engine *engine, cmi_engine_slot *slot)
{
    if (slot->n_tried >= TRIED_ENOUGH &&
        (double)slot->n_right < right_share_min * (double)slot->n_tried) {
        slot->is_drafting = false;
    }
    slot->wanted_drafts =
        slot->is_drafting ? CMI_MIN(slot->request->max_drafts, engine->max_drafts) : 0;
}

/* The sequences of the plan that decode in the next step, and that step. */
static cmi_step_shape gather(cmi_engine *engine, const cmi_scheduler_plan *plan, uint32_t *n_out)
{
    const double prior = cmi_acceptance_rate(&engine->acceptance, acceptance_prior);
    cmi_step_shape steady = {0};
    uint32_t n = 0;
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        cmi_engine_slot *slot = &engine->slots[plan->spans[i].slot];
        if (!plan->spans[i].samples || slot->reason != CMI_FINISH_NONE) {
            continue;
        }
        const uint32_t most = CMI_MIN(slot->request->max_drafts, engine->max_drafts);
        engine->spec_slots[n] = plan->spans[i].slot;
        engine->spec_seqs[n++] =
            (cmi_speculation_seq){.acceptance = cmi_acceptance_rate(&slot->acceptance, prior),
                                  .max_drafts = slot->is_drafting ? most : 0};
        steady.n_decode_rows++;
        steady.n_head_rows++;
        steady.decode_context += slot->request->n_prompt_tokens + slot->n_output;
    }
    *n_out = n;
    return steady;
}

static void decide_by_cost(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    uint32_t n;
    const cmi_step_shape steady = gather(engine, plan, &n);
    const uint32_t max_rows =
        engine->instance->max_decode_rows - CMI_MIN(n, engine->instance->max_decode_rows);
    if (n == 0) {
        return; /* prompts only: nothing to learn from */
    }
    engine->layer_pays =
        cmi_speculation_decide(&engine->speculation, &cmi_scheduler_cost(engine->scheduler)->rates,
                               &steady, engine->spec_seqs, n, max_rows);
    for (uint32_t i = 0; i < n; i++) {
        cmi_engine_slot *slot = &engine->slots[engine->spec_slots[i]];
        slot->wanted_drafts = engine->spec_seqs[i].n_drafts;
        slot->is_drafting = slot->is_drafting && engine->layer_pays;
    }
}

void cmi_engine_decide_drafts(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        cmi_engine_slot *slot = &engine->slots[plan->spans[i].slot];
        slot->n_drafts = slot->wanted_drafts = 0;
        if (!is_by_cost(engine)) {
            judge(engine, slot);
        }
    }
    if (is_by_cost(engine)) {
        decide_by_cost(engine, plan);
    }
}
