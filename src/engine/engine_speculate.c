/* engine/engine_speculate.c - drafts of the MTP layer (paper section 4.2.4, DeepSeek-V3 2.2).
 *
 * The MTP layer's row of (hidden state at position i, token i+1) has slot i+1, and predicts token
 * i+2. After a step its KV is brought up to all tokens that are known: prompt positions and the one
 * behind them through the prefill path, later ones through decode, all sequences in one pass. The
 * row of the last token gives a draft of the next one; with more than one draft the layer runs
 * again on its own result.
 *
 * A draft is sampled like the token that it guesses, with the same noise, so that at temperatures
 * above 0 it is right more often than the likeliest token would be. What a draft is can change how
 * many steps an answer takes, never the answer.
 *
 * How many are tried, and for whom, policy/speculation.h decides by cost (engine_drafts.c). Once
 * the layer has stopped keeping up with a sequence it has no drafts until its end: the hidden
 * states of the tokens in between are gone. While drafts do not pay for a moment, or keeping up is
 * cheap, the layer's KV is kept up without any. */
#include <string.h>

#include "engine/engine_internal.h"

static bool goes_on(const cmi_engine_slot *slot)
{
    return slot->is_drafting && slot->reason == CMI_FINISH_NONE;
}

/* Rows of the pass so far. */
typedef struct mtp_pass {
    cmi_engine *engine;
    cmi_batch batch;
    uint32_t n_drafted; /* in mtp_slots and mtp_rows */
} mtp_pass;

static void add_row(mtp_pass *pass, const float *hidden, uint32_t token_id)
{
    cmi_engine *engine = pass->engine;
    const size_t width = engine->instance->config.hidden_size;
    memcpy(engine->instance->mtp_hidden + pass->batch.n_rows * width, hidden,
           width * sizeof *hidden);
    engine->token_ids[pass->batch.n_rows++] = token_id;
}

static void add_span(mtp_pass *pass, const cmi_engine_slot *slot, uint32_t position,
                     uint32_t n_rows, bool is_prefill)
{
    pass->engine->mtp_spans[pass->batch.n_spans++] =
        (cmi_batch_span){.page_ids = slot->seat->page_ids,
                         .row_idx = pass->batch.n_rows - n_rows,
                         .n_rows = n_rows,
                         .position = position,
                         .is_prefill = is_prefill};
}

static void draft_from_last_row(mtp_pass *pass, uint32_t slot_idx)
{
    pass->engine->mtp_slots[pass->n_drafted] = slot_idx;
    pass->engine->mtp_rows[pass->n_drafted++] = pass->batch.n_rows - 1;
}

/* Generated tokens: slots begin + 1 .. end of rows whose hidden states are at hidden. The last row
 * drafts if its token is the last one known. */
static void add_generated(mtp_pass *pass, uint32_t slot_idx, const float *hidden, uint32_t begin,
                          uint32_t end)
{
    cmi_engine *engine = pass->engine;
    const cmi_engine_slot *slot = &engine->slots[slot_idx];
    const uint32_t n_prompt = slot->request->n_prompt_tokens;
    const size_t width = engine->instance->config.hidden_size;
    for (uint32_t position = begin; position < end; position++) {
        add_row(pass, hidden + (position - begin) * width, slot->output[position + 1 - n_prompt]);
    }
    add_span(pass, slot, begin + 1, end - begin, false);
    if (end + 1 == n_prompt + slot->n_output && slot->wanted_drafts > 0) {
        draft_from_last_row(pass, slot_idx);
    }
}

/* The decode rows of the step whose next token is known: positions begin .. end - 1. */
static void add_decode(mtp_pass *pass, const cmi_scheduler_plan *plan)
{
    cmi_engine *engine = pass->engine;
    const size_t width = engine->instance->config.hidden_size;
    const float *hidden = cmi_forward_hidden(engine->instance->forward);
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        const cmi_scheduler_span *span = &plan->spans[i];
        const cmi_engine_slot *slot = &engine->slots[span->slot];
        const uint32_t n_prompt = slot->request->n_prompt_tokens;
        uint32_t end = CMI_MIN(span->position + span->n_rows, n_prompt + slot->n_output - 1);
        if (!span->is_prefill && goes_on(slot) && span->position < end) {
            add_generated(pass, span->slot, hidden, span->position, end);
        }
        hidden += span->n_rows * width;
    }
}

