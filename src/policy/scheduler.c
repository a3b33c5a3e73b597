#include "policy/scheduler.h"

#include <assert.h>
#include <string.h>

enum {
    LEAST_PREFILL_ROWS = 16, /* that a prompt gets after so many steps without any */
    STARVED = 16,
};

static const double MEAN_OUTPUT_RATE = 0.0625;

/* Slots in order of priority, then arrival. */
typedef struct slot_list {
    uint32_t *slots;
    uint32_t n;
} slot_list;

struct cmi_scheduler {
    cmi_scheduler_options opt;
    cmi_scheduler_slot *slots;
    slot_list waiting;         /* [n_slots] */
    uint64_t n_waiting_tokens; /* of their prompts */
    slot_list running;         /* [max_num_seqs] */
    cmi_page_id **free_tables; /* [max_num_seqs] a stack: page tables of max_tokens */
    uint32_t n_free_tables;
    uint64_t n_arrived;
    cmi_prefix_account account;
    cmi_scheduler_sealed *sealed; /* [max_rows / block + max_num_seqs] */
    uint32_t n_sealed;
    uint64_t now_ns; /* of the call at hand */
    cmi_fairness fairness;
    cmi_step_cost cost;
    cmi_step_budget budget;
    cmi_step_shape shape;     /* of the plan */
    uint32_t n_guessed_heads; /* in it, of the MTP layer */
    uint64_t planned_ns;      /* when it was made */
    double mean_output;       /* tokens of requests that ran and ended, of late; 0: none yet */
    uint32_t n_starved;       /* steps without rows for a prompt that waits for some */
    /* the plan */
    uint32_t *preempted;       /* [max_num_seqs] */
    uint32_t *admitted;        /* [max_num_seqs] */
    cmi_scheduler_span *spans; /* [max_num_seqs] */
    uint32_t n_preempted, n_admitted, n_spans;
    uint32_t n_rows, n_decode_rows;
    bool is_short; /* of pages, for a sequence that decodes */
};

/* ---- memory ------------------------------------------------------------------------------------
 */

/* Hands out pieces of a block; with base NULL it only counts. */
static void *cut(uint8_t *base, size_t *at, size_t n, size_t item_bytes)
{
    const size_t alignment = 16;
    void *piece = base == NULL ? NULL : base + *at;
    *at += CMI_ROUND_UP(n * item_bytes, alignment);
    return piece;
}

/* Of one sequence. A cached prompt is looked up in whole blocks. */
static size_t table_pages(const cmi_scheduler_options *opt)
{
    return CMI_ROUND_UP(CMI_DIV_UP(opt->max_tokens, (uint32_t)CMI_PAGE_TOKENS),
                        (uint32_t)CMI_BLOCK_PAGES);
}

static size_t cut_all(cmi_scheduler *s, const cmi_scheduler_options *opt, uint8_t *base)
{
    size_t at = 0, n_seqs = opt->max_num_seqs;
    (void)cut(base, &at, 1, sizeof *s);
    s->slots = cut(base, &at, opt->n_slots, sizeof *s->slots);
    s->waiting.slots = cut(base, &at, opt->n_slots, sizeof *s->waiting.slots);
    s->running.slots = cut(base, &at, n_seqs, sizeof *s->running.slots);
    s->preempted = cut(base, &at, n_seqs, sizeof *s->preempted);
    s->admitted = cut(base, &at, n_seqs, sizeof *s->admitted);
    s->spans = cut(base, &at, n_seqs, sizeof *s->spans);
    s->sealed =
        cut(base, &at, opt->max_rows / CMI_CONTENT_BLOCK_TOKENS + n_seqs, sizeof *s->sealed);
    s->free_tables = cut(base, &at, n_seqs, sizeof *s->free_tables);
    s->n_free_tables = 0;
    for (size_t i = 0; i < n_seqs; i++) {
        cmi_page_id *table = cut(base, &at, table_pages(opt), sizeof *table);
        if (base != NULL) {
            s->free_tables[s->n_free_tables++] = table;
        }
    }
    return at;
}

