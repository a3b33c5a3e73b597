/* Engines that are ranks of one instance, each a process with requests of its own: the answers are
 * those of one engine with all experts, also when a rank is killed in the middle. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "engine/engine.h"
#include "engine/instance_rank.h"
#include "tests/engine/mixed_requests.h"
#include "tests/test.h"

enum { MAX_RANKS = 4, MAX_REQUESTS = 24 };

typedef struct shared { /* with all processes */
    answer want[MAX_REQUESTS];
    answer got[MAX_RANKS][MAX_REQUESTS];
    pthread_barrier_t
        done; /* of those that live: the engines follow each other's passes until then */
} shared;

typedef struct scene {
    uint32_t n_ranks, n_requests; /* each rank is asked all of them */
    uint32_t killed;              /* the rank that is; MAX_RANKS: none */
    uint32_t killed_after;        /* tokens */
    uint32_t max_drafts;
    uint32_t n_redundant;
    uint32_t n_microbatches;
    uint32_t balance_window;
    bool is_int8;
} scene;

static shared *all;

static cmi_instance *open_instance(const scene *s, const cmi_rank_options *rank)
{
    char dir[512];
    cmi_error err = {0};
    cmi_instance *in = NULL;
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    const cmi_instance_options opt = {.model_dir = dir,
                                      .dtype = CMI_DTYPE_BF16,
                                      .quantization = s->is_int8 ? CMI_QUANTIZATION_W8A8_INT8
                                                                 : CMI_QUANTIZATION_NONE,
                                      .isa = cmi_isa_best(cmi_cpu_flags()),
                                      .n_threads = 1,
                                      .numa = CMI_NUMA_OFF,
                                      .max_num_batched_tokens = 64,
                                      .max_model_len = MAX_PROMPT + MAX_OUTPUT + 2,
                                      .max_num_seqs = 5,
                                      .with_mtp = s->max_drafts > 0,
                                      .max_drafts = s->max_drafts,
                                      .rank = rank};
    if (cmi_instance_open(&in, &opt, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return in;
}

static void answer_alone(const scene *s)
{
    cmi_error err = {0};
    cmi_engine *engine;
    cmi_instance *in = open_instance(s, NULL);
    const cmi_engine_options opt = {.max_drafts = s->max_drafts};
    assert_int_equal(cmi_engine_start(&engine, in, &opt, &err), CMI_OK);
    submit_all(engine, s->n_requests, in->config.vocab_size, false);
    collect(engine, all->want, s->n_requests);
    cmi_engine_stop(engine);
    cmi_instance_close(in);
}

static void open_place(const scene *s, uint32_t place, cmi_fabric **fabric,
                       cmi_membership **members)
{
    cmi_error err = {0};
    char name[16];
    cmi_fabric_options opt;
    cmi_member list[MAX_RANKS] = {0};
    for (uint32_t i = 0; i < s->n_ranks; i++) {
        snprintf(list[i].address, sizeof list[i].address, "local:ranks-test-%d-%u", (int)getppid(),
                 i);
    }
    snprintf(name, sizeof name, "rank %u", place);
    cmi_fabric_options_default(&opt);
    opt.name = name;
    opt.secret = (const uint8_t *)"a secret of many bytes";
    opt.secret_bytes = 20;
    opt.n_endpoints = 2 * s->n_ranks + 8;
    opt.message_bytes = CMI_EP_RANK_MESSAGE_BYTES;
    opt.ring_bytes = 1 << 16;
    opt.handshake_ns = 120000000000u;
    assert_int_equal(cmi_fabric_create_local(fabric, &opt, &err), CMI_OK);
    assert_int_equal(cmi_fabric_listen(*fabric, list[place].address, &err), CMI_OK);
    assert_int_equal(cmi_membership_create_static(members, list, s->n_ranks, place, &err), CMI_OK);
}

/* Takes events one by one, and dies after some tokens. */
static void collect_and_die(cmi_engine *engine, const scene *s)
{
    static answer answers[MAX_REQUESTS];
    for (uint32_t n_ended = 0;; n_ended++) {
        collect(engine, answers, 1);
        uint32_t n_tokens = 0;
        for (uint32_t i = 0; i < s->n_requests; i++) {
            n_tokens += answers[i].n_tokens;
        }
        if (n_tokens >= s->killed_after || n_ended + 2 >= s->n_requests) {
            kill(getpid(), SIGKILL);
        }
    }
}

static void be_rank(const scene *s, uint32_t place)
{
    cmi_error err = {0};
    cmi_fabric *fabric;
    cmi_membership *members;
    cmi_engine *engine;
    open_place(s, place, &fabric, &members);
    const cmi_rank_options rank = {.name = "test",
                                   .fabric = fabric,
                                   .membership = members,
                                   .n_redundant = s->n_redundant,
                                   .n_microbatches = s->n_microbatches,
                                   .balance_window = s->balance_window};
    cmi_instance *in = open_instance(s, &rank);
    const cmi_engine_options opt = {.max_drafts = s->max_drafts};
    if (cmi_engine_start(&engine, in, &opt, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    submit_all(engine, s->n_requests, in->config.vocab_size, place % 2 == 1);
    if (place == s->killed) {
        collect_and_die(engine, s);
    }
    collect(engine, all->got[place], s->n_requests);
    pthread_barrier_wait(&all->done);
    cmi_engine_stop(engine);
    cmi_instance_close(in);
    cmi_fabric_destroy(fabric);
    cmi_membership_destroy(members);
}

static pid_t start(const scene *s, uint32_t place)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (place == MAX_RANKS) {
            answer_alone(s);
        } else {
            be_rank(s, place);
        }
        _exit(0);
    }
    return pid;
}

static void assert_ends(pid_t pid, int killed_by)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WIFSIGNALED(status) ? WTERMSIG(status) : 0, killed_by);
    assert_true(killed_by != 0 || WEXITSTATUS(status) == 0);
}