/* The hidden states behind the blocks of the prompt that the span fills. */
static void note_block_ends(cmi_engine *engine, const cmi_scheduler_span *span, const float *hidden)
{
    const size_t width = engine->instance->config.hidden_size;
    const uint32_t n_keys = engine->slots[span->slot].n_keys;
    const uint32_t n_before = span->position / CMI_CONTENT_BLOCK_TOKENS;
    const uint32_t n_full = (span->position + span->n_rows) / CMI_CONTENT_BLOCK_TOKENS;
    for (uint32_t block = n_before; block < CMI_MIN(n_full, n_keys); block++) {
        cmi_block_end *end = &engine->block_ends[engine->n_block_ends++];
        uint32_t row = (block + 1) * CMI_CONTENT_BLOCK_TOKENS - 1 - span->position;
        end->slot = span->slot;
        end->block_idx = block;
        memcpy(end->hidden, hidden + row * width, width * sizeof *hidden);
    }
}

void cmi_engine_keep_block_ends(cmi_engine *engine, const cmi_scheduler_sealed *sealed,
                                uint32_t n_sealed)
{
    const size_t width = engine->instance->config.hidden_size;
    for (uint32_t i = 0; i < n_sealed; i++) {
        for (uint32_t k = 0; k < engine->n_block_ends && !sealed[i].is_duplicate; k++) {
            const cmi_block_end *end = &engine->block_ends[k];
            if (end->slot == sealed[i].slot && end->block_idx == sealed[i].block_idx) {
                memcpy(engine->block_hidden + sealed[i].cache_idx * width, end->hidden,
                       width * sizeof *end->hidden);
            }
        }
    }
}

/* The row behind a prompt that is complete, of the first generated token. It belongs to the
 * prompt's span, although the token is generated: slots share lanes, so two spans of a sequence
 * cannot be stored side by side, and a draft may come by either path. */
static void add_first_generated(mtp_pass *pass, const cmi_scheduler_span *span, const float *hidden)
{
    const cmi_engine_slot *slot = &pass->engine->slots[span->slot];
    const bool is_complete = span->position + span->n_rows == slot->request->n_prompt_tokens;
    if (is_complete && goes_on(slot) && slot->n_output > 0) {
        add_row(pass, hidden, slot->output[0]);
        if (slot->n_output == 1 && slot->wanted_drafts > 0) {
            draft_from_last_row(pass, span->slot);
        }
    }
}

/* Prompt tokens: slots position .. of rows whose hidden state is the one before. For every prompt,
 * whether it is drafted for or not: its blocks may go to the cache, which has them for others. */
static void add_prefill(mtp_pass *pass, const cmi_scheduler_plan *plan)
{
    cmi_engine *engine = pass->engine;
    const size_t width = engine->instance->config.hidden_size;
    const float *hidden = cmi_forward_hidden(engine->instance->forward);
    engine->n_block_ends = 0;
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        const cmi_scheduler_span *span = &plan->spans[i];
        cmi_engine_slot *slot = &engine->slots[span->slot];
        if (span->is_prefill) {
            const uint32_t *prompt = cmi_request_prompt(slot->request);
            const float *last = hidden + (span->n_rows - 1) * width;
            const uint32_t row_idx = pass->batch.n_rows;
            uint32_t first = span->position == 0 ? 1 : 0; /* position 0 has none before it */
            for (uint32_t k = first; k < span->n_rows; k++) {
                add_row(pass, k == 0 ? slot->seat->hidden : hidden + (k - 1) * width,
                        prompt[span->position + k]);
            }
            add_first_generated(pass, span, last);
            if (pass->batch.n_rows > row_idx) {
                add_span(pass, slot, span->position + first, pass->batch.n_rows - row_idx, true);
            }
            note_block_ends(engine, span, hidden);
            memcpy(slot->seat->hidden, last, width * sizeof *last);
        }
        hidden += span->n_rows * width;
    }
}

/* False: a rank was lost. */
static bool run_pass(mtp_pass *pass)
{
    cmi_engine *engine = pass->engine;
    pass->batch.token_ids = engine->token_ids;
    pass->batch.spans = engine->mtp_spans;
    pass->batch.mtp_hidden = engine->instance->mtp_hidden;
    if (cmi_forward_run(engine->instance->forward, &pass->batch) != CMI_OK) {
        return false;
    }
    engine->n_mtp_passes++;
    engine->n_mtp_rows += pass->batch.n_rows;
    engine->n_mtp_head_rows += pass->n_drafted;
    return true;
}

