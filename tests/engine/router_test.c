/* Engines in processes of their own behind a router: the answers are those of one engine, also when
 * such a process is killed in the middle; cancelling leaves nothing behind; what nobody can take
 * ends with an error. */
#include "engine/router.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "engine/instance.h"
#include "engine/rank_port.h"
#include "tests/engine/mixed_requests.h"
#include "tests/test.h"

enum { MAX_RANKS = 3, MAX_REQUESTS = 40, MAX_SEQS = 4 };

static const uint64_t SECOND = 1000000000;
static const uint8_t secret[] = "the secret of a test, many bytes";

typedef struct shared { /* with all processes */
    answer want[MAX_REQUESTS];
    _Atomic uint32_t n_moved;
} shared;

typedef struct scene {
    uint32_t n_ranks, n_requests;
    uint32_t n_killed; /* ranks, one after the other */
    uint32_t max_drafts;
    uint32_t seed;
} scene;

static shared *all;

static void set_address(char *out, size_t size, uint32_t rank, pid_t of)
{
    snprintf(out, size, "local:router-test-%d-%u", (int)of, rank);
}

static cmi_fabric *open_fabric(const char *name, const char *address)
{
    cmi_error err = {0};
    cmi_fabric *fabric;
    cmi_fabric_options opt;
    cmi_link_fabric_options(&opt, MAX_RANKS);
    opt.name = name;
    opt.secret = secret;
    opt.secret_bytes = sizeof secret;
    opt.handshake_ns = 120 * SECOND;
    assert_int_equal(cmi_fabric_create_local(&fabric, &opt, &err), CMI_OK);
    if (address != NULL) {
        assert_int_equal(cmi_fabric_listen(fabric, address, &err), CMI_OK);
    }
    return fabric;
}

static cmi_instance *open_instance(const scene *s)
{
    char dir[512];
    cmi_error err = {0};
    cmi_instance *in = NULL;
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    const cmi_instance_options opt = {.model_dir = dir,
                                      .dtype = CMI_DTYPE_BF16,
                                      .isa = cmi_isa_best(cmi_cpu_flags()),
                                      .n_threads = 1,
                                      .numa = CMI_NUMA_OFF,
                                      .max_num_batched_tokens = 64,
                                      .max_model_len = MAX_PROMPT + MAX_OUTPUT + 2,
                                      .max_num_seqs = MAX_SEQS,
                                      .with_mtp = s->max_drafts > 0,
                                      .max_drafts = s->max_drafts};
    assert_int_equal(cmi_instance_open(&in, &opt, &err), CMI_OK);
    return in;
}

/* ---- the processes ---- */

static void answer_alone(const scene *s, uint32_t unused)
{
    (void)unused;
    cmi_error err = {0};
    cmi_engine *engine;
    cmi_instance *in = open_instance(s);
    const cmi_engine_options opt = {.max_drafts = s->max_drafts};
    assert_int_equal(cmi_engine_start(&engine, in, &opt, &err), CMI_OK);
    submit_all(engine, s->n_requests, in->config.vocab_size, false);
    collect(engine, all->want, s->n_requests);
    cmi_engine_stop(engine);
    cmi_instance_close(in);
}

static void be_rank(const scene *s, uint32_t rank)
{
    char address[64];
    cmi_error err = {0};
    cmi_engine *engine;
    cmi_rank_port *port;
    set_address(address, sizeof address, rank, getppid());
    cmi_instance *in = open_instance(s);
    assert_int_equal(cmi_rank_port_create(&port, open_fabric("rank", address), &err), CMI_OK);
    const cmi_engine_options opt = {.max_drafts = s->max_drafts,
                                    .max_queued_requests = 3, /* so that it refuses, too */
                                    .n_events = 16,
                                    .notify = cmi_rank_port_notify,
                                    .notify_arg = port};
    assert_int_equal(cmi_engine_start(&engine, in, &opt, &err), CMI_OK);
    assert_int_equal(cmi_rank_port_start(port, engine, MAX_SEQS, &err), CMI_OK);
    for (;;) {
        pause();
    }
}

static pid_t start(const scene *s, void (*play)(const scene *s, uint32_t rank), uint32_t rank)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        play(s, rank);
        _exit(0);
    }
    return pid;
}

