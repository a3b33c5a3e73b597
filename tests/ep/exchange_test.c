/* Rows of known bytes go through ranks whose experts are arithmetic: every result must be the one
 * of its row and expert, in its place, whatever the ranks, the routing and the fabric do. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "tests/ep/mesh.h"

static const char *fabric = "local"; /* or the program's argument */

enum { MAX_ROWS = 24, TOP_K = 4, N_EXPERTS = 20, N_LAYERS = 3, ROW_BYTES = 100, RESULT_WORDS = 17 };

typedef struct plan {
    uint64_t seed;
    uint32_t n_exchanges;
    bool with_scales;
    uint32_t leaves_at; /* rank 1 stops before this exchange; 0: never */
} plan;

static uint32_t draw(uint64_t seed, uint64_t a, uint64_t b, uint32_t n)
{
    uint32_t words[4];
    cmi_philox4x32(seed, a, b, words);
    return words[0] % n;
}

/* ---- what every row, expert and result is ---- */

static uint32_t rows_of(const plan *p, uint32_t rank, uint32_t number)
{
    return draw(p->seed, rank, 1000 + number, 3) == 0 ? 0
                                                      : draw(p->seed, rank, number, MAX_ROWS + 1);
}

static void fill_row(const plan *p, uint32_t rank, uint32_t number, uint32_t row, uint8_t *values,
                     float *scale, uint32_t *experts)
{
    for (uint32_t i = 0; i < ROW_BYTES; i++) {
        values[i] = (uint8_t)draw(p->seed + 1, rank * 1000 + number, row * ROW_BYTES + i, 256);
    }
    *scale = (float)draw(p->seed + 2, rank * 1000 + number, row, 1000);
    for (uint32_t k = 0; k < TOP_K; k++) { /* distinct; often the same few */
        uint32_t step = draw(p->seed + 3, rank * 1000 + number, row, 2) == 0 ? 1 : 5;
        uint32_t first = draw(p->seed + 4, rank * 1000 + number, row, 4);
        experts[k] = (first + k * step) % N_EXPERTS;
    }
}

static uint32_t result_word(const uint8_t *values, float scale, uint32_t expert, uint32_t i)
{
    return values[i] * 65537u + values[(i * 7 + expert) % ROW_BYTES] * 257u + expert +
           (uint32_t)scale;
}

/* ---- a rank ---- */

typedef struct work {
    uint8_t values[MAX_ROWS][ROW_BYTES];
    float scales[MAX_ROWS];
    uint32_t experts[MAX_ROWS][TOP_K];
    uint8_t *arrived;
    float *arrived_scales;
    uint32_t *results;
    uint32_t begin[N_EXPERTS + 1], heard;
} work;

static uint32_t says(const plan *p, uint32_t rank, uint32_t number)
{
    return draw(p->seed + 7, rank, number, 1000);
}

static uint32_t most_said(const mesh_rank *r, const plan *p, uint32_t number)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < r->mesh->n_ranks; i++) {
        most = CMI_MAX(most, says(p, i, number));
    }
    return most;
}

static cmi_status exchange_once(mesh_rank *r, const plan *p, uint32_t number, uint32_t n_rows,
                                work *w)
{
    cmi_exchange *ex = r->exchange;
    const cmi_exchange_rows rows = {.values = w->values,
                                    .scales = p->with_scales ? w->scales : NULL,
                                    .row_bytes = ROW_BYTES,
                                    .n_rows = n_rows,
                                    .expert_ids = w->experts[0],
                                    .layer_idx = number % N_LAYERS,
                                    .says = says(p, r->rank, number)};
    const cmi_exchange_arrivals arrivals = {w->arrived, p->with_scales ? w->arrived_scales : NULL,
                                            w->begin, &w->heard};
    cmi_status st = ex->calls->send(ex, &rows);
    st = st == CMI_OK ? ex->calls->receive(ex, &arrivals) : st;
    for (uint32_t e = 0; st == CMI_OK && e < N_EXPERTS; e++) {
        for (uint32_t i = w->begin[e]; i < w->begin[e + 1]; i++) {
            float scale = p->with_scales ? w->arrived_scales[i] : 0;
            for (uint32_t k = 0; k < RESULT_WORDS; k++) {
                w->results[i * RESULT_WORDS + k] =
                    result_word(w->arrived + i * ROW_BYTES, scale, e, k);
            }
        }
    }
    return st == CMI_OK ? ex->calls->send_back(ex, w->results) : st;
}

