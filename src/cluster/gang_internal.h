/* cluster/gang_internal.h - gang.c turns what a machine says into deeds; gang_links.c keeps the
 * connections, gang_greet.c hears what comes over them. */
#ifndef CMI_CLUSTER_GANG_INTERNAL_H
#define CMI_CLUSTER_GANG_INTERNAL_H

#include "cluster/gang.h"

enum {
    GANG_OUTBOX =
        16, /* messages of the machine that wait for room; a peer that lets more wait hangs */
    GANG_NO_LINK = UINT16_MAX,
    GANG_ENDPOINTS = 1 << 16, /* indices that a fabric may give */
};

typedef enum gang_link_state {
    LINK_FREE,
    LINK_DIALS,  /* being connected */
    LINK_GREETS, /* open; the other side has not said who it is */
    LINK_UP,     /* the machine knows it */
    LINK_BROKEN, /* its endpoint is closed, and the machine has to be told */
} gang_link_state;

typedef struct gang_link {
    gang_link_state state;
    bool owes_hello;
    uint32_t slot; /* CMI_GANG_NOBODY: not said yet */
    cmi_endpoint_id endpoint;
    uint64_t deadline_ns;  /* of DIALS and GREETS */
    uint64_t told_version; /* of the membership: what slot 0 has told of it */
    uint32_t n_out;
    cmi_gang_message out[GANG_OUTBOX];
} gang_link;

typedef struct gang_slot {
    uint16_t link; /* GANG_NO_LINK */
    uint64_t redial_ns;
    uint16_t n_blob;
    uint8_t blob[CMI_GANG_MAX_BLOB];
} gang_slot;

struct cmi_gang {
    cmi_gang_options opt;
    uint64_t name_hash;
    char name[CMI_FABRIC_MAX_NAME + 1];
    uint32_t n;    /* slots */
    uint32_t self; /* own slot */
    cmi_gang_machine machine;
    cmi_gang_peer *peers; /* [n] the machine's */
    gang_slot *slots;     /* [n]; [self] has this process's blob */
    gang_link *links;     /* [n_links] */
    uint32_t n_links;
    uint16_t *link_of; /* [GANG_ENDPOINTS] by the index of an endpoint */

    cmi_gang_view view;
    cmi_gang_rank *ranks; /* [n] of the view */
    uint8_t *blobs;       /* [n][CMI_GANG_MAX_BLOB] of the view */
    uint64_t over_ns;     /* when the last view ended */
    cmi_gang_counters counters;
    uint8_t frame[CMI_GANG_MAX_FRAME]; /* to be sent */
    uint8_t received[CMI_FABRIC_MAX_MESSAGE];
};

/* ---- gang.c ---- */

/* Does what the machine says, until it has no more to say. */
void cmi_gang_perform(cmi_gang *gang);

/* ---- gang_links.c ---- */

void cmi_gang_close_links(cmi_gang *gang);

/* Connects, gives up on what takes too long, sends what waits, tells the machine of broken links.
 * The machine is drained. */
void cmi_gang_tend_links(cmi_gang *gang);
uint64_t cmi_gang_links_due_ns(const cmi_gang *gang);

/* NULL: there is no room. */
gang_link *cmi_gang_take_link(cmi_gang *gang, cmi_endpoint_id endpoint, gang_link_state state,
                              uint32_t slot);

static inline uint16_t cmi_gang_link_index(const cmi_gang *gang, const gang_link *link)
{
    return (uint16_t)(link - gang->links);
}

/* What is not sent yet is sent, in order. True: all is. */
bool cmi_gang_send_waiting(cmi_gang *gang, gang_link *link);

/* And closes the endpoint. */
void cmi_gang_say_goodbye(cmi_gang *gang, gang_link *link, cmi_gang_goodbye_reason reason,
                          uint64_t generation);

/* The link of an endpoint; NULL: none. */
gang_link *cmi_gang_find_link(cmi_gang *gang, cmi_endpoint_id endpoint);

/* Closes the endpoint; the machine is told by the next tend, or has said so itself. */
void cmi_gang_break_link(cmi_gang *gang, gang_link *link);
void cmi_gang_drop_slot(cmi_gang *gang, uint32_t slot);

void cmi_gang_post(cmi_gang *gang, uint32_t slot, const cmi_gang_message *message);

/* ---- gang_greet.c ---- */

/* OPEN and LOST. */
void cmi_gang_hear_event(cmi_gang *gang, const cmi_fabric_event *event);

/* A frame of the gang's own types. False: the link was ended for it. */
bool cmi_gang_hear_frame(cmi_gang *gang, gang_link *link, const cmi_frame *frame);

#endif
