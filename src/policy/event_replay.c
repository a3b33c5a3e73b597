/* policy/event_replay.c - see event_replay.h.
 *
 * What is asked of a log before its calls are made is what the engine keeps to without thinking:
 * slots are free when a request arrives, a request that has all of its tokens ends before the next
 * step, a block has one parent. Only then may a scheduler, which asserts such things, be called. */
#include "policy/event_replay.h"

#include <assert.h>
#include <string.h>

#include "policy/event_log_internal.h"

enum {
    SLOTS_MAX = 1 << 20,
    ROWS_MAX = 1 << 24,
    DRAFTS_MAX = 1 << 10,
    TOKENS_MAX = 1 << 28,
};

/* A block's key and its parent's, where they lie in the log. */
typedef struct key_parent {
    const cmi_content_key *key, *parent; /* key NULL: the place is free */
} key_parent;

struct cmi_policy_replay {
    cmi_policy_log_reader log;
    cmi_policy_options opt;
    cmi_page_pool *pool;
    cmi_prefix_cache *cache;
    cmi_scheduler *scheduler;
    cmi_scheduler_plan plan;         /* the last one */
    bool is_stepping;                /* it waits for DONE */
    const cmi_scheduler_sealed *got; /* what step_done gave, until SEALED */
    uint32_t n_got;
    bool is_sealing;
    bool is_over;
    uint32_t n_complete; /* requests that have all of their tokens and must end */
    uint64_t now_ns;
    cmi_scheduler_outcome *outcomes; /* [max_num_seqs] */
    key_parent *parents;             /* [n_parents] by key, open addressing */
    size_t n_parents;                /* a power of two */
    cmi_replay_state state;
};

/* ---- memory ---- */

static bool options_are_sound(const cmi_policy_options *o)
{
    const cmi_scheduler_options *s = &o->scheduler;
    return cmi_page_pool_bytes(&o->pool) > 0 && cmi_prefix_cache_bytes(&o->cache) > 0 &&
           s->role <= CMI_ROLE_DECODE && s->n_slots <= SLOTS_MAX && s->max_num_seqs >= 1 &&
           s->max_num_seqs <= s->n_slots && s->max_decode_rows >= s->max_num_seqs &&
           s->max_decode_rows <= s->max_rows && s->max_rows <= ROWS_MAX &&
           s->max_prefill_rows >= 1 && s->max_prefill_rows <= s->max_rows &&
           s->max_span_rows >= 1 && s->max_drafts <= DRAFTS_MAX && s->max_tokens <= TOKENS_MAX;
}

typedef struct layout {
    size_t pool, cache, scheduler, outcomes, parents, n_bytes;
    size_t n_parents;
} layout;

static size_t cut(size_t *at, size_t n_bytes)
{
    size_t begin = *at;
    *at = CMI_ROUND_UP(begin + n_bytes, (size_t)CMI_CACHE_LINE);
    return begin;
}

static layout layout_of(const cmi_policy_log_info *info)
{
    const cmi_policy_options *o = &info->options;
    layout l = {.n_parents = 2};
    while (l.n_parents / 2 <= info->n_keys) {
        l.n_parents *= 2;
    }
    (void)cut(&l.n_bytes, sizeof(cmi_policy_replay));
    l.pool = cut(&l.n_bytes, cmi_page_pool_bytes(&o->pool));
    l.cache = cut(&l.n_bytes, cmi_prefix_cache_bytes(&o->cache));
    l.scheduler = cut(&l.n_bytes, cmi_scheduler_bytes(&o->scheduler));
    l.outcomes = cut(&l.n_bytes, o->scheduler.max_num_seqs * sizeof(cmi_scheduler_outcome));
    l.parents = cut(&l.n_bytes, l.n_parents * sizeof(key_parent));
    return l;
}

size_t cmi_policy_replay_bytes(const cmi_policy_log_info *info)
{
    return options_are_sound(&info->options) ? layout_of(info).n_bytes : 0;
}

