/* engine/engine_prefix_stats.c - the prefix cache's account as others see it, who know engine.h
 * only. */
#include <string.h>

#include "engine/engine_internal.h"

_Static_assert((int)CMI_ENGINE_PREFIX_LOSSES == (int)CMI_PREFIX_N_LOSSES, "a reason for each");

void cmi_engine_prefix_names(cmi_engine_info *info)
{
    for (int i = 0; i < CMI_PREFIX_N_LOSSES; i++) {
        info->prefix_losses[i] = cmi_prefix_loss_name((cmi_prefix_loss)i);
    }
}

void cmi_engine_prefix_publish(cmi_engine_stats *stats, const cmi_prefix_account *account)
{
    stats->n_prefix_queried = account->prompt;
    stats->n_prefix_hits = account->used;
    stats->n_prefix_looked_up = account->looked_up;
    stats->n_prefix_available = account->available;
    stats->n_prefix_loaded = account->loaded;
    memcpy(stats->n_prefix_lost, account->lost, sizeof stats->n_prefix_lost);
}

void cmi_engine_prefix_add(cmi_engine_stats *total, const cmi_engine_stats *one)
{
    total->n_prefix_queried += one->n_prefix_queried;
    total->n_prefix_hits += one->n_prefix_hits;
    total->n_prefix_looked_up += one->n_prefix_looked_up;
    total->n_prefix_available += one->n_prefix_available;
    total->n_prefix_loaded += one->n_prefix_loaded;
    for (int i = 0; i < CMI_ENGINE_PREFIX_LOSSES; i++) {
        total->n_prefix_lost[i] += one->n_prefix_lost[i];
    }
}

void cmi_engine_stats_add(cmi_engine_stats *total, const cmi_engine_stats *one)
{
    cmi_engine_prefix_add(total, one);
    total->n_prompt_tokens += one->n_prompt_tokens;
    total->n_generation_tokens += one->n_generation_tokens;
    total->n_steps += one->n_steps;
    total->n_step_tokens += one->n_step_tokens;
    total->n_preemptions += one->n_preemptions;
    total->n_drafts += one->n_drafts;
    total->n_draft_tokens += one->n_draft_tokens;
    total->n_accepted_tokens += one->n_accepted_tokens;
    for (int i = 0; i < CMI_MAX_DRAFTS; i++) {
        total->n_accepted_at[i] += one->n_accepted_at[i];
    }
    total->n_predicted_steps += one->n_predicted_steps;
    total->predicted_ns += one->predicted_ns;
    total->measured_ns += one->measured_ns;
    total->misjudged_ns += one->misjudged_ns;
    total->n_ttft_targets += one->n_ttft_targets;
    total->n_ttft_missed += one->n_ttft_missed;
    total->n_tpot_targets += one->n_tpot_targets;
    total->n_tpot_missed += one->n_tpot_missed;
    total->n_timed_out += one->n_timed_out;
    total->n_given_up += one->n_given_up;
}
