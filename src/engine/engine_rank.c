/* engine/engine_rank.c - an engine whose instance is one rank of several: its passes are common to
 * all of them (engine/instance_rank.h).
 *
 * A step is one pass of the main model, then as many of the MTP layer as any rank has asked for in
 * it. Who has work calls the others; who has none follows. When a rank is lost, its pass is run
 * again; passes of the MTP layer are not: without their KV a sequence goes on without drafts. */
#include "base/alloc.h"
#include "base/log.h"
#include "engine/engine_internal.h"
#include "engine/instance_rank.h"
#include "os/clock.h"

static const uint64_t SECOND = 1000000000;

/* Nothing can be computed any more. */
static void give_up(cmi_engine *engine, const cmi_error *err)
{
    cmi_log(CMI_LOG_ERROR, "%s", err->text);
    pthread_mutex_lock(&engine->lock);
    engine->is_lost = true;
    pthread_mutex_unlock(&engine->lock);
    if (engine->lost != NULL) {
        engine->lost(engine->lost_arg);
    }
}

static cmi_status join(cmi_engine *engine)
{
    cmi_error err = {0};
    const bool is_step = cmi_alloc_forbid(false); /* experts may have to be read */
    cmi_status st = cmi_instance_join(engine->instance, engine->join_ns, &err);
    if (st != CMI_OK) {
        give_up(engine, &err);
    }
    (void)cmi_alloc_forbid(is_step);
    return st;
}

cmi_status cmi_engine_rank_begin(cmi_engine *engine, cmi_error *err)
{
    return engine->instance->rank != NULL
               ? cmi_instance_join(engine->instance, engine->join_ns, err)
               : CMI_OK;
}

bool cmi_engine_run_main(cmi_engine *engine, cmi_batch *batch)
{
    cmi_instance *in = engine->instance;
    if (in->rank == NULL) {
        return cmi_forward_run(in->forward, batch) == CMI_OK;
    }
    batch->says = engine->max_drafts;
    for (;;) {
        cmi_status st = cmi_instance_call(in, CMI_PASS_MAIN);
        st = st == CMI_OK ? cmi_instance_pass(in, batch) : st;
        if (st == CMI_OK) {
            engine->n_mtp_agreed = cmi_forward_heard(in->forward);
            return true;
        }
        if (join(engine) != CMI_OK) {
            return false;
        }
    }
}

void cmi_engine_rank_count(cmi_engine *engine)
{
    cmi_instance_rank_stats stats;
    if (engine->instance->rank == NULL) {
        return;
    }
    cmi_instance_rank_get_stats(engine->instance, &stats);
    engine->counts.rank = (cmi_engine_rank){.is_up = 1,
                                            .n_views = (uint32_t)stats.n_views,
                                            .n_passes = stats.n_all_passes,
                                            .passes_ns = stats.passes_ns,
                                            .waited_ns = stats.work.waited_ns,
                                            .n_expert_rows = stats.work.n_pairs,
                                            .n_adopted = stats.n_adopted,
                                            .n_windows = stats.balance.n_windows,
                                            .n_plans = stats.balance.n_plans,
                                            .n_moves = stats.balance.n_moves,
                                            .imbalance = stats.balance.imbalance,
                                            .planned = stats.balance.planned};
}

void cmi_engine_rank_wait(cmi_engine *engine, uint64_t until_ns)
{
    bool followed;
    const uint64_t now_ns = cmi_clock_monotonic_ns();
    (void)cmi_alloc_forbid(true);
    cmi_status st = cmi_instance_follow(engine->instance, &followed);
    (void)cmi_alloc_forbid(false);
    if (st != CMI_OK) {
        (void)join(engine);
    } else if (!followed && now_ns < until_ns) {
        cmi_instance_rank_sleep(engine->instance, CMI_MIN(until_ns - now_ns, SECOND));
    }
}

void cmi_engine_wake(cmi_engine *engine)
{
    pthread_cond_signal(&engine->work);
    if (engine->instance->rank != NULL) {
        cmi_instance_rank_wake(engine->instance);
    }
}