cmi_policy_replay *cmi_policy_replay_init(void *memory, const cmi_policy_log_info *info,
                                          const void *bytes, size_t n_bytes)
{
    const layout l = layout_of(info);
    const cmi_policy_options *o = &info->options;
    uint8_t *base = memory;
    cmi_policy_replay *r = memory;
    *r = (cmi_policy_replay){
        .log = {.bytes = bytes, .n_bytes = n_bytes, .at = CMI_POLICY_LOG_MAGIC_BYTES},
        .opt = *o,
        .outcomes = (cmi_scheduler_outcome *)(void *)(base + l.outcomes),
        .parents = (key_parent *)(void *)(base + l.parents),
        .n_parents = l.n_parents,
    };
    memset(r->parents, 0, l.n_parents * sizeof *r->parents);
    cmi_status st =
        cmi_page_pool_init(&r->pool, base + l.pool, cmi_page_pool_bytes(&o->pool), &o->pool);
    assert(st == CMI_OK);
    st = cmi_prefix_cache_init(&r->cache, base + l.cache, cmi_prefix_cache_bytes(&o->cache),
                               r->pool, &o->cache);
    assert(st == CMI_OK);
    r->opt.scheduler.pool = r->pool;
    r->opt.scheduler.cache = r->cache;
    r->scheduler = cmi_scheduler_init(base + l.scheduler, &r->opt.scheduler);
    return r;
}

const cmi_replay_state *cmi_policy_replay_state(const cmi_policy_replay *replay)
{
    return &replay->state;
}

/* ---- findings ---- */

static cmi_replay_status bad(cmi_policy_replay *r, const char *why)
{
    r->state.why = why;
    return CMI_REPLAY_BAD;
}

static cmi_replay_status differs(cmi_policy_replay *r, const char *what, uint32_t idx,
                                 uint64_t recorded, uint64_t replayed)
{
    r->state.what = what;
    r->state.idx = idx;
    r->state.recorded = recorded;
    r->state.replayed = replayed;
    return CMI_REPLAY_DIFFERS;
}

/* Reads the next struct of a table and compares. */
static cmi_replay_status compare(cmi_policy_replay *r, cmi_bytes_reader *fields,
                                 const cmi_field_table *table, uint32_t idx, void *recorded,
                                 const void *replayed)
{
    uint64_t a, b;
    cmi_get_fields(fields, table, recorded);
    if (fields->is_bad) {
        return bad(r, "a record is damaged");
    }
    const cmi_field *field = cmi_fields_differ(table, recorded, replayed, &a, &b);
    r->state.field = field != NULL ? field->name : NULL;
    return field != NULL ? differs(r, table->name, idx, a, b) : CMI_REPLAY_SAME;
}

/* ---- requests ---- */

static uint32_t pages_for(uint32_t n_tokens)
{
    return CMI_DIV_UP(n_tokens, (uint32_t)CMI_PAGE_TOKENS);
}

/* What cmi_scheduler_arrive and the cache want of a request. */
static const char *what_is_wrong(const cmi_policy_replay *r, uint32_t slot,
                                 const cmi_scheduler_request *q)
{
    const cmi_scheduler_options *o = &r->opt.scheduler;
    if (slot >= o->n_slots ||
        cmi_scheduler_slot_get(r->scheduler, slot)->state != CMI_REQUEST_FREE) {
        return "a request arrives in a slot that is not free";
    }
    if (q->n_prompt < 1 || q->n_prompt >= q->n_total || q->n_total > o->max_tokens ||
        pages_for(q->n_total) > r->opt.pool.n_pages) {
        return "a request does not fit";
    }
    if (q->n_generated >= q->n_total - q->n_prompt ||
        (q->n_generated > 0 && o->role == CMI_ROLE_PREFILL)) {
        return "a request comes with tokens that it cannot have";
    }
    bool asks = !q->skips_cache && r->opt.cache.n_blocks > 0;
    if (q->n_keys > q->n_prompt / CMI_CONTENT_BLOCK_TOKENS ||
        (asks && q->n_keys < cmi_prefix_usable_blocks(q->n_prompt)) ||
        (uint32_t)q->skip_reason >= CMI_PREFIX_N_LOSSES) {
        return "a request has keys for other blocks than its prompt's";
    }
    return NULL;
}

/* A key names all tokens before its block, too, so its parent is always the same. */
static bool has_parent(cmi_policy_replay *r, const cmi_content_key *key,
                       const cmi_content_key *parent)
{
    uint64_t word;
    memcpy(&word, key->bytes, sizeof word);
    size_t at = (size_t)word & (r->n_parents - 1);
    while (r->parents[at].key != NULL && !cmi_content_key_equal(r->parents[at].key, key)) {
        at = (at + 1) & (r->n_parents - 1);
    }
    if (r->parents[at].key == NULL) {
        r->parents[at] = (key_parent){key, parent};
    }
    return cmi_content_key_equal(r->parents[at].parent, parent);
}

