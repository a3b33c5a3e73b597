/* cli/bench/ep_process.h - dispatch and combine between ranks that are processes, of one host or
 * several, which meet by cluster/'s gang: what ep.h measures between threads. */
#ifndef CMI_CLI_BENCH_EP_PROCESS_H
#define CMI_CLI_BENCH_EP_PROCESS_H

#include "cli/bench/ep.h"
#include "cluster/membership.h"

/* Which of the processes this is. */
typedef struct cmi_bench_ep_process {
    cmi_member members[CMI_BENCH_EP_MAX_RANKS]; /* by rank; an address may be "" but rank 0's */
    uint32_t n_ranks, rank;
    char listen_at[CMI_MEMBER_MAX_ADDRESS + 1]; /* this rank */
    const char *secret; /* CMI_FABRIC_MIN_SECRET bytes or more, the same of all ranks */
    uint32_t join_s;    /* how long to wait for the others */
} cmi_bench_ep_process;

/* What a command line says of it. */
typedef struct cmi_bench_ep_hosts {
    const char *list; /* "host:port,...", or "local:name,..."; NULL: all meet at rank 0 */
    uint32_t rank;    /* CMI_LAUNCH_UNKNOWN (cluster/launch.h): a launcher's variables say it */
    bool launch;      /* they are to */
    uint32_t join_s;
} cmi_bench_ep_hosts;

/* Fills in who is who, from the options and the environment. process points into the environment
 * then. CMI_ERR_INVALID, CMI_ERR_NOT_FOUND (no launcher): said for whoever wrote the command line.
 */
CMI_NODISCARD cmi_status cmi_bench_ep_find_hosts(cmi_bench_ep_process *process_out,
                                                 const cmi_bench_ep_hosts *hosts,
                                                 const char *fabric, cmi_error *err);

/* As cmi_bench_ep_run; the result is set on rank 0. CMI_ERR_TIMEOUT: others did not come.
 * CMI_ERR_UNSUPPORTED: their options are others. CMI_ERR_CLOSED: another process is this rank. */
CMI_NODISCARD cmi_status cmi_bench_ep_process_run(cmi_bench_ep_result *result_out,
                                                  const cmi_bench_ep_process *process,
                                                  const cmi_bench_ep_options *opt, cmi_error *err);

#endif