static bool check_results(mesh_rank *r, const plan *p, uint32_t n_rows, const work *w)
{
    const void *results;
    size_t stride;
    MESH_NEED(r->exchange->calls->receive_back(r->exchange, &results, &stride) == CMI_OK);
    for (uint32_t pair = 0; pair < n_rows * TOP_K; pair++) {
        const uint32_t row = pair / TOP_K;
        const uint32_t *got =
            (const uint32_t *)(const void *)((const uint8_t *)results + pair * stride);
        for (uint32_t k = 0; k < RESULT_WORDS; k++) {
            MESH_NEED(got[k] == result_word(w->values[row], p->with_scales ? w->scales[row] : 0,
                                            w->experts[row][pair % TOP_K], k));
        }
    }
    return true;
}

static bool experts_are_here(const mesh_rank *r, uint32_t layer_idx, const uint32_t *begin)
{
    for (uint32_t e = 0; e < N_EXPERTS; e++) {
        MESH_NEED(begin[e] == begin[e + 1] ||
                  r->mesh->rank_of[layer_idx * N_EXPERTS + e] == r->rank);
    }
    return true;
}

static void linger(mesh_rank *r, uint64_t ns)
{
    const uint64_t until_ns = cmi_fabric_after_ns(r->fabric, ns);
    while (cmi_fabric_now_ns(r->fabric) < until_ns) {
        cmi_fabric_sleep(r->fabric, until_ns);
    }
}

static bool run_exchanges(mesh_rank *r, work *w)
{
    const plan *p = r->mesh->arg;
    for (uint32_t number = 0; number < p->n_exchanges; number++) {
        const uint32_t n_rows = rows_of(p, r->rank, number);
        for (uint32_t row = 0; row < n_rows; row++) {
            fill_row(p, r->rank, number, row, w->values[row], &w->scales[row], w->experts[row]);
        }
        if (draw(p->seed + 5, r->rank, number, 8) == 0) {
            linger(r, 200000); /* ranks run apart */
        }
        MESH_NEED(exchange_once(r, p, number, n_rows, w) == CMI_OK);
        MESH_NEED(experts_are_here(r, number % N_LAYERS, w->begin));
        MESH_NEED(w->heard == most_said(r, p, number));
        MESH_NEED(check_results(r, p, n_rows, w));
    }
    return true;
}

static work *make_work(const mesh_rank *r)
{
    work *w = cmi_alloc(1, sizeof *w);
    w->arrived = cmi_alloc(r->exchange->max_arrivals, ROW_BYTES);
    w->arrived_scales = cmi_alloc(r->exchange->max_arrivals, sizeof(float));
    w->results = cmi_alloc(r->exchange->max_arrivals, RESULT_WORDS * sizeof(uint32_t));
    return w;
}

static void free_work(work *w)
{
    cmi_free(w->arrived);
    cmi_free(w->arrived_scales);
    cmi_free(w->results);
    cmi_free(w);
}

static bool run_rank(mesh_rank *r)
{
    work *w = make_work(r);
    bool is_good = run_exchanges(r, w) && cmi_ep_drain(r->exchange) == CMI_OK;
    free_work(w); /* which puts may have read until then */
    return is_good;
}

/* ---- tests ---- */

static mesh *make_mesh(uint32_t n_ranks, plan *p, bool (*run)(mesh_rank *))
{
    mesh *m = cmi_alloc(1, sizeof *m);
    uint32_t n_local[MESH_MAX_RANKS * N_LAYERS] = {0}, most = 1;
    *m = (mesh){.n_ranks = n_ranks,
                .fabric = fabric,
                .n_layers = N_LAYERS,
                .n_experts = N_EXPERTS,
                .run = run,
                .arg = p};
    m->rank_of = cmi_alloc(N_LAYERS * N_EXPERTS, sizeof *m->rank_of);
    for (uint32_t i = 0; i < N_LAYERS * N_EXPERTS; i++) { /* uneven; some ranks have none */
        m->rank_of[i] = (uint16_t)draw(p->seed + 6, n_ranks, i, n_ranks);
        uint32_t *n = &n_local[m->rank_of[i] * N_LAYERS + i / N_EXPERTS];
        most = CMI_MAX(most, ++*n);
    }
    const cmi_ep_shape shape = {.n_ranks = n_ranks,
                                .max_rows = MAX_ROWS,
                                .top_k = TOP_K,
                                .max_local_experts = most,
                                .row_bytes = ROW_BYTES,
                                .result_bytes = RESULT_WORDS * sizeof(uint32_t)};
    cmi_error err = {0};
    assert_int_equal(cmi_ep_layout_make(&m->layout, &shape, &err), CMI_OK);
    return m;
}