size_t cmi_scheduler_bytes(const cmi_scheduler_options *opt)
{
    cmi_scheduler unused;
    return cut_all(&unused, opt, NULL);
}

cmi_scheduler *cmi_scheduler_init(void *memory, const cmi_scheduler_options *opt)
{
    assert(opt->n_slots >= opt->max_num_seqs && opt->max_num_seqs >= 1);
    assert(opt->max_rows >= opt->max_decode_rows && opt->max_decode_rows >= opt->max_num_seqs);
    assert(opt->max_prefill_rows >= 1 && opt->max_span_rows >= 1);
    cmi_scheduler *s = memory;
    memset(memory, 0, cmi_scheduler_bytes(opt));
    s->opt = *opt;
    cmi_fairness_init(&s->fairness);
    cmi_step_cost_init(&s->cost, opt->n_experts, opt->n_experts_per_tok);

    cut_all(s, opt, memory);
    return s;
}

/* ---- slots and lists ---------------------------------------------------------------------------
 */

static void move_on(cmi_scheduler_slot *slot, cmi_request_event event)
{
    slot->state = cmi_request_next_state(slot->state, event);
    assert(slot->state != CMI_REQUEST_N_STATES);
}

static bool is_before(const cmi_scheduler *s, uint32_t a, uint32_t b)
{
    const cmi_scheduler_slot *x = &s->slots[a], *y = &s->slots[b];
    return x->request.priority < y->request.priority ||
           (x->request.priority == y->request.priority && x->order < y->order);
}

/* From the back: what comes in is mostly the last in order. */
static void insert(const cmi_scheduler *s, slot_list *list, uint32_t slot)
{
    uint32_t at = list->n++;
    for (; at > 0 && is_before(s, slot, list->slots[at - 1]); at--) {
        list->slots[at] = list->slots[at - 1];
    }
    list->slots[at] = slot;
}

static void take_out(slot_list *list, uint32_t slot)
{
    uint32_t at = 0;
    while (list->slots[at] != slot) {
        at++;
        assert(at < list->n);
    }
    list->n--;
    memmove(list->slots + at, list->slots + at + 1, (list->n - at) * sizeof *list->slots);
}

static void queue_up(cmi_scheduler *s, uint32_t slot)
{
    insert(s, &s->waiting, slot);
    s->n_waiting_tokens += s->slots[slot].request.n_prompt;
}

static void leave_queue(cmi_scheduler *s, uint32_t slot)
{
    take_out(&s->waiting, slot);
    s->n_waiting_tokens -= s->slots[slot].request.n_prompt;
}

static uint32_t pages_for(uint32_t n_tokens)
{
    return CMI_DIV_UP(n_tokens, (uint32_t)CMI_PAGE_TOKENS);
}

/* Of a slot's own pages; 0 is nobody. */
static uint64_t owner_of(const cmi_scheduler *s, const cmi_scheduler_slot *slot)
{
    return (uint64_t)(slot - s->slots) + 1;
}

static void release_pages(cmi_scheduler *s, cmi_scheduler_slot *slot)
{
    const uint32_t n_shared = slot->n_blocks * CMI_BLOCK_PAGES;
    if (slot->pages == NULL) {
        return;
    }
    cmi_page_pool_release(s->opt.pool, owner_of(s, slot), slot->n_pages - n_shared,
                          slot->pages + n_shared);
    cmi_prefix_cache_release(s->opt.cache, s->now_ns, slot->tip);
    s->free_tables[s->n_free_tables++] = slot->pages;
    slot->pages = NULL;
    slot->tip = CMI_BLOCK_NONE;
    slot->n_pages = slot->n_blocks = slot->n_stored = slot->n_drafts = 0;
}

/* ---- what happened -----------------------------------------------------------------------------
 */

