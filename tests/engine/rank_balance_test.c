/* Experts that move between ranks, each a process, whose rows want a few of them much more than the
 * others: moving makes their loads even, and no pass before, while or after has other bits than
 * that of one process with all experts; also when a rank dies while they move, and comes back. */
#include "tests/test.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "engine/instance_rank.h"

enum {
    MAX_RANKS = 3,
    N_ROWS = 6,  /* of each rank in a pass */
    N_KINDS = 4, /* of passes, in turn */
    MAX_HIDDEN = 512,
    WINDOW = 6,
    N_CALM = 8, /* passes behind the last move */
};

static const uint64_t SECOND = 1000000000;

typedef struct scene {
    uint32_t n_ranks, n_redundant, n_microbatches;
    uint32_t victim; /* dies while experts move; MAX_RANKS: nobody does */
} scene;

typedef struct shared { /* with all processes */
    float want[MAX_RANKS][N_KINDS][N_ROWS][MAX_HIDDEN];
    _Atomic uint32_t n_done;
    _Atomic uint64_t n_moves;
    /* What a rank's experts computed, and in how many passes. */
    _Atomic uint64_t before[MAX_RANKS], n_before[MAX_RANKS], after[MAX_RANKS], n_after[MAX_RANKS];
} shared;

static shared *all;

#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- passes ---- */

typedef struct rows {
    uint32_t token_ids[N_ROWS], page_ids[N_ROWS];
    uint32_t expert_ids[N_ROWS * 16];
    cmi_batch_span spans[N_ROWS];
    cmi_batch batch;
} rows;

/* All rows want the first experts, which one rank has at first, and one of the others. */
static void make_rows(rows *r, const cmi_model_config *c, uint32_t place, uint32_t kind)
{
    const uint32_t k = c->num_experts_per_tok, n_hot = k - 1;
    for (uint32_t i = 0; i < N_ROWS; i++) {
        uint32_t words[4];
        cmi_philox4x32(3, place * N_KINDS + kind, i, words);
        r->token_ids[i] = words[0] % c->vocab_size;
        r->page_ids[i] = i;
        r->spans[i] = (cmi_batch_span){.page_ids = &r->page_ids[i], .row_idx = i, .n_rows = 1};
        for (uint32_t e = 0; e < n_hot; e++) {
            r->expert_ids[i * k + e] = e;
        }
        r->expert_ids[i * k + n_hot] = n_hot + words[1] % (c->n_routed_experts - n_hot);
    }
    r->batch = (cmi_batch){.token_ids = r->token_ids,
                           .spans = r->spans,
                           .n_rows = N_ROWS,
                           .n_spans = N_ROWS,
                           .expert_ids = r->expert_ids};
}

