/* engine/link_wire.h - what a router (engine/router.h) and a rank's port (engine/rank_port.h) say
 * to each other, in frames (docs/WIRE.md).
 *
 * The rank says HELLO first. Requests and events are the values of engine/message.h, as they are in
 * memory: both sides are of one build, which HELLO makes sure of. A request may be longer than a
 * message and comes in pieces, one request after the other. It has a number of the router's for
 * every time that it is sent; all that is said of it bears this number, so that what an earlier
 * rank still says of it is nobody's. Pure; any thread. */
#ifndef CMI_ENGINE_LINK_WIRE_H
#define CMI_ENGINE_LINK_WIRE_H

#include "cluster/frame.h"
#include "engine/engine.h"

enum {
    CMI_LINK_HELLO = 0x0300, /* rank: what it is */
    CMI_LINK_REQUEST,        /* router: a piece of a request */
    CMI_LINK_CANCEL,         /* router: a request is to end; it does, by an event */
    CMI_LINK_FLUSH,          /* router: of the prefix cache */
    CMI_LINK_EVENTS,         /* rank: of any requests; request_id is the number */
    CMI_LINK_REFUSED,        /* rank: a request is not taken */
    CMI_LINK_LOAD,           /* rank: what it has to do, and its counters; each second at least */

    CMI_LINK_MESSAGE_BYTES = 1 << 15,
    CMI_LINK_PIECE_BYTES = CMI_LINK_MESSAGE_BYTES - 64,
    CMI_LINK_MAX_EVENTS = 64, /* of a message */
};

typedef struct cmi_link_hello {
    uint32_t build; /* a hash of the layout of all that is said */
    uint32_t vocab_size, max_model_len, max_running;
    uint32_t n_kv_pages, kv_page_tokens, max_drafts;
} cmi_link_hello;

typedef struct cmi_link_piece {
    uint64_t number;
    uint32_t total_bytes, offset;
    const uint8_t *bytes; /* in the frame */
    uint32_t n_bytes;
} cmi_link_piece;

typedef struct cmi_link_refusal {
    uint64_t number;
    int32_t status; /* CMI_ERR_NO_CAPACITY: another rank may; else it is the request's fault */
} cmi_link_refusal;

typedef struct cmi_link_load {
    cmi_admission_load load;
    cmi_admission_queue queue;
    cmi_engine_stats stats;
    uint64_t n_taken; /* requests that came whole, or were refused, since HELLO */
} cmi_link_load;

uint32_t cmi_link_build(void);

/* Each writes a frame into out and returns its bytes. */
size_t cmi_link_write_hello(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_link_hello *hello);
size_t cmi_link_write_piece(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_link_piece *piece);
size_t cmi_link_write_number(uint8_t out[CMI_LINK_MESSAGE_BYTES], uint16_t type, uint64_t number);
size_t cmi_link_write_events(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_event *events,
                             size_t n); /* 1 .. CMI_LINK_MAX_EVENTS */
size_t cmi_link_write_refusal(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_link_refusal *refusal);
size_t cmi_link_write_load(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_link_load *load);

/* False: the frame's payload is not one of its type. HELLO, pieces and events are sound in
 * themselves then: sizes and counts are inside their bounds. */
CMI_NODISCARD bool cmi_link_read_hello(const cmi_frame *frame, cmi_link_hello *hello_out);
CMI_NODISCARD bool cmi_link_read_piece(const cmi_frame *frame, cmi_link_piece *piece_out);
CMI_NODISCARD bool cmi_link_read_number(const cmi_frame *frame, uint64_t *number_out);
CMI_NODISCARD bool cmi_link_read_events(const cmi_frame *frame,
                                        cmi_event events_out[CMI_LINK_MAX_EVENTS], size_t *n_out);
CMI_NODISCARD bool cmi_link_read_refusal(const cmi_frame *frame, cmi_link_refusal *refusal_out);
CMI_NODISCARD bool cmi_link_read_load(const cmi_frame *frame, cmi_link_load *load_out);

#endif
