#include "model/expert_slabs.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/float_env.h"
#include "model/weights_internal.h"

struct cmi_expert_source {
    cmi_model_config config;
    cmi_checkpoint checkpoint; /* zeroed: random weights */
    cmi_weights_plan plan;     /* without experts, of the two above */
    uint64_t slab_bytes;
};

uint64_t cmi_expert_slab_bytes(const cmi_model_config *config, const cmi_weights_options *opt)
{
    cmi_weights_plan plan = cmi_weights_plan_make(config, opt, NULL);
    return cmi_weights_plan_expert(&plan, 0, 0, NULL, NULL).slab_bytes;
}

/* ---- opening ---- */

static cmi_expert_source *make(const cmi_model_config *config, const cmi_weights_options *opt,
                               cmi_error *err)
{
    cmi_expert_source *s = cmi_alloc(1, sizeof *s);
    s->config = *config;
    s->plan = cmi_weights_plan_make(&s->config, opt, err);
    s->plan.without_experts = true;
    s->plan.expert_places =
        cmi_alloc((size_t)config->num_hidden_layers + 1, sizeof *s->plan.expert_places);
    s->slab_bytes = cmi_expert_slab_bytes(config, opt);
    return s;
}

static cmi_status finish(cmi_expert_source **source_out, cmi_expert_source *s, cmi_status st)
{
    s->plan.err = NULL; /* the caller's, and only while opening */
    if (st != CMI_OK) {
        cmi_expert_source_close(s);
        return st;
    }
    *source_out = s;
    return CMI_OK;
}

cmi_status cmi_expert_source_open(cmi_expert_source **source_out, const cmi_model_config *config,
                                  const char *dir, const cmi_weights_options *opt, cmi_error *err)
{
    cmi_status st = cmi_weights_check_dtype(opt, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_expert_source *s = make(config, opt, err);
    return finish(source_out, s, cmi_weights_plan_open(&s->plan, &s->checkpoint, dir));
}

cmi_status cmi_expert_source_random(cmi_expert_source **source_out, const cmi_model_config *config,
                                    uint64_t seed, const cmi_weights_options *opt, cmi_error *err)
{
    cmi_status st = cmi_weights_check_dtype(opt, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_expert_source *s = make(config, opt, err);
    s->plan.random_seed = seed;
    cmi_weights_plan_walk(&s->plan);
    return finish(source_out, s, s->plan.status);
}

void cmi_expert_source_close(cmi_expert_source *source)
{
    if (source != NULL) {
        cmi_checkpoint_close(&source->checkpoint);
        cmi_free(source->plan.expert_places);
        cmi_free(source);
    }
}

bool cmi_expert_source_has_layer(const cmi_expert_source *source, uint32_t layer_idx)
{
    return layer_idx <= source->config.num_hidden_layers &&
           source->plan.expert_places[layer_idx] > 0;
}

/* ---- reading ---- */

static cmi_expert_plan plan_target(const cmi_expert_source *s, const cmi_expert_target *t)
{
    assert(cmi_expert_source_has_layer(s, t->id.layer_idx));
    assert(t->id.expert < s->config.n_routed_experts);
    assert((uintptr_t)t->slab % CMI_CACHE_LINE == 0);
    cmi_expert_plan plan =
        cmi_weights_plan_expert(&s->plan, t->id.layer_idx, t->id.expert, t->slab, NULL);
    assert(plan.status == CMI_OK && plan.slab_bytes == s->slab_bytes); /* opening saw to it */
    return plan;
}

typedef struct clear_run {
    const cmi_expert_target *targets;
    size_t slab_bytes;
} clear_run;

/* What lies between and behind the values has to be zero, and slabs are used again. */
static void clear_slab(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const clear_run *run = arg;
    memset(run->targets[task].slab, 0, run->slab_bytes);
}

static void make_random(const cmi_expert_source *s, const cmi_expert_target *targets, size_t n,
                        const cmi_weights_options *opt)
{
    cmi_random_slab *slabs = cmi_alloc(n, sizeof *slabs);
    for (size_t i = 0; i < n; i++) {
        const cmi_expert_id id = targets[i].id;
        slabs[i].ffn = plan_target(s, &targets[i]).ffn;
        slabs[i].place = s->plan.expert_places[id.layer_idx] + id.expert * s->slab_bytes;
        slabs[i].slab_bytes = s->slab_bytes;
    }
    cmi_weights_fill_random_slabs(slabs, n, s->plan.random_seed, opt);
    cmi_free(slabs);
}

static cmi_status copy(const cmi_expert_source *s, const cmi_expert_target *targets, size_t n,
                       const cmi_weights_options *opt, cmi_error *err)
{
    size_t n_copies = 0;
    cmi_weights_copy *copies = cmi_alloc(n * CMI_EXPERT_COPIES, sizeof *copies);
    for (size_t i = 0; i < n; i++) {
        cmi_expert_plan plan = plan_target(s, &targets[i]);
        memcpy(copies + n_copies, plan.copies, plan.n_copies * sizeof *copies);
        n_copies += plan.n_copies;
    }
    cmi_status st = cmi_weights_copy_run(copies, n_copies, NULL, opt, err);
    cmi_free(copies);
    return st;
}

cmi_status cmi_expert_read_many(const cmi_expert_source *source, const cmi_expert_target *targets,
                                size_t n_targets, const cmi_weights_options *opt, cmi_error *err)
{
    clear_run clear = {targets, source->slab_bytes};
    if (n_targets == 0) {
        return CMI_OK;
    }
    cmi_float_env_set();
    cmi_weights_run_tasks(opt->team, clear_slab, &clear, (uint32_t)n_targets);
    if (source->plan.checkpoint == NULL) {
        make_random(source, targets, n_targets, opt);
        return CMI_OK;
    }
    return copy(source, targets, n_targets, opt, err);
}

cmi_status cmi_expert_read(const cmi_expert_source *source, const cmi_expert_target *target,
                           cmi_error *err)
{
    const cmi_weights_options alone = {.dtype = source->plan.dtype};
    return cmi_expert_read_many(source, target, 1, &alone, err);
}

cmi_ffn cmi_expert_view(const cmi_expert_source *source, const void *slab)
{
    const cmi_weights_plan sizes = {.config = &source->config, .dtype = source->plan.dtype};
    return cmi_weights_plan_expert(&sizes, 0, 0, (void *)(uintptr_t)slab, NULL).ffn;
}
