/* What ranks offer to a staged pass (model/stage_offer.h): what is let through makes a plan in
 * which every row has a place, and no rank more than it can take. */
#include <stdlib.h>
#include <string.h>

#include "model/stage_offer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RANKS = 3, MAX_ROWS = 24, PAGE_ROWS = 64, MAX_PAGES = 40, OFFER_BYTES = 384 };

static const cmi_stage_offer_limits limits = {MAX_ROWS, 1000, 300};

static void need(bool is_so)
{
    if (!is_so) {
        abort();
    }
}

static void check_plan(const cmi_staged_plan *plan, const cmi_stage_offer *offers)
{
    uint32_t n_rows = 0, n_pages = 0;
    for (uint32_t i = 0; i < plan->n_prompts; i++) {
        const cmi_staged_prompt *p = &plan->prompts[i];
        need(p->home < RANKS && p->prompt_idx < offers[p->home].n_prompts);
        need(p->first_row == n_rows && p->first_page == n_pages);
        need(p->n_pages * PAGE_ROWS >= p->position + p->n_rows);
        need(p->home_row + p->n_rows <= MAX_ROWS);
        n_rows += p->n_rows;
        n_pages += p->n_pages;
    }
    need(plan->n_rows == n_rows && plan->n_pages == n_pages && n_pages <= MAX_PAGES);
    need(plan->first_row[0] == 0 && plan->first_row[RANKS] == n_rows);
    for (uint32_t i = 0; i < RANKS; i++) {
        need(plan->first_row[i] <= plan->first_row[i + 1]);
        need(plan->n_home_rows[i] + plan->first_row[i + 1] - plan->first_row[i] <= MAX_ROWS);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t n_bytes = cmi_stage_offer_bytes(&limits);
    const cmi_stage_shape shape = {RANKS, MAX_ROWS, MAX_PAGES, size % 2};
    cmi_stage_offer offers[RANKS] = {0};
    cmi_staged_prompt prompts[MAX_PAGES];
    uint32_t first_row[RANKS + 1], n_home_rows[RANKS];
    cmi_staged_plan plan = {.prompts = prompts, .first_row = first_row, .n_home_rows = n_home_rows};
    CMI_ALIGNED(64) static uint8_t window[RANKS * OFFER_BYTES];
    bool all = true;
    need(n_bytes == OFFER_BYTES);
    memset(window, 0, sizeof window);
    memcpy(window, data, CMI_MIN(size, sizeof window));
    for (uint32_t i = 0; i < RANKS; i++) {
        all &= cmi_stage_offer_read(&offers[i], &limits, window + i * n_bytes);
    }
    if (all) {
        cmi_staged_plan_make(&plan, &shape, offers, PAGE_ROWS);
        check_plan(&plan, offers);
    }
    return 0;
}
