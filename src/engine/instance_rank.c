#include "engine/instance_rank.h"

#include <assert.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/strmap.h"
#include "engine/rank_balance.h"
#include "model/pipeline.h"
#include "os/clock.h"
#include "policy/microbatch.h"

static const uint64_t MS = 1000000;

struct cmi_instance_rank {
    cmi_ep_rank *ep;
    cmi_fabric *fabric;
    cmi_rank_experts *experts;
    cmi_rank_balance *balance; /* NULL: experts stay */
    uint32_t place, n_places;
    uint64_t lost_ns;        /* since when passes fail; 0: they do not */
    cmi_pipeline *pipeline;  /* NULL: one microbatch, always */
    uint32_t forced;         /* microbatches of a pass; 0: as many as pay */
    uint32_t n_microbatches; /* of the next pass, agreed with the others */
    bool shares_prompts;
    cmi_microbatch microbatches;
    cmi_instance_rank_stats stats;
};

/* ---- sizes ---- */

static cmi_expert_layout expert_layout(const cmi_instance *in, const cmi_instance_options *opt)
{
    const cmi_rank_options *rank = opt->rank;
    return (cmi_expert_layout){.n_experts = in->config.n_routed_experts,
                               .n_replicas = in->config.n_routed_experts + rank->n_redundant,
                               .n_groups = 1,
                               .n_nodes = 1,
                               .n_ranks = cmi_membership_count(rank->membership)};
}

static uint32_t count_layers(const cmi_instance *in, const cmi_weights_options *weights)
{
    uint32_t n = weights->with_mtp ? 1 : 0;
    for (uint32_t i = 0; i < in->config.num_hidden_layers; i++) {
        n += cmi_model_config_is_moe(&in->config, i) ? 1 : 0;
    }
    return n;
}

static cmi_ep_shape shape_of(const cmi_instance *in, const cmi_instance_options *opt)
{
    const uint32_t hidden = in->config.hidden_size;
    const size_t wide = hidden * cmi_dtype_bytes(in->dtype);
    return (cmi_ep_shape){.n_ranks = cmi_membership_count(opt->rank->membership),
                          .max_rows = in->max_step_rows,
                          .top_k = in->config.num_experts_per_tok,
                          .max_local_experts = in->config.n_routed_experts,
                          .row_bytes =
                              in->weights_dtype == CMI_DTYPE_I8 ? cmi_i8_row_stride(hidden) : wide,
                          .result_bytes = wide};
}

/* Pages for what all ranks may have in a pass, and for much that goes before it; prompts that are
 * longer still are computed at home. */
static cmi_stage_shape stage_of(const cmi_instance *in, const cmi_instance_options *opt)
{
    enum { MAX_CONTEXT_PAGES = 512, MIN_ROWS_SAVED = 16 };
    if (!opt->rank->shares_prompts) {
        return (cmi_stage_shape){0};
    }
    const uint32_t n_ranks = cmi_membership_count(opt->rank->membership);
    const uint32_t longest = cmi_kv_pages_for(in->config.max_position_embeddings);
    return (cmi_stage_shape){.n_ranks = n_ranks,
                             .max_rows = in->max_step_rows,
                             .max_pages = n_ranks * (cmi_kv_pages_for(in->max_step_rows) + 1) +
                                          CMI_MIN(longest, (uint32_t)MAX_CONTEXT_PAGES),
                             .min_rows_saved = MIN_ROWS_SAVED};
}

static uint64_t stage_window_bytes(const cmi_instance *in, const cmi_kv_layout *layout,
                                   const cmi_stage_shape *shape)
{
    return shape->n_ranks > 0 ? cmi_forward_stage_window_bytes(&in->config, layout, shape) : 0;
}

static uint32_t stream_count(const cmi_instance_options *opt)
{
    return opt->rank->n_microbatches == 1 ? 1 : 2;
}

