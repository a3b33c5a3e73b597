/* fabric/ucx/wire.h - what two ucx fabrics say to each other.
 *
 * Frames, through a TCP connection beside UCX (ucx_internal.h says why):
 *
 *   connector                          listener
 *   HELLO      who, limits, nonce  ->
 *                                  <-  CHALLENGE  who, limits, nonce, proof over both
 *   PROOF      proof over all and  ->
 *              the entrance
 *                                  <-  WELCOME    proof over all and the entrance
 *   then in both directions: REGION for each region, WIRED when UCX has connected and all regions
 *   have been told; that done, the endpoint is open: REGION, REVOKE, REVOKED, BEAT, BYE
 *   instead of an answer: REFUSE with a status
 *
 * An entrance is what the peer needs to reach this side: the address of the UCX worker, and the
 * place and cookie that active messages name.
 *
 * Active messages, through UCX: MESSAGE and SIGNAL, which are numbered, and NOTE.
 *
 * All in the byte order of the host, which the magic tells apart. The readers here are pure: they
 * copy what is whole and of the right size, and leave its meaning to the caller. */
#ifndef CMI_FABRIC_UCX_WIRE_H
#define CMI_FABRIC_UCX_WIRE_H

#include "fabric/fabric.h"
#include "fabric/proof.h"

enum {
    CMI_UCX_MAGIC = 0x55494D43, /* "CMIU" */
    CMI_UCX_MAX_WORKER = 4096,  /* bytes of a worker's address: 50 for each network device */
};

typedef enum cmi_ucx_kind {
    UCX_HELLO = 1,
    UCX_CHALLENGE,
    UCX_PROOF,
    UCX_WELCOME,
    UCX_REFUSE,
    UCX_REGION,
    UCX_WIRED,
    UCX_REVOKE,
    UCX_REVOKED,
    UCX_BEAT,
    UCX_BYE,
    CMI_UCX_N_KINDS,
} cmi_ucx_kind;

typedef struct cmi_ucx_fabric_id {
    uint64_t words[2]; /* random */
} cmi_ucx_fabric_id;

/* What both sides say of themselves, and sign. No padding. */
typedef struct cmi_ucx_hello {
    uint32_t protocol, version;
    uint32_t message_bytes, ring_bytes;
    uint64_t hung_after_ns; /* so that the peer sends beats in time */
    cmi_ucx_fabric_id id;
    uint8_t nonce[CMI_PROOF_BYTES];
    char name[CMI_FABRIC_MAX_NAME + 1];
} cmi_ucx_hello;

typedef struct cmi_ucx_entrance {
    uint64_t cookie;
    uint32_t link;
    uint32_t n_worker;
    uint8_t worker[CMI_UCX_MAX_WORKER]; /* only n_worker bytes are sent */
} cmi_ucx_entrance;

typedef struct cmi_ucx_news {
    cmi_ucx_kind kind;
    union {
        struct {
            cmi_ucx_hello hello;
            uint8_t proof[CMI_PROOF_BYTES]; /* zeros in HELLO */
        } hello;
        struct {
            uint8_t proof[CMI_PROOF_BYTES];
            cmi_ucx_entrance entrance;
        } enter;
        int64_t status;  /* of REFUSE */
        uint64_t serial; /* of REGION; of WIRED: the last one that was given out */
        struct {
            uint64_t serial;
            uint64_t seq; /* of revocations; REVOKED has seq only: it and all before are done */
        } revoke;
        uint64_t n_numbered; /* of BYE: active messages that were sent */
    };
} cmi_ucx_news;

typedef struct cmi_ucx_frame_head {
    uint32_t magic;
    uint16_t kind, n_bytes; /* behind the head */
} cmi_ucx_frame_head;

enum { CMI_UCX_MAX_FRAME = sizeof(cmi_ucx_frame_head) + sizeof(cmi_ucx_news) };

/* Returns the bytes written. */
size_t cmi_ucx_frame_write(uint8_t out[CMI_UCX_MAX_FRAME], const cmi_ucx_news *news);

/* Reads the frame at the begin of bytes. CMI_IN_PROGRESS: the rest of it has not come.
 * CMI_ERR_BAD_DATA: no frame begins like this. */
