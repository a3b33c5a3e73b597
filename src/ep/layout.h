/* ep/layout.h - what each rank's receive memory looks like (paper section 5.1, Eq. 1-2).
 *
 * Every rank has one such region for each stream of steps, and all ranks of a group the same
 * layout, so that offsets are arithmetic and nobody asks. It holds
 *   - a flag for each source and direction, on a cache line of its own: the sequence number of the
 *     last exchange whose bytes of that source are complete;
 *   - two windows in turn for rows that come (dispatch): for each source a head, the list of pairs
 *     (row, expert) and the rows, a message each. A rank may be one exchange ahead of a slow peer
 *     that it sent no row to, never two (paper 5.5), hence two;
 *   - one window for results that come back (combine), a place for each pair of one's own rows.
 *     One is enough: results of the next exchange come only after this rank has sent its rows.
 *
 * A row goes to a rank once, however many of its experts are there. So a source's window has
 * max_rows messages, where the paper's Eq. 2 has max_rows * min(top_k, local experts). */
#ifndef CMI_EP_LAYOUT_H
#define CMI_EP_LAYOUT_H

#include "base/error.h"

enum {
    CMI_EP_MAX_RANKS = 1024,
    CMI_EP_WINDOWS = 2,
    CMI_EP_MESSAGE_ALIGN = 512, /* of INT8 rows of 7,168 values: messages of 7,680 bytes */
};

/* The same for all ranks. */
typedef struct cmi_ep_shape {
    uint32_t n_ranks;           /* 1 .. CMI_EP_MAX_RANKS */
    uint32_t max_rows;          /* of a rank in an exchange */
    uint32_t top_k;             /* experts of a row */
    uint32_t max_local_experts; /* that one rank has, of a layer */
    size_t row_bytes;           /* of a row's values, the widest */
    size_t result_bytes;        /* of an expert's output */
} cmi_ep_shape;

/* Of a source's rows, in front of them. The sender writes it last but for the flag. */
typedef struct cmi_ep_head {
    uint64_t sequence;
    uint32_t n_rows, n_pairs;
    uint32_t layer_idx;
    uint32_t has_scales;
    uint32_t says, vote;
    uint8_t unused[32]; /* a cache line */
} cmi_ep_head;

typedef struct cmi_ep_pair {
    uint32_t expert; /* of the layer */
    uint32_t message;
    uint32_t pair_idx; /* row * top_k + k at the source: where the result goes */
} cmi_ep_pair;

typedef struct cmi_ep_layout {
    cmi_ep_shape shape;
    uint32_t max_pairs;   /* from one rank to another */
    size_t message_bytes; /* values, then the scale at scale_offset */
    size_t scale_offset;
    size_t result_stride;
    /* offsets */
    size_t pairs;        /* in a source's window */
    size_t messages;     /* in a source's window */
    size_t source_bytes; /* of a source's window */
    size_t combine;      /* in the region */
    size_t region_bytes;
} cmi_ep_layout;

/* CMI_ERR_INVALID: a number that cannot be. */
CMI_NODISCARD cmi_status cmi_ep_layout_make(cmi_ep_layout *layout_out, const cmi_ep_shape *shape,
                                            cmi_error *err);

/* Offsets in a rank's region of what comes from rank `source`. */
size_t cmi_ep_dispatch_flag(const cmi_ep_layout *layout, uint32_t source);
size_t cmi_ep_combine_flag(const cmi_ep_layout *layout, uint32_t source);
size_t cmi_ep_window(const cmi_ep_layout *layout, uint64_t sequence, uint32_t source);

/* Of the result of a pair of the rank's own rows. */
static inline size_t cmi_ep_result(const cmi_ep_layout *layout, uint32_t pair_idx)
{
    return layout->combine + pair_idx * layout->result_stride;
}

#endif