void cmi_scheduler_arrive(cmi_scheduler *s, uint32_t slot, const cmi_scheduler_request *request)
{
    cmi_scheduler_slot *new = &s->slots[slot];
    cmi_request_state state = new->state;
    assert(slot < s->opt.n_slots && request->n_prompt >= 1);
    assert(request->n_prompt < request->n_total && request->n_total <= s->opt.max_tokens);
    assert(request->n_generated < request->n_total - request->n_prompt);
    assert(request->n_generated == 0 || s->opt.role != CMI_ROLE_PREFILL);
    assert(pages_for(request->n_total) <= cmi_page_pool_size(s->opt.pool));
    *new = (cmi_scheduler_slot){.state = state,
                                .request = *request,
                                .order = s->n_arrived++,
                                .n_generated = request->n_generated,
                                .tip = CMI_BLOCK_NONE,
                                .pace = {.target_ns = cmi_pace_aim_ns(request->tpot_ns)},
                                .tenant = cmi_fairness_enter(&s->fairness, request->tenant)};
    move_on(new, CMI_REQUEST_ARRIVE);
    queue_up(s, slot);
}

void cmi_scheduler_received(cmi_scheduler *s, uint64_t now_ns, uint32_t slot, uint32_t n_new,
                            uint32_t n_drafts)
{
    cmi_scheduler_slot *seq = &s->slots[slot];
    assert(n_new <= 1 && n_drafts <= s->opt.max_drafts);
    move_on(seq, CMI_REQUEST_RECEIVED);
    seq->n_stored = seq->request.n_prompt;
    seq->n_generated += n_new;
    seq->n_drafts = n_drafts;
    assert(seq->n_generated > 0);
    if (n_new > 0) {
        cmi_pace_count(&seq->pace, now_ns, n_new);
        cmi_fairness_charge(&s->fairness, seq->tenant,
                            (uint64_t)CMI_FAIRNESS_ANSWER_WEIGHT * n_new);
    }
}

void cmi_scheduler_leave(cmi_scheduler *s, uint32_t slot)
{
    move_on(&s->slots[slot], CMI_REQUEST_LEAVE);
    cmi_fairness_leave(&s->fairness, s->slots[slot].tenant);
}

void cmi_scheduler_drained(cmi_scheduler *s, uint64_t now_ns, uint32_t slot)
{
    s->now_ns = now_ns;
    move_on(&s->slots[slot], CMI_REQUEST_DRAINED);
    take_out(&s->running, slot);
    release_pages(s, &s->slots[slot]);
}

void cmi_scheduler_finish(cmi_scheduler *s, uint64_t now_ns, uint32_t slot)
{
    cmi_scheduler_slot *ended = &s->slots[slot];
    bool waits = ended->state == CMI_REQUEST_QUEUED;
    s->now_ns = now_ns;
    if (ended->n_generated > 0) {
        double rate = s->mean_output > 0 ? MEAN_OUTPUT_RATE : 1;
        s->mean_output += rate * (ended->n_generated - s->mean_output);
    }
    move_on(ended, CMI_REQUEST_FINISH);
    cmi_fairness_leave(&s->fairness, ended->tenant);
    if (waits) {
        leave_queue(s, slot);
    } else {
        take_out(&s->running, slot);
    }
    release_pages(s, ended);
}

/* Gives the next block of the prompt to the cache. False: there is no room for it. */
static bool seal_block(cmi_scheduler *s, cmi_scheduler_slot *slot)
{
    cmi_page_id *pages = slot->pages + slot->n_blocks * CMI_BLOCK_PAGES;
    cmi_prefix_block block = {.key = slot->request.keys[slot->n_blocks],
                              .space_tag = slot->request.space_tag,
                              .parent = slot->tip,
                              .owner = owner_of(s, slot)};
    cmi_prefix_inserted inserted;
    memcpy(block.pages, pages, sizeof block.pages);
    if (cmi_prefix_cache_insert(s->opt.cache, s->now_ns, &block, &inserted) != CMI_OK) {
        return false;
    }
    memcpy(pages, inserted.pages, sizeof inserted.pages);
    s->sealed[s->n_sealed++] = (cmi_scheduler_sealed){.slot = (uint32_t)(slot - s->slots),
                                                      .block_idx = slot->n_blocks,
                                                      .cache_idx = inserted.tip.idx,
                                                      .is_duplicate = inserted.is_duplicate};
    slot->tip = inserted.tip;
    slot->n_blocks++;
    return true;
}