CMI_NODISCARD cmi_status cmi_ucx_frame_read(const uint8_t *bytes, size_t n, cmi_ucx_news *news_out,
                                            size_t *n_used_out);

/* ---- active messages ---- */

typedef enum cmi_ucx_am_kind {
    UCX_AM_MESSAGE = 1,
    UCX_AM_SIGNAL,
    UCX_AM_NOTE,
    UCX_AM_GET,
    UCX_AM_PUT, /* these two are headers of bytes: cmi_ucx_am_data */
    UCX_AM_GOT,
} cmi_ucx_am_kind;

typedef struct cmi_ucx_am {
    uint32_t link; /* of the receiver */
    uint32_t kind;
    uint64_t cookie; /* the receiver's */
    uint64_t seq;    /* 1, 2, ... of all kinds but NOTE together */
} cmi_ucx_am;

typedef struct cmi_ucx_am_signal {
    cmi_ucx_am am;
    uint64_t serial, offset, operand; /* of a region of the receiver */
    uint64_t signal;
} cmi_ucx_am_signal;

enum {
    CMI_UCX_WANTS_ROOM = 1, /* the sender waits for the receiver's next NOTE of its ring */
    CMI_UCX_WANTS_ACK = 2,  /* the receiver answers with a NOTE */
};

typedef struct cmi_ucx_am_note {
    cmi_ucx_am am;  /* not numbered */
    uint64_t acked; /* numbered ones that the sender of this has taken in */
    uint64_t head;  /* bytes ever read from its ring, as cmi_ring counts them */
    uint64_t flags;
} cmi_ucx_am_note;

/* Bytes of a region of the receiver are asked for. */
typedef struct cmi_ucx_am_get {
    cmi_ucx_am am;
    uint64_t serial, offset, n_bytes;
    uint64_t op; /* comes back with them */
} cmi_ucx_am_get;

/* What some bytes are: a piece of a put, or of what was asked for. */
typedef struct cmi_ucx_am_data {
    cmi_ucx_am am;
    uint64_t to;     /* PUT: the serial of a region of the receiver. GOT: op */
    uint64_t offset; /* there; GOT: of what was asked for */
    int64_t status;  /* of GOT: CMI_OK, or CMI_ERR_NOT_FOUND and no bytes */
} cmi_ucx_am_data;

typedef struct cmi_ucx_am_view {
    cmi_ucx_am am; /* of all kinds */
    cmi_ucx_am_signal signal;
    cmi_ucx_am_note note;
    cmi_ucx_am_get get;
    cmi_ucx_am_data data;
    const uint8_t *message; /* in the bytes that were read: of MESSAGE, PUT and GOT */
    size_t n_message;
} cmi_ucx_am_view;

/* header: of PUT and GOT, else nothing. False: malformed. */
CMI_NODISCARD bool cmi_ucx_am_read(const void *header, size_t n_header, const uint8_t *bytes,
                                   size_t n, cmi_ucx_am_view *view_out);

/* ---- rkeys and addresses ---- */

typedef struct cmi_ucx_rkey {
    cmi_ucx_fabric_id fabric;
    uint64_t serial;
    uint64_t address, n_bytes;
    uint32_t n_packed;
    uint32_t crc; /* of all other bytes: UCX itself believes every rkey */
} cmi_ucx_rkey;

enum { CMI_UCX_MAX_PACKED = CMI_FABRIC_MAX_RKEY - sizeof(cmi_ucx_rkey) };

/* n_packed bytes of UCX's own; at most CMI_UCX_MAX_PACKED. Sets rkey->crc. */
void cmi_ucx_rkey_write(cmi_rkey *rkey_out, cmi_ucx_rkey *rkey, const void *packed);

/* False: not an rkey. packed_out is zeroed behind n_packed. */
CMI_NODISCARD bool cmi_ucx_rkey_read(const cmi_rkey *rkey, cmi_ucx_rkey *rkey_out,
                                     uint8_t packed_out[CMI_UCX_MAX_PACKED]);

/* "ucx:HOST:PORT", "ucx:[HOST]:PORT" when the host has colons. False: no such address. */
CMI_NODISCARD bool cmi_ucx_address_read(const char *address,
                                        char host_out[CMI_FABRIC_MAX_ADDRESS + 1],
                                        uint16_t *port_out);

#endif