/* ---- drafts ------------------------------------------------------------------------------------
 */

typedef struct draft_job {
    cmi_engine *engine;
    const uint32_t *slots;
    const float *logits;
} draft_job;

static void draft_row(void *arg, uint32_t task, uint32_t worker)
{
    const draft_job *job = arg;
    cmi_engine_slot *slot = &job->engine->slots[job->slots[task]];
    const float *logits = job->logits + (size_t)task * job->engine->instance->config.vocab_size;
    /* Penalties see the output only, without the drafts before: it is a guess anyway. */
    cmi_sample sample = cmi_engine_sample_of(slot, logits, 0);
    sample.position += slot->n_drafts;
    if (slot->n_drafts > 0 && slot->grammar != NULL) {
        uint32_t *mask = job->engine->draft_masks + (size_t)worker * slot->grammar->n_words;
        sample.allowed = cmi_output_grammar_draft_mask(
            slot->grammar, slot->request, slot->seat->ahead, slot->drafts, slot->n_drafts, mask);
    }
    slot->drafts[slot->n_drafts++] = cmi_sampler_sample(&job->engine->samplers[worker], &sample);
}

/* A draft of each row that is to give one. */
static void draft_rows(mtp_pass *pass)
{
    cmi_engine *engine = pass->engine;
    cmi_instance *in = engine->instance;
    const size_t width = in->config.hidden_size;
    for (uint32_t begin = 0; begin < pass->n_drafted; begin += CMI_FORWARD_MAX_HEAD_ROWS) {
        uint32_t n = CMI_MIN(pass->n_drafted - begin, (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
        for (uint32_t i = 0; i < n; i++) {
            memcpy(engine->hidden + i * width,
                   cmi_forward_hidden(in->forward) + engine->mtp_rows[begin + i] * width,
                   width * sizeof(float));
        }
        cmi_forward_logits(in->forward, engine->hidden, n, in->logits);
        draft_job job = {engine, engine->mtp_slots + begin, in->logits};
        cmi_team_run(in->team, draft_row, &job, n);
    }
}

/* The layer once more on its own hidden states and drafts. */
static void extend_drafts(mtp_pass *pass)
{
    cmi_engine *engine = pass->engine;
    const size_t width = engine->instance->config.hidden_size;
    const float *hidden = cmi_forward_hidden(engine->instance->forward);
    const uint32_t n = pass->n_drafted;
    *pass = (mtp_pass){.engine = engine};
    for (uint32_t i = 0; i < n; i++) {
        const cmi_engine_slot *slot = &engine->slots[engine->mtp_slots[i]];
        uint32_t position = slot->request->n_prompt_tokens + slot->n_output + slot->n_drafts - 1;
        if (slot->n_drafts >= slot->wanted_drafts ||
            position + 1 >= slot->request->n_prompt_tokens + slot->max_output) {
            continue; /* nothing of it is wanted, or could be used */
        }
        add_row(pass, hidden + engine->mtp_rows[i] * width, slot->drafts[slot->n_drafts - 1]);
        add_span(pass, slot, position, 1, false);
        draft_from_last_row(pass, engine->mtp_slots[i]);
    }
}

/* The layer's KV of this step is not complete: no sequence of it goes on with drafts. Blocks that
 * the step fills may be without it for others, which makes their drafts worse, not their answers.
 */
static void stop_drafting(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        engine->slots[plan->spans[i].slot].is_drafting = false;
        engine->slots[plan->spans[i].slot].n_drafts = 0;
    }
}

void cmi_engine_speculate(cmi_engine *engine, const cmi_scheduler_plan *plan)
{
    mtp_pass pass = {.engine = engine};
    engine->n_mtp_passes = engine->n_mtp_rows = engine->n_mtp_head_rows = 0;
    cmi_engine_decide_drafts(engine, plan);
    add_decode(&pass, plan);
    add_prefill(&pass, plan);
    const bool is_rank = engine->instance->rank != NULL;
    for (uint32_t k = 0;
         is_rank ? k < engine->n_mtp_agreed : k < engine->max_drafts && pass.batch.n_rows > 0;
         k++) {
        if (!run_pass(&pass)) {
            stop_drafting(engine, plan);
            return;
        }
        draft_rows(&pass);
        if (k + 1 < engine->max_drafts) {
            extend_drafts(&pass);
        }
    }
}