static void seal_full_blocks(cmi_scheduler *s, cmi_scheduler_slot *slot)
{
    uint32_t n_full = slot->n_stored / CMI_CONTENT_BLOCK_TOKENS;
    n_full = CMI_MIN(n_full, slot->request.n_keys);
    while (slot->n_blocks < n_full && !slot->is_refused) {
        slot->is_refused = !seal_block(s, slot);
    }
}

void cmi_scheduler_count_mtp(cmi_scheduler *s, uint32_t n_passes, uint32_t n_rows,
                             uint32_t n_head_rows)
{
    s->shape.n_mtp_passes = n_passes;
    s->shape.n_mtp_rows = n_rows;
    s->shape.n_head_rows += n_head_rows - s->n_guessed_heads;
    s->n_guessed_heads = n_head_rows;
}

const cmi_scheduler_sealed *cmi_scheduler_step_done(cmi_scheduler *s, uint64_t now_ns,
                                                    const cmi_scheduler_outcome *outcomes,
                                                    uint32_t *n_sealed_out)
{
    s->now_ns = now_ns;
    for (uint32_t i = 0; i < s->n_spans; i++) {
        const cmi_scheduler_span *span = &s->spans[i];
        cmi_scheduler_slot *slot = &s->slots[span->slot];
        slot->n_stored += span->n_rows - span->n_drafts;
        if (span->is_prefill) {
            seal_full_blocks(s, slot);
        }
        if (span->samples) {
            assert(outcomes[i].n_new >= 1 && outcomes[i].n_new <= 1 + span->n_drafts);
            assert(outcomes[i].n_drafts <= s->opt.max_drafts);
            slot->n_stored += outcomes[i].n_new - 1;
            slot->n_generated += outcomes[i].n_new;
            slot->n_drafts = outcomes[i].n_drafts;
            cmi_pace_count(&slot->pace, now_ns, outcomes[i].n_new);
            cmi_fairness_charge(&s->fairness, slot->tenant,
                                (uint64_t)CMI_FAIRNESS_ANSWER_WEIGHT * outcomes[i].n_new);
        }
        if (slot->state == CMI_REQUEST_PREFILL && slot->n_stored == slot->request.n_prompt) {
            move_on(slot, s->opt.role == CMI_ROLE_PREFILL ? CMI_REQUEST_HAND_OVER
                                                          : CMI_REQUEST_PROMPT_DONE);
        }
    }
    s->n_spans = 0;
    cmi_step_cost_observe(&s->cost, &s->shape, now_ns - CMI_MIN(s->planned_ns, now_ns));
    *n_sealed_out = s->n_sealed;
    return s->sealed;
}

/* ---- the plan ----------------------------------------------------------------------------------
 */

/* Gives everything back. It has no span yet: spans are planned in order, and it is at or behind
 * the one that is being planned. */
static void preempt(cmi_scheduler *s, uint32_t slot)
{
    take_out(&s->running, slot);
    release_pages(s, &s->slots[slot]);
    move_on(&s->slots[slot], CMI_REQUEST_PREEMPT);
    queue_up(s, slot);
    s->preempted[s->n_preempted++] = slot;
}

/* Nobody else reads or writes its pages. */
static bool is_preemptable(const cmi_scheduler_slot *seq)
{
    return seq->state == CMI_REQUEST_PREFILL || seq->state == CMI_REQUEST_DECODE;
}

/* The last in order; there is one. */
static uint32_t last_preemptable(const cmi_scheduler *s)
{
    uint32_t at = s->running.n - 1;
    while (!is_preemptable(&s->slots[s->running.slots[at]])) {
        assert(at > 0);
        at--;
    }
    return s->running.slots[at];
}

static bool all_are_preemptable(const cmi_scheduler *s)
{
    for (uint32_t i = 0; i < s->running.n; i++) {
        if (!is_preemptable(&s->slots[s->running.slots[i]])) {
            return false;
        }
    }
    return true;
}