static void free_mesh(mesh *m)
{
    cmi_free(m->rank_of);
    cmi_free(m);
}

static uint32_t n_exchanges(void)
{
    return getenv("CMI_FEW") != NULL ? 40 : 300;
}

static void results_come_back_to_their_rows(void **state)
{
    (void)state;
    for (uint32_t n_ranks = 1; n_ranks <= 8; n_ranks += n_ranks < 4 ? 1 : 4) {
        for (int with_scales = 0; with_scales < 2; with_scales++) {
            plan p = {.seed = n_ranks, .n_exchanges = n_exchanges(), .with_scales = with_scales};
            mesh *m = make_mesh(n_ranks, &p, run_rank);
            assert_true(mesh_run(m));
            free_mesh(m);
        }
    }
}

/* The same by puts that are held, overtake each other and find no room. */
static void a_network_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        const cmi_fault_options faults = {.seed = seed,
                                          .n_ops = 512,
                                          .max_delay_ns = seed % 2 == 0 ? 50000 : 0,
                                          .shuffles_events = true,
                                          .refuse_ppm = 20000};
        plan p = {.seed = 50 + seed, .n_exchanges = n_exchanges() / 4, .with_scales = true};
        mesh *m = make_mesh((uint32_t)seed + 1, &p, run_rank);
        m->faults = &faults;
        assert_true(mesh_run(m));
        free_mesh(m);
    }
}

/* ---- the race of two windows ---- */

/* Rank 0 and 1 exchange rows with each other only; rank 2 is slow to read the empty windows of both
 * and must find those of its own exchange, not of the next. */
static bool run_slow_reader(mesh_rank *r)
{
    const plan *p = r->mesh->arg;
    work *w = make_work(r);
    bool is_good = true;
    for (uint32_t number = 0; is_good && number < p->n_exchanges; number++) {
        const uint32_t n_rows = r->rank == 2 ? 0 : 1 + number % MAX_ROWS;
        for (uint32_t row = 0; row < n_rows; row++) {
            fill_row(p, r->rank, number, row, w->values[row], &w->scales[row], w->experts[row]);
        }
        if (r->rank == 2 && number % 4 == 0) {
            linger(r, 1000000); /* the others are at the next exchange's flags by then */
        }
        is_good = exchange_once(r, p, number, n_rows, w) == CMI_OK &&
                  check_results(r, p, n_rows, w) && (r->rank != 2 || w->begin[N_EXPERTS] == 0);
    }
    free_work(w);
    return is_good;
}

static void a_fast_rank_does_not_overwrite_what_a_slow_one_reads(void **state)
{
    (void)state;
    plan p = {.seed = 9, .n_exchanges = n_exchanges(), .with_scales = true};
    mesh *m = make_mesh(3, &p, run_slow_reader);
    for (uint32_t i = 0; i < N_LAYERS * N_EXPERTS; i++) {
        m->rank_of[i] = (uint16_t)(i % 2);
    }
    m->layout.shape.max_local_experts = N_EXPERTS;
    cmi_error err = {0};
    const cmi_ep_shape shape = m->layout.shape;
    assert_int_equal(cmi_ep_layout_make(&m->layout, &shape, &err), CMI_OK);
    assert_true(mesh_run(m));
    free_mesh(m);
}

/* ---- a rank that is gone ---- */

