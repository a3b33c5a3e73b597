#include "cluster/membership.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

typedef struct entry {
    cmi_member member;
    uint64_t changed; /* version */
} entry;

struct cmi_membership {
    uint64_t version;
    uint32_t n, self;
    entry entries[];
};

static bool is_terminated(const char *text, size_t max)
{
    return memchr(text, '\0', max + 1) != NULL;
}

static bool has_name(const cmi_membership *ms, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(ms->entries[i].member.name, name) == 0) {
            return true;
        }
    }
    return false;
}

static cmi_status add(cmi_membership *ms, uint32_t i, const cmi_member *member, cmi_error *err)
{
    cmi_member *own = &ms->entries[i].member;
    if (!is_terminated(member->name, CMI_MEMBER_MAX_NAME) ||
        !is_terminated(member->address, CMI_MEMBER_MAX_ADDRESS) ||
        !is_terminated(member->attributes, CMI_MEMBER_MAX_ATTRIBUTES) ||
        (unsigned)member->role >= CMI_MEMBER_N_ROLES) {
        return cmi_error_set(err, CMI_ERR_INVALID, "member %u: a field is out of range", i);
    }
    *own = *member;
    if (own->name[0] == '\0') {
        snprintf(own->name, sizeof own->name, "rank %u", i);
    }
    if (has_name(ms, i, own->name)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "member %u: the name \"%s\" is there twice", i,
                             own->name);
    }
    ms->entries[i].changed = ms->version;
    return CMI_OK;
}

cmi_status cmi_membership_create_static(cmi_membership **membership_out, const cmi_member *members,
                                        uint32_t n, uint32_t self, cmi_error *err)
{
    if (n < 1 || n > CMI_MEMBERSHIP_MAX || self >= n) {
        return cmi_error_set(
            err, CMI_ERR_INVALID,
            "a cluster has 1 to %d members, and this is one of them; here %u of %u",
            CMI_MEMBERSHIP_MAX, self, n);
    }
    cmi_membership *ms = cmi_alloc(1, sizeof *ms + n * sizeof ms->entries[0]);
    ms->version = 1;
    ms->n = n;
    ms->self = self;
    for (uint32_t i = 0; i < n; i++) {
        cmi_status st = add(ms, i, &members[i], err);
        if (st != CMI_OK) {
            cmi_free(ms);
            return st;
        }
    }
    *membership_out = ms;
    return CMI_OK;
}

void cmi_membership_destroy(cmi_membership *membership)
{
    cmi_free(membership);
}

uint64_t cmi_membership_version(const cmi_membership *membership)
{
    return membership->version;
}

uint32_t cmi_membership_count(const cmi_membership *membership)
{
    return membership->n;
}

uint32_t cmi_membership_self(const cmi_membership *membership)
{
    return membership->self;
}

const cmi_member *cmi_membership_get(const cmi_membership *membership, uint32_t i,
                                     uint64_t *changed_out)
{
    if (changed_out != NULL) {
        *changed_out = membership->entries[i].changed;
    }
    return &membership->entries[i].member;
}

/* ---- changes ---- */

static void set_address(cmi_membership *ms, uint32_t i, const char *address, uint64_t generation)
{
    cmi_member *member = &ms->entries[i].member;
    memcpy(member->address, address, strlen(address) + 1);
    member->generation = generation;
    ms->entries[i].changed = ++ms->version;
}

cmi_status cmi_membership_announce(cmi_membership *membership, const char *address,
                                   uint64_t generation, const char *attributes, cmi_error *err)
{
    cmi_member *self = &membership->entries[membership->self].member;
    const char *text = attributes != NULL ? attributes : "";
    if (strlen(address) > CMI_MEMBER_MAX_ADDRESS || strlen(text) > CMI_MEMBER_MAX_ATTRIBUTES) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s: address or attributes are too long",
                             self->name);
    }
    if (generation <= self->generation) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s: was announced with a later generation",
                             self->name);
    }
    memcpy(self->attributes, text, strlen(text) + 1);
    set_address(membership, membership->self, address, generation);
    return CMI_OK;
}

void cmi_membership_leave(cmi_membership *membership)
{
    const uint64_t generation = membership->entries[membership->self].member.generation;
    set_address(membership, membership->self, "", generation);
}

bool cmi_membership_hear(cmi_membership *membership, uint32_t i, const char *address,
                         uint64_t generation)
{
    if (i >= membership->n || i == membership->self || strlen(address) > CMI_MEMBER_MAX_ADDRESS) {
        return false;
    }
    const cmi_member *member = &membership->entries[i].member;
    if (generation < member->generation ||
        (generation == member->generation && strcmp(address, member->address) == 0)) {
        return false;
    }
    set_address(membership, i, address, generation);
    return true;
}
