/* ep/dispatch.c - rows go to their experts' ranks, and come from all. See ep.h.
 *
 * Nothing is flushed before memory that puts have read is written again, for a flush would wait for
 * what other exchanges have on their way, and what a rank hears tells it as much:
 *   - messages: receive_back has waited for a flag of all ranks with rows, raised behind those
 * rows;
 *   - heads and pairs, two in turn: with the rows of exchange n + 1 every rank has said that it had
 *     the heads of n, and n + 2 is the next to write there;
 *   - results (send_back's, the caller's): a rank that sends rows of n + 1 has got its results of
 * n, and receive has waited for all. */
#include "ep/ep_internal.h"

#include <assert.h>
#include <string.h>

/* ---- sending ---- */

static cmi_ep_head *head_of(const cmi_ep_target *target)
{
    return (cmi_ep_head *)(void *)target->head;
}

static cmi_ep_pair *pairs_of(const cmi_ep *ep, const cmi_ep_target *target)
{
    return (cmi_ep_pair *)(void *)(target->head + ep->layout.pairs);
}

/* Which rows go where, and for which experts. */
static void list_rows(cmi_ep *ep, const cmi_exchange_rows *rows)
{
    const uint32_t top_k = ep->layout.shape.top_k;
    const size_t at = (size_t)rows->layer_idx * ep->opt.n_experts;
    const uint16_t *rank_of = ep->opt.rank_of + at;
    uint32_t *counts = ep->opt.counts != NULL ? ep->opt.counts + at : NULL;
    for (uint32_t i = 0; i < ep->layout.shape.n_ranks; i++) {
        ep->targets[i].head =
            ep->targets[i].heads + ep->sequence % CMI_EP_WINDOWS * ep->layout.messages;
        ep->targets[i].n_rows = ep->targets[i].n_pairs = 0;
        ep->targets[i].last_row = UINT32_MAX;
    }
    for (uint32_t pair = 0; pair < rows->n_rows * top_k; pair++) {
        const uint32_t row = pair / top_k, expert = rows->expert_ids[pair];
        cmi_ep_target *t = &ep->targets[rank_of[expert]];
        assert(!t->peer.is_away);
        assert(t->n_pairs < ep->layout.max_pairs); /* of max_local_experts, which is the caller's */
        if (t->last_row != row) {
            t->rows[t->n_rows++] = t->last_row = row;
        }
        if (counts != NULL) {
            counts[expert]++;
        }
        pairs_of(ep, t)[t->n_pairs++] = (cmi_ep_pair){expert, t->n_rows - 1, pair};
    }
}

static void write_message(const cmi_ep *ep, uint8_t *to, uint32_t row)
{
    const cmi_exchange_rows *rows = ep->rows;
    memcpy(to, (const uint8_t *)rows->values + row * rows->row_bytes, rows->row_bytes);
    if (rows->scales != NULL) {
        memcpy(to + ep->layout.scale_offset, &rows->scales[row], sizeof *rows->scales);
    }
}