/* Pages of a sequence whose positions below n_tokens are stored, with those of drafts. */
static uint32_t pages_with_drafts(const cmi_scheduler *s, const cmi_scheduler_slot *seq,
                                  uint32_t n_tokens)
{
    return pages_for(CMI_MIN(n_tokens + s->opt.max_drafts, seq->request.n_total));
}

static bool acquire_pages(cmi_scheduler *s, cmi_scheduler_slot *slot, uint32_t n_pages)
{
    if (n_pages > slot->n_pages) {
        if (cmi_prefix_cache_acquire_pages(s->opt.cache, s->now_ns, owner_of(s, slot),
                                           n_pages - slot->n_pages,
                                           slot->pages + slot->n_pages) != CMI_OK) {
            return false;
        }
        slot->n_pages = n_pages;
    }
    return true;
}

/* Makes the sequence hold pages for n_tokens. False: it cannot run. It has then been preempted,
 * being the last in order; or it waits for those whose pages cannot be taken, which they get rid of
 * or can be preempted soon. */
static bool hold_pages(cmi_scheduler *s, uint32_t slot, uint32_t n_tokens)
{
    uint32_t n_pages = pages_with_drafts(s, &s->slots[slot], n_tokens);
    while (!acquire_pages(s, &s->slots[slot], n_pages)) {
        uint32_t last = last_preemptable(s);
        if (last != slot || all_are_preemptable(s)) {
            preempt(s, last);
        }
        if (last == slot) {
            s->is_short = true;
            return false;
        }
    }
    return true;
}

/* Tokens of the sequence that are known: rows may run up to here. */
static uint32_t n_known(const cmi_scheduler_slot *slot)
{
    return slot->request.n_prompt + slot->n_generated;
}

/* What the MTP layer does behind the step is known afterwards only; taken is what it mostly does.
 */
static void add_to_shape(cmi_scheduler *s, const cmi_scheduler_span *span)
{
    const uint32_t n_drafts = s->slots[span->slot].n_drafts;
    cmi_step_shape *shape = &s->shape;
    shape->n_head_rows += span->samples ? 1 + span->n_drafts : 0;
    if (span->is_prefill) {
        cmi_step_shape_add_prefill(shape, span->position, span->n_rows, s->opt.max_drafts > 0);
        shape->n_mtp_passes = CMI_MAX(shape->n_mtp_passes, CMI_MIN(s->opt.max_drafts, 1u));
        return;
    }
    shape->n_decode_rows += span->n_rows;
    shape->decode_context += span->position + span->n_rows;
    shape->n_head_rows += n_drafts;
    s->n_guessed_heads += n_drafts;
    shape->n_mtp_rows += n_drafts;
    shape->n_mtp_passes = CMI_MAX(shape->n_mtp_passes, n_drafts);
}

static void add_span(cmi_scheduler *s, uint32_t slot, uint32_t n_rows, uint32_t n_drafts,
                     bool is_prefill)
{
    const cmi_scheduler_slot *seq = &s->slots[slot];
    s->spans[s->n_spans++] =
        (cmi_scheduler_span){.slot = slot,
                             .position = seq->n_stored,
                             .n_rows = n_rows + n_drafts,
                             .n_drafts = n_drafts,
                             .pages = seq->pages,
                             .n_pages = seq->n_pages,
                             .is_prefill = is_prefill,
                             .samples = seq->n_stored + n_rows == n_known(seq)};
    add_to_shape(s, &s->spans[s->n_spans - 1]);
    s->n_rows += n_rows + n_drafts;
    s->n_decode_rows += is_prefill ? 0 : n_rows + n_drafts;
}

/* Drafts that may run behind the last known token: none whose token could not be used. */
static uint32_t usable_drafts(const cmi_scheduler_slot *seq)
{
    return CMI_MIN(seq->n_drafts, seq->request.n_total - 1 - n_known(seq));
}

/* One row for every sequence that decodes is always there: max_decode_rows >= max_num_seqs. Known
 * tokens and drafts share what is left. */
