#include "model/weights_internal.h"

#include <assert.h>

#include "base/alloc.h"

cmi_weights_plan cmi_weights_plan_make(const cmi_model_config *config,
                                       const cmi_weights_options *opt, cmi_error *err)
{
    return (cmi_weights_plan){
        .config = config,
        .dtype = opt->dtype,
        .int8_head = opt->int8_head,
        .with_mtp = opt->with_mtp && config->num_nextn_predict_layers > 0,
        .without_experts = opt->without_experts,
        .err = err,
    };
}

uint64_t cmi_weights_estimate_bytes(const cmi_model_config *config, const cmi_weights_options *opt)
{
    cmi_weights_plan plan = cmi_weights_plan_make(config, opt, NULL);
    cmi_weights_plan_walk(&plan);
    return plan.block_bytes + plan.struct_bytes;
}

cmi_status cmi_weights_plan_open(cmi_weights_plan *plan, cmi_checkpoint *checkpoint,
                                 const char *dir)
{
    *checkpoint = (cmi_checkpoint){0};
    cmi_status st = cmi_checkpoint_open(checkpoint, dir, plan->err);
    if (st != CMI_OK) {
        return st;
    }
    plan->checkpoint = checkpoint;
    plan->with_mtp =
        plan->with_mtp && cmi_weights_has_layer(checkpoint, plan->config->num_hidden_layers);
    st = cmi_weights_check_names(checkpoint, plan->config, plan->err);
    if (st == CMI_OK) {
        cmi_weights_plan_walk(plan);
        st = plan->status;
    }
    return st;
}

uint64_t cmi_weights_taken_bytes(const cmi_model_config *config, const char *dir,
                                 const cmi_weights_options *opt)
{
    uint64_t taken = 0;
    cmi_weights_plan plan = cmi_weights_plan_make(config, opt, NULL);
    cmi_checkpoint checkpoint;
    if (opt->share_dir != NULL) {
        if (cmi_weights_plan_open(&plan, &checkpoint, dir) == CMI_OK) {
            taken = cmi_weights_block_taken_bytes(&plan, opt);
        }
        cmi_checkpoint_close(&checkpoint);
    }
    return taken;
}

/* What those who wait for a shared block see, and what the caller asked for. */
typedef struct progress_relay {
    cmi_shared_block *shared; /* NULL: none */
    const cmi_weights_options *opt;
    uint64_t done_bytes, total_bytes; /* as told last */
} progress_relay;

static void relay_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    progress_relay *relay = arg;
    relay->done_bytes = done_bytes;
    relay->total_bytes = total_bytes;
    if (relay->shared != NULL) {
        cmi_shared_block_progress(relay->shared, done_bytes, total_bytes);
    }
    if (relay->opt->progress != NULL) {
        relay->opt->progress(relay->opt->progress_arg, done_bytes, total_bytes);
    }
}

/* Of an expert that the block lacks, its tensors' samples. */
static void want_samples(cmi_weights_hash *hash, const cmi_weights_plan *plan)
{
    const cmi_model_config *c = plan->config;
    for (uint32_t layer = 0; layer < c->num_hidden_layers + (plan->with_mtp ? 1u : 0u); layer++) {
        uint32_t n = cmi_model_config_is_moe(c, layer) ? c->n_routed_experts : 0;
        for (uint32_t e = 0; e < n; e++) {
            cmi_expert_plan expert = cmi_weights_plan_expert(plan, layer, e, NULL, plan->err);
            for (size_t i = 0; i < expert.n_copies; i++) {
                cmi_weights_hash_want_sample(hash, expert.copies[i].source);
                cmi_weights_hash_want_sample(hash, expert.copies[i].scale_source);
            }
        }
    }
}

static cmi_status copy_and_hash(cmi_weights_plan *plan, const cmi_weights_options *opt)
{
    cmi_weights_hash *hash = cmi_weights_hash_create(plan->checkpoint);
    for (size_t i = 0; i < plan->n_copies; i++) {
        cmi_weights_hash_want(hash, plan->copies[i].source);
        cmi_weights_hash_want(hash, plan->copies[i].scale_source);
    }
    if (plan->without_experts) {
        want_samples(hash, plan);
    }
    cmi_weights_hash_begin(hash);
    progress_relay relay = {.shared = plan->shared, .opt = opt};
    cmi_weights_options copy_opt = *opt;
    copy_opt.progress = relay_progress;
    copy_opt.progress_arg = &relay;
    cmi_status st = cmi_weights_copy_run(plan->copies, plan->n_copies, hash, &copy_opt, plan->err);
    while (st == CMI_OK && cmi_weights_hash_samples(hash, opt->team)) {
        relay_progress(&relay, relay.done_bytes, relay.total_bytes); /* for those who wait */
    }
    if (st == CMI_OK) {
        cmi_weights_hash_finish(hash, opt->team, plan->set_digest);
    }
    cmi_weights_hash_destroy(hash);
    return st;
}

