/* grammar/stacks.c - see stacks_internal.h. */
#include <assert.h>
#include <string.h>

#include "grammar/stacks_internal.h"

typedef struct step {
    cmi_stacks *s;
    uint8_t byte;
    uint32_t n_out;
    cmi_matcher_frame *out;
} step;

static bool is_frame(uint16_t index)
{
    return index < CMI_UNKNOWN_FRAME;
}

/* Items and frames are equal when everything below them is. */
static bool same_stack(const cmi_stacks *s, cmi_matcher_frame a, cmi_matcher_frame b)
{
    for (;;) {
        if (a.state != b.state || a.count != b.count || a.height != b.height) {
            return false;
        }
        if (a.parent == b.parent) {
            return true;
        }
        if (!is_frame(a.parent) || !is_frame(b.parent)) {
            return false;
        }
        a = s->frames[a.parent];
        b = s->frames[b.parent];
    }
}

static bool is_low_enough(cmi_stacks *s, uint32_t height)
{
    s->base_height = (uint8_t)CMI_MAX(height, (uint32_t)s->base_height);
    return height <= CMI_GRAMMAR_MAX_DEPTH;
}

static void add_item(step *st, cmi_matcher_frame item)
{
    cmi_stacks *s = st->s;
    const cmi_grammar *g = s->grammar;
    if (!is_low_enough(s, item.height + (uint32_t)g->need[item.state])) {
        return;
    }
    if ((g->flags[item.state] & CMI_STATE_FINAL) != 0 && is_frame(item.parent)) {
        item = s->frames[item.parent]; /* which is not final, or it would not be there */
    }
    for (uint32_t i = 0; i < st->n_out; i++) {
        if (same_stack(s, st->out[i], item)) {
            return;
        }
    }
    if (st->n_out < CMI_GRAMMAR_MAX_ALTERNATIVES) {
        st->out[st->n_out++] = item;
    }
}

/* Whether the count of the item's frame lets the byte pass; then it is the count behind it. */
static bool pass_counter(step *st, cmi_matcher_frame *item)
{
    uint16_t index = st->s->grammar->counter[item->state];
    if (index == 0) {
        return true;
    }
    const cmi_counter *c = &st->s->grammar->counters[index];
    if (item->parent == CMI_UNKNOWN_FRAME) {
        st->s->base_counter = index;
        return true;
    }
    bool closes = (c->special == '"') == (st->byte == c->special);
    if (closes) {
        return item->count >= c->min;
    }
    if (item->count >= c->max) {
        return false;
    }
    if (c->max != CMI_UNBOUNDED || item->count < c->min) { /* further it does not matter */
        item->count++;
    }
    return true;
}

static void explore(step *st, cmi_matcher_frame item);

static void explore_call(step *st, cmi_matcher_frame item, const cmi_grammar_call *call)
{
    cmi_stacks *s = st->s;
    const cmi_grammar *g = s->grammar;
    if ((g->first[call->rule][st->byte / 32] >> st->byte % 32 & 1) == 0) {
        return;
    }
    cmi_matcher_frame inside = {.state = call->start, .parent = item.parent, .height = item.height};
    uint32_t n_frames = s->n_frames, n_out = st->n_out;
    if (call->next != CMI_NO_STATE) {
        cmi_matcher_frame frame = item;
        frame.state = call->next;
        if (!is_low_enough(s, frame.height + (uint32_t)g->need[frame.state]) ||
            !is_low_enough(s, frame.height + 1u)) {
            return;
        }
        assert(s->n_frames < CMI_STACKS_FRAMES);
        inside.parent = (uint16_t)s->n_frames;
        inside.height = (frame.height + 1u) & UINT8_MAX;
        s->frames[s->n_frames++] = frame;
    }
    explore(st, inside);
    if (st->n_out == n_out) {
        s->n_frames = n_frames;
    }
}

/* Adds what the byte makes of a stack: by an edge, inside a rule that it calls, or behind the call
 * when its rule may end here. */
static void explore(step *st, cmi_matcher_frame item)
{
    const cmi_grammar *g = st->s->grammar;
    uint8_t flags = g->flags[item.state];
    cmi_matcher_frame counted = item;
    if (st->n_out < CMI_GRAMMAR_MAX_ALTERNATIVES && pass_counter(st, &counted)) {
        uint16_t next = cmi_grammar_next(g, item.state, st->byte);
        if (next != CMI_NO_STATE) {
            counted.state = next;
            add_item(st, counted);
            counted.state = item.state;
        }
        if ((flags & CMI_STATE_CALLS) != 0) {
            for (uint32_t c = g->calls_at[item.state]; c < g->calls_at[item.state + 1]; c++) {
                explore_call(st, counted, &g->calls[c]);
            }
        }
    }
    if ((flags & CMI_STATE_ACCEPT) != 0 && is_frame(item.parent)) {
        explore(st, st->s->frames[item.parent]);
    }
}

uint32_t cmi_stacks_step(cmi_stacks *s, const cmi_matcher_frame *items, uint32_t n_items,
                         uint8_t byte, cmi_matcher_frame *items_out)
{
    const cmi_grammar *g = s->grammar;
    if (n_items == 1 && (g->flags[items[0].state] & CMI_STATE_SIMPLE) != 0) {
        uint16_t next = cmi_grammar_next(g, items[0].state, byte);
        if (next == CMI_NO_STATE) {
            return 0;
        }
        if ((g->flags[next] & CMI_STATE_SIMPLE) != 0) {
            items_out[0] = items[0];
            items_out[0].state = next;
            return 1;
        }
    }
    step st = {.s = s, .byte = byte, .out = items_out};
    for (uint32_t i = 0; i < n_items; i++) {
        explore(&st, items[i]);
    }
    return st.n_out;
}

void cmi_stacks_collect(cmi_stacks *s, cmi_matcher_frame *items, uint32_t n_items)
{
    uint16_t renamed[CMI_STACKS_FRAMES];
    uint32_t marks[CMI_DIV_UP(CMI_STACKS_FRAMES, 32)];
    memset(marks, 0, CMI_DIV_UP(s->n_frames, 32) * sizeof *marks);
    for (uint32_t i = 0; i < n_items; i++) {
        for (uint16_t f = items[i].parent; is_frame(f); f = s->frames[f].parent) {
            if ((marks[f / 32] >> f % 32 & 1) != 0) {
                break;
            }
            marks[f / 32] |= 1u << f % 32;
        }
    }
    uint32_t n = 0;
    for (uint32_t f = 0; f < s->n_frames; f++) { /* a parent stands before its children */
        if ((marks[f / 32] >> f % 32 & 1) != 0) {
            cmi_matcher_frame frame = s->frames[f];
            frame.parent = is_frame(frame.parent) ? renamed[frame.parent] : frame.parent;
            renamed[f] = (uint16_t)n;
            s->frames[n++] = frame;
        }
    }
    for (uint32_t i = 0; i < n_items; i++) {
        items[i].parent = is_frame(items[i].parent) ? renamed[items[i].parent] : items[i].parent;
    }
    s->n_frames = n;
    assert(n <= CMI_MATCHER_FRAMES);
}