static cmi_instance *open_instance(const cmi_rank_options *rank)
{
    char dir[512];
    cmi_error err = {0};
    cmi_instance *in = NULL;
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    const cmi_instance_options opt = {.model_dir = dir,
                                      .dtype = CMI_DTYPE_BF16,
                                      .quantization = CMI_QUANTIZATION_W8A8_INT8,
                                      .isa = cmi_isa_best(cmi_cpu_flags()),
                                      .n_threads = 1,
                                      .numa = CMI_NUMA_OFF,
                                      .max_num_batched_tokens = 64,
                                      .max_model_len = CMI_KV_PAGE_TOKENS,
                                      .max_num_seqs = N_ROWS,
                                      .rank = rank};
    if (cmi_instance_open(&in, &opt, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    NEED(in->config.hidden_size <= MAX_HIDDEN);
    return in;
}

static void run_alone(const scene *s)
{
    static rows r;
    cmi_instance *in = open_instance(NULL);
    const size_t row_bytes = in->config.hidden_size * sizeof(float);
    for (uint32_t place = 0; place < s->n_ranks; place++) {
        for (uint32_t kind = 0; kind < N_KINDS; kind++) {
            make_rows(&r, &in->config, place, kind);
            NEED(cmi_instance_run(in, &r.batch, NULL) == CMI_OK);
            for (uint32_t i = 0; i < N_ROWS; i++) {
                memcpy(all->want[place][kind][i],
                       cmi_forward_hidden(in->forward) + i * in->config.hidden_size, row_bytes);
            }
        }
    }
    cmi_instance_close(in);
}

static void join(cmi_instance *in)
{
    cmi_error err = {0};
    if (cmi_instance_join(in, 300 * SECOND, &err) != CMI_OK) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
}

/* As an engine runs it: nothing is allocated but where ranks find each other. */
static void run_pass(cmi_instance *in, const cmi_batch *batch)
{
    cmi_status st;
    do {
        (void)cmi_alloc_forbid(true);
        st = cmi_instance_call(in, CMI_PASS_MAIN);
        st = st == CMI_OK ? cmi_instance_pass(in, batch) : st;
        (void)cmi_alloc_forbid(false);
        if (st != CMI_OK) {
            join(in);
        }
    } while (st != CMI_OK);
}

static void check_pass(const cmi_instance *in, uint32_t place, uint32_t kind)
{
    const uint32_t n = in->config.hidden_size;
    for (uint32_t i = 0; i < N_ROWS; i++) {
        NEED(memcmp(cmi_forward_hidden(in->forward) + i * n, all->want[place][kind][i],
                    n * sizeof(float)) == 0);
    }
}

/* ---- a rank ---- */

static void open_place(const scene *s, uint32_t place, cmi_fabric **fabric,
                       cmi_membership **members)
{
    cmi_error err = {0};
    char name[16];
    cmi_fabric_options opt;
    cmi_member list[MAX_RANKS] = {0};
    for (uint32_t i = 0; i < s->n_ranks; i++) {
        snprintf(list[i].address, sizeof list[i].address, "local:balance-test-%d-%u",
                 (int)getppid(), i);
    }
    snprintf(name, sizeof name, "rank %u", place);
    cmi_fabric_options_default(&opt);
    opt.name = name;
    opt.secret = (const uint8_t *)"a secret of many bytes";
    opt.secret_bytes = 20;
    opt.n_endpoints = 2 * s->n_ranks + 8;
    opt.message_bytes = CMI_EP_RANK_MESSAGE_BYTES;
    opt.ring_bytes = 1 << 16;
    opt.handshake_ns = 120 * SECOND;
    NEED(cmi_fabric_create_local(fabric, &opt, &err) == CMI_OK);
    NEED(cmi_fabric_listen(*fabric, list[place].address, &err) == CMI_OK);
    NEED(cmi_membership_create_static(members, list, s->n_ranks, place, &err) == CMI_OK);
}

typedef struct watch { /* of the passes of a rank */
    uint64_t n_views, n_plans_before, n_pairs;
    uint32_t n_calm, n_settled; /* passes without moves; and those behind the first of them */
} watch;

/* After a pass. True: experts have moved in a view of all ranks, and no longer do. */
static bool is_enough(watch *w, const scene *s, const cmi_instance_rank_stats *stats,
                      uint64_t min_views)
{
    const cmi_rank_balance_stats *b = &stats->balance;
    const uint64_t n_pairs = stats->work.n_pairs - w->n_pairs;
    if (w->n_views != stats->n_views) {
        *w = (watch){.n_views = stats->n_views, .n_plans_before = b->n_plans};
    }
    w->n_pairs = stats->work.n_pairs;
    const bool is_planned = b->n_plans > w->n_plans_before;
    w->n_calm += is_planned && !b->is_moving ? 1 : 0;
    w->n_settled += w->n_calm > 0 ? 1 : 0;
    if (s->victim == MAX_RANKS && !is_planned) {
        all->before[stats->place] += n_pairs;
        all->n_before[stats->place]++;
    } else if (s->victim == MAX_RANKS && w->n_settled > 2 && all->n_done == 0) { /* all have rows */
        all->after[stats->place] += n_pairs;
        all->n_after[stats->place]++;
    }
    return stats->n_living == s->n_ranks && stats->n_views >= min_views && w->n_calm >= N_CALM;
}

static void die_while_moving(const cmi_instance_rank_stats *stats, const watch *w)
{
    if (stats->balance.is_moving && stats->balance.n_moves > 0) {
        kill(getpid(), SIGKILL);
    }
    NEED(w->n_calm < N_CALM); /* or nothing has moved */
}

/* Those that are done compute for the others. */
static void follow_until_all_are_done(cmi_instance *in, const scene *s)
{
    all->n_done++;
    while (all->n_done < s->n_ranks) {
        bool followed;
        (void)cmi_alloc_forbid(true);
        const cmi_status st = cmi_instance_follow(in, &followed);
        (void)cmi_alloc_forbid(false);
        if (st != CMI_OK && all->n_done < s->n_ranks) { /* else they are leaving */
            join(in);
        } else if (st == CMI_OK && !followed) {
            cmi_instance_rank_sleep(in, SECOND / 50);
        }
    }
}

static void be_rank(const scene *s, uint32_t place, bool is_second)
{
    static rows r;
    cmi_fabric *fabric;
    cmi_membership *members;
    cmi_instance_rank_stats stats;
    watch w = {0};
    open_place(s, place, &fabric, &members);
    const cmi_rank_options rank = {.name = "test",
                                   .fabric = fabric,
                                   .membership = members,
                                   .min_ranks = 2,
                                   .n_redundant = s->n_redundant,
                                   .n_microbatches = s->n_microbatches,
                                   .balance_window = WINDOW};
    cmi_instance *in = open_instance(&rank);
    const bool is_victim = place == s->victim && !is_second;
    const uint64_t min_views = s->victim < MAX_RANKS && !is_second ? 2 : 1;
    bool is_done = false;
    join(in);
    for (uint32_t pass = 0; !is_done; pass++) {
        make_rows(&r, &in->config, place, pass % N_KINDS);
        run_pass(in, &r.batch);
        check_pass(in, place, pass % N_KINDS);
        cmi_instance_rank_get_stats(in, &stats);
        is_done = is_enough(&w, s, &stats, min_views);
        if (is_victim) {
            die_while_moving(&stats, &w);
        }
    }
    all->n_moves += stats.balance.n_moves;
    follow_until_all_are_done(in, s);
    cmi_instance_close(in);
    cmi_fabric_destroy(fabric);
    cmi_membership_destroy(members);
}

/* ---- scenes ---- */

static pid_t start(const scene *s, uint32_t place, bool is_second)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (place == MAX_RANKS) {
            run_alone(s);
        } else {
            be_rank(s, place, is_second);
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

static void play(const scene *s)
{
    pid_t pids[MAX_RANKS];
    memset(all, 0, sizeof *all);
    assert_ends(start(s, MAX_RANKS, false), 0);
    for (uint32_t i = 0; i < s->n_ranks; i++) {
        pids[i] = start(s, i, false);
    }
    if (s->victim < MAX_RANKS) {
        assert_ends(pids[s->victim], SIGKILL);
        pids[s->victim] = start(s, s->victim, true);
    }
    for (uint32_t i = 0; i < s->n_ranks; i++) {
        assert_ends(pids[i], 0);
    }
    assert_true(all->n_moves > 0);
}

/* What the busiest rank's experts compute in a pass, of what all do; ranks may have counted
 * different passes. */
static double share_of_busiest(const scene *s, const _Atomic uint64_t *n,
                               const _Atomic uint64_t *n_passes)
{
    double most = 0, sum = 0;
    for (uint32_t i = 0; i < s->n_ranks; i++) {
        const double in_a_pass = (double)n[i] / (double)n_passes[i];
        assert_true(n_passes[i] > 0);
        most = CMI_MAX(most, in_a_pass);
        sum += in_a_pass;
    }
    return most / sum;
}

static void moving_makes_loads_even(void **state)
{
    (void)state;
    const scene scenes[] = {
        {.n_ranks = 2, .n_microbatches = 1, .victim = MAX_RANKS},
        {.n_ranks = 3, .n_redundant = 4, .n_microbatches = 2, .victim = MAX_RANKS},
    };
    const size_t n = getenv("CMI_FEW") != NULL ? 1 : CMI_LEN(scenes);
    for (size_t i = 0; i < n; i++) {
        play(&scenes[i]);
        const double before = share_of_busiest(&scenes[i], all->before, all->n_before);
        const double after = share_of_busiest(&scenes[i], all->after, all->n_after);
        printf("%u ranks: the busiest computes %.2f, then %.2f of all\n", scenes[i].n_ranks, before,
               after);
        assert_true(after < 0.95 * before);
    }
}

static void a_rank_dies_while_experts_move(void **state)
{
    (void)state;
    play(&(scene){.n_ranks = 3, .n_redundant = 2, .n_microbatches = 1, .victim = 2});
}

/* ---- frames ---- */

static cmi_rank_experts *open_experts(cmi_weights **weights, cmi_team *team)
{
    char dir[512];
    cmi_error err = {0};
    cmi_model_config config;
    cmi_generation_config generation;
    cmi_rank_experts *experts = NULL;
    const cmi_weights_options reading = {
        .dtype = CMI_DTYPE_BF16, .without_experts = true, .team = team};
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    assert_int_equal(cmi_model_config_load(&config, &generation, dir, &err), CMI_OK);
    assert_int_equal(cmi_weights_load(weights, &config, dir, &reading, &err), CMI_OK);
    const cmi_expert_layout layout = {.n_experts = config.n_routed_experts,
                                      .n_replicas = config.n_routed_experts + 3,
                                      .n_groups = 1,
                                      .n_nodes = 1,
                                      .n_ranks = 2};
    cmi_rank_experts_options opt = {.weights = *weights,
                                    .slab_bytes = cmi_expert_slab_bytes(&config, &reading),
                                    .n_layers = config.num_hidden_layers + 1,
                                    .layout = &layout,
                                    .reading = &reading,
                                    .moves = true};
    assert_int_equal(cmi_expert_source_open(&opt.source, &config, dir, &reading, &err), CMI_OK);
    assert_int_equal(cmi_rank_experts_create(&experts, &opt, &err), CMI_OK);
    return experts;
}

static bool hear_counts(cmi_rank_balance *balance, uint32_t layer, uint32_t first, uint32_t n)
{
    static const uint32_t counts[CMI_EP_MAX_COUNTS] = {7};
    uint8_t bytes[CMI_EP_MAX_FRAME];
    cmi_le_writer w = {bytes, bytes + sizeof bytes, false};
    cmi_ep_write_counts(&w, &(cmi_ep_counts){.layer = layer, .first = first, .n = n}, counts);
    const cmi_frame frame = {
        .type = CMI_EP_FRAME_COUNTS, .payload = bytes, .n_bytes = (uint32_t)(w.at - bytes)};
    return cmi_rank_balance_hear(balance, 1, &frame);
}

static bool hear_bytes(cmi_rank_balance *balance, uint16_t type, size_t n_bytes)
{
    static const uint8_t bytes[32] = {5, [4] = 3}; /* as a round: switched too few times */
    const cmi_frame frame = {.type = type, .payload = bytes, .n_bytes = (uint32_t)n_bytes};
    return cmi_rank_balance_hear(balance, 1, &frame);
}

static void frames_that_do_not_fit_are_passed_over(void **state)
{
    (void)state;
    cmi_error err = {0};
    cmi_team *team;
    cmi_weights *weights;
    cmi_rank_balance *balance;
    assert_int_equal(cmi_team_create(&team, 1, &err), CMI_OK);
    cmi_rank_experts *experts = open_experts(&weights, team);
    const uint32_t n_layers = 6, n_experts = 16; /* the model's */
    assert_int_equal(cmi_rank_balance_create(&balance, experts, WINDOW, &err), CMI_OK);
    assert_true(hear_counts(balance, 0, 0, n_experts));
    assert_true(hear_counts(balance, n_layers - 1, n_experts - 1, 1));
    assert_false(hear_counts(balance, n_layers, 0, n_experts));
    assert_false(hear_counts(balance, UINT32_MAX, 0, 1));
    assert_false(hear_counts(balance, 0, 0, n_experts + 1));
    assert_false(hear_counts(balance, 0, 1, n_experts));
    assert_false(hear_counts(balance, 0, n_experts, 1));
    assert_false(hear_counts(balance, 0, UINT32_MAX, 2)); /* a sum that would be 1 */
    assert_false(hear_counts(balance, 0, 0, 0));
    for (size_t n = 0; n <= 32; n++) {
        assert_false(hear_bytes(balance, CMI_EP_FRAME_ROUND, n));
        assert_false(hear_bytes(balance, CMI_EP_FRAME_ROUND + 1, n));
    }
    cmi_rank_balance_destroy(balance);
    cmi_rank_experts_destroy(experts);
    cmi_weights_destroy(weights);
    cmi_team_destroy(team);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moving_makes_loads_even),
        cmocka_unit_test(a_rank_dies_while_experts_move),
        cmocka_unit_test(frames_that_do_not_fit_are_passed_over),
    };
    return cmocka_run_group_tests_name("rank_balance", tests, set_up, tear_down);
}
