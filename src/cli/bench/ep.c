#include "cli/bench/ep.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/bench/ep_rank.h"
#include "ep/group.h"
#include "fabric/fault.h"

static const uint64_t patience_ns = 60000000000u;

typedef struct bench_run {
    const cmi_bench_ep_options *opt;
    uint32_t n_ranks;
    size_t region_bytes;
    cmi_ep_group *group;
    uint8_t *memory[CMI_BENCH_EP_MAX_RANKS]; /* of the ranks' regions */
    pthread_mutex_t gate;                    /* closed until all threads are there, or one is not */
    bool has_failed;                         /* under the gate */
    _Atomic uint32_t n_done;
    cmi_bench_ep_result result;
} bench_run;

typedef struct bench_thread {
    bench_run *run;
    uint32_t rank;
    pthread_t thread;
    cmi_error err;
} bench_thread;

static cmi_status run_rank(bench_run *run, uint32_t rank, cmi_error *err)
{
    cmi_ep_peer peers[CMI_BENCH_EP_MAX_RANKS];
    cmi_bench_ep_result unused;
    cmi_bench_ep_place place = {.rank = rank,
                                .n_ranks = run->n_ranks,
                                .fabric = cmi_ep_group_fabric(run->group, rank),
                                .peers = peers,
                                .memory = run->memory};
    cmi_status st = cmi_ep_group_join(run->group, rank, run->region_bytes, patience_ns,
                                      &place.region, peers, err);
    if (st == CMI_OK) {
        run->memory[rank] = cmi_region_memory(place.fabric, place.region);
        st = cmi_bench_ep_rank_run(&place, run->opt, rank == 0 ? &run->result : &unused, err);
    }
    return st;
}

static void *thread_main(void *arg)
{
    bench_thread *t = arg;
    pthread_mutex_lock(&t->run->gate);
    const bool has_failed = t->run->has_failed;
    pthread_mutex_unlock(&t->run->gate);
    if (has_failed) {
        return NULL;
    }
    cmi_status st = run_rank(t->run, t->rank, &t->err);
    (void)st; /* err has it */
    atomic_fetch_add(&t->run->n_done, 1);
    cmi_fabric *fabric = cmi_ep_group_fabric(t->run->group, t->rank);
    while (atomic_load(&t->run->n_done) < t->run->n_ranks) { /* others may need our progress */
        cmi_fabric_sleep(fabric, cmi_fabric_after_ns(fabric, 1000000));
    }
    return NULL;
}

static cmi_status run_threads(bench_run *run, cmi_error *err)
{
    cmi_status st = CMI_OK;
    uint32_t n_threads = 0;
    bench_thread *threads = cmi_alloc(run->n_ranks, sizeof *threads);
    pthread_mutex_init(&run->gate, NULL);
    pthread_mutex_lock(&run->gate);
    for (; n_threads < run->n_ranks; n_threads++) {
        bench_thread *t = &threads[n_threads];
        t->run = run;
        t->rank = n_threads;
        int rc = pthread_create(&t->thread, NULL, thread_main, t);
        if (rc != 0) {
            st = cmi_error_set(err, CMI_ERR_IO, "no thread for a rank: %s", strerror(rc));
            run->has_failed = true;
            break;
        }
    }
    pthread_mutex_unlock(&run->gate);
    for (uint32_t i = 0; i < n_threads; i++) {
        pthread_join(threads[i].thread, NULL);
        if (st == CMI_OK && threads[i].err.status != CMI_OK) {
            *err = threads[i].err;
            st = err->status;
        }
    }
    pthread_mutex_destroy(&run->gate);
    cmi_free(threads);
    return st;
}

cmi_status cmi_bench_ep_wrap(const cmi_bench_ep_options *opt, uint32_t rank,
                             cmi_fabric **fabric_inout, cmi_error *err)
{
    if (!opt->by_put && opt->delay_us == 0) {
        return CMI_OK;
    }
    const uint64_t delay_ns = opt->delay_us * UINT64_C(1000);
    const cmi_fault_options faults = {
        .seed = rank, .n_ops = 1u << 14, .min_delay_ns = delay_ns, .max_delay_ns = delay_ns};
    cmi_fabric *inner = *fabric_inout;
    return cmi_fabric_wrap_faults(fabric_inout, inner, &faults, err);
}

static cmi_status wrap(void *arg, uint32_t rank, cmi_fabric **fabric_inout, cmi_error *err)
{
    return cmi_bench_ep_wrap(arg, rank, fabric_inout, err);
}

cmi_status cmi_bench_ep_run(cmi_bench_ep_result *result_out, uint32_t n_ranks,
                            const cmi_bench_ep_options *opt, cmi_error *err)
{
    bench_run run = {.opt = opt, .n_ranks = n_ranks};
    cmi_bench_ep_options wrapped = *opt;
    cmi_status st = cmi_bench_ep_region_bytes(&run.region_bytes, n_ranks, opt, err);
    if (st == CMI_OK) {
        st = cmi_ep_group_create(&run.group, opt->fabric, n_ranks, wrap, &wrapped, err);
    }
    if (st == CMI_OK) {
        st = run_threads(&run, err);
        *result_out = run.result;
        cmi_ep_group_destroy(run.group);
    }
    return st;
}