static void plan_decode(cmi_scheduler *s)
{
    uint32_t n_decoding = 0;
    for (uint32_t i = 0; i < s->running.n; i++) {
        n_decoding += s->slots[s->running.slots[i]].state == CMI_REQUEST_DECODE ? 1 : 0;
    }
    uint32_t spare = s->opt.max_decode_rows - n_decoding;
    for (uint32_t i = 0; i < s->running.n; i++) {
        uint32_t slot = s->running.slots[i];
        const cmi_scheduler_slot *seq = &s->slots[slot];
        if (seq->state != CMI_REQUEST_DECODE) {
            continue;
        }
        uint32_t more = CMI_MIN(n_known(seq) - seq->n_stored, s->opt.max_span_rows) - 1;
        more = CMI_MIN(more, spare);
        bool samples = seq->n_stored + 1 + more == n_known(seq);
        uint32_t n_drafts = samples ? CMI_MIN(usable_drafts(seq), spare - more) : 0;
        if (!hold_pages(s, slot, seq->n_stored + 1 + more + n_drafts)) {
            return; /* those behind it are preempted, or hold pages that cannot be taken */
        }
        spare -= more + n_drafts;
        add_span(s, slot, 1 + more, n_drafts, false);
    }
}

/* Holds what the cache has of the prompt, and pages for the rest of it if there are any. */
static bool begin_sequence(cmi_scheduler *s, cmi_scheduler_slot *seq, uint32_t n_kept)
{
    const cmi_scheduler_request *r = &seq->request;
    cmi_prefix_query query = {.keys = r->keys,
                              .n_keys = r->n_keys,
                              .prompt_tokens = r->n_prompt,
                              .space_tag = r->space_tag,
                              .is_skipped = r->skips_cache,
                              .skip_reason = r->skip_reason};
    cmi_prefix_hit hit;
    seq->pages = s->free_tables[--s->n_free_tables];
    cmi_prefix_cache_lookup(s->opt.cache, &query, &hit, seq->pages);
    seq->tip = hit.tip;
    seq->n_blocks = hit.n_blocks;
    seq->n_pages = hit.n_blocks * CMI_BLOCK_PAGES;
    seq->n_stored = seq->n_cached = hit.n_blocks * CMI_CONTENT_BLOCK_TOKENS;
    seq->is_refused = false;
    uint32_t n_pages = pages_with_drafts(s, seq, n_known(seq));
    if (n_pages - seq->n_pages + n_kept > cmi_prefix_cache_room(s->opt.cache) ||
        !acquire_pages(s, seq, n_pages)) {
        release_pages(s, seq);
        return false;
    }
    cmi_prefix_account_add(&s->account, &hit.account);
    return true;
}

/* It holds pages only: its request has ended here, or goes on elsewhere. */
static bool is_leaving(const cmi_scheduler_slot *seq)
{
    return seq->state == CMI_REQUEST_DRAIN || seq->state == CMI_REQUEST_SEND;
}

static void count_in_budget(cmi_scheduler *s, const cmi_scheduler_slot *seq)
{
    if (is_leaving(seq)) {
        return;
    }
    cmi_step_budget_add(&s->budget, &seq->pace, s->now_ns, n_known(seq),
                        seq->state == CMI_REQUEST_DECODE);
}

static bool has_seat(const cmi_scheduler *s, const cmi_scheduler_slot *seq)
{
    return cmi_step_budget_has_seat(&s->budget, &seq->pace, n_known(seq));
}

static double cover_factor(const cmi_scheduler *s)
{
    return s->opt.cover > 0 ? cmi_step_cost_factor(&s->cost, s->opt.cover)
                            : cmi_step_cost_mean_factor(&s->cost);
}

static void open_budget(cmi_scheduler *s)
{
    const bool is_known = cmi_step_cost_is_known(&s->cost);
    s->budget = cmi_step_budget_begin(is_known ? &s->cost.rates : NULL, cover_factor(s));
    for (uint32_t i = 0; i < s->running.n; i++) {
        count_in_budget(s, &s->slots[s->running.slots[i]]);
    }
}

