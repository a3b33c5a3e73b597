/* engine/engine.c - an engine's life, and the calls that come from any thread.
 *
 * Events are pushed without the engine lock, since a push may wait: it and the ring's lock are
 * never held together. */
#include "engine/engine_internal.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "os/clock.h"
#include "os/random.h"

/* ---- life ----
 */

/* Blocks that can become full in a step. */
static uint32_t max_block_ends(const cmi_instance *in)
{
    return in->max_num_batched_tokens / CMI_CONTENT_BLOCK_TOKENS + in->max_num_seqs;
}

static void make_draft_tables(cmi_engine *engine)
{
    const cmi_instance *in = engine->instance;
    for (uint32_t i = 0; i < in->max_num_seqs; i++) {
        engine->seats[i].hidden = cmi_alloc(in->config.hidden_size, sizeof(float));
    }
    engine->mtp_spans = cmi_alloc(in->max_num_seqs, sizeof *engine->mtp_spans);
    engine->mtp_slots = cmi_alloc(in->max_num_seqs, sizeof *engine->mtp_slots);
    engine->spec_seqs = cmi_alloc(in->max_num_seqs, sizeof *engine->spec_seqs);
    engine->spec_slots = cmi_alloc(in->max_num_seqs, sizeof *engine->spec_slots);
    engine->mtp_rows = cmi_alloc(in->max_num_seqs, sizeof *engine->mtp_rows);
    const size_t width = in->config.hidden_size;
    engine->block_hidden = cmi_alloc(engine->n_blocks * width, sizeof(float));
    uint32_t n_ends = max_block_ends(in);
    engine->block_ends = cmi_alloc(n_ends, sizeof *engine->block_ends);
    float *hidden = cmi_alloc(n_ends * width, sizeof *hidden);
    for (uint32_t i = 0; i < n_ends; i++) {
        engine->block_ends[i].hidden = hidden + i * width;
    }
}

static void make_tables(cmi_engine *engine)
{
    const cmi_instance *in = engine->instance;
    const uint32_t n_slots = engine->n_slots, n_seqs = in->max_num_seqs;
    engine->slots = cmi_alloc(n_slots, sizeof *engine->slots);
    engine->ended = cmi_alloc(n_slots, sizeof *engine->ended);
    engine->arrived = cmi_alloc(n_slots, sizeof *engine->arrived);
    engine->inbox = cmi_alloc(n_slots, sizeof *engine->inbox);
    engine->free_slots = cmi_alloc(n_slots, sizeof *engine->free_slots);
    for (uint32_t i = n_slots; i-- > 0;) {
        engine->free_slots[engine->n_free_slots++] = i;
    }
    engine->seats = cmi_alloc(n_seqs, sizeof *engine->seats);
    engine->free_seats = cmi_alloc(n_seqs, sizeof(cmi_seat *));
    for (uint32_t i = n_seqs; i-- > 0;) {
        engine->seats[i].page_ids =
            cmi_alloc(cmi_kv_pages_for(in->max_model_len), sizeof(uint32_t));
        engine->free_seats[engine->n_free_seats++] = &engine->seats[i];
    }
    if (engine->max_drafts > 0) {
        make_draft_tables(engine);
    }
    engine->token_ids = cmi_alloc(in->max_step_rows, sizeof *engine->token_ids);
    engine->spans = cmi_alloc(n_seqs, sizeof *engine->spans);
    engine->sampled = cmi_alloc(n_seqs, sizeof *engine->sampled);
    engine->outcomes = cmi_alloc(n_seqs, sizeof *engine->outcomes);
    engine->hidden = cmi_alloc((size_t)CMI_FORWARD_MAX_HEAD_ROWS * in->config.hidden_size,
                               sizeof *engine->hidden);
    if (engine->receiver != NULL) {
        engine->seat_ends = cmi_alloc(n_seqs, sizeof *engine->seat_ends);
        engine->seat_ends_taken = cmi_alloc(n_seqs, sizeof *engine->seat_ends);
        engine->seat_events = cmi_alloc(CMI_MAX_SEAT_EVENTS, sizeof *engine->seat_events);
        engine->seat_events_taken = cmi_alloc(CMI_MAX_SEAT_EVENTS, sizeof *engine->seat_events);
    }
    engine->samplers = cmi_alloc(cmi_team_size(in->team), sizeof *engine->samplers);
    for (uint32_t i = 0; i < cmi_team_size(in->team); i++) {
        cmi_sampler_init(&engine->samplers[i], in->config.vocab_size, &in->kernels);
    }
}

