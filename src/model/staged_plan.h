/* model/staged_plan.h - how ranks share the rows of their prompts in a staged pass.
 *
 * All ranks know what all others have, and come to the same plan. Prompts that are staged are
 * packed into one list of rows, by rank and then as the rank has them, and the list is cut where
 * every rank gets as many rows as the others, its own that stay at home (those that decode, and
 * prompts that are not staged) included. Rows cost alike but for attention, which is cut by heads.
 *
 * A prompt is left to its own rank when the pages of all staged ones would be more than there are;
 * and all prompts are where that leaves no rank with much more than the others, since rows that
 * are shared cost their way.
 *
 * Pure: no I/O, no allocation. */
#ifndef CMI_MODEL_STAGED_PLAN_H
#define CMI_MODEL_STAGED_PLAN_H

#include "model/stage_exchange.h"

typedef struct cmi_stage_prompt { /* consecutive rows of a prompt in a pass */
    uint32_t n_rows, position;    /* of the first one */
} cmi_stage_prompt;

/* What a rank brings to a pass. */
typedef struct cmi_stage_offer {
    uint32_t n_own_rows; /* that are no prompt's */
    uint32_t n_prompts;
    const cmi_stage_prompt *prompts;
} cmi_stage_offer;

typedef struct cmi_staged_prompt {
    uint32_t home, prompt_idx; /* whose it is, and which of those that it offers */
    uint32_t home_row;         /* its first row among all that the home offers */
    uint32_t n_rows, position;
    uint32_t first_row;  /* in the list of all rows */
    uint32_t first_page; /* of n_pages; page i has positions i * 64 and on */
    uint32_t n_pages;
} cmi_staged_prompt;

typedef struct cmi_staged_plan {
    cmi_staged_prompt *prompts; /* [max_pages of the shape]: each has a page at least */
    uint32_t *first_row; /* [n_ranks + 1]: a rank has rows first_row[rank] .. first_row[rank + 1] */
    uint32_t *n_home_rows; /* [n_ranks] of each that stay at home */
    uint32_t n_prompts, n_rows, n_pages;
} cmi_staged_plan;

/* Fills in a plan whose arrays the caller has made. offers: [n_ranks]; of each the rows are
 * max_rows at most, and then each gets max_rows at most. page_rows: positions of a page. */
void cmi_staged_plan_make(cmi_staged_plan *plan, const cmi_stage_shape *shape,
                          const cmi_stage_offer *offers, uint32_t page_rows);

/* Heads first .. first + *n_out - 1 are those that a rank attends with; the first n_heads % n_ranks
 * ranks have one more than the others. */
uint32_t cmi_staged_heads(uint32_t n_heads, uint32_t n_ranks, uint32_t rank, uint32_t *n_out);

#endif
