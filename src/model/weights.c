#include "model/weights_internal.h"

#include <string.h>

#include "base/alloc.h"
#include "os/host_memory.h"

static cmi_weights_plan make_plan(const cmi_model_config *config, const cmi_weights_options *opt,
                                  cmi_error *err)
{
    return (cmi_weights_plan){
        .config = config,
        .dtype = opt->dtype,
        .int8_head = opt->int8_head,
        .with_mtp = opt->with_mtp && config->num_nextn_predict_layers > 0,
        .err = err,
    };
}

uint64_t cmi_weights_estimate_bytes(const cmi_model_config *config, const cmi_weights_options *opt)
{
    cmi_weights_plan plan = make_plan(config, opt, NULL);
    cmi_weights_plan_walk(&plan);
    return plan.n_bytes;
}

/* ---- huge pages ---- */

enum { COLLAPSE_TASK_BYTES = 64 << 20 };

static void collapse_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cmi_weights_plan *plan = arg;
    uint64_t begin = (uint64_t)task * COLLAPSE_TASK_BYTES;
    cmi_host_memory_collapse(plan->block + begin,
                             CMI_MIN(plan->n_bytes - begin, (uint64_t)COLLAPSE_TASK_BYTES));
}

/* Decode walks through all weights in every step: in small pages it spends a seventh of its time on
 * address translation (docs/PERF.md). Returns the bytes in huge pages at the end. */
static uint64_t move_into_huge_pages(cmi_weights_plan *plan, cmi_team *team)
{
    uint64_t huge_bytes = cmi_host_memory_huge_bytes(plan->block, plan->n_bytes);
    if (huge_bytes >= plan->n_bytes - plan->n_bytes / 16) {
        return huge_bytes;
    }
    cmi_team_run(team, collapse_task, plan,
                 (uint32_t)CMI_DIV_UP(plan->n_bytes, (uint64_t)COLLAPSE_TASK_BYTES));
    return cmi_host_memory_huge_bytes(plan->block, plan->n_bytes);
}

/* ---- loading ---- */

static cmi_status load(cmi_weights **weights_out, cmi_weights_plan *plan,
                       const cmi_weights_options *opt)
{
    cmi_weights_plan_walk(plan); /* checks everything before memory is taken */
    if (plan->status != CMI_OK) {
        return plan->status;
    }
    void *block;
    cmi_status st = cmi_host_memory_map(&block, plan->n_bytes, "weights", plan->err);
    if (st != CMI_OK) {
        return st;
    }
    plan->block = block;
    plan->copies = cmi_alloc(plan->n_copies, sizeof *plan->copies);
    cmi_weights *weights = cmi_weights_plan_walk(plan);
    cmi_weights_copy_run(plan->copies, plan->n_copies, opt);
    cmi_free(plan->copies);
    weights->huge_bytes = move_into_huge_pages(plan, opt->team);
    *weights_out = weights;
    return CMI_OK;
}

cmi_status cmi_weights_load(cmi_weights **weights_out, const cmi_model_config *config,
                            const char *dir, const cmi_weights_options *opt, cmi_error *err)
{
    if (opt->dtype != CMI_DTYPE_F32 && opt->dtype != CMI_DTYPE_BF16 && opt->dtype != CMI_DTYPE_I8) {
        return cmi_error_set(err, CMI_ERR_INVALID, "compute type %s is not supported",
                             cmi_dtype_name(opt->dtype));
    }
    cmi_checkpoint checkpoint;
    cmi_status st = cmi_checkpoint_open(&checkpoint, dir, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_weights_plan plan = make_plan(config, opt, err);
    plan.checkpoint = &checkpoint;
    plan.with_mtp = plan.with_mtp && cmi_weights_has_layer(&checkpoint, config->num_hidden_layers);
    st = cmi_weights_check_names(&checkpoint, config, err);
    if (st == CMI_OK) {
        st = load(weights_out, &plan, opt);
    }
    cmi_checkpoint_close(&checkpoint);
    return st;
}

void cmi_weights_destroy(cmi_weights *weights)
{
    if (weights != NULL) {
        cmi_host_memory_unmap(weights, weights->n_bytes);
    }
}
