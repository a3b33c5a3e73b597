/* How matrices are cut over made-up memory nodes: every byte has one home, each node its share, and
 * the tasks that read a slice belong to its node. */
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "model/weights_internal.h"

enum { UNIT = 2 << 20 };

/* DeepSeek-V3's sizes with 8 of its 61 layers, and a small model's whose matrices are smaller than
 * a page. */
static const char v3[] =
    "{\"model_type\":\"deepseek_v3\",\"vocab_size\":129280,\"hidden_size\":7168,"
    "\"intermediate_size\":18432,\"moe_intermediate_size\":2048,\"num_hidden_layers\":8,"
    "\"num_attention_heads\":128,\"q_lora_rank\":1536,\"kv_lora_rank\":512,"
    "\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"
    "\"n_routed_experts\":256,\"num_experts_per_tok\":8,\"n_shared_experts\":1,"
    "\"max_position_embeddings\":163840}";
static const char small[] =
    "{\"model_type\":\"deepseek_v3\",\"vocab_size\":100,\"hidden_size\":32,"
    "\"intermediate_size\":64,\"moe_intermediate_size\":16,\"num_hidden_layers\":5,"
    "\"num_attention_heads\":2,\"q_lora_rank\":null,\"kv_lora_rank\":8,\"qk_nope_head_dim\":4,"
    "\"qk_rope_head_dim\":6,\"v_head_dim\":4,\"n_routed_experts\":16,\"num_experts_per_tok\":2,"
    "\"max_position_embeddings\":128}";

static cmi_topology *topology;

static cmi_team *make_team(const char *synthetic, const char *processors, uint32_t n_threads)
{
    cmi_team *team = NULL;
    cmi_error err = {0};
    cmi_topology_options host = {.synthetic = synthetic, .processors = processors};
    if (cmi_topology_create(&topology, &host, &err) != CMI_OK ||
        cmi_team_create_on(&team, n_threads, topology, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return team;
}

static void destroy_team(cmi_team *team)
{
    cmi_team_destroy(team);
    cmi_topology_destroy(topology);
}

static cmi_model_config config;

/* Where a checkpoint of these sizes would go, without one. The spans are the caller's to free. */
static cmi_weights_plan make_plan(const char *text, cmi_dtype dtype)
{
    cmi_error err = {0};
    assert_int_equal(cmi_model_config_parse(&config, text, strlen(text), "x", &err), CMI_OK);
    cmi_weights_plan plan = {.config = &config, .dtype = dtype, .with_mtp = true};
    cmi_weights_plan_walk(&plan);
    plan.spans = cmi_alloc(plan.n_spans, sizeof *plan.spans);
    cmi_weights_plan_walk(&plan);
    return plan;
}

typedef struct host_case {
    const char *synthetic, *processors;
    uint32_t n_threads;
} host_case;

static const host_case hosts[] = {
    {"node:1 core:4 pu:1", NULL, 4},        {"node:2 core:4 pu:1", NULL, 8},
    {"node:2 core:4 pu:1", "0-5", 6},       {"node:4 core:4 pu:1", NULL, 16},
    {"node:4 core:4 pu:1", "0-4,8-15", 13}, {"node:4 core:4 pu:1", NULL, 3},
};

static void stretches_cover_the_block_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < CMI_LEN(hosts) * 2; i++) {
        const host_case *h = &hosts[i / 2];
        cmi_weights_plan plan = make_plan(i % 2 == 0 ? v3 : small, CMI_DTYPE_I8);
        cmi_team *team = make_team(h->synthetic, h->processors, h->n_threads);
        uint32_t n_nodes = cmi_team_nodes(team), node, previous = UINT32_MAX;
        uint64_t bytes[CMI_TOPOLOGY_MAX_NODES] = {0};
        for (uint64_t begin = 0, end; begin < plan.block_bytes; begin = end) {
            end = cmi_weights_stretch(&plan, team, UNIT, begin, &node);
            assert_true(end > begin && end <= plan.block_bytes);
            assert_true(end % UNIT == 0 || end == plan.block_bytes);
            assert_true(node < n_nodes && node != previous);
            bytes[node] += end - begin;
            previous = node;
        }
        uint64_t sum = 0;
        for (uint32_t k = 0; k < n_nodes; k++) {
            double got = (double)bytes[k] / (double)plan.block_bytes;
            double want = (double)(cmi_team_share(team, k + 1, h->n_threads) -
                                   cmi_team_share(team, k, h->n_threads)) /
                          h->n_threads;
            sum += bytes[k];
            assert_true(i % 2 == 1 || (got > want - 0.01 && got < want + 0.01));
        }
        assert_true(sum == plan.block_bytes);
        destroy_team(team);
        cmi_free(plan.spans);
    }
}

/* Of every matrix of some megabytes, each node has its share to within a unit at both ends. */
static void every_matrix_is_cut_in_proportion(void **state)
{
    (void)state;
    cmi_weights_plan plan = make_plan(v3, CMI_DTYPE_BF16);
    for (size_t i = 0; i < CMI_LEN(hosts); i++) {
        cmi_team *team = make_team(hosts[i].synthetic, hosts[i].processors, hosts[i].n_threads);
        for (size_t s = 0; s < plan.n_spans; s += 97) {
            const cmi_weights_span *span = &plan.spans[s];
            uint64_t last = 0;
            for (uint32_t k = 0; k < cmi_team_nodes(team); k++) {
                uint64_t begin = cmi_team_share(team, k, span->n_bytes);
                uint64_t end = cmi_team_share(team, k + 1, span->n_bytes);
                assert_int_equal(begin, last);
                last = end;
                if (end > begin) {
                    assert_int_equal(cmi_weights_home(&plan, team, span->begin + begin), k);
                    assert_int_equal(cmi_weights_home(&plan, team, span->begin + end - 1), k);
                }
                if (end > begin + 2 * UNIT) { /* a unit inside of the slice goes there */
                    uint32_t node;
                    uint64_t unit = (span->begin + begin + UNIT) / UNIT * UNIT;
                    cmi_weights_stretch(&plan, team, UNIT, unit, &node);
                    assert_int_equal(node, k);
                }
            }
            assert_int_equal(last, span->n_bytes);
        }
        destroy_team(team);
    }
    cmi_free(plan.spans);
}