/* Places and writes the tensors, if nobody else has done it. */
static cmi_status fill_block(cmi_weights *weights, cmi_weights_plan *plan,
                             const cmi_weights_options *opt)
{
    if (!cmi_weights_block_is_empty(plan)) {
        return CMI_OK;
    }
    cmi_status st = cmi_weights_place(plan, opt->team);
    if (st != CMI_OK) {
        return st;
    }
    if (plan->checkpoint == NULL) {
        cmi_weights_fill_random(weights, plan, opt);
        cmi_weights_digest_random(plan->set_digest, plan->random_seed, plan->digest,
                                  CMI_WEIGHTS_LAYOUT);
        return CMI_OK;
    }
    return copy_and_hash(plan, opt);
}

static cmi_status load(cmi_weights **weights_out, cmi_weights_plan *plan,
                       const cmi_weights_options *opt)
{
    cmi_status st = cmi_weights_block_open(plan, opt);
    if (st != CMI_OK) {
        return st;
    }
    plan->structs = cmi_alloc(1, plan->struct_bytes);
    plan->copies = cmi_alloc(plan->n_copies, sizeof *plan->copies);
    plan->spans = cmi_alloc(plan->n_spans, sizeof *plan->spans);
    cmi_weights *weights = cmi_weights_plan_walk(plan);
    st = fill_block(weights, plan, opt);
    if (st == CMI_OK) {
        cmi_weights_digest_model(&weights->digest, plan->config, plan->set_digest);
        st = cmi_weights_block_finish(plan, opt->team, weights);
    }
    cmi_free(plan->spans);
    cmi_free(plan->copies);
    if (st != CMI_OK) {
        cmi_weights_destroy(weights);
        return st;
    }
    *weights_out = weights;
    return CMI_OK;
}

cmi_status cmi_weights_check_dtype(const cmi_weights_options *opt, cmi_error *err)
{
    if (opt->dtype == CMI_DTYPE_F32 || opt->dtype == CMI_DTYPE_BF16 || opt->dtype == CMI_DTYPE_I8) {
        return CMI_OK;
    }
    return cmi_error_set(err, CMI_ERR_INVALID, "compute type %s is not supported",
                         cmi_dtype_name(opt->dtype));
}

cmi_status cmi_weights_random(cmi_weights **weights_out, const cmi_model_config *config,
                              uint64_t seed, const cmi_weights_options *opt, cmi_error *err)
{
    cmi_status st = cmi_weights_check_dtype(opt, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_weights_plan plan = cmi_weights_plan_make(config, opt, err);
    cmi_weights_options own = *opt;
    plan.random_seed = seed;
    own.share_dir = NULL;
    cmi_weights_plan_walk(&plan);
    return plan.status == CMI_OK ? load(weights_out, &plan, &own) : plan.status;
}

cmi_status cmi_weights_load(cmi_weights **weights_out, const cmi_model_config *config,
                            const char *dir, const cmi_weights_options *opt, cmi_error *err)
{
    cmi_status st = cmi_weights_check_dtype(opt, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_weights_plan plan = cmi_weights_plan_make(config, opt, err);
    cmi_checkpoint checkpoint;
    st = cmi_weights_plan_open(&plan, &checkpoint, dir);
    if (st == CMI_OK) {
        st = load(weights_out, &plan, opt);
    }
    cmi_checkpoint_close(&checkpoint);
    return st;
}

void cmi_weights_set_expert(cmi_weights *weights, uint32_t layer_idx, uint32_t expert,
                            const cmi_ffn *ffn)
{
    assert(weights->without_experts && expert < weights->n_experts);
    assert(layer_idx < weights->n_layers || (layer_idx == weights->n_layers && weights->mtp));
    cmi_layer_weights *layer =
        layer_idx < weights->n_layers ? &weights->layers[layer_idx] : &weights->mtp->layer;
    assert(layer->is_moe);
    cmi_ffn *at = (cmi_ffn *)(uintptr_t)&layer->experts[expert];
    at->gate_up.w = ffn == NULL ? NULL : ffn->gate_up.w;
    at->down.w = ffn == NULL ? NULL : ffn->down.w;
}

void cmi_weights_destroy(cmi_weights *weights)
{
    if (weights != NULL) {
        cmi_weights_block_close(weights->block, weights->block_bytes, weights->shared);
        cmi_free(weights);
    }
}