/* The last rank whose first copy is not after this one. */
static uint32_t rank_of_copy(const cmi_ep *ep, uint32_t task)
{
    uint32_t low = 0, high = ep->layout.shape.n_ranks;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (ep->first_copy[middle] <= task) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* A task is a row for a rank whose memory is here. */
static void copy_row(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cmi_ep *ep = arg;
    const cmi_ep_layout *l = &ep->layout;
    const uint32_t rank = rank_of_copy(ep, task);
    const cmi_ep_target *t = &ep->targets[rank];
    const uint32_t message = task - ep->first_copy[rank];
    uint8_t *window = t->memory + cmi_ep_window(l, ep->sequence, ep->opt.rank);
    write_message(ep, window + l->messages + message * l->message_bytes, t->rows[message]);
}

/* A row that this rank has an expert for is put from where that one reads it. */
static void place_messages(cmi_ep *ep)
{
    const cmi_ep_layout *l = &ep->layout;
    const cmi_ep_target *own = &ep->targets[ep->opt.rank];
    const uint8_t *window = ep->region + cmi_ep_window(l, ep->sequence, ep->opt.rank);
    for (uint32_t row = 0; row < ep->rows->n_rows; row++) {
        ep->packed[row] = ep->messages + row * l->message_bytes;
    }
    for (uint32_t i = 0; i < own->n_rows; i++) {
        ep->packed[own->rows[i]] = window + l->messages + i * l->message_bytes;
    }
}

static void pack_row(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cmi_ep *ep = arg;
    uint8_t *message = ep->messages + task * ep->layout.message_bytes;
    if (ep->packed[task] == message) {
        write_message(ep, message, task);
    }
}

static void copy_rows(cmi_ep *ep)
{
    const uint32_t n_ranks = ep->layout.shape.n_ranks;
    ep->first_copy[0] = 0;
    for (uint32_t i = 0; i < n_ranks; i++) {
        const cmi_ep_target *t = &ep->targets[i];
        ep->first_copy[i + 1] = ep->first_copy[i] + (t->memory != NULL ? t->n_rows : 0);
    }
    cmi_team_run(ep->opt.team, copy_row, ep, ep->first_copy[n_ranks]);
    if (ep->has_puts) {
        place_messages(ep);
        cmi_team_run(ep->opt.team, pack_row, ep, ep->rows->n_rows);
    }
}

/* Messages that lie side by side in one put. */
static cmi_status put_rows(cmi_ep *ep, uint32_t rank, size_t window)
{
    const cmi_ep_layout *l = &ep->layout;
    const cmi_ep_target *t = &ep->targets[rank];
    cmi_status st = CMI_OK;
    for (uint32_t begin = 0, end; st == CMI_OK && begin < t->n_rows; begin = end) {
        const uint8_t *first = ep->packed[t->rows[begin]];
        for (end = begin + 1; end < t->n_rows &&
                              ep->packed[t->rows[end]] == first + (end - begin) * l->message_bytes;
             end++) {
        }
        st = cmi_ep_put(ep, rank, first, window + l->messages + begin * l->message_bytes,
                        (end - begin) * l->message_bytes);
    }
    return st;
}

static cmi_status send_to(cmi_ep *ep, uint32_t rank)
{
    const cmi_ep_layout *l = &ep->layout;
    const cmi_ep_target *t = &ep->targets[rank];
    const size_t window = cmi_ep_window(l, ep->sequence, ep->opt.rank);
    const size_t head_bytes = l->pairs + t->n_pairs * sizeof(cmi_ep_pair);
    *head_of(t) = (cmi_ep_head){.sequence = ep->sequence,
                                .n_rows = t->n_rows,
                                .n_pairs = t->n_pairs,
                                .layer_idx = ep->rows->layer_idx,
                                .has_scales = ep->rows->scales != NULL,
                                .says = ep->rows->says,
                                .vote = ep->rows->vote};
    cmi_status st = CMI_OK;
    if (t->memory != NULL) {
        memcpy(t->memory + window, t->head, head_bytes);
    } else {
        st = put_rows(ep, rank, window);
        st = st == CMI_OK ? cmi_ep_put(ep, rank, t->head, window, head_bytes) : st;
    }
    return st == CMI_OK ? cmi_ep_raise(ep, rank, cmi_ep_dispatch_flag(l, ep->opt.rank)) : st;
}

cmi_status cmi_ep_send(cmi_exchange *exchange, const cmi_exchange_rows *rows)
{
    cmi_ep *ep = cmi_ep_of(exchange);
    const uint32_t n_ranks = ep->layout.shape.n_ranks;
    assert(rows->n_rows <= ep->layout.shape.max_rows);
    assert(rows->row_bytes <= ep->layout.shape.row_bytes);
    ep->sequence++;
    ep->rows = rows;
    ep->row_bytes = rows->row_bytes;
    ep->deadline_ns = cmi_fabric_after_ns(ep->opt.fabric, ep->opt.patience_ns);
    cmi_status st = cmi_ep_look_around(ep);
    st = st == CMI_OK ? cmi_ep_check(ep) : st;
    if (st != CMI_OK) {
        return st;
    }
    list_rows(ep, rows);
    copy_rows(ep);
    for (uint32_t i = 1; st == CMI_OK && i <= n_ranks; i++) { /* not all to the same at once */
        const uint32_t rank = (ep->opt.rank + i) % n_ranks;
        st = cmi_ep_is_there(ep, rank) ? send_to(ep, rank) : CMI_OK;
    }
    ep->rows = NULL;
    return st;
}

/* ---- receiving ---- */

static const uint8_t *window_from(const cmi_ep *ep, uint32_t source)
{
    return ep->region + cmi_ep_window(&ep->layout, ep->sequence, source);
}

/* What is used as an index is inside, or the peer is at fault. */
static bool is_sound(const cmi_ep *ep, uint32_t source, const cmi_ep_head *head, bool has_scales)
{
    const cmi_ep_shape *s = &ep->layout.shape;
    const cmi_ep_pair *pairs =
        (const cmi_ep_pair *)(const void *)(window_from(ep, source) + ep->layout.pairs);
    bool is_good = head->sequence == ep->sequence && head->n_rows <= s->max_rows &&
                   head->n_pairs <= ep->layout.max_pairs && (head->has_scales != 0) == has_scales;
    for (uint32_t i = 0; is_good && i < head->n_pairs; i++) {
        is_good = pairs[i].expert < ep->opt.n_experts && pairs[i].message < head->n_rows &&
                  pairs[i].pair_idx < s->max_rows * s->top_k;
    }
    return is_good;
}

/* Counts, prefix sums, places: sources ascending inside an expert. */
static void sort_pairs(cmi_ep *ep, uint32_t *begin)
{
    const uint32_t n_ranks = ep->layout.shape.n_ranks, n_experts = ep->opt.n_experts;
    memset(begin, 0, (n_experts + 1) * sizeof *begin);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t source = 0; source < n_ranks; source++) {
            if (!cmi_ep_is_there(ep, source)) {
                continue;
            }
            const uint8_t *window = window_from(ep, source);
            const cmi_ep_head *head = (const cmi_ep_head *)(const void *)window;
            const cmi_ep_pair *pairs =
                (const cmi_ep_pair *)(const void *)(window + ep->layout.pairs);
            for (uint32_t i = 0; i < head->n_pairs; i++) {
                uint32_t *at = &begin[pairs[i].expert];
                if (pass == 0) {
                    ++*at;
                } else {
                    ep->arrivals[(*at)++] =
                        (cmi_ep_arrival){(uint16_t)source, pairs[i].message, pairs[i].pair_idx};
                }
            }
        }
        if (pass == 0) { /* counts become first places */
            uint32_t sum = 0;
            for (uint32_t e = 0; e <= n_experts; e++) {
                uint32_t n = begin[e];
                begin[e] = sum;
                sum += n;
            }
            ep->n_arrivals = sum;
        }
    }
    for (uint32_t e = n_experts; e > 0; e--) { /* each stands behind its last one now */
        begin[e] = begin[e - 1];
    }
    begin[0] = 0;
}