static bool run_until_it_breaks(mesh_rank *r)
{
    const plan *p = r->mesh->arg;
    work *w = make_work(r);
    r->may_be_lost = true;
    cmi_status st = CMI_OK;
    uint32_t number = 0;
    for (; st == CMI_OK && number < p->n_exchanges; number++) {
        const uint32_t n_rows = rows_of(p, r->rank, number);
        for (uint32_t row = 0; row < n_rows; row++) {
            fill_row(p, r->rank, number, row, w->values[row], &w->scales[row], w->experts[row]);
        }
        if (r->rank == 1 && number == p->leaves_at) {
            for (uint32_t i = 0; i < r->mesh->n_ranks; i++) {
                cmi_endpoint_close(r->fabric, r->peers[i].endpoint);
            }
            free_work(w);
            return true;
        }
        st = exchange_once(r, p, number, n_rows, w);
        if (st == CMI_OK) {
            const void *results;
            size_t stride;
            st = r->exchange->calls->receive_back(r->exchange, &results, &stride);
        }
    }
    free_work(w);
    MESH_NEED(st == CMI_ERR_CLOSED);
    MESH_NEED(cmi_ep_culprit(r->exchange) == 1);
    MESH_NEED(number <= p->leaves_at + 1);
    return true;
}

static void who_leaves_is_named_and_nobody_waits(void **state)
{
    (void)state;
    for (uint32_t leaves_at = 1; leaves_at < 12; leaves_at++) {
        plan p = {
            .seed = leaves_at, .n_exchanges = 1000, .with_scales = true, .leaves_at = leaves_at};
        mesh *m = make_mesh(4, &p, run_until_it_breaks);
        assert_true(mesh_run(m));
        free_mesh(m);
    }
}

/* ---- sizes ---- */

static void messages_are_the_papers(void **state)
{
    (void)state;
    cmi_error err = {0};
    cmi_ep_layout l;
    const cmi_ep_shape shape = {.n_ranks = 320,
                                .max_rows = 96,
                                .top_k = 8,
                                .max_local_experts = 1,
                                .row_bytes = 7168,
                                .result_bytes = 14336};
    assert_int_equal(cmi_ep_layout_make(&l, &shape, &err), CMI_OK);
    assert_int_equal(l.message_bytes, 7680);
    assert_int_equal(l.result_stride, 14336);
    assert_int_equal(l.max_pairs, 96);
    /* Eq. 1 with its 225 MiB, twice; results need a place for each pair of one's own rows only */
    assert_true(l.source_bytes - l.messages == 96 * 7680);
    assert_int_equal(l.region_bytes - l.combine, 96 * 8 * 14336);
    const cmi_ep_shape none = {.n_ranks = 0};
    assert_int_equal(cmi_ep_layout_make(&l, &none, &err), CMI_ERR_INVALID);
}

static void windows_do_not_overlap(void **state)
{
    (void)state;
    cmi_error err = {0};
    cmi_ep_layout l;
    const cmi_ep_shape shape = {3, 5, 4, 2, 100, 68};
    assert_int_equal(cmi_ep_layout_make(&l, &shape, &err), CMI_OK);
    size_t at = 0;
    for (uint32_t i = 0; i < 3; i++, at += 64) {
        assert_int_equal(cmi_ep_dispatch_flag(&l, i), at);
    }
    for (uint32_t i = 0; i < 3; i++, at += 64) {
        assert_int_equal(cmi_ep_combine_flag(&l, i), at);
    }
    for (uint64_t sequence = 4; sequence < 6; sequence++) {
        for (uint32_t i = 0; i < 3; i++) {
            assert_true(cmi_ep_window(&l, sequence, i) >= at);
            assert_int_equal(cmi_ep_window(&l, sequence, i), cmi_ep_window(&l, sequence + 2, i));
            at = cmi_ep_window(&l, sequence, i) + l.source_bytes;
        }
    }
    assert_true(cmi_ep_result(&l, 0) >= at);
    assert_int_equal(cmi_ep_result(&l, 5 * 4 - 1) + l.result_stride, l.region_bytes);
}

int main(int argc, char **argv)
{
    fabric = argc > 1 ? argv[1] : fabric;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_the_papers),
        cmocka_unit_test(windows_do_not_overlap),
        cmocka_unit_test(results_come_back_to_their_rows),
        cmocka_unit_test(a_network_changes_nothing),
        cmocka_unit_test(a_fast_rank_does_not_overwrite_what_a_slow_one_reads),
        cmocka_unit_test(who_leaves_is_named_and_nobody_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
