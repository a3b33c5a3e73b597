#include "model/staged_plan.h"

#include <assert.h>

/* What has room for its pages, in order, so that all ranks take the same. */
static void choose_prompts(cmi_staged_plan *p, const cmi_stage_shape *shape,
                           const cmi_stage_offer *offers, uint32_t page_rows)
{
    p->n_prompts = p->n_rows = p->n_pages = 0;
    for (uint32_t rank = 0; rank < shape->n_ranks; rank++) {
        uint32_t home_row = 0;
        p->n_home_rows[rank] = offers[rank].n_own_rows;
        for (uint32_t i = 0; i < offers[rank].n_prompts; i++) {
            const cmi_stage_prompt *prompt = &offers[rank].prompts[i];
            const uint32_t n_pages = CMI_DIV_UP(prompt->position + prompt->n_rows, page_rows);
            if (n_pages > shape->max_pages - p->n_pages) {
                p->n_home_rows[rank] += prompt->n_rows;
                home_row += prompt->n_rows;
                continue;
            }
            p->prompts[p->n_prompts++] = (cmi_staged_prompt){.home = rank,
                                                             .prompt_idx = i,
                                                             .home_row = home_row,
                                                             .n_rows = prompt->n_rows,
                                                             .position = prompt->position,
                                                             .first_row = p->n_rows,
                                                             .first_page = p->n_pages,
                                                             .n_pages = n_pages};
            home_row += prompt->n_rows;
            p->n_rows += prompt->n_rows;
            p->n_pages += n_pages;
        }
    }
}

/* Rows that fill all ranks up to a level. */
static uint64_t rows_below(const cmi_staged_plan *p, uint32_t n_ranks, uint32_t level)
{
    uint64_t n_rows = 0;
    for (uint32_t rank = 0; rank < n_ranks; rank++) {
        n_rows += level > p->n_home_rows[rank] ? level - p->n_home_rows[rank] : 0;
    }
    return n_rows;
}

/* The highest level that the rows fill; the few above it go to the first ranks that reach it. */
static void cut(cmi_staged_plan *p, const cmi_stage_shape *shape)
{
    uint32_t level = 0;
    for (uint32_t above = shape->max_rows + 1; above - level > 1;) {
        const uint32_t middle = level + (above - level) / 2;
        if (rows_below(p, shape->n_ranks, middle) <= p->n_rows) {
            level = middle;
        } else {
            above = middle;
        }
    }
    uint32_t n_left = p->n_rows - (uint32_t)rows_below(p, shape->n_ranks, level);
    p->first_row[0] = 0;
    for (uint32_t rank = 0; rank < shape->n_ranks; rank++) {
        uint32_t n_rows = level > p->n_home_rows[rank] ? level - p->n_home_rows[rank] : 0;
        if (n_left > 0 && p->n_home_rows[rank] <= level) {
            n_rows++;
            n_left--;
        }
        p->first_row[rank + 1] = p->first_row[rank] + n_rows;
    }
    assert(n_left == 0 && p->first_row[shape->n_ranks] == p->n_rows);
}

/* By how many rows the busiest rank has less than if all stayed at home. */
static bool is_worth_it(const cmi_staged_plan *p, const cmi_stage_shape *shape,
                        const cmi_stage_offer *offers)
{
    uint32_t most_alone = 0, most = 0;
    for (uint32_t rank = 0; rank < shape->n_ranks; rank++) {
        uint32_t n_rows = offers[rank].n_own_rows;
        for (uint32_t i = 0; i < offers[rank].n_prompts; i++) {
            n_rows += offers[rank].prompts[i].n_rows;
        }
        most_alone = CMI_MAX(most_alone, n_rows);
        most = CMI_MAX(most, p->n_home_rows[rank] + p->first_row[rank + 1] - p->first_row[rank]);
    }
    const uint32_t saved = most_alone - most; /* a cut is never worse than none */
    return shape->min_rows_saved == 0 || saved >= CMI_MAX(shape->min_rows_saved, most_alone / 8);
}

void cmi_staged_plan_make(cmi_staged_plan *p, const cmi_stage_shape *shape,
                          const cmi_stage_offer *offers, uint32_t page_rows)
{
    choose_prompts(p, shape, offers, page_rows);
    cut(p, shape);
    if (!is_worth_it(p, shape, offers)) {
        p->n_prompts = p->n_rows = p->n_pages = 0;
        cut(p, shape);
    }
}

uint32_t cmi_staged_heads(uint32_t n_heads, uint32_t n_ranks, uint32_t rank, uint32_t *n_out)
{
    const uint32_t each = n_heads / n_ranks, n_more = n_heads % n_ranks;
    *n_out = each + (rank < n_more ? 1 : 0);
    return rank * each + CMI_MIN(rank, n_more);
}
