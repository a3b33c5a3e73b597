/* grammar/need.c - how many frames each state needs to get to the end of its rule.
 *
 * Found level by level: first what ends without a call, then what ends with calls of that, and so
 * on. What is left has no finite text, or none below the depth that is allowed. A matcher enters a
 * state only if that many frames are left, so that it can always go on to an end. */
#include <string.h>

#include "base/alloc.h"
#include "grammar/grammar_internal.h"

typedef struct finder {
    cmi_build *b;
    uint8_t *need;
    uint32_t *pred_at, *preds;    /* states by the state that a byte leads to */
    uint32_t *calls_at, *by_next; /* calls by the state that follows them */
    uint32_t *from;               /* [calls] the calling state */
    uint32_t *queue;
    uint32_t n_queue;
    uint8_t level;
} finder;

static bool is_final(const cmi_build *b, uint32_t state)
{
    const cmi_dfa_state *s = &b->states[state];
    return s->accept && s->n_edges == 0 && s->n_calls == 0;
}

static void reach(finder *f, uint32_t state)
{
    if (f->need[state] == UINT8_MAX) {
        f->need[state] = f->level;
        f->queue[f->n_queue++] = state;
    }
}

static void check_call(finder *f, uint32_t call)
{
    const cmi_dfa_call *c = &f->b->calls[call];
    uint32_t inside = f->need[f->b->rules[c->rule].start];
    uint32_t frames = is_final(f->b, c->next) ? inside : inside + 1;
    if (inside != UINT8_MAX && frames <= f->level && f->need[c->next] <= f->level) {
        reach(f, f->from[call]);
    }
}

static void drain(finder *f)
{
    while (f->n_queue > 0) {
        uint32_t state = f->queue[--f->n_queue];
        for (uint32_t i = f->pred_at[state]; i < f->pred_at[state + 1]; i++) {
            reach(f, f->preds[i]);
        }
        for (uint32_t i = f->calls_at[state]; i < f->calls_at[state + 1]; i++) {
            check_call(f, f->by_next[i]);
        }
    }
}

/* Turns counts at [i + 1] into positions, and back after filling: see index_graph. */
static void sum_up(uint32_t *at, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        at[i + 1] += at[i];
    }
}

static void index_graph(finder *f)
{
    const cmi_build *b = f->b;
    uint32_t n = b->n_states;
    uint32_t *fill = cmi_alloc(n + 1, sizeof *fill), *fill_calls = cmi_alloc(n + 1, sizeof *fill);
    for (uint32_t i = 0; i < b->n_edges; i++) {
        f->pred_at[b->edges[i].to + 1]++;
    }
    for (uint32_t i = 0; i < b->n_calls; i++) {
        f->calls_at[b->calls[i].next + 1]++;
    }
    sum_up(f->pred_at, n);
    sum_up(f->calls_at, n);
    memcpy(fill, f->pred_at, (n + 1) * sizeof *fill);
    memcpy(fill_calls, f->calls_at, (n + 1) * sizeof *fill);
    for (uint32_t s = 0; s < n; s++) {
        for (uint32_t i = 0; i < b->states[s].n_edges; i++) {
            f->preds[fill[b->edges[b->states[s].edges + i].to]++] = s;
        }
        for (uint32_t i = 0; i < b->states[s].n_calls; i++) {
            uint32_t call = b->states[s].calls + i;
            f->from[call] = s;
            f->by_next[fill_calls[b->calls[call].next]++] = call;
        }
    }
    cmi_free(fill);
    cmi_free(fill_calls);
}

static void find_level(finder *f)
{
    uint32_t n_found;
    do { /* again as long as rules that are called last became ready */
        for (uint32_t i = 0; i < f->b->n_calls; i++) {
            check_call(f, i);
        }
        n_found = f->n_queue;
        drain(f);
    } while (n_found > 0 && cmi_build_work(f->b, f->b->n_calls));
}

void cmi_build_need(cmi_build *b, uint8_t *need)
{
    uint32_t n = b->n_states;
    finder f = {.b = b, .need = need};
    f.pred_at = cmi_alloc(n + 1, sizeof(uint32_t));
    f.calls_at = cmi_alloc(n + 1, sizeof(uint32_t));
    f.preds = cmi_alloc(b->n_edges, sizeof(uint32_t));
    f.by_next = cmi_alloc(b->n_calls, sizeof(uint32_t));
    f.from = cmi_alloc(b->n_calls, sizeof(uint32_t));
    f.queue = cmi_alloc(n, sizeof(uint32_t));
    memset(need, UINT8_MAX, n);
    index_graph(&f);
    for (uint32_t s = 0; s < n; s++) {
        if (b->states[s].accept) {
            reach(&f, s);
        }
    }
    drain(&f);
    for (f.level = 0; f.level <= CMI_GRAMMAR_MAX_DEPTH && b->status == CMI_OK; f.level++) {
        find_level(&f);
    }
    for (uint32_t i = 0; i < b->n_rules; i++) {
        b->rules[i].need = need[b->rules[i].start];
    }
    cmi_free(f.pred_at);
    cmi_free(f.calls_at);
    cmi_free(f.preds);
    cmi_free(f.by_next);
    cmi_free(f.from);
    cmi_free(f.queue);
}