static void make_grammar_tables(cmi_engine *engine)
{
    const cmi_instance *in = engine->instance;
    engine->grammars = cmi_grammar_cache_create(engine->vocab, 0);
    if (engine->max_drafts > 0) {
        size_t n_words = cmi_vocab_mask_words(engine->vocab);
        engine->draft_masks = cmi_alloc(cmi_team_size(in->team) * n_words, sizeof(uint32_t));
        for (uint32_t i = 0; i < in->max_num_seqs; i++) {
            engine->seats[i].ahead = cmi_alloc(1, sizeof *engine->seats[i].ahead);
        }
    }
}

static void free_content(const cmi_engine *engine, const cmi_engine_slot *slot)
{
    cmi_free(slot->request);
    cmi_free(slot->output);
    cmi_free(slot->keys);
    cmi_output_grammar_close(slot->grammar, engine->grammars);
}

static void free_tables(cmi_engine *engine)
{
    const cmi_instance *in = engine->instance;
    for (uint32_t i = 0; i < cmi_team_size(in->team); i++) {
        cmi_sampler_deinit(&engine->samplers[i]);
    }
    for (uint32_t i = 0; i < in->max_num_seqs; i++) {
        cmi_free(engine->seats[i].page_ids);
        cmi_free(engine->seats[i].hidden);
        cmi_free(engine->seats[i].ahead);
    }
    for (uint32_t i = 0; i < engine->n_slots; i++) { /* of an engine that was lost */
        free_content(engine, &engine->slots[i]);
    }
    cmi_grammar_cache_destroy(engine->grammars);
    cmi_free(engine->draft_masks);
    cmi_free(engine->samplers);
    cmi_free(engine->seat_ends);
    cmi_free(engine->seat_ends_taken);
    cmi_free(engine->seat_events);
    cmi_free(engine->seat_events_taken);
    cmi_free(engine->hidden);
    if (engine->block_ends != NULL) {
        cmi_free(engine->block_ends[0].hidden);
    }
    cmi_free(engine->block_ends);
    cmi_free(engine->block_hidden);
    cmi_free(engine->outcomes);
    cmi_free(engine->sampled);
    cmi_free(engine->spec_slots);
    cmi_free(engine->spec_seqs);
    cmi_free(engine->mtp_rows);
    cmi_free(engine->mtp_slots);
    cmi_free(engine->mtp_spans);
    cmi_free(engine->spans);
    cmi_free(engine->token_ids);
    cmi_free(engine->free_seats);
    cmi_free(engine->seats);
    cmi_free(engine->free_slots);
    cmi_free(engine->inbox);
    cmi_free(engine->arrived);
    cmi_free(engine->ended);
    cmi_free(engine->slots);
    cmi_prefix_cache_deinit(engine->cache);
    cmi_page_pool_deinit(engine->pool);
    for (size_t i = 0; i < CMI_LEN(engine->policy_memory); i++) {
        cmi_free(engine->policy_memory[i]);
    }
}

static void make_pages(cmi_engine *engine)
{
    const uint64_t no_lease_ns = 1;
    cmi_page_pool_options pool = {.n_pages = engine->instance->kv_pool.n_pages,
                                  .lease_max_ns = no_lease_ns};
    cmi_prefix_cache_options cache = {.n_blocks = engine->n_blocks};
    const size_t pool_bytes = cmi_page_pool_bytes(&pool);
    const size_t cache_bytes = cmi_prefix_cache_bytes(&cache);
    engine->policy_memory[0] = cmi_alloc_aligned(pool_bytes, CMI_CACHE_LINE);
    engine->policy_memory[1] = cmi_alloc_aligned(cache_bytes, CMI_CACHE_LINE);
    cmi_status st = cmi_page_pool_init(&engine->pool, engine->policy_memory[0], pool_bytes, &pool);
    assert(st == CMI_OK);
    st = cmi_prefix_cache_init(&engine->cache, engine->policy_memory[1], cache_bytes, engine->pool,
                               &cache);
    assert(st == CMI_OK);
    engine->policy.pool = pool;
    engine->policy.cache = cache;
}

