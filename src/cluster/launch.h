/* cluster/launch.h - which rank this process is, from a list of hosts or from a launcher's
 * environment.
 *
 * Pure: the environment is an argument, since only cli/ reads it. Any thread. */
#ifndef CMI_CLUSTER_LAUNCH_H
#define CMI_CLUSTER_LAUNCH_H

#include "cluster/membership.h"

enum { CMI_LAUNCH_MAX_HOST = 100, CMI_LAUNCH_UNKNOWN = UINT32_MAX };

typedef struct cmi_launch {
    const char *launcher; /* who says so: "torchrun", "Open MPI", "PMI", "Slurm" */
    uint32_t rank, n_ranks;
    uint32_t local_rank; /* on this host; CMI_LAUNCH_UNKNOWN */
    char host[CMI_LAUNCH_MAX_HOST +
              1];  /* of rank 0, where all meet; "": the launcher does not say */
    uint32_t port; /* there; 0: likewise */
} cmi_launch;

/* env is a list of "NAME=value" with NULL behind, as environ is. Of several launchers the inmost is
 * believed: RANK and WORLD_SIZE (torchrun sets them), OMPI_COMM_WORLD_RANK and _SIZE, PMI_RANK and
 * PMI_SIZE, SLURM_PROCID and SLURM_NTASKS. Where rank 0 is: MASTER_ADDR and MASTER_PORT, or else
 * the first host of SLURM_STEP_NODELIST or SLURM_JOB_NODELIST.
 * CMI_ERR_NOT_FOUND: no launcher. CMI_ERR_INVALID names the variable. */
CMI_NODISCARD cmi_status cmi_launch_read(cmi_launch *launch_out, const char *const *env,
                                         cmi_error *err);

/* The first host of Slurm's short form: "node[03-05,9],other" is node03. False: it is none. */
CMI_NODISCARD bool cmi_launch_first_host(const char *list, char host_out[CMI_LAUNCH_MAX_HOST + 1]);

/* "host:port,host:port,..." into addresses "SCHEMEhost:port" (scheme as a fabric's, with its
 * colon);
 * "[v6]:port" and, as it is, "local:name". members_out: [max], ranks in this order.
 * CMI_ERR_INVALID says which is wrong. */
CMI_NODISCARD cmi_status cmi_launch_read_hosts(cmi_member *members_out, uint32_t max,
                                               uint32_t *n_out, const char *text,
                                               const char *scheme, cmi_error *err);

#endif