static void play(const scene *given)
{
    scene s = *given;
    pid_t pids[MAX_RANKS];
    if (getenv("CMI_FEW") != NULL) {
        s.n_requests = CMI_MIN(s.n_requests, 4u);
    }
    all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(all != MAP_FAILED);
    pthread_barrierattr_t between_processes;
    pthread_barrierattr_init(&between_processes);
    pthread_barrierattr_setpshared(&between_processes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&all->done, &between_processes,
                         s.n_ranks - (s.killed < MAX_RANKS ? 1 : 0));
    assert_ends(start(&s, MAX_RANKS), 0);
    for (uint32_t i = 0; i < s.n_ranks; i++) {
        pids[i] = start(&s, i);
    }
    for (uint32_t i = 0; i < s.n_ranks; i++) {
        assert_ends(pids[i], i == s.killed ? SIGKILL : 0);
    }
    for (uint32_t i = 0; i < s.n_ranks; i++) {
        for (uint32_t k = 0; i != s.killed && k < s.n_requests; k++) {
            assert_memory_equal(&all->got[i][k], &all->want[k], sizeof all->want[k]);
        }
    }
    munmap(all, sizeof *all);
}

static void ranks_answer_as_one(void **state)
{
    (void)state;
    play(&(scene){.n_ranks = 2,
                  .n_requests = MAX_REQUESTS,
                  .killed = MAX_RANKS,
                  .balance_window = 5,
                  .is_int8 = true});
    if (getenv("CMI_FEW") == NULL) {
        play(&(scene){.n_ranks = 3, .n_requests = 12, .killed = MAX_RANKS, .n_redundant = 5});
    }
}

static void ranks_draft_together(void **state)
{
    (void)state;
    play(&(scene){
        .n_ranks = 2, .n_requests = 12, .killed = MAX_RANKS, .max_drafts = 2, .n_microbatches = 2});
}

static void the_others_go_on(void **state)
{
    (void)state;
    play(
        &(scene){.n_ranks = 2, .n_requests = 16, .killed = 0, .killed_after = 40, .is_int8 = true});
    if (getenv("CMI_FEW") == NULL) {
        play(&(scene){
            .n_ranks = 4, .n_requests = 12, .killed = 3, .killed_after = 70, .max_drafts = 1});
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_answer_as_one),
        cmocka_unit_test(ranks_draft_together),
        cmocka_unit_test(the_others_go_on),
    };
    return cmocka_run_group_tests_name("ranks", tests, NULL, NULL);
}
