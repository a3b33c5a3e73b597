/* Ranks as processes: passes over all of them; one is killed in the middle of a pass,
 * the others adopt its experts and go on; it comes back, and all act together again. */
#include "ep/rank.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "policy/expert_homes.h"

enum {
    N_RANKS = 3,
    N_EXPERTS = 12,
    N_LAYERS = 4, /* of experts, in a pass */
    TOP_K = 2,
    MAX_ROWS = 5,
    ROW_BYTES = 96,
    MAX_PAIRS = N_RANKS * MAX_ROWS * TOP_K,
    N_PASSES = 30, /* of a view */
    N_VIEWS = 3,   /* all; without the last one; all */
    FATAL_PASS = 17,
};

static const uint64_t SECOND = 1000000000;
static const uint8_t secret[] = "a secret of sixteen bytes and more";

#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: rank %u: %s\n", __FILE__, __LINE__, r->place, #condition);     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

typedef struct rank_rig {
    uint32_t place;
    uint32_t first_view, n_views;
    cmi_fabric *fabric;
    cmi_membership *membership;
    cmi_team *team;
    cmi_ep_rank *rank;
    cmi_expert_placement placement;
    uint16_t placed[4 * N_EXPERTS];
    uint16_t adopters[N_EXPERTS], rank_of[N_LAYERS * N_EXPERTS];
    uint64_t n_calls;
} rank_rig;

static _Atomic uint32_t *n_ended; /* shared by all: ranks whose passes are over */
static int ended_alone[2];        /* a pipe: a byte of each whose passes without the last are */
static char addresses[N_RANKS][CMI_FABRIC_MAX_ADDRESS + 1];

/* ---- a rank's life ---- */

static void open_rank(rank_rig *r)
{
    cmi_error err = {0};
    char name[16];
    cmi_fabric_options fabric;
    cmi_member members[N_RANKS] = {0};
    cmi_ep_rank_options opt;
    snprintf(name, sizeof name, "rank %u", r->place);
    cmi_fabric_options_default(&fabric);
    fabric.name = name;
    fabric.secret = secret;
    fabric.secret_bytes = sizeof secret;
    fabric.n_endpoints = 2 * N_RANKS + 8;
    fabric.message_bytes = CMI_EP_RANK_MESSAGE_BYTES;
    fabric.ring_bytes = 65536;
    fabric.handshake_ns = 120 * SECOND;
    NEED(cmi_fabric_create_local(&r->fabric, &fabric, &err) == CMI_OK);
    NEED(cmi_fabric_listen(r->fabric, addresses[r->place], &err) == CMI_OK);
    for (uint32_t i = 0; i < N_RANKS; i++) {
        snprintf(members[i].address, sizeof members[i].address, "%s", addresses[i]);
    }
    NEED(cmi_membership_create_static(&r->membership, members, N_RANKS, r->place, &err) == CMI_OK);
    NEED(cmi_team_create(&r->team, 1, &err) == CMI_OK);
    cmi_ep_rank_options_default(&opt);
    opt.name = "test";
    opt.fabric = r->fabric;
    opt.membership = r->membership;
    opt.min_ranks = 2;
    opt.team = r->team;
    opt.shape = (cmi_ep_shape){N_RANKS, MAX_ROWS, TOP_K, N_EXPERTS, ROW_BYTES, ROW_BYTES};
    opt.n_layers = N_LAYERS;
    opt.n_experts = N_EXPERTS;
    opt.rank_of = r->rank_of;
    opt.silent_ns = 300 * SECOND;
    NEED(cmi_ep_rank_create(&r->rank, &opt, &err) == CMI_OK);
}

static void close_rank(rank_rig *r)
{
    cmi_ep_rank_destroy(r->rank);
    cmi_fabric_destroy(r->fabric);
    cmi_membership_destroy(r->membership);
    cmi_team_destroy(r->team);
}