static cmi_replay_status arrive(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    cmi_scheduler_request request = {0};
    uint32_t slot = cmi_get_varint32(fields);
    cmi_get_fields(fields, &cmi_policy_request_fields, &request);
    const void *keys = cmi_get_bytes(fields, (size_t)request.n_keys * CMI_CONTENT_KEY_BYTES);
    request.keys = keys; /* bytes have no alignment */
    if (!cmi_bytes_reader_is_done(fields)) {
        return bad(r, "a record is damaged");
    }
    const char *wrong = what_is_wrong(r, slot, &request);
    for (uint32_t i = 0; wrong == NULL && i < request.n_keys; i++) {
        const cmi_content_key *parent = i == 0 ? &cmi_content_key_root : &request.keys[i - 1];
        if (!has_parent(r, &request.keys[i], parent)) {
            wrong = "a block has two parents";
        }
    }
    if (wrong != NULL) {
        return bad(r, wrong);
    }
    cmi_scheduler_arrive(r->scheduler, slot, &request);
    r->state.n_requests++;
    return CMI_REPLAY_SAME;
}

static bool tell_time(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    uint64_t now_ns = cmi_get_varint(fields);
    if (fields->is_bad || now_ns < r->now_ns) {
        return false;
    }
    r->now_ns = now_ns;
    return true;
}

/* Without a token that it may still generate. (On the prefill side it is kept until it is sent.) */
static bool is_complete(const cmi_scheduler_slot *slot)
{
    return slot->state == CMI_REQUEST_DECODE &&
           slot->request.n_prompt + slot->n_generated == slot->request.n_total;
}

static cmi_request_state state_of(const cmi_policy_replay *r, uint32_t slot)
{
    return slot < r->opt.scheduler.n_slots ? cmi_scheduler_slot_get(r->scheduler, slot)->state
                                           : CMI_REQUEST_FREE;
}

static cmi_replay_status finish(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    bool time_is_fine = tell_time(r, fields);
    uint32_t slot = cmi_get_varint32(fields);
    if (!time_is_fine || !cmi_bytes_reader_is_done(fields) ||
        cmi_request_next_state(state_of(r, slot), CMI_REQUEST_FINISH) != CMI_REQUEST_FREE) {
        return bad(r, "what ends is no request that can");
    }
    r->n_complete -= is_complete(cmi_scheduler_slot_get(r->scheduler, slot)) ? 1 : 0;
    cmi_scheduler_finish(r->scheduler, r->now_ns, slot);
    return CMI_REPLAY_SAME;
}

static cmi_replay_status received(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    cmi_scheduler_outcome o = {0};
    bool time_is_fine = tell_time(r, fields);
    uint32_t slot = cmi_get_varint32(fields);
    cmi_get_fields(fields, &cmi_policy_outcome_fields, &o);
    if (!time_is_fine || !cmi_bytes_reader_is_done(fields) ||
        state_of(r, slot) != CMI_REQUEST_RECEIVE || o.n_new > 1 ||
        o.n_drafts > r->opt.scheduler.max_drafts) {
        return bad(r, "a prompt is received that nobody waits for");
    }
    const cmi_scheduler_slot *seq = cmi_scheduler_slot_get(r->scheduler, slot);
    const uint32_t n_generated = seq->n_generated + o.n_new;
    if (n_generated == 0 || n_generated > seq->request.n_total - seq->request.n_prompt) {
        return bad(r, "a prompt is received with a token that it cannot have");
    }
    cmi_scheduler_received(r->scheduler, r->now_ns, slot, o.n_new, o.n_drafts);
    r->n_complete += is_complete(seq) ? 1 : 0;
    return CMI_REPLAY_SAME;
}

static cmi_replay_status leave(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    uint32_t slot = cmi_get_varint32(fields);
    if (!cmi_bytes_reader_is_done(fields) || state_of(r, slot) != CMI_REQUEST_RECEIVE) {
        return bad(r, "a request leaves that receives nothing");
    }
    cmi_scheduler_leave(r->scheduler, slot);
    return CMI_REPLAY_SAME;
}

static cmi_replay_status drained(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    bool time_is_fine = tell_time(r, fields);
    uint32_t slot = cmi_get_varint32(fields);
    if (!time_is_fine || !cmi_bytes_reader_is_done(fields) ||
        state_of(r, slot) != CMI_REQUEST_DRAIN) {
        return bad(r, "a request has drained that did not");
    }
    cmi_scheduler_drained(r->scheduler, r->now_ns, slot);
    return CMI_REPLAY_SAME;
}