/* What the keys of cached blocks depend on beside tokens. The namespace's secret is drawn anew: the
 * cache ends with the process. */
static void name_content(cmi_engine *engine)
{
    const cmi_instance *in = engine->instance;
    for (size_t i = 0; i < sizeof engine->secret; i += sizeof(uint64_t)) {
        uint64_t word = cmi_random_seed();
        memcpy(engine->secret + i, &word, sizeof word);
    }
    engine->content_model = (cmi_content_model){
        .quantization = in->weights_dtype == CMI_DTYPE_I8 ? CMI_CONTENT_QUANTIZATION_W8A8_INT8
                                                          : CMI_CONTENT_QUANTIZATION_NONE,
        .compute_dtype = in->dtype,
        .kv_dtype = in->kv_dtype,
        .kv_layout_version = CMI_KV_LAYOUT_VERSION,
        .with_mtp = engine->max_drafts > 0};
    memcpy(engine->content_model.weights_digest, in->weights->digest.bytes,
           sizeof engine->content_model.weights_digest);
}

static void make_scheduler(cmi_engine *engine, uint32_t max_prefill_rows)
{
    const cmi_instance *in = engine->instance;
    cmi_scheduler_options opt = {.role = engine->sender != NULL     ? CMI_ROLE_PREFILL
                                         : engine->receiver != NULL ? CMI_ROLE_DECODE
                                                                    : CMI_ROLE_BOTH,
                                 .n_slots = engine->n_slots,
                                 .max_num_seqs = in->max_num_seqs,
                                 .max_rows = in->max_num_batched_tokens,
                                 .max_decode_rows = in->max_decode_rows,
                                 .max_prefill_rows =
                                     CMI_MIN(max_prefill_rows, in->max_num_batched_tokens),
                                 .max_span_rows = CMI_MAX_REPLAY_ROWS,
                                 .max_drafts = engine->max_drafts,
                                 .max_tokens = in->max_model_len,
                                 .n_experts = in->config.n_routed_experts,
                                 .n_experts_per_tok = in->config.num_experts_per_tok,
                                 .pool = engine->pool,
                                 .cache = engine->cache};
    engine->policy_memory[2] = cmi_alloc(1, cmi_scheduler_bytes(&opt));
    engine->scheduler = cmi_scheduler_init(engine->policy_memory[2], &opt);
    engine->policy.scheduler = opt;
}

static cmi_status start_recorder(cmi_engine *engine, const char *path, cmi_error *err)
{
    cmi_buf full;
    if (path == NULL) {
        return CMI_OK;
    }
    cmi_buf_init(&full, 65536);
    cmi_buf_printf(&full, "%s%s", path, engine->sender != NULL ? ".prefill" : "");
    cmi_status st =
        cmi_policy_recorder_start(&engine->recorder, cmi_buf_cstr(&full), &engine->policy, 0, err);
    cmi_buf_deinit(&full);
    return st;
}

