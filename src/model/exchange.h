/* model/exchange.h - how the rows of a pass reach experts that other ranks have, and come back.
 *
 * The forward pass knows when rows leave and when they are needed; an exchange (ep/exchange.h)
 * knows where the experts are. Of each layer of experts the pass calls send, receive, send_back and
 * receive_back, in this order, and does other work in between. Every rank of a group makes the
 * same calls in the same order, also those without a row.
 *
 * Values are bits that nobody changes on their way, and each pair (row, expert) has a result of its
 * own, so it does not matter to the sum who computed it, nor beside whom. */
#ifndef CMI_MODEL_EXCHANGE_H
#define CMI_MODEL_EXCHANGE_H

#include "base/error.h"

/* Rows as the experts read them. */
typedef struct cmi_exchange_rows {
    const void *values;  /* [n_rows][row_bytes]; until the call returns */
    const float *scales; /* [n_rows] of INT8; else NULL */
    size_t row_bytes;
    uint32_t n_rows;            /* 0 .. the exchange's max_rows */
    const uint32_t *expert_ids; /* [n_rows][top_k], distinct in a row */
    uint32_t layer_idx;
    uint32_t says, vote; /* go to all ranks with the rows */
} cmi_exchange_rows;

/* Those that came, one for each pair (row, expert), sorted by expert. */
typedef struct cmi_exchange_arrivals {
    void *values;           /* [max_arrivals][row_bytes], filled in */
    float *scales;          /* [max_arrivals], filled in for INT8; else NULL */
    uint32_t *expert_begin; /* [n_experts + 1], filled in: the first arrival of each */
    uint32_t *heard;        /* filled in: the most that a rank says, this one included */
    uint32_t *heard_vote;   /* the same of votes; NULL: not wanted */
} cmi_exchange_arrivals;

typedef struct cmi_exchange cmi_exchange;

/* All return why the group cannot go on (CMI_ERR_PEER, CMI_ERR_CLOSED, CMI_ERR_TIMEOUT,
 * CMI_ERR_BAD_DATA): the pass is then lost, and the exchange with it. */
typedef struct cmi_exchange_calls {
    cmi_status (*send)(cmi_exchange *exchange, const cmi_exchange_rows *rows);
    cmi_status (*receive)(cmi_exchange *exchange, const cmi_exchange_arrivals *arrivals);
    /* The results of the arrivals, [arrivals][result_bytes]; the exchange may read them until the
     * next receive. */
    cmi_status (*send_back)(cmi_exchange *exchange, const void *results);
    /* Those of the rows that were sent: pair i (row * top_k + k) at *results_out + i *
     * *stride_out. Valid until the next send. */
    cmi_status (*receive_back)(cmi_exchange *exchange, const void **results_out,
                               size_t *stride_out);
    /* Moves on what is on its way, without waiting; for who computes between send and receive. */
    void (*progress)(cmi_exchange *exchange);
} cmi_exchange_calls;

struct cmi_exchange { /* what an implementation begins with */
    const cmi_exchange_calls *calls;
    uint32_t max_rows;     /* of a send */
    uint32_t max_arrivals; /* of a receive */
};

#endif