/* Of n rows of the prompt those that the step can take. */
static uint32_t affordable_rows(const cmi_scheduler *s, const cmi_scheduler_slot *seq, uint32_t n)
{
    uint32_t n_fit = cmi_step_budget_prefill_rows(&s->budget, &s->shape, seq->n_stored, n,
                                                  s->opt.max_drafts > 0);
    bool is_starved = s->n_starved >= STARVED && s->shape.n_prefill_rows == 0;
    return n_fit == 0 && is_starved ? CMI_MIN(n, (uint32_t)LEAST_PREFILL_ROWS) : n_fit;
}

/* Of those that wait, which is somebody. */
static uint32_t whose_turn(const cmi_scheduler *s)
{
    uint32_t best = s->waiting.slots[0];
    const int32_t priority = s->slots[best].request.priority;
    for (uint32_t i = 1; i < s->waiting.n; i++) {
        const cmi_scheduler_slot *other = &s->slots[s->waiting.slots[i]];
        if (other->request.priority != priority) {
            break;
        }
        if (cmi_fairness_is_before(&s->fairness, other->tenant, s->slots[best].tenant)) {
            best = s->waiting.slots[i];
        }
    }
    return best;
}

/* At once, or a tenant would have all its prompts admitted before one of them counts; what the
 * cache had is free, and a prompt that comes back after a preemption was paid for. */
static void charge_prompt(cmi_scheduler *s, cmi_scheduler_slot *seq)
{
    if (!seq->is_charged) {
        cmi_fairness_charge(&s->fairness, seq->tenant, seq->request.n_prompt - seq->n_cached);
        seq->is_charged = true;
    }
}

/* Whether the one whose turn it is may begin; it does then. */
static bool admit(cmi_scheduler *s, uint32_t n_decoding)
{
    uint32_t slot = whose_turn(s);
    uint32_t n_kept = s->running.n == 0 ? 0 : n_decoding; /* for those who will want one soon */
    if (s->running.n == s->opt.max_num_seqs ||
        (s->running.n > 0 && !has_seat(s, &s->slots[slot])) ||
        !begin_sequence(s, &s->slots[slot], n_kept)) {
        return false;
    }
    count_in_budget(s, &s->slots[slot]);
    charge_prompt(s, &s->slots[slot]);
    move_on(&s->slots[slot],
            s->opt.role == CMI_ROLE_DECODE ? CMI_REQUEST_RESERVE : CMI_REQUEST_ADMIT);
    leave_queue(s, slot);
    insert(s, &s->running, slot);
    s->admitted[s->n_admitted++] = slot;
    return true;
}

static void plan_prefill(cmi_scheduler *s)
{
    const uint32_t n_decoding = s->n_spans;
    uint32_t budget = s->opt.max_rows - s->n_rows;
    if (n_decoding > 0) {
        budget = CMI_MIN(budget, s->opt.max_prefill_rows);
    }
    open_budget(s);
    while (s->n_preempted == 0 && !s->is_short && s->waiting.n > 0 && admit(s, n_decoding)) {
    }
    bool is_wanted = false;
    for (uint32_t i = 0; i < s->running.n && budget > 0; i++) {
        uint32_t slot = s->running.slots[i];
        const cmi_scheduler_slot *seq = &s->slots[slot];
        if (seq->state == CMI_REQUEST_PREFILL) {
            uint32_t n = CMI_MIN(seq->request.n_prompt - seq->n_stored, budget);
            is_wanted = true;
            n = affordable_rows(s, seq, n);
            if (n == 0) {
                break;
            }
            add_span(s, slot, n, 0, true);
            budget -= n;
        }
    }
    s->n_starved = is_wanted && s->shape.n_prefill_rows == 0 ? s->n_starved + 1 : 0;
}

static double predict(const cmi_scheduler *s)
{
    return cmi_step_cost_is_known(&s->cost) ? cmi_step_predict_ns(&s->cost.rates, &s->shape) : 0;
}