cmi_status cmi_instance_rank_plan(const cmi_instance *in, const cmi_instance_options *opt,
                                  const cmi_weights_options *weights,
                                  const cmi_kv_layout *kv_layout,
                                  cmi_instance_rank_sizes *sizes_out, cmi_error *err)
{
    const cmi_stage_shape stage = stage_of(in, opt);
    const cmi_expert_layout layout = expert_layout(in, opt);
    const cmi_ep_shape shape = shape_of(in, opt);
    cmi_ep_layout windows;
    if (in->config.n_routed_experts == 0) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "%s has no experts that could be spread over ranks", opt->model_dir);
    }
    const char *fault = cmi_expert_layout_fault(&layout);
    if (fault != NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "experts over ranks: %s", fault);
    }
    cmi_status st = cmi_ep_layout_make(&windows, &shape, err);
    if (st == CMI_OK) {
        uint32_t first;
        const uint32_t self = cmi_membership_self(opt->rank->membership);
        const uint64_t n_slabs =
            (uint64_t)cmi_expert_rank_slots(&layout, self, &first) * count_layers(in, weights) +
            (opt->rank->balance_window > 0 ? 1 : 0);
        *sizes_out = (cmi_instance_rank_sizes){
            .exchange = {NULL, shape.max_rows, shape.n_ranks * windows.max_pairs},
            .stage = {.shape = stage, .rank = self},
            .n_bytes = n_slabs * cmi_expert_slab_bytes(&in->config, weights) +
                       stream_count(opt) * windows.region_bytes +
                       stage_window_bytes(in, kv_layout, &stage)};
    }
    return st;
}

/* ---- life ---- */

/* Of all that ranks of one instance must have in common. */
static uint64_t hash_model(const cmi_instance *in, const cmi_instance_options *opt)
{
    const cmi_ep_shape shape = shape_of(in, opt);
    const uint64_t common[] = {
        shape.max_rows,
        shape.top_k,
        shape.row_bytes,
        shape.result_bytes,
        opt->rank->n_redundant,
        opt->rank->n_microbatches,
        opt->rank->balance_window,
        opt->rank->shares_prompts,
        opt->rank->shares_prompts ? in->max_model_len : 0, /* whose positions all must know */
        in->config.num_hidden_layers,
        in->config.n_routed_experts,
        in->weights->mtp != NULL,
        in->weights_dtype,
        cmi_hash_bytes(in->weights->digest.bytes, sizeof in->weights->digest.bytes)};
    return cmi_hash_bytes(common, sizeof common);
}

static cmi_status open_source(cmi_expert_source **source_out, const cmi_instance *in,
                              const cmi_instance_options *opt, const cmi_weights_options *weights,
                              cmi_error *err)
{
    return opt->random_config != NULL
               ? cmi_expert_source_random(source_out, &in->config, opt->random_seed, weights, err)
               : cmi_expert_source_open(source_out, &in->config, opt->model_dir, weights, err);
}

static cmi_status open_experts(cmi_instance *in, const cmi_instance_options *opt,
                               const cmi_weights_options *weights, cmi_error *err)
{
    const cmi_expert_layout layout = expert_layout(in, opt);
    cmi_rank_experts_options experts = {.weights = in->weights,
                                        .slab_bytes = cmi_expert_slab_bytes(&in->config, weights),
                                        .n_layers = in->config.num_hidden_layers + 1,
                                        .place = in->rank->place,
                                        .layout = &layout,
                                        .reading = weights,
                                        .moves = opt->rank->balance_window > 0};
    cmi_status st = open_source(&experts.source, in, opt, weights, err);
    st = st == CMI_OK ? cmi_rank_experts_create(&in->rank->experts, &experts, err) : st;
    return st == CMI_OK && opt->rank->balance_window > 0
               ? cmi_rank_balance_create(&in->rank->balance, in->rank->experts,
                                         opt->rank->balance_window, err)
               : st;
}

static void hear_frame(void *balance, uint32_t place, const cmi_frame *frame)
{
    (void)cmi_rank_balance_hear(balance, place, frame); /* what does not fit is nobody's */
}

