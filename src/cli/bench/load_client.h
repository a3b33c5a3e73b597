/* cli/bench/load_client.h - sends requests when they are due and times their answers.
 *
 * One thread, epoll, sockets that never block. A request has a connection of its own; one whose
 * answer came in full is used again. Requests start in their order; with all slots taken they wait.
 * A request on a used connection that the server closed meanwhile is sent again, once. */
#ifndef CMI_CLI_BENCH_LOAD_CLIENT_H
#define CMI_CLI_BENCH_LOAD_CLIENT_H

#include "cli/bench/load_answer.h"
#include "cli/bench/load_prompt.h"
#include "cli/bench/load_target.h"
#include "cli/progress.h"

typedef struct cmi_load_client_options {
    const cmi_load_target *target;
    const cmi_load_prompts *prompts;
    const cmi_load_data *data; /* whose due_ns are ascending, or count as such */
    const char *endpoint;
    const char *headers;      /* lines, "K: V\r\n" each */
    uint32_t max_concurrency; /* at least 1 */
    uint64_t timeout_ns;      /* of a request */
    double cancel_rate;       /* share of the requests that are given up */
    uint64_t cancel_delay_ns; /* after they were sent */
    uint64_t seed;            /* of which ones */
    bool keeps_text;
    cmi_progress *progress; /* NULL: none */
} cmi_load_client_options;

typedef struct cmi_load_client_result {
    uint64_t duration_ns;
    uint64_t cpu_ns;     /* that this process took meanwhile */
    bool is_interrupted; /* SIGINT: no more were started, and open ones given up */
} cmi_load_client_result;

/* Fills records[i] (zeroed; deinit them) for request i. Blocks SIGINT while it runs.
 * CMI_ERR_IO: the system refuses what it needs. */
CMI_NODISCARD cmi_status cmi_load_client_run(const cmi_load_client_options *opt,
                                             cmi_load_record *records,
                                             cmi_load_client_result *result_out, cmi_error *err);

#endif
