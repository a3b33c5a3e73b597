#include "tests/test.h"

#include <math.h>

#include "base/rng.h"
#include "model/gate.h"

enum { N_EXPERTS = 16, N_GROUP = 4, TOP_K = 4 };

static cmi_model_config make_config(cmi_scoring_func scoring, cmi_topk_method method)
{
    return (cmi_model_config){.n_routed_experts = N_EXPERTS,
                              .n_group = N_GROUP,
                              .topk_group = 2,
                              .num_experts_per_tok = TOP_K,
                              .scoring_func = scoring,
                              .topk_method = method,
                              .norm_topk_prob = scoring == CMI_SCORING_SIGMOID,
                              .routed_scaling_factor = 2.5};
}

/* The same choice by ranking: an expert's rank is how many stand before it. */
static bool is_chosen(const cmi_model_config *c, const double *choice, uint32_t expert)
{
    double group_score[N_GROUP];
    uint32_t size = N_EXPERTS / N_GROUP;
    for (uint32_t g = 0; g < N_GROUP; g++) {
        double best = -INFINITY;
        double second = -INFINITY;
        for (uint32_t i = g * size; i < (g + 1) * size; i++) {
            second = fmax(second, fmin(best, choice[i]));
            best = fmax(best, choice[i]);
        }
        group_score[g] = c->topk_method == CMI_TOPK_NOAUX_TC ? best + second : best;
    }
    uint32_t groups_before = 0;
    uint32_t mine = expert / size;
    for (uint32_t g = 0; g < N_GROUP; g++) {
        groups_before += group_score[g] > group_score[mine];
    }
    if (c->topk_method != CMI_TOPK_GREEDY && groups_before >= c->topk_group) {
        return false;
    }
    uint32_t before = 0;
    for (uint32_t i = 0; i < N_EXPERTS; i++) {
        uint32_t better_groups = 0;
        for (uint32_t g = 0; g < N_GROUP; g++) {
            better_groups += group_score[g] > group_score[i / size];
        }
        bool allowed = c->topk_method == CMI_TOPK_GREEDY || better_groups < c->topk_group;
        before += allowed && choice[i] > choice[expert];
    }
    return before < TOP_K;
}

static void check_one(const cmi_model_config *c, uint64_t seed)
{
    float logits[N_EXPERTS];
    float bias[N_EXPERTS];
    double score[N_EXPERTS];
    double choice[N_EXPERTS];
    double softmax_sum = 0;
    for (uint32_t i = 0; i < N_EXPERTS; i++) {
        logits[i] = 6 * cmi_philox_uniform(seed, i, 0) - 3;
        bias[i] = cmi_philox_uniform(seed, i, 1) - 0.5f;
        softmax_sum += exp((double)logits[i]);
    }
    for (uint32_t i = 0; i < N_EXPERTS; i++) {
        double e = exp((double)logits[i]);
        score[i] = c->scoring_func == CMI_SCORING_SIGMOID ? e / (1 + e) : e / softmax_sum;
        choice[i] = score[i] + (c->topk_method == CMI_TOPK_NOAUX_TC ? (double)bias[i] : 0);
    }
    uint32_t experts[TOP_K];
    float weights[TOP_K];
    cmi_gate_select(c, logits, bias, experts, weights);
    double sum = 0;
    for (uint32_t k = 0; k < TOP_K; k++) {
        if (!is_chosen(c, choice, experts[k])) {
            fail_msg("seed %llu: expert %u", (unsigned long long)seed, experts[k]);
        }
        sum += score[experts[k]];
    }
    for (uint32_t k = 0; k < TOP_K; k++) {
        double want = 2.5 * score[experts[k]] / (c->norm_topk_prob ? sum : 1);
        assert_true(fabs((double)weights[k] - want) < 1e-6);
        assert_true(k == 0 || choice[experts[k - 1]] >= choice[experts[k]] - 1e-6);
    }
}

static void every_method_chooses_by_its_definition(void **state)
{
    (void)state;
    static const cmi_topk_method methods[] = {CMI_TOPK_GREEDY, CMI_TOPK_GROUP_LIMITED_GREEDY,
                                              CMI_TOPK_NOAUX_TC};
    for (size_t m = 0; m < CMI_LEN(methods); m++) {
        cmi_model_config sigmoid = make_config(CMI_SCORING_SIGMOID, methods[m]);
        cmi_model_config softmax = make_config(CMI_SCORING_SOFTMAX, methods[m]);
        for (uint64_t seed = 0; seed < 500; seed++) {
            check_one(&sigmoid, seed);
            check_one(&softmax, seed);
        }
    }
}

static void ties_go_to_the_lower_index(void **state)
{
    (void)state;
    cmi_model_config c = make_config(CMI_SCORING_SIGMOID, CMI_TOPK_NOAUX_TC);
    float logits[N_EXPERTS] = {0};
    uint32_t experts[TOP_K];
    float weights[TOP_K];
    cmi_gate_select(&c, logits, NULL, experts, weights);
    for (uint32_t k = 0; k < TOP_K; k++) {
        assert_int_equal(experts[k], k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_method_chooses_by_its_definition),
        cmocka_unit_test(ties_go_to_the_lower_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