static cmi_status open_ep(cmi_instance *in, const cmi_instance_options *opt, cmi_error *err)
{
    cmi_instance_rank *r = in->rank;
    cmi_ep_rank_options ep;
    cmi_ep_rank_options_default(&ep);
    ep.name = opt->rank->name;
    ep.fabric = opt->rank->fabric;
    ep.membership = opt->rank->membership;
    ep.min_ranks = CMI_MAX(opt->rank->min_ranks, 1u);
    ep.team = in->team;
    ep.shape = shape_of(in, opt);
    ep.n_streams = stream_count(opt);
    ep.stage = stage_of(in, opt);
    ep.stage_window_bytes = stage_window_bytes(in, &in->kv_pool.layout, &ep.stage);
    ep.n_layers = in->config.num_hidden_layers + 1;
    ep.n_experts = in->config.n_routed_experts;
    ep.rank_of = cmi_rank_experts_rank_of(r->experts);
    if (r->balance != NULL) {
        ep.counts = cmi_rank_balance_counts(r->balance);
        ep.on_frame = hear_frame;
        ep.on_frame_arg = r->balance;
    }
    ep.model = hash_model(in, opt);
    return cmi_ep_rank_create(&r->ep, &ep, err);
}

cmi_status cmi_instance_rank_open(cmi_instance *in, const cmi_instance_options *opt,
                                  const cmi_weights_options *weights, cmi_error *err)
{
    const cmi_membership *members = opt->rank->membership;
    cmi_instance_rank *r = in->rank = cmi_alloc(1, sizeof *r);
    r->fabric = opt->rank->fabric;
    r->forced = opt->rank->n_microbatches;
    r->shares_prompts = opt->rank->shares_prompts;
    r->n_places = cmi_membership_count(members);
    r->place = cmi_membership_self(members);
    r->stats = (cmi_instance_rank_stats){.place = r->place, .n_places = r->n_places};
    cmi_status st = open_experts(in, opt, weights, err);
    return st == CMI_OK ? open_ep(in, opt, err) : st;
}

cmi_status cmi_instance_rank_start(cmi_instance *in, cmi_error *err)
{
    cmi_instance_rank *r = in->rank;
    cmi_microbatch_init(&r->microbatches);
    return r->forced == 1 ? CMI_OK
                          : cmi_pipeline_create(&r->pipeline, in->forward,
                                                cmi_ep_rank_exchange(r->ep, 1), err);
}

void cmi_instance_rank_close(cmi_instance *in)
{
    cmi_instance_rank *r = in->rank;
    if (r == NULL) {
        return;
    }
    if (r->shares_prompts) {
        cmi_log(CMI_LOG_INFO, "rank %u: prompts were shared in %llu of %llu passes", r->place,
                (unsigned long long)r->stats.n_staged_passes,
                (unsigned long long)r->stats.n_passes);
    }
    cmi_pipeline_destroy(r->pipeline);
    cmi_ep_rank_destroy(r->ep);
    cmi_rank_balance_destroy(r->balance);
    cmi_rank_experts_destroy(r->experts);
    cmi_free(r);
    in->rank = NULL;
}

cmi_exchange *cmi_instance_rank_exchange(cmi_instance_rank *rank)
{
    return cmi_ep_rank_exchange(rank->ep, 0);
}

cmi_stage_exchange *cmi_instance_rank_stage(cmi_instance_rank *rank)
{
    return cmi_ep_rank_stage(rank->ep);
}

/* ---- views ---- */

static void note_view(cmi_instance_rank *r)
{
    cmi_gang_counters counters;
    cmi_ep_rank_get_counters(r->ep, &counters);
    r->stats.n_living = cmi_ep_rank_n_living(r->ep);
    r->stats.n_views = counters.n_views;
    r->stats.n_adopted = cmi_rank_experts_n_adopted(r->experts);
    r->stats.n_read = cmi_rank_experts_n_read(r->experts);
    if (r->lost_ns != 0) {
        r->stats.last_rejoin_ns = cmi_fabric_now_ns(r->fabric) - r->lost_ns;
        cmi_log(CMI_LOG_INFO, "rank %u goes on with %u of %u after %.1f ms, %llu adopted experts",
                r->place, r->stats.n_living, r->n_places, (double)r->stats.last_rejoin_ns / 1e6,
                (unsigned long long)r->stats.n_adopted);
    }
    r->lost_ns = 0;
    r->n_microbatches = r->forced > 0 ? r->forced : 1; /* nobody has voted in this view */
}

/* Reading goes on with the gang, so that others do not miss this rank. */
static bool is_still_new(void *arg)
{
    return cmi_ep_rank_poll(arg) == CMI_EP_RANK_NEW_VIEW;
}