bool cmi_scheduler_plan_step(cmi_scheduler *s, uint64_t now_ns, cmi_scheduler_plan *plan_out)
{
    assert(s->n_spans == 0);
    s->now_ns = now_ns;
    s->n_sealed = 0;
    s->n_preempted = s->n_admitted = s->n_rows = s->n_decode_rows = 0;
    s->is_short = false;
    s->shape = (cmi_step_shape){0};
    s->n_guessed_heads = 0;
    s->planned_ns = now_ns;
    plan_decode(s);
    plan_prefill(s);
    *plan_out = (cmi_scheduler_plan){.preempted = s->preempted,
                                     .admitted = s->admitted,
                                     .spans = s->spans,
                                     .n_preempted = s->n_preempted,
                                     .n_admitted = s->n_admitted,
                                     .n_spans = s->n_spans,
                                     .n_rows = s->n_rows,
                                     .n_decode_rows = s->n_decode_rows,
                                     .shape = s->shape,
                                     .predicted_ns = predict(s)};
    return s->n_spans > 0;
}

const cmi_scheduler_slot *cmi_scheduler_slot_get(const cmi_scheduler *s, uint32_t slot)
{
    return &s->slots[slot];
}

uint32_t cmi_scheduler_n_waiting(const cmi_scheduler *s)
{
    return s->waiting.n;
}

uint64_t cmi_scheduler_n_waiting_tokens(const cmi_scheduler *s)
{
    return s->n_waiting_tokens;
}

uint32_t cmi_scheduler_n_running(const cmi_scheduler *s)
{
    return s->running.n;
}

/* Those that run, by what they say together, and the tightest target of those that wait. */
static void sum_load(const cmi_scheduler *s, cmi_admission_load *load)
{
    cmi_step_budget budget = cmi_step_budget_begin(&s->cost.rates, load->factor);
    double n_decode = 0, n_tokens = 0;
    for (uint32_t i = 0; i < s->running.n; i++) {
        const cmi_scheduler_slot *seq = &s->slots[s->running.slots[i]];
        if (is_leaving(seq)) {
            continue;
        }
        cmi_step_budget_add(&budget, &seq->pace, s->now_ns, n_known(seq), false);
        if (seq->state == CMI_REQUEST_PREFILL || seq->state == CMI_REQUEST_RECEIVE) {
            load->n_prefill_tokens += seq->request.n_prompt - seq->n_stored;
        } else {
            n_decode++;
            n_tokens += CMI_MAX(seq->pace.tokens_per_step, 1.0);
        }
    }
    load->steady = budget.steady;
    load->limit_ns = CMI_MIN(budget.steady_ns, CMI_ADMISSION_NO_LIMIT);
    load->tokens_per_step = n_decode > 0 ? n_tokens / n_decode : 1;
    for (uint32_t i = 0; i < s->waiting.n; i++) {
        const cmi_scheduler_slot *seq = &s->slots[s->waiting.slots[i]];
        if (seq->pace.target_ns > 0) {
            double limit_ns = (double)seq->pace.target_ns * load->tokens_per_step;
            load->limit_ns = CMI_MIN(load->limit_ns, limit_ns);
        }
    }
}

void cmi_scheduler_load(const cmi_scheduler *s, cmi_admission_load *load_out)
{
    const cmi_prefix_account *prefix = &s->account;
    *load_out = (cmi_admission_load){
        .is_known = cmi_step_cost_is_known(&s->cost),
        .rates = s->cost.rates,
        .factor = cover_factor(s),
        .n_running = s->running.n,
        .max_running = s->opt.max_num_seqs,
        .max_prefill_rows = s->opt.max_prefill_rows,
        .max_rows = s->opt.max_rows,
        .computed_share =
            prefix->prompt > 0 ? 1 - (double)prefix->used / (double)prefix->prompt : 1,
        .mean_output = s->mean_output};
    sum_load(s, load_out);
}

cmi_step_cost *cmi_scheduler_cost(cmi_scheduler *s)
{
    return &s->cost;
}

const cmi_prefix_account *cmi_scheduler_prefix_account(const cmi_scheduler *s)
{
    return &s->account;
}
