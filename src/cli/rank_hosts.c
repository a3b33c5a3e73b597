#include "cli/rank_hosts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "cluster/launch.h"
#include "fabric/fabric.h"
#include "os/random.h"

enum { PORTS_OF_A_RANK = 2 };

/* "ucx:host:port", which cmi_launch_read_hosts has looked at. */
static cmi_status take_host(cmi_rank_hosts *hosts, uint32_t i, const char *address, cmi_error *err)
{
    const char *begin = strchr(address, ':') + 1, *colon = strrchr(address, ':');
    const unsigned long port = strtoul(colon + 1, NULL, 10);
    const unsigned long n_ports = (unsigned long)PORTS_OF_A_RANK * cmi_rank_hosts_count(hosts);
    if (strncmp(address, "ucx:", 4) != 0 || colon - begin > CMI_CLI_MAX_HOST_NAME) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--ep-hosts: \"%s\" is not host:port", address);
    }
    if (port + n_ports > 65536) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--ep-hosts: from \"%s\" on there are no %lu ports, two for each rank",
                             begin, n_ports);
    }
    memcpy(hosts->hosts[i].name, begin, (size_t)(colon - begin));
    hosts->hosts[i].port = (uint32_t)port;
    return CMI_OK;
}

static cmi_status read_list(cmi_rank_hosts *hosts, const char *list, cmi_error *err)
{
    cmi_member members[CMI_CLI_MAX_HOSTS];
    cmi_status st =
        cmi_launch_read_hosts(members, CMI_CLI_MAX_HOSTS, &hosts->n_hosts, list, "ucx:", err);
    if (st == CMI_OK && hosts->n_ranks % hosts->n_hosts != 0) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--ep %u cannot be spread evenly over the %u hosts of --ep-hosts",
                             hosts->n_ranks, hosts->n_hosts);
    }
    for (uint32_t i = 0; st == CMI_OK && i < hosts->n_hosts; i++) {
        st = take_host(hosts, i, members[i].address, err);
    }
    return st;
}

static cmi_status find_self(cmi_rank_hosts *hosts, uint32_t self, const char *const *env,
                            cmi_error *err)
{
    cmi_launch launch = {.launcher = "--node-rank"};
    cmi_status st = self == UINT32_MAX ? cmi_launch_read(&launch, env, err) : CMI_OK;
    if (st == CMI_ERR_NOT_FOUND) { /* no launcher */
        return CMI_OK;
    }
    hosts->self = self == UINT32_MAX ? launch.rank : self;
    if (st == CMI_OK && hosts->self >= hosts->n_hosts) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "by %s this is host %u (from 0 on), but --ep-hosts has %u",
                             launch.launcher, hosts->self, hosts->n_hosts);
    }
    return st;
}

cmi_status cmi_rank_hosts_read(cmi_rank_hosts *hosts_out, uint32_t n_ranks, const char *list,
                               uint32_t self, const char *const *env, cmi_error *err)
{
    *hosts_out = (cmi_rank_hosts){.n_ranks = n_ranks};
    if (list == NULL) {
        snprintf(hosts_out->name, sizeof hosts_out->name, "ep-%016" PRIx64, cmi_random_seed());
        return self == UINT32_MAX
                   ? CMI_OK
                   : cmi_error_set(err, CMI_ERR_INVALID, "--node-rank goes with --ep-hosts");
    }
    const uint32_t crc = cmi_crc32c(cmi_crc32c(0, &n_ranks, sizeof n_ranks), list, strlen(list));
    snprintf(hosts_out->name, sizeof hosts_out->name, "ep-%08" PRIx32, crc);
    cmi_status st = read_list(hosts_out, list, err);
    return st == CMI_OK ? find_self(hosts_out, self, env, err) : st;
}

cmi_status cmi_cluster_secret_read(const char **secret_out, cmi_error *err)
{
    const char *secret = getenv(CMI_CLUSTER_SECRET_VARIABLE);
    const size_t n = secret != NULL ? strlen(secret) : CMI_FABRIC_MIN_SECRET;
    *secret_out = secret;
    return n >= CMI_FABRIC_MIN_SECRET && n <= CMI_FABRIC_MAX_SECRET
               ? CMI_OK
               : cmi_error_set(err, CMI_ERR_INVALID,
                               CMI_CLUSTER_SECRET_VARIABLE " has %d to %d characters",
                               CMI_FABRIC_MIN_SECRET, CMI_FABRIC_MAX_SECRET);
}

const char *cmi_rank_hosts_fabric(const cmi_rank_hosts *hosts)
{
    return hosts->n_hosts == 0 ? "local" : "ucx";
}

uint32_t cmi_rank_hosts_first(const cmi_rank_hosts *hosts)
{
    return hosts->self * cmi_rank_hosts_count(hosts);
}

uint32_t cmi_rank_hosts_count(const cmi_rank_hosts *hosts)
{
    return hosts->n_ranks / CMI_MAX(hosts->n_hosts, 1u);
}

void cmi_rank_hosts_address(const cmi_rank_hosts *hosts, uint32_t rank, bool for_router, char *out,
                            size_t size)
{
    if (hosts->n_hosts == 0) {
        snprintf(out, size, "local:%s-%s%u", hosts->name, for_router ? "port-" : "", rank);
        return;
    }
    const uint32_t n = cmi_rank_hosts_count(hosts), host = rank / n;
    snprintf(out, size, "ucx:%s:%u", hosts->hosts[host].name,
             hosts->hosts[host].port + PORTS_OF_A_RANK * (rank % n) + (for_router ? 1 : 0));
}
