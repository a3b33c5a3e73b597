#include "model/gate.h"

#include <math.h>

#include "kernels/ref/math.h"

/* The index of the largest value that is not taken; the lower index wins a tie. n when none is
 * left. */
static uint32_t arg_max_free(const float *values, const bool *taken, uint32_t n)
{
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++) {
        if (!taken[i] && (best == n || values[i] > values[best])) {
            best = i;
        }
    }
    return best;
}

static void score(const cmi_model_config *config, const float *logits, float *scores)
{
    uint32_t n = config->n_routed_experts;
    if (config->scoring_func == CMI_SCORING_SIGMOID) {
        for (uint32_t i = 0; i < n; i++) {
            scores[i] = 1.0f / (1.0f + cmi_expf_ref(-logits[i]));
        }
        return;
    }
    float max = logits[0];
    for (uint32_t i = 1; i < n; i++) {
        max = fmaxf(max, logits[i]);
    }
    float sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        scores[i] = cmi_expf_ref(logits[i] - max);
        sum += scores[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        scores[i] /= sum;
    }
}

/* What a group is ranked by: its best score, or under noaux_tc the sum of its two best. */
static float group_score(const cmi_model_config *config, const float *choice, uint32_t group_size)
{
    float best = -INFINITY;
    float second = -INFINITY;
    for (uint32_t i = 0; i < group_size; i++) {
        if (choice[i] > best) {
            second = best;
            best = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    bool pair = config->topk_method == CMI_TOPK_NOAUX_TC && group_size > 1;
    return pair ? best + second : best;
}

/* Marks as taken every expert outside the topk_group best groups. */
static void limit_groups(const cmi_model_config *config, const float *choice, bool *taken)
{
    float scores[CMI_GATE_MAX_EXPERTS];
    bool chosen[CMI_GATE_MAX_EXPERTS] = {false};
    uint32_t n_group = config->n_group;
    uint32_t group_size = config->n_routed_experts / n_group;
    for (uint32_t g = 0; g < n_group; g++) {
        scores[g] = group_score(config, choice + g * group_size, group_size);
    }
    for (uint32_t k = 0; k < config->topk_group; k++) {
        chosen[arg_max_free(scores, chosen, n_group)] = true;
    }
    for (uint32_t i = 0; i < config->n_routed_experts; i++) {
        taken[i] = !chosen[i / group_size];
    }
}

void cmi_gate_select(const cmi_model_config *config, const float *logits, const float *bias,
                     uint32_t *experts_out, float *weights_out)
{
    float scores[CMI_GATE_MAX_EXPERTS];
    float choice[CMI_GATE_MAX_EXPERTS];
    bool taken[CMI_GATE_MAX_EXPERTS] = {false};
    uint32_t n = config->n_routed_experts;
    uint32_t k = config->num_experts_per_tok;
    score(config, logits, scores);
    bool biased = config->topk_method == CMI_TOPK_NOAUX_TC && bias != NULL;
    for (uint32_t i = 0; i < n; i++) {
        choice[i] = biased ? scores[i] + bias[i] : scores[i];
    }
    if (config->topk_method != CMI_TOPK_GREEDY && config->n_group > 1) {
        limit_groups(config, choice, taken);
    }
    float sum = 0;
    for (uint32_t j = 0; j < k; j++) {
        experts_out[j] = arg_max_free(choice, taken, n);
        taken[experts_out[j]] = true;
        weights_out[j] = scores[experts_out[j]];
        sum += weights_out[j];
    }
    float divisor = config->norm_topk_prob ? sum + 1e-20f : 1.0f;
    float factor = (float)config->routed_scaling_factor;
    for (uint32_t j = 0; j < k; j++) {
        weights_out[j] = weights_out[j] / divisor * factor;
    }
}
