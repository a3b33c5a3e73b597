#include "model/stage_offer.h"

static size_t lines(size_t n_bytes)
{
    return CMI_ROUND_UP(n_bytes, (size_t)CMI_CACHE_LINE);
}

size_t cmi_stage_offer_prompts_at(void)
{
    return lines(sizeof(cmi_stage_offer_head));
}

size_t cmi_stage_offer_tokens_at(const cmi_stage_offer_limits *limits)
{
    return cmi_stage_offer_prompts_at() + lines(limits->max_rows * sizeof(cmi_stage_prompt));
}

size_t cmi_stage_offer_bytes(const cmi_stage_offer_limits *limits)
{
    return cmi_stage_offer_tokens_at(limits) + lines(limits->max_rows * sizeof(uint32_t));
}

bool cmi_stage_offer_read(cmi_stage_offer *offer_out, const cmi_stage_offer_limits *limits,
                          const void *offer)
{
    const uint8_t *bytes = offer;
    const cmi_stage_offer_head *head = offer;
    const cmi_stage_prompt *prompts =
        (const cmi_stage_prompt *)(const void *)(bytes + cmi_stage_offer_prompts_at());
    const uint32_t *tokens =
        (const uint32_t *)(const void *)(bytes + cmi_stage_offer_tokens_at(limits));
    if (head->n_own_rows > limits->max_rows || head->n_prompts > limits->max_rows) {
        return false;
    }
    const uint32_t n_most = limits->max_rows - head->n_own_rows;
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < head->n_prompts; i++) {
        const cmi_stage_prompt *p = &prompts[i];
        if (p->n_rows < 1 || p->n_rows > n_most - n_rows || p->position >= limits->max_positions ||
            p->n_rows > limits->max_positions - p->position) {
            return false;
        }
        n_rows += p->n_rows;
    }
    for (uint32_t i = 0; i < n_rows; i++) {
        if (tokens[i] >= limits->vocab_size) {
            return false;
        }
    }
    *offer_out = (cmi_stage_offer){head->n_own_rows, head->n_prompts, prompts};
    return true;
}
