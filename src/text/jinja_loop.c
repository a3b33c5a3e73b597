/* text/jinja_loop.c - for loops and the variable `loop`.
 *
 * Items are asked for one at a time, and a test behind `if` runs when its item's turn comes: a
 * template may look at a namespace there that the body changes. loop.last and loop.nextitem look
 * one item ahead; loop.length and what counts from the end fetch all that are left, unless the
 * length is known. All of this is as in Jinja2, because a template can tell. */
#include <string.h>

#include "text/jinja_exec.h"

struct cmi_jinja_loop {
    const cmi_jinja_for *node;
    cmi_jinja_frame *outer; /* of the test: it sees the target but no `loop` */
    cmi_jinja_walk walk;
    cmi_jinja_value before, current;
    cmi_jinja_value ahead; /* fetched already, when has_ahead; UNSET: there is none */
    bool has_ahead;
    bool knows_length;
    bool has_finished_round;
    int64_t index0; /* -1 before the first */
    int64_t length;
};

/* Whether the loop's test holds for an item; true without a test. */
static bool passes(cmi_jinja_run *r, cmi_jinja_loop *loop, const cmi_jinja_value *item, bool *out)
{
    *out = true;
    if (loop->node->test == NULL) {
        return true;
    }
    cmi_jinja_frame *inner = r->frame;
    cmi_jinja_value verdict;
    if (!cmi_jinja_push_frame(r, loop->outer)) {
        return false;
    }
    bool ok = cmi_jinja_assign(r, loop->node->target, item) &&
              cmi_jinja_eval(r, loop->node->test, &verdict);
    *out = ok && cmi_jinja_truth(&verdict);
    cmi_jinja_pop_frame(r, inner);
    return ok;
}

/* The next item that passes the test, or UNSET. */
static bool fetch(cmi_jinja_run *r, cmi_jinja_loop *loop, cmi_jinja_value *out)
{
    for (;;) {
        bool passed = true;
        if (!cmi_jinja_charge(r, 1) || !cmi_jinja_walk_next(r, &loop->walk, out)) {
            return false;
        }
        if (out->kind != CMI_JINJA_UNSET && !passes(r, loop, out, &passed)) {
            return false;
        }
        if (passed) {
            return true;
        }
    }
}

static bool peek(cmi_jinja_run *r, cmi_jinja_loop *loop)
{
    if (!loop->has_ahead && !fetch(r, loop, &loop->ahead)) {
        return false;
    }
    loop->has_ahead = true;
    return true;
}

/* Fetches what is left into a list and goes on from there. */
static bool count_rest(cmi_jinja_run *r, cmi_jinja_loop *loop)
{
    cmi_jinja_value *items = NULL;
    size_t n = 0;
    size_t cap = 0;
    for (;;) {
        cmi_jinja_value v;
        if (!fetch(r, loop, &v)) {
            return false;
        }
        if (v.kind == CMI_JINJA_UNSET) {
            break;
        }
        if (n == cap) {
            cap = cap * 2 + 8;
            cmi_jinja_value *more = cmi_jinja_alloc(r, cap, sizeof *more);
            if (more == NULL) {
                return false;
            }
            if (n > 0) {
                memcpy(more, items, n * sizeof *more);
            }
            items = more;
        }
        items[n++] = v;
    }
    bool one_ahead = loop->has_ahead && loop->ahead.kind != CMI_JINJA_UNSET;
    loop->length = (int64_t)n + loop->index0 + 1 + one_ahead;
    loop->knows_length = true;
    cmi_jinja_value rest;
    if (!cmi_jinja_new_iterator(r, items, n, &rest)) {
        return false;
    }
    static const cmi_jinja_for no_test;
    loop->node = &no_test; /* what is left has passed */
    return cmi_jinja_walk_begin(r, &loop->walk, &rest);
}

typedef enum loop_attr {
    INDEX,
    INDEX0,
    REVINDEX,
    REVINDEX0,
    FIRST,
    LAST,
    LENGTH,
    PREVITEM,
    NEXTITEM,
    DEPTH,
    DEPTH0,
    N_ATTRS,
} loop_attr;

static loop_attr find_loop_attr(const cmi_jinja_str *name)
{
    static const char *const names[N_ATTRS] = {
        [INDEX] = "index",         [INDEX0] = "index0",     [REVINDEX] = "revindex",
        [REVINDEX0] = "revindex0", [FIRST] = "first",       [LAST] = "last",
        [LENGTH] = "length",       [PREVITEM] = "previtem", [NEXTITEM] = "nextitem",
        [DEPTH] = "depth",         [DEPTH0] = "depth0",
    };
    loop_attr attr = INDEX;
    while (attr < N_ATTRS && !cmi_jinja_str_is(name, names[attr])) {
        attr++;
    }
    return attr;
}