static cmi_engine *open_router(const scene *s, uint64_t patience_ns, uint32_t max_queued)
{
    char text[MAX_RANKS][64];
    const char *addresses[MAX_RANKS];
    cmi_error err = {0};
    cmi_engine *router;
    for (uint32_t i = 0; i < s->n_ranks; i++) {
        set_address(text[i], sizeof text[i], i, getppid());
        addresses[i] = text[i];
    }
    const cmi_router_options opt = {.fabric = open_fabric("router", NULL),
                                    .addresses = addresses,
                                    .n_ranks = s->n_ranks,
                                    .max_running = MAX_SEQS,
                                    .max_queued_requests = max_queued,
                                    .n_events = 32,
                                    .patience_ns = patience_ns};
    assert_int_equal(cmi_router_start(&router, &opt, &err), CMI_OK);
    return router;
}

static pid_t *rank_pids; /* of the client, inherited */

static void be_client(const scene *s, uint32_t unused)
{
    (void)unused;
    static answer got[MAX_REQUESTS];
    cmi_router_stats stats;
    cmi_engine_info info;
    cmi_engine *router = open_router(s, 120 * SECOND, 0);
    assert_int_equal(cmi_router_wait(router, s->n_ranks, 120 * SECOND), s->n_ranks);
    cmi_engine_info_get(router, &info);
    submit_all(router, s->n_requests, info.vocab_size, s->seed % 2 == 1);
    uint32_t n_left = s->n_requests;
    for (uint32_t i = 0; i < s->n_killed; i++) {
        const uint32_t n = 1 + draw(s->seed, 50 + i, s->n_requests / 4);
        collect(router, got, n);
        n_left -= n;
        kill(rank_pids[(s->seed + i) % s->n_ranks], SIGKILL);
    }
    collect(router, got, n_left);
    for (uint32_t i = 0; i < s->n_requests; i++) {
        assert_memory_equal(&got[i], &all->want[i], sizeof got[i]);
    }
    do { /* one that had nothing to do any more is missed a little later */
        cmi_router_stats_get(router, &stats);
    } while (stats.n_lost < s->n_killed);
    assert_int_equal(stats.n_lost, s->n_killed);
    assert_int_equal(stats.n_open, s->n_ranks - s->n_killed);
    assert_int_equal(stats.n_unplaced, 0);
    all->n_moved += (uint32_t)stats.n_moved;
    cmi_engine_stop(router);
}

static void assert_ends(pid_t pid, int killed_by)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WIFSIGNALED(status) ? WTERMSIG(status) : 0, killed_by);
    assert_true(killed_by != 0 || WEXITSTATUS(status) == 0);
}

/* ---- scenes ---- */

static void play(const scene *given, void (*client)(const scene *s, uint32_t unused))
{
    scene s = *given;
    pid_t pids[MAX_RANKS];
    if (getenv("CMI_FEW") != NULL) {
        s.n_requests = CMI_MIN(s.n_requests, 8u);
    }
    memset(all->want, 0, sizeof all->want);
    assert_ends(start(&s, answer_alone, 0), 0);
    for (uint32_t i = 0; i < s.n_ranks; i++) {
        pids[i] = start(&s, be_rank, i);
    }
    rank_pids = pids;
    /* its parent is that of the ranks, after which they are named */
    assert_ends(start(&s, client, 0), 0);
    for (uint32_t i = 0; i < s.n_ranks; i++) {
        kill(pids[i], SIGKILL);
        assert_ends(pids[i], SIGKILL);
    }
}

static int set_up(void **state)
{
    (void)state;
    all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return all != MAP_FAILED ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(all, sizeof *all);
}

static void ranks_answer_as_one_engine(void **state)
{
    (void)state;
    if (getenv("CMI_FEW") == NULL) {
        play(&(scene){.n_ranks = 1, .n_requests = 20}, be_client);
    }
    play(&(scene){.n_ranks = 3, .n_requests = MAX_REQUESTS, .max_drafts = 1, .seed = 1}, be_client);
}

static void nobody_misses_a_rank(void **state)
{
    (void)state;
    all->n_moved = 0;
    const uint32_t n_seeds = getenv("CMI_FEW") != NULL ? 2 : 8;
    for (uint32_t seed = 0; seed < n_seeds; seed++) {
        printf("seed %u\n", seed);
        play(&(scene){.n_ranks = 2 + seed % 2,
                      .n_requests = MAX_REQUESTS,
                      .n_killed = 1 + seed % 2,
                      .max_drafts = seed % 3,
                      .seed = seed},
             be_client);
    }
    assert_true(all->n_moved > 0);
}