static cmi_replay_status flushed(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    if (!tell_time(r, fields) || !cmi_bytes_reader_is_done(fields)) {
        return bad(r, "a record is damaged");
    }
    (void)cmi_prefix_cache_evict(r->cache, r->now_ns, UINT32_MAX);
    return CMI_REPLAY_SAME;
}

/* ---- durations ---- */

/* Steps that the owner ran before it served. */
static cmi_replay_status observed(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    cmi_step_shape shape = {0};
    cmi_get_fields(fields, &cmi_policy_shape_fields, &shape);
    uint64_t duration_ns = cmi_get_varint(fields);
    if (!cmi_bytes_reader_is_done(fields) || r->state.n_requests > 0) {
        return bad(r, "a duration is observed that cannot be");
    }
    cmi_step_cost_observe(cmi_scheduler_cost(r->scheduler), &shape, duration_ns);
    return CMI_REPLAY_SAME;
}

static cmi_replay_status settled(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    if (!cmi_bytes_reader_is_done(fields) || r->state.n_requests > 0) {
        return bad(r, "durations are settled late");
    }
    cmi_step_cost_settle(cmi_scheduler_cost(r->scheduler));
    return CMI_REPLAY_SAME;
}

static cmi_replay_status mtp(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    uint32_t n_passes = cmi_get_varint32(fields), n_rows = cmi_get_varint32(fields);
    uint32_t n_head_rows = cmi_get_varint32(fields);
    if (!cmi_bytes_reader_is_done(fields)) {
        return bad(r, "a record is damaged");
    }
    cmi_scheduler_count_mtp(r->scheduler, n_passes, n_rows, n_head_rows);
    return CMI_REPLAY_SAME;
}

/* ---- steps ---- */

static cmi_replay_status compare_slots(cmi_policy_replay *r, cmi_bytes_reader *fields,
                                       const char *what, const uint32_t *slots, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t recorded = cmi_get_varint32(fields);
        if (recorded != slots[i]) {
            return differs(r, what, i, recorded, slots[i]);
        }
    }
    return CMI_REPLAY_SAME;
}

static cmi_replay_status compare_pages(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    uint8_t digest[CMI_BLAKE2B_BYTES];
    cmi_policy_pages_digest(&r->plan, digest);
    const uint8_t *recorded = cmi_get_bytes(fields, sizeof digest);
    if (recorded == NULL || !cmi_bytes_reader_is_done(fields)) {
        return bad(r, "a record is damaged");
    }
    return memcmp(recorded, digest, sizeof digest) == 0 ? CMI_REPLAY_SAME
                                                        : differs(r, "pages of the spans", 0, 0, 0);
}

static cmi_replay_status compare_plan(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    const cmi_scheduler_plan *plan = &r->plan;
    cmi_scheduler_plan recorded;
    cmi_scheduler_span span;
    cmi_replay_status st = compare(r, fields, &cmi_policy_plan_fields, 0, &recorded, plan);
    if (st == CMI_REPLAY_SAME) {
        st = compare_slots(r, fields, "preempted", plan->preempted, plan->n_preempted);
    }
    if (st == CMI_REPLAY_SAME) {
        st = compare_slots(r, fields, "admitted", plan->admitted, plan->n_admitted);
    }
    for (uint32_t i = 0; st == CMI_REPLAY_SAME && i < plan->n_spans; i++) {
        st = compare(r, fields, &cmi_policy_span_fields, i, &span, &plan->spans[i]);
    }
    return st == CMI_REPLAY_SAME ? compare_pages(r, fields) : st;
}

static cmi_replay_status plan_step(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    if (!tell_time(r, fields) || r->n_complete > 0) {
        return bad(r, "a step is planned that cannot be");
    }
    r->is_stepping = cmi_scheduler_plan_step(r->scheduler, r->now_ns, &r->plan);
    r->state.n_steps += r->is_stepping ? 1 : 0;
    r->state.n_rows += r->plan.n_rows;
    r->state.n_preempted += r->plan.n_preempted;
    return compare_plan(r, fields);
}

