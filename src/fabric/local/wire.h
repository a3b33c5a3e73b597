/* fabric/local/wire.h - the datagrams between two local fabrics.
 *
 *   connector                          listener
 *   HELLO      who, limits, nonce  ->
 *                                  <-  CHALLENGE  who, limits, nonce, proof over both
 *   PROOF      proof over all,     ->
 *              header, bell
 *                                  <-  WELCOME    header, bell, rings
 *   then in both directions: REGION (with its file), REVOKE, BYE
 *   instead of an answer: REFUSE with a status
 *
 * The listener proves first, so that a connector gives nobody its memory who has only taken the
 * name. Every datagram is one cmi_local_news, whole, in the byte order of the host. */
#ifndef CMI_FABRIC_LOCAL_WIRE_H
#define CMI_FABRIC_LOCAL_WIRE_H

#include "fabric/fabric.h"
#include "fabric/local/share.h"
#include "fabric/proof.h"
#include "os/local_socket.h"

enum {
    CMI_LOCAL_MAGIC = 0x46494D43, /* "CMIF" */
    CMI_LOCAL_NAME_BYTES = CMI_LOCAL_SOCKET_MAX_NAME + 1,
};

typedef enum cmi_local_kind {
    LOCAL_HELLO = 1,
    LOCAL_CHALLENGE,
    LOCAL_PROOF,
    LOCAL_WELCOME,
    LOCAL_REFUSE,
    LOCAL_REGION,
    LOCAL_REVOKE,
    LOCAL_BYE,
} cmi_local_kind;

typedef struct cmi_local_fabric_id {
    uint64_t words[2]; /* random */
} cmi_local_fabric_id;

/* What both sides say of themselves, and sign. No padding. */
typedef struct cmi_local_hello {
    uint32_t protocol, version;
    uint32_t message_bytes, ring_bytes;
    uint64_t hung_after_ns; /* so that a sleeper wakes in time for its peers */
    cmi_local_fabric_id id;
    uint8_t nonce[CMI_PROOF_BYTES];
    char name[CMI_FABRIC_MAX_NAME + 1];
} cmi_local_hello;

typedef struct cmi_local_region_news {
    uint64_t serial;
    uint64_t n_bytes;
    cmi_share_token token;
} cmi_local_region_news;

typedef struct cmi_local_news {
    uint32_t magic;
    uint32_t kind;
    union {
        struct {
            cmi_local_hello hello;
            uint8_t proof[CMI_PROOF_BYTES]; /* of CHALLENGE */
        } hello;
        struct {
            uint8_t proof[CMI_PROOF_BYTES]; /* of PROOF */
            cmi_share_token header, rings;  /* rings: of WELCOME */
        } enter;
        int32_t status; /* of REFUSE */
        cmi_local_region_news region;
        uint64_t serial; /* of REVOKE */
    };
} cmi_local_news;

/* What is in the rkey of a local region. */
typedef struct cmi_local_rkey {
    cmi_local_fabric_id fabric;
    cmi_local_region_news region;
} cmi_local_rkey;

#endif