/* Spans do not overlap, and nearly all of a large model's bytes belong to one. */
static void spans_are_the_matrices(void **state)
{
    (void)state;
    static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16, CMI_DTYPE_I8};
    for (size_t i = 0; i < CMI_LEN(dtypes); i++) {
        cmi_weights_plan plan = make_plan(v3, dtypes[i]);
        uint64_t end = 0, covered = 0;
        for (size_t s = 0; s < plan.n_spans; s++) {
            assert_true(plan.spans[s].begin >= end);
            end = plan.spans[s].begin + plan.spans[s].n_bytes;
            covered += plan.spans[s].n_bytes;
        }
        assert_true(end <= plan.block_bytes);
        assert_true(covered > plan.block_bytes / 10000 * 9999);
        cmi_free(plan.spans);
    }
}

/* A product's tiles are dealt to the nodes as the matrix's bytes are: what a tile reads lies on its
 * node, but for the tile at a boundary. n_parts: where a column comes from, as SwiGLU's. */
static void tasks_read_their_own_slice(void **state)
{
    (void)state;
    enum { N_COLS = 2048, TILE = 128, N_TILES = N_COLS / TILE, ROW_BYTES = 14336 };
    for (size_t i = 0; i < CMI_LEN(hosts); i++) {
        cmi_team *team = make_team(hosts[i].synthetic, hosts[i].processors, hosts[i].n_threads);
        cmi_weights_span span = {.begin = 12345 * 64, .n_bytes = (uint64_t)N_COLS * ROW_BYTES};
        cmi_weights_plan plan = {
            .spans = &span, .n_spans = 1, .block_bytes = span.begin + span.n_bytes};
        uint32_t n_away = 0;
        for (uint32_t k = 0; k < cmi_team_nodes(team); k++) {
            uint64_t end = cmi_team_share(team, k + 1, N_TILES);
            for (uint64_t tile = cmi_team_share(team, k, N_TILES); tile < end; tile++) {
                uint64_t middle = span.begin + (tile * TILE + TILE / 2) * ROW_BYTES;
                n_away += cmi_weights_home(&plan, team, middle) != k;
            }
        }
        assert_true(n_away <= cmi_team_nodes(team) - 1);
        destroy_team(team);
    }
}

/* ---- loading ---- */

static void loading_on_nodes_gives_the_same_bytes(void **state)
{
    (void)state;
    const char *models = getenv("CMI_MODELS");
    char dir[512], share_dir[] = "/dev/shm/cmi_test_XXXXXX";
    assert_non_null(models);
    assert_non_null(mkdtemp(share_dir));
    snprintf(dir, sizeof dir, "%s/matrix-tiny", models);
    cmi_generation_config generation;
    cmi_error err = {0};
    assert_int_equal(cmi_model_config_load(&config, &generation, dir, &err), CMI_OK);
    cmi_weights *one = NULL;
    for (size_t i = 0; i < CMI_LEN(hosts) * 2; i++) {
        const host_case *h = &hosts[i / 2];
        cmi_team *team = make_team(h->synthetic, h->processors, CMI_MIN(h->n_threads, 4u));
        cmi_weights_options opt = {.dtype = CMI_DTYPE_I8,
                                   .with_mtp = true,
                                   .team = team,
                                   .share_dir = i % 2 == 0 ? NULL : share_dir};
        cmi_weights *weights = NULL;
        if (cmi_weights_load(&weights, &config, dir, &opt, &err) != CMI_OK) {
            fail_msg("%s", err.text);
        }
        if (one == NULL) {
            assert_int_equal(cmi_team_nodes(team), 1);
            one = weights;
        } else {
            assert_memory_equal(weights->block, one->block, one->block_bytes);
            cmi_weights_destroy(weights);
        }
        destroy_team(team);
    }
    cmi_weights_destroy(one);
    assert_int_equal(rmdir(share_dir), 0);
}

static void on_this_host_the_weights_lie_at_home(void **state)
{
    (void)state;
    const char *models = getenv("CMI_MODELS");
    char dir[512];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", models);
    cmi_generation_config generation;
    cmi_error err = {0};
    cmi_weights *weights = NULL;
    cmi_team *team = make_team(NULL, NULL, cmi_host_processors());
    cmi_weights_options opt = {.dtype = CMI_DTYPE_BF16, .team = team};
    assert_int_equal(cmi_model_config_load(&config, &generation, dir, &err), CMI_OK);
    assert_int_equal(cmi_weights_load(&weights, &config, dir, &opt, &err), CMI_OK);
    /* NAN: a container that lets nobody look */
    assert_true(!(weights->share_at_home < 0.99));
    cmi_weights_destroy(weights);
    destroy_team(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stretches_cover_the_block_once),
        cmocka_unit_test(every_matrix_is_cut_in_proportion),
        cmocka_unit_test(spans_are_the_matrices),
        cmocka_unit_test(tasks_read_their_own_slice),
        cmocka_unit_test(loading_on_nodes_gives_the_same_bytes),
        cmocka_unit_test(on_this_host_the_weights_lie_at_home),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