static cmi_status enter_view(cmi_instance *in, cmi_error *err)
{
    cmi_instance_rank *r = in->rank;
    if (r->balance != NULL) {
        cmi_rank_balance_stop(r->balance);
    }
    cmi_status st =
        cmi_rank_experts_arrange(r->experts, cmi_ep_rank_dead(r->ep), is_still_new, r->ep, err);
    st = st == CMI_OK ? cmi_ep_rank_enter(in->rank->ep, err) : st;
    if (st == CMI_OK && r->balance != NULL) {
        cmi_rank_balance_start(r->balance, r->ep);
    }
    if (st == CMI_OK) {
        note_view(in->rank);
    }
    return st;
}

static bool is_for_good(cmi_status st)
{
    return st == CMI_ERR_UNSUPPORTED || st == CMI_ERR_NO_MEMORY || st == CMI_ERR_IO ||
           st == CMI_ERR_BAD_DATA;
}

cmi_status cmi_instance_join(cmi_instance *in, uint64_t patience_ns, cmi_error *err)
{
    cmi_instance_rank *r = in->rank;
    const uint64_t begin_ns = cmi_fabric_now_ns(r->fabric);
    const uint64_t until_ns = cmi_fabric_after_ns(r->fabric, patience_ns);
    for (;;) {
        const cmi_ep_rank_state state = cmi_ep_rank_poll(r->ep);
        cmi_status st = CMI_ERR_PEER;
        if (state == CMI_EP_RANK_READY) {
            return CMI_OK;
        }
        if (state == CMI_EP_RANK_SUPERSEDED) {
            return cmi_error_set(err, CMI_ERR_CLOSED, "another process has the place of rank %u",
                                 r->place);
        }
        r->lost_ns = r->lost_ns == 0 && r->stats.n_views > 0 ? begin_ns : r->lost_ns;
        if (state == CMI_EP_RANK_NEW_VIEW) {
            st = enter_view(in, err);
        }
        if (is_for_good(st)) {
            return st;
        }
        if (st != CMI_OK) {
            if (cmi_fabric_now_ns(r->fabric) >= until_ns) {
                return cmi_error_set(err, CMI_ERR_TIMEOUT,
                                     "rank %u of %u has waited %.0f s for others", r->place,
                                     r->n_places, (double)patience_ns / 1e9);
            }
            cmi_ep_rank_sleep(r->ep, CMI_MIN(until_ns, cmi_fabric_after_ns(r->fabric, 10 * MS)));
        }
    }
}

/* ---- passes ---- */

cmi_status cmi_instance_call(cmi_instance *in, cmi_pass pass)
{
    return cmi_ep_rank_call(in->rank->ep, pass);
}

/* Multiply-adds grow with rows and with what they look at; so little is known of a pass here. */
static double work_of(const cmi_batch *batch)
{
    const double context_of_a_row = 4096; /* whose attention is like the rest of a row */
    double work = 0;
    for (uint32_t i = 0; i < batch->n_spans; i++) {
        const cmi_batch_span *span = &batch->spans[i];
        work += span->n_rows * (1 + span->position / context_of_a_row);
    }
    return work;
}

static cmi_microbatch_kind kind_of(const cmi_batch *batch)
{
    return batch->spans[batch->n_spans - 1].is_prefill ? CMI_MICROBATCH_PREFILL
                                                       : CMI_MICROBATCH_DECODE;
}

/* What a pass with rows has taken, for those to come. */
static void note_pass(cmi_instance_rank *r, const cmi_batch *batch, uint32_t n_microbatches,
                      double taken_ns)
{
    r->stats.n_passes++;
    if (batch->is_staged) {
        r->stats.n_staged_passes++;
        return;
    }
    cmi_microbatch_note(&r->microbatches, kind_of(batch), n_microbatches, work_of(batch), taken_ns);
    r->stats.n_split_passes += n_microbatches == 2 ? 1 : 0;
}

