/* engine/handover_internal.h - what the two sides of a hand-over say to each other, and what their
 * engines say to them. */
#ifndef CMI_ENGINE_HANDOVER_INTERNAL_H
#define CMI_ENGINE_HANDOVER_INTERNAL_H

#include "engine/engine.h"
#include "engine/handover.h"
#include "engine/instance.h"
#include "engine/message.h"
#include "fabric/fabric.h"
#include "policy/content_key.h"
#include "policy/handover.h"

/* ---- the decode side's box of a seat, which the prefill side reads and writes ----
 *
 *     at 0          word: grows by one with each record that is complete
 *     record        cmi_handover_record, the prefill side's
 *     checksums     CRC32C [max_pages][n_layers] of page slices, the prefill side's
 *     order         page ids [n_pages], then the request, read by the prefill side
 */
typedef struct cmi_handover_record {
    uint32_t checksum; /* CRC32C of all of it, with 0 here, and of the checksums behind it */
    uint64_t transfer; /* whose record this is */
    cmi_event first;   /* the first token */
    uint32_t drafts[CMI_MAX_DRAFTS]; /* of the tokens behind it */
    uint32_t n_drafts;
    uint32_t n_pages;  /* that were put */
    uint32_t n_cached; /* prompt tokens that were not computed */
} cmi_handover_record;

typedef struct cmi_handover_box {
    uint64_t record_at, checksums_at, order_at, n_bytes; /* from the box's begin */
} cmi_handover_box;

cmi_handover_box cmi_handover_box_make(const cmi_kv_layout *layout, uint32_t max_model_len);

/* Where the request lies behind the page ids of an order. */
static inline uint64_t cmi_handover_request_at(uint32_t n_pages)
{
    return CMI_ROUND_UP((uint64_t)n_pages * sizeof(uint32_t), (uint64_t)8);
}

/* Of a record as it lies in memory, padding included, and of its n_checksums. */
uint32_t cmi_handover_record_checksum(const cmi_handover_record *record, const uint32_t *checksums,
                                      size_t n_checksums);

/* ---- messages ---- */

typedef enum cmi_handover_kind {
    CMI_HANDOVER_HELLO = 1,
    CMI_HANDOVER_WELCOME,
    CMI_HANDOVER_ASK,
    CMI_HANDOVER_CANCEL,
    CMI_HANDOVER_PROMPT_EVENT,
    CMI_HANDOVER_DONE,  /* the record is signalled */
    CMI_HANDOVER_ENDED, /* nothing more is put for this transfer */
} cmi_handover_kind;

/* What both instances must have alike: the same bytes for the same tokens, in the same place. */
typedef struct cmi_handover_shape {
    cmi_content_model model;
    uint64_t page_bytes, layer_bytes;
    uint32_t n_layers, max_model_len, vocab_size;
    uint32_t message_version;
} cmi_handover_shape;

typedef struct cmi_handover_hello {
    uint32_t kind;
    cmi_handover_shape shape;
    cmi_rkey pages, boxes;
    uint32_t n_seats;
} cmi_handover_hello;

/* Of one transfer; every kind but HELLO and PROMPT_EVENT. */
typedef struct cmi_handover_note {
    uint32_t kind;
    uint32_t seat;     /* ASK */
    uint64_t transfer; /* 0 in WELCOME */
    uint32_t n_pages;  /* ASK */
    uint32_t n_bytes;  /* ASK: of the request */
    int32_t status;    /* ENDED, WELCOME: why */
} cmi_handover_note;

typedef struct cmi_handover_event {
    uint32_t kind;
    uint64_t transfer;
    cmi_event event; /* CMI_EVENT_PROMPT_TOKEN */
} cmi_handover_event;

typedef union cmi_handover_message {
    uint32_t kind;
    cmi_handover_hello hello;
    cmi_handover_note note;
    cmi_handover_event event;
} cmi_handover_message;

/* The message has the size of its kind, and counts and flags in range. */
bool cmi_handover_message_is_good(const cmi_handover_message *message, size_t n_bytes);

cmi_handover_shape cmi_handover_shape_make(const cmi_instance *instance,
                                           const cmi_content_model *model);
bool cmi_handover_shape_equal(const cmi_handover_shape *a, const cmi_handover_shape *b);

/* Fabric options that fit both sides. */
cmi_fabric_options cmi_handover_fabric_options(const cmi_handover_options *opt);

#endif
