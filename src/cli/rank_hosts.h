/* cli/rank_hosts.h - where the ranks of an instance are, and their addresses.
 *
 * Without a list all are on this host and meet over shared memory. With --ep-hosts A:7000,B:7000
 * each host has as many, host 0 the first ones, and their fabric is UCX. A rank listens at two
 * ports, to the other ranks and to the router: the i-th of its host at 7000 + 2 i and the one
 * above. Thread: any; nothing here is shared. */
#ifndef CMI_CLI_RANK_HOSTS_H
#define CMI_CLI_RANK_HOSTS_H

#include "base/error.h"

enum {
    CMI_CLI_MAX_RANKS = 64,
    CMI_CLI_MAX_HOSTS = CMI_CLI_MAX_RANKS,
    CMI_CLI_MAX_HOST_NAME = 100,
    CMI_CLI_RANK_NAME = 32,
};

typedef struct cmi_rank_hosts {
    uint32_t n_ranks; /* of the instance */
    uint32_t n_hosts; /* 0: no list */
    uint32_t self;    /* which of them this is, from 0 on */
    struct {
        char name[CMI_CLI_MAX_HOST_NAME + 1]; /* "node3", "10.0.0.3", "[fe80::3]" */
        uint32_t port;
    } hosts[CMI_CLI_MAX_HOSTS];
    char name[CMI_CLI_RANK_NAME]; /* of the instance, the same for all its processes */
} cmi_rank_hosts;

/* list: NULL, or as above; self: UINT32_MAX: what a launcher says in env (cluster/launch.h), or
 * else the first. The name is made of the list. CMI_ERR_INVALID says what is wrong. */
CMI_NODISCARD cmi_status cmi_rank_hosts_read(cmi_rank_hosts *hosts_out, uint32_t n_ranks,
                                             const char *list, uint32_t self,
                                             const char *const *env, cmi_error *err);

/* What all processes of a cluster know, from CMINFER_CLUSTER_SECRET; NULL: it is not set.
 * CMI_ERR_INVALID: too short or too long for a fabric. */
#define CMI_CLUSTER_SECRET_VARIABLE "CMINFER_CLUSTER_SECRET"
CMI_NODISCARD cmi_status cmi_cluster_secret_read(const char **secret_out, cmi_error *err);

/* The kind of fabric that they need. */
const char *cmi_rank_hosts_fabric(const cmi_rank_hosts *hosts);

/* The ranks of this host: n from first on. */
uint32_t cmi_rank_hosts_first(const cmi_rank_hosts *hosts);
uint32_t cmi_rank_hosts_count(const cmi_rank_hosts *hosts);

/* Where a rank listens to the others, or to the router. */
void cmi_rank_hosts_address(const cmi_rank_hosts *hosts, uint32_t rank, bool for_router, char *out,
                            size_t size);

#endif