/* Until a view of n ranks is entered. */
static void enter(rank_rig *r, uint32_t n_ranks)
{
    cmi_error err = {0};
    for (;;) {
        const cmi_ep_rank_state state = cmi_ep_rank_poll(r->rank);
        NEED(state != CMI_EP_RANK_SUPERSEDED);
        if (state == CMI_EP_RANK_NEW_VIEW && cmi_ep_rank_n_living(r->rank) == n_ranks) {
            uint32_t work[N_RANKS];
            NEED(cmi_expert_homes_adopt(&r->placement, cmi_ep_rank_dead(r->rank), r->adopters,
                                        work));
            const cmi_replica_source source = {.rank = r->place, .dead = cmi_ep_rank_dead(r->rank)};
            for (uint32_t l = 0; l < N_LAYERS; l++) {
                cmi_expert_homes_choose(&r->placement, r->adopters, &source,
                                        r->rank_of + l * N_EXPERTS);
            }
            if (cmi_ep_rank_enter(r->rank, &err) == CMI_OK) {
                return;
            }
        }
        cmi_ep_rank_sleep(r->rank, cmi_fabric_after_ns(r->fabric, SECOND / 10));
    }
}

/* ---- passes ---- */

static uint8_t row_byte(uint32_t place, uint32_t pass, uint32_t layer, uint32_t row, uint32_t i)
{
    return (uint8_t)(place * 71 + pass * 13 + layer * 5 + row * 3 + i);
}

/* One layer: each expert answers with its row, its own number added. */
static cmi_status run_layer(rank_rig *r, uint32_t pass, uint32_t layer, uint32_t n_rows)
{
    static uint8_t values[MAX_ROWS * ROW_BYTES], came[MAX_PAIRS * ROW_BYTES];
    uint32_t ids[MAX_ROWS * TOP_K], begin[N_EXPERTS + 2], heard;
    cmi_exchange *x = cmi_ep_rank_exchange(r->rank, 0);
    for (uint32_t row = 0; row < n_rows; row++) {
        ids[row * TOP_K] = (pass + row + layer) % N_EXPERTS;
        ids[row * TOP_K + 1] = (pass + 2 * row + layer + 1 + r->place) % N_EXPERTS;
        ids[row * TOP_K + 1] += ids[row * TOP_K + 1] == ids[row * TOP_K] ? 1 : 0;
        ids[row * TOP_K + 1] %= N_EXPERTS;
        for (uint32_t i = 0; i < ROW_BYTES; i++) {
            values[row * ROW_BYTES + i] = row_byte(r->place, pass, layer, row, i);
        }
    }
    const cmi_exchange_rows rows = {.values = values,
                                    .row_bytes = ROW_BYTES,
                                    .n_rows = n_rows,
                                    .expert_ids = ids,
                                    .layer_idx = layer,
                                    .says = r->place + pass};
    const cmi_exchange_arrivals arrivals = {.values = came, .expert_begin = begin, .heard = &heard};
    cmi_status st = x->calls->send(x, &rows);
    if (st == CMI_OK && pass == FATAL_PASS && r->first_view + r->n_views == 1) {
        kill(getpid(), SIGKILL);
    }
    st = st == CMI_OK ? x->calls->receive(x, &arrivals) : st;
    for (uint32_t e = 0; st == CMI_OK && e < N_EXPERTS; e++) {
        NEED(begin[e] == begin[e + 1] ||
             cmi_expert_homes_holds(&r->placement, r->adopters, r->place, e));
        for (uint32_t i = begin[e] * ROW_BYTES; i < begin[e + 1] * ROW_BYTES; i++) {
            came[i] = (uint8_t)(came[i] + e);
        }
    }
    st = st == CMI_OK ? x->calls->send_back(x, came) : st;
    const void *results = NULL;
    size_t stride = 0;
    st = st == CMI_OK ? x->calls->receive_back(x, &results, &stride) : st;
    for (uint32_t pair = 0; st == CMI_OK && pair < n_rows * TOP_K; pair++) {
        const uint8_t *result = (const uint8_t *)results + pair * stride;
        for (uint32_t i = 0; i < ROW_BYTES; i++) {
            NEED(result[i] ==
                 (uint8_t)(row_byte(r->place, pass, layer, pair / TOP_K, i) + ids[pair]));
        }
    }
    return st;
}