static cmi_replay_status step_done(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    bool is_bad = !tell_time(r, fields);
    for (uint32_t i = 0; i < r->plan.n_spans; i++) {
        const cmi_scheduler_span *span = &r->plan.spans[i];
        cmi_scheduler_outcome *o = &r->outcomes[i];
        *o = (cmi_scheduler_outcome){0};
        if (span->samples) {
            cmi_get_fields(fields, &cmi_policy_outcome_fields, o);
            is_bad |= o->n_new < 1 || o->n_new > 1 + span->n_drafts;
            is_bad |= o->n_drafts > r->opt.scheduler.max_drafts;
        }
    }
    if (is_bad || !cmi_bytes_reader_is_done(fields)) {
        return bad(r, "a step has outcomes that it cannot have");
    }
    r->got = cmi_scheduler_step_done(r->scheduler, r->now_ns, r->outcomes, &r->n_got);
    for (uint32_t i = 0; i < r->plan.n_spans; i++) {
        const cmi_scheduler_span *span = &r->plan.spans[i];
        r->n_complete +=
            span->samples && is_complete(cmi_scheduler_slot_get(r->scheduler, span->slot)) ? 1 : 0;
    }
    r->is_stepping = false;
    r->is_sealing = true;
    return CMI_REPLAY_SAME;
}

static cmi_replay_status compare_sealed(cmi_policy_replay *r, cmi_bytes_reader *fields)
{
    cmi_scheduler_sealed sealed;
    uint32_t n = cmi_get_varint32(fields);
    r->is_sealing = false;
    if (n != r->n_got) {
        return differs(r, "sealed blocks", 0, n, r->n_got);
    }
    cmi_replay_status st = CMI_REPLAY_SAME;
    for (uint32_t i = 0; st == CMI_REPLAY_SAME && i < n; i++) {
        st = compare(r, fields, &cmi_policy_sealed_fields, i, &sealed, &r->got[i]);
    }
    return st == CMI_REPLAY_SAME && !cmi_bytes_reader_is_done(fields)
               ? bad(r, "a record is damaged")
               : st;
}

/* ---- the log ---- */

/* A plan is followed by its outcome, and that by the blocks it sealed. */
static cmi_replay_status perform(cmi_policy_replay *r, cmi_policy_record_type type,
                                 cmi_bytes_reader *fields)
{
    bool is_between = !r->is_stepping && !r->is_sealing;
    switch (type) {
    case CMI_POLICY_RECORD_OPTIONS: /* cmi_policy_log_check has read them */
        return r->state.n_records == 0 ? CMI_REPLAY_SAME : bad(r, "options come twice");
    case CMI_POLICY_RECORD_ARRIVE:
        return is_between ? arrive(r, fields) : bad(r, "a request arrives within a step");
    case CMI_POLICY_RECORD_FINISH:
        return is_between ? finish(r, fields) : bad(r, "a request ends within a step");
    case CMI_POLICY_RECORD_RECEIVED:
        return is_between ? received(r, fields) : bad(r, "a prompt arrives within a step");
    case CMI_POLICY_RECORD_OBSERVED:
        return is_between ? observed(r, fields) : bad(r, "a duration is observed within a step");
    case CMI_POLICY_RECORD_SETTLED:
        return is_between ? settled(r, fields) : bad(r, "durations are settled within a step");
    case CMI_POLICY_RECORD_FLUSHED:
        return is_between ? flushed(r, fields) : bad(r, "the cache is emptied within a step");
    case CMI_POLICY_RECORD_MTP:
        return r->is_stepping ? mtp(r, fields) : bad(r, "drafts are made without a step");
    case CMI_POLICY_RECORD_LEAVE:
        return is_between ? leave(r, fields) : bad(r, "a request leaves within a step");
    case CMI_POLICY_RECORD_DRAINED:
        return is_between ? drained(r, fields) : bad(r, "a request drains within a step");
    case CMI_POLICY_RECORD_PLAN:
        return is_between ? plan_step(r, fields) : bad(r, "a step begins within another");
    case CMI_POLICY_RECORD_DONE:
        return r->is_stepping ? step_done(r, fields) : bad(r, "a step ends that has not begun");
    case CMI_POLICY_RECORD_SEALED:
        return r->is_sealing ? compare_sealed(r, fields) : bad(r, "blocks without a step");
    case CMI_POLICY_RECORD_END:
    case CMI_POLICY_RECORD_CUT:
        r->is_over = true;
        return CMI_REPLAY_SAME;
    }
    return bad(r, "a record is of no known type");
}

cmi_replay_status cmi_policy_replay_next(cmi_policy_replay *r)
{
    cmi_policy_record_type type;
    cmi_bytes_reader fields;
    r->state.offset = r->log.at;
    cmi_status st = r->is_over ? CMI_ERR_NOT_FOUND : cmi_policy_log_next(&r->log, &type, &fields);
    if (st == CMI_ERR_NOT_FOUND) {
        return CMI_REPLAY_END;
    }
    if (st != CMI_OK) {
        return bad(r, "the checksum is wrong");
    }
    cmi_replay_status status = perform(r, type, &fields);
    r->state.n_records++;
    return status;
}
