/* grammar/matcher.c - see matcher.h; masks are in mask.c. */
#include <string.h>

#include "grammar/stacks_internal.h"

void cmi_matcher_init(cmi_matcher *m, const cmi_grammar *grammar)
{
    m->grammar = grammar;
    m->n_items = 1;
    m->n_frames = 0;
    m->ended = false;
    m->items[0] = (cmi_matcher_frame){.state = grammar->start, .parent = CMI_NO_FRAME};
}

void cmi_matcher_copy(cmi_matcher *to, const cmi_matcher *from)
{
    memcpy(to, from, offsetof(cmi_matcher, frames) + from->n_frames * sizeof *from->frames);
}

static bool accept_bytes(cmi_matcher *m, const uint8_t *bytes, size_t n_bytes)
{
    cmi_stacks s;
    cmi_matcher_frame items[2][CMI_GRAMMAR_MAX_ALTERNATIVES];
    uint32_t n_items = m->n_items, at = 0;
    s.grammar = m->grammar;
    s.n_frames = m->n_frames;
    s.base_counter = s.base_height = 0;
    memcpy(s.frames, m->frames, m->n_frames * sizeof *s.frames);
    memcpy(items[0], m->items, n_items * sizeof *m->items);
    for (size_t i = 0; i < n_bytes; i++) {
        if (s.n_frames + CMI_STEP_FRAMES > CMI_STACKS_FRAMES) {
            cmi_stacks_collect(&s, items[at], n_items);
        }
        n_items = cmi_stacks_step(&s, items[at], n_items, bytes[i], items[at ^ 1]);
        if (n_items == 0) {
            return false;
        }
        at ^= 1;
    }
    cmi_stacks_collect(&s, items[at], n_items);
    m->n_items = (uint16_t)n_items;
    m->n_frames = (uint16_t)s.n_frames;
    memcpy(m->items, items[at], n_items * sizeof *m->items);
    memcpy(m->frames, s.frames, s.n_frames * sizeof *m->frames);
    return true;
}

bool cmi_matcher_accept_bytes(cmi_matcher *m, const char *bytes, size_t n_bytes)
{
    return !m->ended && accept_bytes(m, (const uint8_t *)bytes, n_bytes);
}

bool cmi_matcher_accept(cmi_matcher *m, uint32_t token_id)
{
    const cmi_vocab *v = m->grammar->vocab;
    if (m->ended || token_id >= v->n_ids) {
        return false;
    }
    if (v->bytes[token_id] != NULL) {
        return accept_bytes(m, v->bytes[token_id], v->n_bytes[token_id]);
    }
    for (uint32_t i = 0; i < v->n_end_ids; i++) {
        if (v->end_ids[i] == token_id && cmi_matcher_is_complete(m)) {
            m->ended = true;
            return true;
        }
    }
    return false;
}

bool cmi_matcher_is_complete(const cmi_matcher *m)
{
    const uint8_t *flags = m->grammar->flags;
    for (uint32_t i = 0; i < m->n_items; i++) {
        cmi_matcher_frame at = m->items[i];
        while ((flags[at.state] & CMI_STATE_ACCEPT) != 0) {
            if (at.parent == CMI_NO_FRAME) {
                return true;
            }
            at = m->frames[at.parent];
        }
    }
    return false;
}
