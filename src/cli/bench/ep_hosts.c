/* cli/bench/ep_hosts.c - which rank this process is and where the others are; see ep_process.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench/ep_process.h"
#include "cli/rank_hosts.h"
#include "cluster/launch.h"
#include "fabric/fabric.h"
#include "os/tcp_socket.h"

enum { DEFAULT_PORT = 29500 }; /* where torchrun's ranks meet, too */

extern char **environ;

static cmi_status read_secret(cmi_bench_ep_process *process, cmi_error *err)
{
    const char *secret;
    cmi_status st = cmi_cluster_secret_read(&secret, err);
    if (st == CMI_OK && secret == NULL) {
        st = cmi_error_set(err, CMI_ERR_INVALID,
                           "ranks in processes prove to each other that they know a secret: "
                           "set " CMI_CLUSTER_SECRET_VARIABLE " to the same in all of them");
    }
    process->secret = secret;
    return st;
}

/* An address of a host, which may be an IPv6 one. */
static void write_address(char out[CMI_MEMBER_MAX_ADDRESS + 1], const char *host, uint32_t port)
{
    const bool is_v6 = strchr(host, ':') != NULL && host[0] != '[';
    snprintf(out, CMI_MEMBER_MAX_ADDRESS + 1, "ucx:%s%s%s:%u", is_v6 ? "[" : "", host,
             is_v6 ? "]" : "", port);
}

/* Only rank 0's address is known; it tells the others theirs. */
static cmi_status meet_at_rank_0(cmi_bench_ep_process *process, const cmi_launch *launch,
                                 cmi_error *err)
{
    const uint32_t port = launch->port > 0 ? launch->port : DEFAULT_PORT;
    if (launch->host[0] == '\0') {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "%s does not say where rank 0 is: set MASTER_ADDR (and MASTER_PORT), "
                             "or give --ep-hosts",
                             launch->launcher);
    }
    for (uint32_t i = 0; i < process->n_ranks; i++) {
        process->members[i] = (cmi_member){.role = CMI_MEMBER_RANK};
    }
    write_address(process->members[0].address, launch->host, port);
    if (process->rank == 0) { /* its host's name may be of the loopback here, but not elsewhere */
        write_address(process->listen_at, strchr(launch->host, ':') != NULL ? "::" : "0.0.0.0",
                      port);
        return CMI_OK;
    }
    char own[CMI_TCP_MAX_HOST + 1];
    cmi_status st = cmi_tcp_own_address(own, launch->host, (uint16_t)port);
    if (st != CMI_OK) {
        return cmi_error_set(err, st, "there is no way to rank 0's host %s", launch->host);
    }
    write_address(process->listen_at, own, 0);
    return CMI_OK;
}

static cmi_status read_hosts(cmi_bench_ep_process *process, const cmi_bench_ep_hosts *hosts,
                             const char *scheme, const cmi_launch *launch, cmi_error *err)
{
    uint32_t n;
    cmi_status st = cmi_launch_read_hosts(process->members, CMI_BENCH_EP_MAX_RANKS, &n, hosts->list,
                                          scheme, err);
    if (st != CMI_OK) {
        return st;
    }
    if (launch->launcher != NULL && launch->n_ranks != n) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s has %u ranks, but --ep-hosts %u hosts",
                             launch->launcher, launch->n_ranks, n);
    }
    if (process->rank >= n) {
        return cmi_error_set(err, CMI_ERR_INVALID, "there is no rank %u of %u hosts", process->rank,
                             n);
    }
    process->n_ranks = n;
    memcpy(process->listen_at, process->members[process->rank].address, sizeof process->listen_at);
    return CMI_OK;
}

cmi_status cmi_bench_ep_find_hosts(cmi_bench_ep_process *process, const cmi_bench_ep_hosts *hosts,
                                   const char *fabric, cmi_error *err)
{
    const bool is_ucx = strcmp(fabric, "ucx") == 0;
    cmi_launch launch = {0};
    cmi_status st = CMI_OK;
    *process = (cmi_bench_ep_process){.rank = hosts->rank, .join_s = hosts->join_s};
    if (hosts->list == NULL && !is_ucx) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--launch without --ep-hosts goes with ucx only");
    }
    if (hosts->rank == CMI_LAUNCH_UNKNOWN) {
        st = cmi_launch_read(&launch, (const char *const *)environ, err);
        process->rank = launch.rank;
        process->n_ranks = launch.n_ranks;
    }
    if (st == CMI_ERR_NOT_FOUND && !hosts->launch) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--ep-hosts needs --rank, since no launcher has set one");
    }
    if (st == CMI_OK && hosts->list == NULL && launch.launcher == NULL) {
        st = cmi_error_set(err, CMI_ERR_INVALID, "--rank needs --ep-hosts");
    }
    if (st == CMI_OK && launch.n_ranks > CMI_BENCH_EP_MAX_RANKS) {
        st = cmi_error_set(err, CMI_ERR_INVALID, "%u ranks are more than %d", launch.n_ranks,
                           CMI_BENCH_EP_MAX_RANKS);
    }
    if (st == CMI_OK) {
        st = hosts->list != NULL
                 ? read_hosts(process, hosts, is_ucx ? "ucx:" : "local:", &launch, err)
                 : meet_at_rank_0(process, &launch, err);
    }
    return st == CMI_OK ? read_secret(process, err) : st;
}