/* Cancelled at every state: where it waits, on its way, while it runs. */
static void cancel_many(const scene *s, uint32_t unused)
{
    (void)unused;
    static answer got[MAX_REQUESTS];
    cmi_engine_info info;
    cmi_engine_stats stats;
    cmi_engine *router = open_router(s, 120 * SECOND, 0);
    assert_int_equal(cmi_router_wait(router, s->n_ranks, 120 * SECOND), s->n_ranks);
    cmi_engine_info_get(router, &info);
    for (uint32_t i = 0; i < s->n_requests; i++) {
        cmi_error err = {0};
        cmi_request *request = make_request(i, info.vocab_size);
        assert_int_equal(cmi_engine_submit(router, request, &err), CMI_OK);
        cmi_free(request);
        cmi_engine_cancel(router, draw(s->seed, i, i + 1));
        if (i % 8 == 7) {
            collect(router, got, 3);
            cmi_engine_cancel(router, i);
            cmi_engine_flush_prefix_cache(router);
        }
    }
    collect(router, got, s->n_requests - s->n_requests / 8 * 3);
    for (uint32_t i = 0; i < s->n_requests; i++) {
        assert_int_equal(got[i].n_ends, 1);
        const uint32_t n = got[i].n_tokens;
        assert_memory_equal(got[i].tokens, all->want[i].tokens, n * sizeof *got[i].tokens);
        assert_true(got[i].finish_reason == CMI_FINISH_ABORT || n == all->want[i].n_tokens);
    }
    do { /* the last word of a rank comes a little later */
        cmi_engine_stats_get(router, &stats);
    } while (stats.n_running > 0 || stats.n_waiting > 0);
    cmi_engine_stop(router);
}

static void cancelling_leaves_nothing(void **state)
{
    (void)state;
    play(&(scene){.n_ranks = 2, .n_requests = MAX_REQUESTS, .seed = 5}, cancel_many);
}

static void be_refused(const scene *s, uint32_t unused)
{
    (void)unused;
    cmi_engine_info info;
    cmi_admission_verdict verdict;
    cmi_error err = {0};
    cmi_engine *router = open_router(s, 1000000, 2);
    assert_int_equal(cmi_router_wait(router, 1, 120 * SECOND), 1);
    cmi_engine_info_get(router, &info);
    kill(rank_pids[0], SIGKILL);
    cmi_router_stats stats;
    do {
        cmi_router_stats_get(router, &stats);
    } while (stats.n_open > 0);
    uint32_t n_taken = 0;
    for (uint32_t i = 0; i < 12; i++) { /* those that wait end soon, so some find room */
        cmi_request *request = make_request(i, info.vocab_size);
        cmi_status st = cmi_engine_offer(router, request, &verdict, &err);
        assert_true(st == CMI_OK || st == CMI_ERR_NO_CAPACITY);
        assert_true(st == CMI_OK || verdict.reason == CMI_ADMISSION_QUEUED_REQUESTS);
        n_taken += st == CMI_OK ? 1 : 0;
        cmi_free(request);
    }
    assert_true(n_taken >= 2);
    for (uint32_t i = 0; i < n_taken;) {
        cmi_event event;
        if (cmi_engine_poll(router, &event, 1) == 1) {
            assert_int_equal(event.type, CMI_EVENT_FINISHED);
            assert_int_equal(event.finish_reason, CMI_FINISH_ERROR);
            assert_int_equal(event.status, CMI_ERR_PEER);
            i++;
        }
    }
    cmi_engine_stop(router);
}

static void without_ranks_requests_end_with_an_error(void **state)
{
    (void)state;
    play(&(scene){.n_ranks = 1, .n_requests = 1}, be_refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_answer_as_one_engine),
        cmocka_unit_test(nobody_misses_a_rank),
        cmocka_unit_test(cancelling_leaves_nothing),
        cmocka_unit_test(without_ranks_requests_end_with_an_error),
    };
    return cmocka_run_group_tests_name("router", tests, set_up, tear_down);
}