/* On error those that have started are cmi_engine_stop's. */
static cmi_status start_threads(cmi_engine *engine, cmi_error *err)
{
    cmi_status st = CMI_OK;
    if (engine->sender != NULL) {
        st = cmi_kv_sender_start(engine->sender, engine, err);
    } else if (engine->receiver != NULL) {
        st = cmi_kv_receiver_start(engine->receiver, engine, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    int rc = pthread_create(&engine->thread, NULL, cmi_engine_main, engine);
    if (rc != 0) {
        engine->thread = pthread_self();
        st = cmi_error_set(err, CMI_ERR_IO, "cannot start the engine's thread: %s", strerror(rc));
    }
    return st;
}

cmi_status cmi_engine_start(cmi_engine **engine_out, cmi_instance *instance,
                            const cmi_engine_options *opt, cmi_error *err)
{
    cmi_engine *engine = cmi_alloc(1, sizeof *engine);
    engine->base.calls = &cmi_own_engine_calls;
    engine->instance = instance;
    engine->next_expiry_ns = UINT64_MAX;
    engine->door_limit_ns = CMI_ADMISSION_NO_LIMIT;
    /* Made-up steps of ranks would have to be the same ones: they learn from requests. */
    engine->probe_ns = instance->rank == NULL ? opt->probe_ms * UINT64_C(1000000) : 0;
    engine->join_ns = opt->join_ns > 0 ? opt->join_ns : 600 * UINT64_C(1000000000);
    engine->lost = opt->lost;
    engine->lost_arg = opt->lost_arg;
    engine->drafts_by_cost = opt->drafts_by_cost;
    engine->layer_pays = true;
    engine->max_drafts = CMI_MIN(opt->max_drafts, instance->max_drafts);
    engine->queue.max_requests =
        opt->max_queued_requests > 0 ? opt->max_queued_requests : CMI_DEFAULT_MAX_QUEUED_REQUESTS;
    engine->queue.max_tokens = opt->max_queued_tokens;
    engine->n_slots = engine->queue.max_requests + instance->max_num_seqs;
    engine->vocab = opt->vocab;
    assert(opt->vocab == NULL || cmi_vocab_n_ids(opt->vocab) == instance->config.vocab_size);
    cmi_status st = cmi_event_ring_init(
        &engine->ring, opt->n_events > 0 ? opt->n_events : CMI_DEFAULT_ENGINE_EVENTS, err);
    if (st != CMI_OK) {
        cmi_free(engine);
        return st;
    }
    engine->ring.notify = opt->notify;
    engine->ring.notify_arg = opt->notify_arg;
    engine->sender = opt->sender;
    engine->receiver = opt->receiver;
    engine->add_stats = opt->add_stats;
    engine->add_stats_arg = opt->add_stats_arg;
    engine->flush_others = opt->flush_others;
    assert(engine->sender == NULL || engine->receiver == NULL);
    engine->n_blocks = opt->no_prefix_cache || engine->receiver != NULL
                           ? 0
                           : instance->kv_pool.n_pages / CMI_BLOCK_PAGES;
    make_tables(engine);
    if (engine->vocab != NULL) {
        make_grammar_tables(engine);
    }
    make_pages(engine);
    make_scheduler(engine, opt->max_prefill_rows > 0 ? opt->max_prefill_rows
                                                     : CMI_DEFAULT_MAX_PREFILL_ROWS);
    name_content(engine);
    pthread_mutex_init(&engine->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&engine->seat_event_room, NULL);
    pthread_cond_init(&engine->up, NULL);
    engine->thread = pthread_self(); /* none yet */
    st = start_recorder(engine, opt->record_events, err);
    if (st == CMI_OK) {
        st = start_threads(engine, err);
    }
    if (st != CMI_OK) {
        cmi_engine_stop(engine);
        return st;
    }
    pthread_mutex_lock(&engine->lock);
    while (!engine->is_up) {
        pthread_cond_wait(&engine->up, &engine->lock);
    }
    pthread_mutex_unlock(&engine->lock);
    if (engine->up_st != CMI_OK) {
        st = engine->up_st;
        if (err != NULL) {
            *err = engine->up_err;
        }
        cmi_engine_stop(engine);
        return st;
    }
    *engine_out = engine;
    return CMI_OK;
}

static void stop(cmi_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->stopping = true;
    cmi_engine_wake(engine);
    pthread_cond_signal(&engine->seat_event_room);
    pthread_mutex_unlock(&engine->lock);
    cmi_event_ring_close(&engine->ring);
    if (!pthread_equal(engine->thread, pthread_self())) {
        pthread_join(engine->thread, NULL);
    }
    if (engine->sender != NULL) {
        cmi_kv_sender_stop(engine->sender);
    }
    if (engine->receiver != NULL) {
        cmi_kv_receiver_stop(engine->receiver);
        cmi_engine_take_back_all(engine);
    }
    cmi_policy_recorder_stop(engine->recorder);
    pthread_cond_destroy(&engine->seat_event_room);
    cmi_event_ring_deinit(&engine->ring);
    pthread_cond_destroy(&engine->up);
    pthread_cond_destroy(&engine->work);
    pthread_mutex_destroy(&engine->lock);
    free_tables(engine);
    cmi_free(engine);
}

/* ---- calls from any thread
 * --------------------------------------------------------------------------- */

cmi_status cmi_engine_check_tokens(uint32_t vocab_size, const cmi_request *request, cmi_error *err)
{
    const uint32_t *prompt = cmi_request_prompt(request);
    const uint32_t *output = cmi_request_output(request);
    const cmi_logit_bias *bias = cmi_request_logit_bias(request);
    for (uint32_t i = 0; i < request->n_prompt_tokens; i++) {
        if (prompt[i] >= vocab_size) {
            return cmi_error_set(err, CMI_ERR_INVALID, "prompt token %u is %u, vocab_size is %u", i,
                                 prompt[i], vocab_size);
        }
    }
    for (uint32_t i = 0; i < request->n_output_tokens; i++) {
        if (output[i] >= vocab_size) {
            return cmi_error_set(err, CMI_ERR_INVALID, "output token %u is %u, vocab_size is %u", i,
                                 output[i], vocab_size);
        }
    }
    for (uint32_t i = 0; i < request->n_logit_bias; i++) {
        if (bias[i].token_id >= vocab_size) {
            return cmi_error_set(err, CMI_ERR_INVALID,
                                 "logit_bias names token %u, vocab_size is %u", bias[i].token_id,
                                 vocab_size);
        }
    }
    for (uint32_t i = 0; i < request->n_grammar_start_ids; i++) {
        if (request->grammar_start_ids[i] >= vocab_size) {
            return cmi_error_set(err, CMI_ERR_INVALID,
                                 "a grammar starts behind token %u, vocab_size is %u",
                                 request->grammar_start_ids[i], vocab_size);
        }
    }
    return CMI_OK;
}

/* Tokens of a sequence, prompt and output together: what the context and the KV pages hold. */
static uint32_t max_tokens(const cmi_engine *engine)
{
    const cmi_instance *in = engine->instance;
    uint64_t n_kv = (uint64_t)in->kv_pool.n_pages * CMI_KV_PAGE_TOKENS;
    return (uint32_t)CMI_MIN(n_kv, (uint64_t)in->max_model_len);
}

static void collect_end_tokens(cmi_engine_slot *slot, const cmi_model_config *config)
{
    const cmi_request *request = slot->request;
    const uint32_t *stop = cmi_request_stop_token_ids(request);
    if ((request->flags & CMI_REQUEST_IGNORE_EOS) == 0) {
        for (uint32_t i = 0; i < config->n_eos_token_ids; i++) {
            slot->end_tokens[slot->n_end_tokens++] = config->eos_token_ids[i];
        }
    }
    for (uint32_t i = 0; i < request->n_stop_token_ids; i++) {
        slot->end_tokens[slot->n_end_tokens++] = stop[i];
    }
}

static void make_keys(const cmi_engine *engine, cmi_engine_slot *slot)
{
    static const uint8_t no_salt[CMI_CACHE_SALT_BYTES];
    const cmi_request *request = slot->request;
    const bool is_salted = memcmp(request->cache_salt, no_salt, sizeof no_salt) != 0;
    uint32_t n_full = request->n_prompt_tokens / CMI_CONTENT_BLOCK_TOKENS;
    cmi_content_space space;
    cmi_content_space_make(&space, engine->secret, sizeof engine->secret, request->cache_salt,
                           is_salted ? sizeof request->cache_salt : 0);
    slot->space_tag = space.tag;
    slot->keys = cmi_alloc(n_full, sizeof *slot->keys);
    slot->n_keys = cmi_content_keys_make(slot->keys, n_full, &space, &engine->content_model,
                                         cmi_request_prompt(request), request->n_prompt_tokens);
}

/* A slot's content for a copy of the request; all that it will ever need is allocated here. */
static void fill_slot(const cmi_engine *engine, cmi_engine_slot *slot, const cmi_request *request,
                      cmi_output_grammar *grammar)
{
    const cmi_instance *in = engine->instance;
    *slot = (cmi_engine_slot){.submitted_ns = cmi_clock_monotonic_ns(), .grammar = grammar};
    slot->request = cmi_alloc(1, request->n_bytes);
    memcpy(slot->request, request, request->n_bytes);
    slot->max_output = CMI_MIN(request->max_tokens, max_tokens(engine) - request->n_prompt_tokens);
    slot->output = cmi_alloc(slot->max_output, sizeof *slot->output);
    collect_end_tokens(slot, &in->config);
    if (engine->n_blocks > 0) {
        make_keys(engine, slot);
    }
}

/* ---- the queue's door --------------------------------------------------------------------------
 */

static cmi_admission_request admission_request(const cmi_request *request)
{
    const uint32_t ttft_us = request->n_output_tokens > 0 ? 0 : request->ttft_target_us;
    return (cmi_admission_request){.n_prompt = request->n_prompt_tokens,
                                   .max_tokens = request->max_tokens,
                                   .ttft_ns = ttft_us * UINT64_C(1000),
                                   .tpot_ns = request->tpot_target_us * UINT64_C(1000),
                                   .age_ns = request->age_us * UINT64_C(1000)};
}

/* Locked. Counts a refusal. By what the scheduler will aim at for the request. */
static cmi_admission_verdict check_room(cmi_engine *engine, const cmi_admission_request *request)
{
    cmi_admission_request aimed = *request;
    aimed.tpot_ns = cmi_pace_aim_ns(request->tpot_ns);
    cmi_admission_verdict verdict = cmi_admission_decide(&engine->load, &engine->queue, &aimed);
    if (verdict.reason == CMI_ADMISSION_OK && engine->n_free_slots == 0) {
        verdict.reason =
            CMI_ADMISSION_QUEUED_REQUESTS; /* those that end have theirs for a moment */
        verdict.retry_after_ms = CMI_ADMISSION_RETRY_MS;
    }
    engine->n_refused[verdict.reason] += verdict.reason != CMI_ADMISSION_OK ? 1 : 0;
    return verdict;
}

static bool has_room(cmi_engine *engine, const cmi_admission_request *request,
                     cmi_admission_verdict *verdict_out)
{
    pthread_mutex_lock(&engine->lock);
    *verdict_out = check_room(engine, request);
    pthread_mutex_unlock(&engine->lock);
    return verdict_out->reason == CMI_ADMISSION_OK;
}

cmi_status cmi_engine_say_refused(const cmi_admission_queue *queue,
                                  const cmi_admission_request *request,
                                  const cmi_admission_verdict *verdict, cmi_error *err)
{
    const double ms = 1e6;
    switch (verdict->reason) {
    case CMI_ADMISSION_QUEUED_TOKENS:
        return cmi_error_set(
            err, CMI_ERR_NO_CAPACITY, "%llu prompt tokens are waiting, no more than %llu are taken",
            (unsigned long long)queue->n_tokens, (unsigned long long)queue->max_tokens);
    case CMI_ADMISSION_TTFT:
        return cmi_error_set(err, CMI_ERR_NO_CAPACITY,
                             "the first token would come after %.0f ms, %.0f are wanted",
                             (double)verdict->predicted_ns / ms, (double)request->ttft_ns / ms);
    case CMI_ADMISSION_TPOT:
        return cmi_error_set(err, CMI_ERR_NO_CAPACITY,
                             "a token would take %.1f ms, %.1f are wanted, or others want less",
                             (double)verdict->predicted_ns / ms, (double)request->tpot_ns / ms);
    default:
        return cmi_error_set(err, CMI_ERR_NO_CAPACITY, "%u requests are waiting, no more are taken",
                             queue->n_requests);
    }
}

/* Admits or refuses a request, which has a slot and counts as waiting from then on. */
static cmi_status take_place(cmi_engine *engine, const cmi_request *request, uint32_t *slot_out,
                             cmi_admission_verdict *verdict_out, cmi_error *err)
{
    cmi_status st = CMI_OK;
    const cmi_admission_request asked = admission_request(request);
    cmi_admission_verdict verdict = {.reason = CMI_ADMISSION_OK};
    pthread_mutex_lock(&engine->lock);
    if (engine->stopping) {
        st = cmi_error_set(err, CMI_ERR_CLOSED, "the engine is stopping");
    } else {
        verdict = check_room(engine, &asked);
    }
    if (st == CMI_OK && verdict.reason != CMI_ADMISSION_OK) {
        st = cmi_engine_say_refused(&engine->queue, &asked, &verdict, err);
    } else if (st == CMI_OK) {
        *slot_out = engine->free_slots[--engine->n_free_slots];
        engine->n_coming++;
        engine->n_coming_tokens += request->n_prompt_tokens;
        engine->queue.n_requests++;
        engine->queue.n_tokens += request->n_prompt_tokens;
        if (asked.tpot_ns > 0) {
            const double aim_ns = (double)cmi_pace_aim_ns(asked.tpot_ns);
            double limit_ns = aim_ns * engine->load.tokens_per_step;
            engine->door_limit_ns = CMI_MIN(engine->door_limit_ns, limit_ns);
            engine->load.limit_ns = CMI_MIN(engine->load.limit_ns, limit_ns);
        }
    }
    pthread_mutex_unlock(&engine->lock);
    if (verdict_out != NULL) {
        *verdict_out = verdict;
    }
    return st;
}

/* Gives the engine's thread what has a place. */
static cmi_status hand_over(cmi_engine *engine, uint32_t idx, cmi_engine_slot *slot, cmi_error *err)
{
    const uint32_t n_tokens = slot->request->n_prompt_tokens;
    pthread_mutex_lock(&engine->lock);
    const bool stopping = engine->stopping;
    engine->n_coming--;
    engine->n_coming_tokens -= n_tokens;
    if (stopping) {
        engine->free_slots[engine->n_free_slots++] = idx;
    } else {
        engine->slots[idx] = *slot;
        engine->inbox[engine->n_inbox++] = idx;
        engine->n_inbox_tokens += n_tokens;
        cmi_engine_wake(engine);
    }
    pthread_mutex_unlock(&engine->lock);
    if (!stopping) {
        return CMI_OK;
    }
    free_content(engine, slot);
    return cmi_error_set(err, CMI_ERR_CLOSED, "the engine is stopping");
}

/* What has a place does not come. */
static void give_up_place(cmi_engine *engine, uint32_t idx, uint32_t n_tokens)
{
    pthread_mutex_lock(&engine->lock);
    engine->n_coming--;
    engine->n_coming_tokens -= n_tokens;
    engine->queue.n_requests--;
    engine->queue.n_tokens -= n_tokens;
    engine->free_slots[engine->n_free_slots++] = idx;
    pthread_mutex_unlock(&engine->lock);
}

/* Compiles its grammar, goes through its output, and gives it to the engine's thread. */
static cmi_status come(cmi_engine *engine, uint32_t idx, const cmi_request *request, cmi_error *err)
{
    cmi_output_grammar *grammar = NULL;
    cmi_engine_slot slot;
    cmi_status st = CMI_OK;
    if (request->n_grammar_bytes > 0) {
        st = cmi_output_grammar_open(&grammar, engine->grammars, engine->vocab, request, err);
    }
    if (st == CMI_OK) {
        fill_slot(engine, &slot, request, grammar);
        st = cmi_engine_resume(engine, &slot, err);
        if (st == CMI_OK) {
            return hand_over(engine, idx, &slot, err);
        }
        free_content(engine, &slot);
    }
    give_up_place(engine, idx, request->n_prompt_tokens);
    return st;
}

static cmi_status offer(cmi_engine *engine, const cmi_request *request,
                        cmi_admission_verdict *verdict_out, cmi_error *err)
{
    cmi_status st = cmi_request_check(request, request->n_bytes, err);
    if (st == CMI_OK) {
        st = cmi_engine_check_tokens(engine->instance->config.vocab_size, request, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    if (request->n_prompt_tokens >= max_tokens(engine)) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "the prompt has %u tokens, the context holds %u with the answer",
                             request->n_prompt_tokens, max_tokens(engine));
    }
    uint32_t idx = 0;
    st = take_place(engine, request, &idx, verdict_out, err);
    if (st == CMI_OK) {
        st = come(engine, idx, request, err);
    }
    return st;
}

static void cancel(cmi_engine *engine, uint64_t request_id)
{
    pthread_mutex_lock(&engine->lock);
    for (uint32_t i = 0; i < engine->n_slots; i++) {
        cmi_engine_slot *slot = &engine->slots[i];
        if (slot->request != NULL && slot->request->request_id == request_id &&
            !slot->is_cancelled) {
            slot->is_cancelled = true;
            engine->n_cancelled++;
            cmi_engine_wake(engine);
        }
    }
    pthread_mutex_unlock(&engine->lock);
}

static void flush_prefix_cache(cmi_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->flush_asked = true;
    cmi_engine_wake(engine);
    pthread_mutex_unlock(&engine->lock);
    if (engine->flush_others != NULL) {
        engine->flush_others(engine->add_stats_arg);
    }
}

static size_t poll_events(cmi_engine *engine, cmi_event *events_out, size_t n_max)
{
    return cmi_event_ring_take(&engine->ring, events_out, n_max);
}

static int event_fd(const cmi_engine *engine)
{
    return engine->ring.fd;
}

static void info_get(const cmi_engine *engine, cmi_engine_info *info_out)
{
    const cmi_instance *instance = engine->instance;
    *info_out = (cmi_engine_info){.vocab_size = instance->config.vocab_size,
                                  .max_model_len = max_tokens(engine),
                                  .max_queued_requests = engine->queue.max_requests,
                                  .max_queued_tokens = engine->queue.max_tokens,
                                  .n_kv_pages = instance->kv_pool.n_pages,
                                  .kv_page_tokens = CMI_KV_PAGE_TOKENS,
                                  .max_drafts = engine->max_drafts};
    cmi_engine_prefix_names(info_out);
}

static void stats_get(cmi_engine *engine, cmi_engine_stats *stats_out)
{
    pthread_mutex_lock(&engine->lock);
    *stats_out = engine->stats;
    stats_out->n_waiting = engine->queue.n_requests;
    stats_out->n_waiting_tokens = engine->queue.n_tokens;
    memcpy(stats_out->n_refused, engine->n_refused, sizeof stats_out->n_refused);
    pthread_mutex_unlock(&engine->lock);
    if (engine->add_stats != NULL) {
        engine->add_stats(engine->add_stats_arg, stats_out);
    }
}

static uint32_t ranks_get(cmi_engine *engine, cmi_engine_rank *ranks_out, uint32_t n_max)
{
    (void)engine;
    (void)ranks_out;
    (void)n_max;
    return 0;
}

void cmi_engine_peek(cmi_engine *engine, cmi_admission_load *load_out,
                     cmi_admission_queue *queue_out)
{
    pthread_mutex_lock(&engine->lock);
    *load_out = engine->load;
    *queue_out = engine->queue;
    pthread_mutex_unlock(&engine->lock);
}

const cmi_engine_calls cmi_own_engine_calls = {
    .stop = stop,
    .has_room = has_room,
    .offer = offer,
    .cancel = cancel,
    .flush_prefix_cache = flush_prefix_cache,
    .poll = poll_events,
    .event_fd = event_fd,
    .info_get = info_get,
    .stats_get = stats_get,
    .ranks_get = ranks_get,
};
