/* cluster/membership.h - who belongs to a cluster, what each does, and where to reach it.
 *
 * A membership is a table of members that changes; a version says that it has. What a member is,
 * it says itself (announce). Where the table comes from is the backend's business: here it is
 * static, a list that was given, or filled in by what peers tell each other; a service that keeps
 * it comes behind the same calls. Being in the table says nothing about being alive: for that see
 * the gang.
 *
 * All tables are bounded: CMI_MEMBERSHIP_MAX members, strings as long as below.
 * Thread: one owner. */
#ifndef CMI_CLUSTER_MEMBERSHIP_H
#define CMI_CLUSTER_MEMBERSHIP_H

#include "base/error.h"

enum {
    CMI_MEMBERSHIP_MAX = 1024,
    CMI_MEMBER_MAX_NAME = 63,
    CMI_MEMBER_MAX_ADDRESS = 127, /* as a fabric's */
    CMI_MEMBER_MAX_ATTRIBUTES = 255,
};

typedef enum cmi_member_role {
    CMI_MEMBER_RANK, /* of an instance's gang */
    CMI_MEMBER_ROUTER,
    CMI_MEMBER_PREFILL,
    CMI_MEMBER_DECODE,
    CMI_MEMBER_CACHE,
    CMI_MEMBER_N_ROLES,
} cmi_member_role;

typedef struct cmi_member {
    char name[CMI_MEMBER_MAX_NAME + 1]; /* in the table once; "rank 3" where nobody gave one */
    cmi_member_role role;
    char address[CMI_MEMBER_MAX_ADDRESS + 1]; /* of its fabric; "": not known, or it has left */
    uint64_t generation; /* of the process that announced itself, 0: not heard of; later ones are
                          * higher */
    char attributes[CMI_MEMBER_MAX_ATTRIBUTES + 1]; /* "key=value key=value", whoever reads them */
} cmi_member;

typedef struct cmi_membership cmi_membership;

/* ---- the static backend ---- */

/* n members (1 .. CMI_MEMBERSHIP_MAX) of one role; members[i].address may be "" where it has yet to
 * be told. Names that are "" are made. self is this process's index. Copies. CMI_ERR_INVALID: a
 * name twice, or an index or count out of range. */
CMI_NODISCARD cmi_status cmi_membership_create_static(cmi_membership **membership_out,
                                                      const cmi_member *members, uint32_t n,
                                                      uint32_t self, cmi_error *err);
void cmi_membership_destroy(cmi_membership *membership); /* NULL is fine */

/* ---- looks ---- */

/* Grows with every change; equal: nothing has changed. */
uint64_t cmi_membership_version(const cmi_membership *membership);
uint32_t cmi_membership_count(const cmi_membership *membership);
uint32_t cmi_membership_self(const cmi_membership *membership);

/* The i-th member; indices do not change. Valid until the next call that changes something.
 * changed_out, if not NULL: the version that changed it last. */
const cmi_member *cmi_membership_get(const cmi_membership *membership, uint32_t i,
                                     uint64_t *changed_out);

/* ---- changes ---- */

/* This process is there, at this address, with these attributes (NULL: none), and a generation
 * above those before. CMI_ERR_INVALID: a string is too long, or the generation too low. */
CMI_NODISCARD cmi_status cmi_membership_announce(cmi_membership *membership, const char *address,
                                                 uint64_t generation, const char *attributes,
                                                 cmi_error *err);

/* It is going: its address becomes "". */
void cmi_membership_leave(cmi_membership *membership);

/* What somebody says of another member. Of an older generation, or of this process, it is not
 * believed. True: something has changed. */
bool cmi_membership_hear(cmi_membership *membership, uint32_t i, const char *address,
                         uint64_t generation);

#endif