static cmi_status pass_of_main(cmi_instance *in, cmi_batch *batch)
{
    cmi_instance_rank *r = in->rank;
    const uint32_t n = r->n_microbatches;
    const uint64_t begin_ns = cmi_fabric_now_ns(r->fabric);
    cmi_status st = CMI_OK;
    if (batch->n_rows > 0) {
        const cmi_microbatch_kind kind = kind_of(batch);
        const uint32_t wish =
            r->forced > 0 ? r->forced : cmi_microbatch_wish(&r->microbatches, kind);
        batch->vote = cmi_microbatch_vote(kind, r->place, wish);
    }
    if (r->shares_prompts && r->stats.n_living == r->n_places) {
        st = cmi_forward_offer(in->forward, batch, &batch->is_staged);
    }
    if (st == CMI_OK) {
        st = r->pipeline != NULL ? cmi_pipeline_run(r->pipeline, batch, n)
                                 : cmi_forward_run(in->forward, batch);
    }
    if (st == CMI_OK) {
        r->n_microbatches =
            r->forced > 0 ? r->forced : cmi_microbatch_agreed(cmi_forward_heard_vote(in->forward));
    }
    const uint64_t taken_ns = cmi_fabric_now_ns(r->fabric) - begin_ns;
    r->stats.n_all_passes += st == CMI_OK ? 1 : 0;
    r->stats.passes_ns += st == CMI_OK ? taken_ns : 0;
    if (st == CMI_OK && batch->n_rows > 0) {
        note_pass(r, batch, n, (double)taken_ns);
    }
    return st == CMI_OK && r->balance != NULL ? cmi_rank_balance_advance(r->balance, true) : st;
}

cmi_status cmi_instance_pass(cmi_instance *in, const cmi_batch *batch)
{
    cmi_batch own = *batch;
    return batch->mtp_hidden != NULL ? cmi_forward_run(in->forward, batch) : pass_of_main(in, &own);
}

cmi_status cmi_instance_follow_mtp(cmi_instance *in, uint32_t n_passes)
{
    const cmi_batch nothing = {.mtp_hidden = in->mtp_hidden};
    cmi_status st = CMI_OK;
    for (uint32_t i = 0; st == CMI_OK && i < n_passes && in->mtp_hidden != NULL; i++) {
        st = cmi_forward_run(in->forward, &nothing);
    }
    return st;
}

cmi_status cmi_instance_follow(cmi_instance *in, bool *followed_out)
{
    uint32_t pass;
    *followed_out = false;
    if (cmi_ep_rank_poll(in->rank->ep) != CMI_EP_RANK_READY) {
        return CMI_ERR_PEER;
    }
    if (in->rank->balance != NULL) {
        cmi_status st = cmi_rank_balance_advance(in->rank->balance, false);
        if (st != CMI_OK) {
            return st;
        }
    }
    if (!cmi_ep_rank_is_called(in->rank->ep, &pass)) {
        return CMI_OK;
    }
    *followed_out = true;
    if (pass == CMI_PASS_MTP) {
        return cmi_instance_follow_mtp(in, 1);
    }
    const cmi_batch nothing = {0};
    cmi_status st = cmi_instance_pass(in, &nothing);
    return st == CMI_OK ? cmi_instance_follow_mtp(in, cmi_forward_heard(in->forward)) : st;
}

void cmi_instance_rank_sleep(cmi_instance *in, uint64_t max_ns)
{
    cmi_ep_rank_sleep(in->rank->ep, cmi_fabric_after_ns(in->rank->fabric, max_ns));
}

void cmi_instance_rank_wake(cmi_instance *in)
{
    cmi_ep_rank_wake(in->rank->ep);
}

cmi_status cmi_instance_serve_first(cmi_instance *in, uint64_t patience_ns, cmi_error *err)
{
    while ((cmi_ep_rank_dead(in->rank->ep)[0] & 1) == 0) {
        bool followed;
        cmi_status st = cmi_instance_follow(in, &followed);
        if (st != CMI_OK) {
            st = cmi_instance_join(in, patience_ns, err);
        } else if (!followed) {
            cmi_instance_rank_sleep(in, 1000 * MS);
        }
        if (st != CMI_OK) {
            return st;
        }
    }
    return CMI_OK;
}

void cmi_instance_rank_get_stats(const cmi_instance *in, cmi_instance_rank_stats *stats_out)
{
    const cmi_instance_rank *r = in->rank;
    *stats_out = r->stats;
    cmi_ep_rank_get_work(r->ep, &stats_out->work);
    if (r->balance != NULL) {
        cmi_rank_balance_get_stats(r->balance, &stats_out->balance);
    }
}
