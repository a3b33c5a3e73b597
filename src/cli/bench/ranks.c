#include "cli/bench/ranks.h"

#include <string.h>

#include "base/alloc.h"

typedef struct rank_thread {
    cmi_bench_ranks *ranks;
    pthread_mutex_t *gate; /* closed until all threads are there */
    cmi_bench_rank_fn *fn;
    void *arg;
    uint32_t rank;
    pthread_t thread;
    cmi_error err;
} rank_thread;

static void *rank_main(void *arg)
{
    rank_thread *t = arg;
    pthread_mutex_lock(t->gate);
    pthread_mutex_unlock(t->gate);
    if (!atomic_load(&t->ranks->has_failed)) {
        t->fn(t->arg, t->rank, &t->err);
    }
    return NULL;
}

cmi_status cmi_bench_ranks_run(cmi_bench_ranks *ranks, uint32_t n, cmi_bench_rank_fn *fn, void *arg,
                               cmi_error *err)
{
    cmi_status st = CMI_OK;
    uint32_t n_threads = 0;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    rank_thread *threads = cmi_alloc(n, sizeof *threads);
    atomic_store(&ranks->has_failed, false);
    pthread_barrier_init(&ranks->barrier, NULL, n);
    pthread_mutex_lock(&gate);
    for (; st == CMI_OK && n_threads < n; n_threads++) {
        rank_thread *t = &threads[n_threads];
        *t = (rank_thread){.ranks = ranks, .gate = &gate, .fn = fn, .arg = arg, .rank = n_threads};
        int rc = pthread_create(&t->thread, NULL, rank_main, t);
        if (rc != 0) {
            st = cmi_error_set(err, CMI_ERR_IO, "no thread for a rank: %s", strerror(rc));
            atomic_store(&ranks->has_failed, true);
            break;
        }
    }
    pthread_mutex_unlock(&gate);
    for (uint32_t i = 0; i < n_threads; i++) {
        pthread_join(threads[i].thread, NULL);
        if (st == CMI_OK && threads[i].err.status != CMI_OK) {
            *err = threads[i].err;
            st = err->status;
        }
    }
    pthread_barrier_destroy(&ranks->barrier);
    cmi_free(threads);
    return st;
}
