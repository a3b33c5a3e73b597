/* ep/group.h - ranks of one process, each a thread with a fabric of its own, every one connected to
 * all others: what `--ep N` on one host and the measurements stand on. Ranks in several processes
 * come together otherwise (cluster/), and exchange rows alike.
 *
 * Thread: create and destroy by one, while no rank's thread is in here; the rest by the rank's
 * own. */
#ifndef CMI_EP_GROUP_H
#define CMI_EP_GROUP_H

#include "ep/ep.h"

typedef struct cmi_ep_group cmi_ep_group;

/* Puts something between a rank and its fabric, as tests and measurements do with faults. On
 * success *fabric_inout is the result, which owns what was there. */
typedef cmi_status cmi_ep_wrap_fn(void *arg, uint32_t rank, cmi_fabric **fabric_inout,
                                  cmi_error *err);

/* kind: of the fabrics, "local" or "ucx", which brings them together on the loopback address. wrap
 * may be NULL. CMI_ERR_INVALID: kind or n_ranks. CMI_ERR_IO, CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_ep_group_create(cmi_ep_group **group_out, const char *kind,
                                             uint32_t n_ranks, cmi_ep_wrap_fn *wrap, void *arg,
                                             cmi_error *err);
void cmi_ep_group_destroy(cmi_ep_group *group); /* NULL is fine */

cmi_fabric *cmi_ep_group_fabric(cmi_ep_group *group, uint32_t rank);

/* Every rank calls it, at about the same time: allocates its region, of n_bytes, where the calling
 * thread's memory policy says, and finds those of the others. peers_out: [n_ranks].
 * CMI_ERR_TIMEOUT: somebody did not come within patience_ns. CMI_ERR_NO_MEMORY, and what a lost
 * endpoint has. */
CMI_NODISCARD cmi_status cmi_ep_group_join(cmi_ep_group *group, uint32_t rank, size_t n_bytes,
                                           uint64_t patience_ns, cmi_region_id *region_out,
                                           cmi_ep_peer *peers_out, cmi_error *err);

/* A region more, for a second exchange between the same ranks. Every rank calls it after all have
 * joined: the caller sees to it that none begins before. joined: what join gave. Errors as of
 * join. */
CMI_NODISCARD cmi_status cmi_ep_group_share(cmi_ep_group *group, uint32_t rank, size_t n_bytes,
                                            uint64_t patience_ns, const cmi_ep_peer *joined,
                                            cmi_region_id *region_out, cmi_ep_peer *peers_out,
                                            cmi_error *err);

#endif
