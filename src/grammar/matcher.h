/* grammar/matcher.h - where one sequence stands in a grammar, and the tokens allowed there.
 *
 * A matcher holds no memory of its own: keep a copy to go back to, for tokens that may be taken
 * back. Nothing here allocates; accepting takes 100 KB of the caller's stack, a mask 120 KB. Any
 * thread, one at a time for a matcher. */
#ifndef CMI_GRAMMAR_MATCHER_H
#define CMI_GRAMMAR_MATCHER_H

#include "grammar/grammar.h"

/* A position inside a value: what encloses it is the frame `parent`, or nothing. */
typedef struct cmi_matcher_frame {
    uint16_t state;
    uint16_t parent;
    uint32_t count : 24; /* characters or items so far, where the grammar counts them */
    uint32_t height : 8; /* frames below */
} cmi_matcher_frame;

typedef struct cmi_matcher {
    const cmi_grammar *grammar;
    uint16_t n_items;
    uint16_t n_frames;
    bool ended; /* by an end token: nothing more is allowed */
    cmi_matcher_frame items[CMI_GRAMMAR_MAX_ALTERNATIVES];
    /* Used up to n_frames, usually a few; cmi_matcher_copy copies no more than that. */
    cmi_matcher_frame frames[CMI_GRAMMAR_MAX_ALTERNATIVES * CMI_GRAMMAR_MAX_DEPTH];
} cmi_matcher;

/* At the beginning of a text. The grammar must outlive the matcher's use. */
void cmi_matcher_init(cmi_matcher *m, const cmi_grammar *grammar);

/* The same as assignment, without the part of 8 KB that is not in use. */
void cmi_matcher_copy(cmi_matcher *to, const cmi_matcher *from);

/* Goes on by a token. False, and no change, when the mask does not allow it. */
CMI_NODISCARD bool cmi_matcher_accept(cmi_matcher *m, uint32_t token_id);

/* Goes on by bytes, however they are cut into tokens. False, and no change, when no text of the
 * grammar goes on so. */
CMI_NODISCARD bool cmi_matcher_accept_bytes(cmi_matcher *m, const char *bytes, size_t n_bytes);

/* The text so far is a whole text of the grammar. It may still be allowed to go on. */
bool cmi_matcher_is_complete(const cmi_matcher *m);

/* Sets cmi_vocab_mask_words() words: the tokens that may come next, end tokens included. False when
 * there are none: after an end token, or where no token spells the bytes that the grammar wants. */
bool cmi_matcher_mask(const cmi_matcher *m, uint32_t *mask_out);

#endif
