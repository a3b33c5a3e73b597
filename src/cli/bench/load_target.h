/* cli/bench/load_target.h - the server that is measured: its address, and questions to it before
 * the run, which wait for the answer. */
#ifndef CMI_CLI_BENCH_LOAD_TARGET_H
#define CMI_CLI_BENCH_LOAD_TARGET_H

#include <sys/socket.h>

#include "base/buf.h"
#include "base/error.h"

typedef struct cmi_load_target {
    char host[256]; /* a name or an address, without brackets */
    char port[8];
    char prefix[512];                /* of every path; "" or "/x" */
    char authority[280];             /* as the Host header wants it */
    struct sockaddr_storage address; /* that answered; set by cmi_load_target_find */
    socklen_t address_bytes;
} cmi_load_target;

/* Reads "http://host:port/prefix". CMI_ERR_INVALID; CMI_ERR_UNSUPPORTED: https. */
CMI_NODISCARD cmi_status cmi_load_target_parse(cmi_load_target *target_out, const char *url,
                                               cmi_error *err);

/* Appends the request line's path: the prefix and the endpoint ("/v1/completions"), with one "/v1"
 * where both have it. */
void cmi_load_target_path(const cmi_load_target *target, const char *endpoint, cmi_buf *out);

/* Finds the first address of the host that takes a connection within timeout_s each. */
CMI_NODISCARD cmi_status cmi_load_target_find(cmi_load_target *target, uint32_t timeout_s,
                                              cmi_error *err);

/* GETs the path with the header lines ("K: V\r\n" each) and returns the body of a 200. */
CMI_NODISCARD cmi_status cmi_load_target_get(const cmi_load_target *target, const char *endpoint,
                                             const char *headers, uint32_t timeout_s,
                                             cmi_buf *body_out, cmi_error *err);

/* The id of the first model of /v1/models, into model_out (initialized). */
CMI_NODISCARD cmi_status cmi_load_target_model(const cmi_load_target *target, const char *headers,
                                               uint32_t timeout_s, cmi_buf *model_out,
                                               cmi_error *err);

#endif
