/* grammar/stacks_internal.h - all the stacks that agree with the text so far, and one byte more.
 *
 * A stack is an item (where the innermost rule stands) over frames (where the rules around it go
 * on), which stacks share. Frames are only ever added above, so whoever comes back to an earlier
 * text sets n_frames back; cmi_stacks_collect drops those that no item needs any more. */
#ifndef CMI_GRAMMAR_STACKS_INTERNAL_H
#define CMI_GRAMMAR_STACKS_INTERNAL_H

#include "grammar/grammar_internal.h"
#include "grammar/matcher.h"

#define CMI_NO_FRAME UINT16_MAX
/* Below the state that a mask is made for beforehand: what lies there is not known. */
#define CMI_UNKNOWN_FRAME (UINT16_MAX - 1)

enum {
    /* A byte adds at most one frame to an item: a rule's text begins with a byte, or with a rule
     * that nothing follows. Two leave a margin that an assert watches. */
    CMI_STEP_FRAMES = CMI_GRAMMAR_MAX_ALTERNATIVES * 2,
    CMI_MATCHER_FRAMES = CMI_GRAMMAR_MAX_ALTERNATIVES * CMI_GRAMMAR_MAX_DEPTH,
    CMI_STACKS_FRAMES = CMI_MATCHER_FRAMES + CMI_VOCAB_MAX_TOKEN_BYTES * CMI_STEP_FRAMES,
};

typedef struct cmi_stacks {
    const cmi_grammar *grammar;
    uint32_t n_frames;
    /* What a walk above CMI_UNKNOWN_FRAME met. */
    uint16_t base_counter;
    uint8_t base_height;
    cmi_matcher_frame frames[CMI_STACKS_FRAMES];
} cmi_stacks;

/* The items behind a byte, in items_out; how many. */
uint32_t cmi_stacks_step(cmi_stacks *s, const cmi_matcher_frame *items, uint32_t n_items,
                         uint8_t byte, cmi_matcher_frame *items_out);

/* Drops frames that no item stands on and renumbers the others. */
void cmi_stacks_collect(cmi_stacks *s, cmi_matcher_frame *items, uint32_t n_items);

#endif
