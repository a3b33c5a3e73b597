/* grammar/mask_internal.h - a walk through the tree of tokens along a grammar. */
#ifndef CMI_GRAMMAR_MASK_INTERNAL_H
#define CMI_GRAMMAR_MASK_INTERNAL_H

#include "grammar/stacks_internal.h"

typedef struct cmi_walk {
    const cmi_vocab *vocab;
    const cmi_trie *trie;
    uint32_t *mask;     /* allowed tokens are added to it */
    uint32_t *resumes;  /* nodes where the base's rule has ended; NULL: not wanted */
    uint32_t n_resumes; /* at most the nodes of the tree */
    uint32_t n_visited; /* nodes */
    /* By bytes read since the walk began. */
    uint32_t frames_at[CMI_VOCAB_MAX_TOKEN_BYTES + 1];
    uint32_t n_items[CMI_VOCAB_MAX_TOKEN_BYTES + 1];
    uint16_t states[CMI_VOCAB_MAX_TOKEN_BYTES + 1]; /* where a simple state is all there is */
    cmi_matcher_frame items[CMI_VOCAB_MAX_TOKEN_BYTES + 1][CMI_GRAMMAR_MAX_ALTERNATIVES];
    cmi_stacks stacks;
} cmi_walk;

/* Adds the tokens in nodes begin .. end, `depth` bytes into the tree, that items[0] allow. */
void cmi_walk_nodes(cmi_walk *w, uint32_t begin, uint32_t end, uint32_t depth);

/* Adds the tokens that one stack allows, without masks made beforehand. */
void cmi_walk_item(cmi_walk *w, cmi_matcher_frame item);

#endif