static void take_row(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cmi_ep *ep = arg;
    const cmi_ep_arrival *a = &ep->arrivals[task];
    const uint8_t *message =
        window_from(ep, a->source) + ep->layout.messages + a->message * ep->layout.message_bytes;
    memcpy((uint8_t *)ep->into->values + task * ep->row_bytes, message, ep->row_bytes);
    if (ep->into->scales != NULL) {
        memcpy(&ep->into->scales[task], message + ep->layout.scale_offset,
               sizeof *ep->into->scales);
    }
}

cmi_status cmi_ep_receive(cmi_exchange *exchange, const cmi_exchange_arrivals *arrivals)
{
    cmi_ep *ep = cmi_ep_of(exchange);
    ep->deadline_ns = cmi_fabric_after_ns(ep->opt.fabric, ep->opt.patience_ns);
    cmi_status st = CMI_OK;
    uint32_t heard = 0, vote = 0;
    for (uint32_t i = 0; st == CMI_OK && i < ep->layout.shape.n_ranks; i++) {
        if (!cmi_ep_is_there(ep, i)) {
            continue;
        }
        st = cmi_ep_await(ep, i, cmi_ep_dispatch_flag(&ep->layout, i));
        const cmi_ep_head *head = (const cmi_ep_head *)(const void *)window_from(ep, i);
        if (st == CMI_OK && !is_sound(ep, i, head, arrivals->scales != NULL)) {
            st = cmi_ep_blame(ep, i, CMI_ERR_BAD_DATA);
        }
        heard = CMI_MAX(heard, head->says);
        vote = CMI_MAX(vote, head->vote);
    }
    if (st != CMI_OK) {
        return st;
    }
    ep->arrived_ns = cmi_fabric_now_ns(ep->opt.fabric);
    *arrivals->heard = heard;
    if (arrivals->heard_vote != NULL) {
        *arrivals->heard_vote = vote;
    }
    sort_pairs(ep, arrivals->expert_begin);
    ep->counters.n_pairs += ep->n_arrivals;
    ep->into = arrivals;
    cmi_team_run(ep->opt.team, take_row, ep, ep->n_arrivals);
    ep->into = NULL;
    return CMI_OK;
}