bool cmi_jinja_loop_attr(cmi_jinja_run *r, cmi_jinja_loop *loop, const cmi_jinja_str *name,
                         cmi_jinja_value *out)
{
    loop_attr attr = find_loop_attr(name);
    bool needs_length = attr == LENGTH || attr == REVINDEX || attr == REVINDEX0;
    if (needs_length && !loop->knows_length && !count_rest(r, loop)) {
        return false;
    }
    if ((attr == LAST || attr == NEXTITEM) && !peek(r, loop)) {
        return false;
    }
    switch (attr) {
    case INDEX:
        *out = cmi_jinja_int(loop->index0 + 1);
        break;
    case INDEX0:
        *out = cmi_jinja_int(loop->index0);
        break;
    case REVINDEX:
        *out = cmi_jinja_int(loop->length - loop->index0);
        break;
    case REVINDEX0:
        *out = cmi_jinja_int(loop->length - loop->index0 - 1);
        break;
    case FIRST:
        *out = cmi_jinja_bool(loop->index0 == 0);
        break;
    case LAST:
        *out = cmi_jinja_bool(loop->ahead.kind == CMI_JINJA_UNSET);
        break;
    case LENGTH:
        *out = cmi_jinja_int(loop->length);
        break;
    case PREVITEM:
        *out = loop->index0 == 0 ? cmi_jinja_undefined("there is no previous item") : loop->before;
        break;
    case NEXTITEM:
        *out = loop->ahead.kind == CMI_JINJA_UNSET ? cmi_jinja_undefined("there is no next item")
                                                   : loop->ahead;
        break;
    case DEPTH:
    case DEPTH0:
        *out = cmi_jinja_int(attr == DEPTH); /* only recursive loops go deeper */
        break;
    default:
        *out = (cmi_jinja_value){.kind = CMI_JINJA_UNSET};
        break;
    }
    return true;
}

/* Makes the next item the current one; *out says whether there was one. */
static bool advance(cmi_jinja_run *r, cmi_jinja_loop *loop, bool *out)
{
    cmi_jinja_value next = loop->ahead;
    if (!loop->has_ahead && !fetch(r, loop, &next)) {
        return false;
    }
    loop->has_ahead = false;
    *out = next.kind != CMI_JINJA_UNSET;
    if (*out) {
        loop->before = loop->current;
        loop->current = next;
        loop->index0++;
    }
    return true;
}

/* The rounds of the loop, in one frame that is emptied before each. */
static cmi_jinja_flow run_rounds(cmi_jinja_run *r, const cmi_jinja_for *node, cmi_jinja_loop *loop)
{
    static const char loop_name[] = "loop";
    cmi_jinja_value loop_value = {.kind = CMI_JINJA_LOOP, .loop = loop};
    uint32_t loop_id;
    bool uses_loop = cmi_strmap_get(&r->jinja->name_ids, loop_name, sizeof loop_name - 1, &loop_id);
    for (;;) {
        bool found;
        r->frame->n = 0;
        if (!advance(r, loop, &found)) {
            return CMI_JINJA_FAILED;
        }
        if (!found) {
            return CMI_JINJA_DONE;
        }
        if (!cmi_jinja_assign(r, node->target, &loop->current) ||
            (uses_loop && !cmi_jinja_set_name(r, loop_id, &loop_value))) {
            return CMI_JINJA_FAILED;
        }
        cmi_jinja_flow flow = cmi_jinja_exec(r, &node->body);
        if (flow == CMI_JINJA_FAILED) {
            return flow;
        }
        loop->has_finished_round |= flow == CMI_JINJA_DONE;
        if (flow == CMI_JINJA_BROKE) {
            return CMI_JINJA_DONE;
        }
    }
}

cmi_jinja_flow cmi_jinja_exec_for(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    cmi_jinja_frame *outer = r->frame;
    cmi_jinja_value iterable;
    size_t n = 0;
    cmi_jinja_loop *loop = cmi_jinja_alloc(r, 1, sizeof *loop);
    if (loop == NULL || !cmi_jinja_eval(r, node->loop->iterable, &iterable)) {
        return CMI_JINJA_FAILED;
    }
    r->line = node->line;
    *loop = (cmi_jinja_loop){.node = node->loop, .outer = outer, .index0 = -1};
    loop->knows_length = node->loop->test == NULL && cmi_jinja_length(&iterable, &n);
    loop->length = (int64_t)n;
    if (!cmi_jinja_walk_begin(r, &loop->walk, &iterable) || !cmi_jinja_push_frame(r, outer)) {
        return CMI_JINJA_FAILED;
    }
    cmi_jinja_flow flow = run_rounds(r, node->loop, loop);
    cmi_jinja_pop_frame(r, outer);
    /* `else` also runs when break or continue cut every round short: so it is in Jinja2. */
    if (flow != CMI_JINJA_DONE || loop->has_finished_round || node->loop->otherwise.n == 0) {
        return flow;
    }
    if (!cmi_jinja_push_frame(r, outer)) {
        return CMI_JINJA_FAILED;
    }
    flow = cmi_jinja_exec(r, &node->loop->otherwise);
    cmi_jinja_pop_frame(r, outer);
    return flow;
}