/* The ranks take turns to begin a pass; the others sleep until they are called. */
static cmi_status run_pass(rank_rig *r, uint32_t pass)
{
    uint32_t called;
    cmi_status st = CMI_OK;
    if (pass % 2 == r->place) { /* 0 or 1, which live */
        st = cmi_ep_rank_call(r->rank, pass);
    } else {
        while (!cmi_ep_rank_is_called(r->rank, &called)) {
            if (cmi_ep_rank_poll(r->rank) != CMI_EP_RANK_READY) {
                return CMI_ERR_PEER;
            }
            cmi_ep_rank_sleep(r->rank, cmi_fabric_after_ns(r->fabric, 10 * SECOND));
        }
        NEED(called == pass);
        r->n_calls++;
    }
    for (uint32_t layer = 0; st == CMI_OK && layer < N_LAYERS; layer++) {
        st = run_layer(r, pass, layer, (pass + r->place) % (MAX_ROWS + 1));
    }
    return st;
}

static void run_rank(rank_rig *r)
{
    const cmi_expert_layout layout = {.n_experts = N_EXPERTS,
                                      .n_replicas = N_EXPERTS,
                                      .n_groups = 1,
                                      .n_nodes = 1,
                                      .n_ranks = N_RANKS};
    NEED(cmi_expert_placement_init(&r->placement, r->placed, &layout) == CMI_OK);
    open_rank(r);
    for (uint32_t view = r->first_view; view < r->first_view + r->n_views; view++) {
        enter(r, view == 1 ? N_RANKS - 1 : N_RANKS);
        cmi_status st = CMI_OK;
        for (uint32_t pass = 0; st == CMI_OK && pass < N_PASSES; pass++) {
            st = run_pass(r, pass);
        }
        NEED((st != CMI_OK) == (view == 0));
        if (view == 1) { /* until the lost one is back */
            NEED(write(ended_alone[1], "", 1) == 1);
            while (cmi_ep_rank_poll(r->rank) == CMI_EP_RANK_READY) {
                cmi_ep_rank_sleep(r->rank, cmi_fabric_after_ns(r->fabric, 10 * SECOND));
            }
        }
    }
    NEED(r->n_calls > 0);
    ++*n_ended;
    while (*n_ended < N_RANKS) { /* who leaves makes the others' last exchange fail */
        cmi_ep_rank_sleep(r->rank, cmi_fabric_after_ns(r->fabric, SECOND / 1000));
    }
    close_rank(r);
}

static pid_t start(uint32_t place, uint32_t first_view, uint32_t n_views)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static rank_rig rig;
        rig = (rank_rig){.place = place, .first_view = first_view, .n_views = n_views};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_rank(&rig);
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

static void ranks_die_and_come_back(void **state)
{
    (void)state;
    pid_t pids[N_RANKS];
    n_ended =
        mmap(NULL, sizeof *n_ended, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(n_ended != MAP_FAILED);
    assert_int_equal(pipe(ended_alone), 0);
    for (uint32_t i = 0; i < N_RANKS; i++) {
        snprintf(addresses[i], sizeof addresses[i], "local:rank-test-%d-%u", (int)getpid(), i);
    }
    for (uint32_t i = 0; i < N_RANKS; i++) {
        pids[i] = start(i, 0, i == N_RANKS - 1 ? 1 : N_VIEWS);
    }
    assert_ends(pids[N_RANKS - 1], SIGKILL);
    for (uint32_t i = 0; i < N_RANKS - 1; i++) {
        char byte;
        assert_int_equal(read(ended_alone[0], &byte, 1), 1);
    }
    pids[N_RANKS - 1] = start(N_RANKS - 1, N_VIEWS - 1, 1);
    for (uint32_t i = 0; i < N_RANKS; i++) {
        assert_ends(pids[i], 0);
    }
    close(ended_alone[0]);
    close(ended_alone[1]);
    munmap(n_ended, sizeof *n_ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_die_and_come_back),
    };
    return cmocka_run_group_tests_name("rank", tests, NULL, NULL);
}
