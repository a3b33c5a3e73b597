/* model/weights_block.c - the memory of the tensors: a block of this process, or one that the
 * processes of this host which load the same weights share (os/shared_block.h). */
#include "model/weights_internal.h"

#include "base/buf.h"
#include "os/host_memory.h"

enum { TASK_BYTES = 64 << 20 };

/* A maker shows progress after every wave of tasks, and after every 256 MiB of memory taken. */
static const uint64_t STALL_NS = 120 * UINT64_C(1000000000);

/* ---- what the bytes depend on ---- */

/* The layout, the plan (which the config and the options make), and the files. */
static cmi_status write_key(cmi_buf *key, const cmi_weights_plan *plan)
{
    cmi_buf_init(key, CMI_SHARED_BLOCK_MAX_KEY_BYTES);
    const uint64_t plan_key[] = {CMI_WEIGHTS_LAYOUT, plan->digest, plan->block_bytes};
    bool ok = cmi_buf_append(key, plan_key, sizeof plan_key);
    for (uint32_t i = 0; i < plan->checkpoint->n_files; i++) {
        const cmi_file_id *id = &plan->checkpoint->files[i].map.id;
        ok = ok && cmi_buf_append(key, id, sizeof *id);
    }
    return ok ? CMI_OK
              : cmi_error_set(plan->err, CMI_ERR_TOO_LARGE, "%s: too many files to share weights",
                              plan->checkpoint->dir);
}

static cmi_shared_block_options share_options(const cmi_weights_plan *plan,
                                              const cmi_weights_options *opt, const cmi_buf *key)
{
    return (cmi_shared_block_options){.dir = opt->share_dir,
                                      .what = "weights",
                                      .key = key->data,
                                      .key_bytes = key->len,
                                      .n_bytes = plan->block_bytes,
                                      .stall_ns = STALL_NS,
                                      .on_wait = opt->progress,
                                      .wait_arg = opt->progress_arg};
}

uint64_t cmi_weights_block_taken_bytes(const cmi_weights_plan *plan, const cmi_weights_options *opt)
{
    cmi_buf key;
    uint64_t taken = 0;
    if (write_key(&key, plan) == CMI_OK) {
        cmi_shared_block_options share = share_options(plan, opt, &key);
        taken = cmi_shared_block_taken_bytes(&share);
    }
    cmi_buf_deinit(&key);
    return taken;
}

/* ---- opening ---- */

static cmi_status open_shared(cmi_weights_plan *plan, const cmi_weights_options *opt)
{
    cmi_buf key;
    cmi_status st = write_key(&key, plan);
    if (st == CMI_OK) {
        cmi_shared_block_options share = share_options(plan, opt, &key);
        st = cmi_shared_block_open(&plan->shared, &share, plan->err);
    }
    cmi_buf_deinit(&key);
    if (st != CMI_OK) {
        return st;
    }
    plan->block = cmi_shared_block_bytes(plan->shared);
    return CMI_OK;
}

cmi_status cmi_weights_block_open(cmi_weights_plan *plan, const cmi_weights_options *opt)
{
    if (opt->share_dir != NULL) {
        return open_shared(plan, opt);
    }
    void *block;
    cmi_status st = cmi_host_memory_map(&block, plan->block_bytes, "weights", plan->err);
    if (st == CMI_OK) {
        plan->block = block;
    }
    return st;
}

bool cmi_weights_block_is_empty(const cmi_weights_plan *plan)
{
    return plan->shared == NULL || cmi_shared_block_is_maker(plan->shared);
}

void cmi_weights_block_close(uint8_t *block, uint64_t block_bytes, cmi_shared_block *shared)
{
    if (shared != NULL) {
        cmi_shared_block_close(shared);
    } else {
        cmi_host_memory_unmap(block, block_bytes);
    }
}

/* ---- huge pages ---- */

typedef void range_fn(cmi_weights_plan *plan, uint8_t *begin, uint64_t n_bytes);

typedef struct range_run {
    cmi_weights_plan *plan;
    range_fn *fn;
} range_run;

static void range_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const range_run *run = arg;
    uint64_t begin = (uint64_t)task * TASK_BYTES;
    run->fn(run->plan, run->plan->block + begin,
            CMI_MIN(run->plan->block_bytes - begin, (uint64_t)TASK_BYTES));
}

/* Runs fn over the whole block on the team. */
static void each_range(cmi_weights_plan *plan, cmi_team *team, range_fn *fn)
{
    range_run run = {plan, fn};
    cmi_team_run(team, range_task, &run,
                 (uint32_t)CMI_DIV_UP(plan->block_bytes, (uint64_t)TASK_BYTES));
}

static void collapse_range(cmi_weights_plan *plan, uint8_t *begin, uint64_t n_bytes)
{
    cmi_host_memory_collapse(begin, n_bytes);
    if (plan->shared != NULL && cmi_weights_block_is_empty(plan)) {
        cmi_shared_block_beat(plan->shared);
    }
}

static void populate_range(cmi_weights_plan *plan, uint8_t *begin, uint64_t n_bytes)
{
    (void)plan;
    cmi_host_memory_populate(begin, n_bytes);
}

/* Decode walks through all weights in every step: in small pages it spends a seventh of its time on
 * address translation (docs/PERF.md). Returns the bytes in huge pages at the end. */
static uint64_t move_into_huge_pages(cmi_weights_plan *plan, cmi_team *team)
{
    uint64_t huge_bytes = cmi_host_memory_huge_bytes(plan->block, plan->block_bytes);
    if (huge_bytes >= plan->block_bytes - plan->block_bytes / 16) {
        return huge_bytes;
    }
    each_range(plan, team, collapse_range);
    return cmi_host_memory_huge_bytes(plan->block, plan->block_bytes);
}

cmi_status cmi_weights_block_finish(cmi_weights_plan *plan, cmi_team *team, cmi_weights *weights)
{
    bool is_empty = cmi_weights_block_is_empty(plan);
    if (!is_empty) {
        each_range(plan, team, populate_range);
    }
    weights->huge_bytes = move_into_huge_pages(plan, team);
    weights->share_at_home = cmi_weights_share_at_home(plan, team);
    return plan->shared != NULL && is_empty ? cmi_shared_block_publish(plan->shared, plan->err)
                                            : CMI_OK;
}
