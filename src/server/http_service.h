/* server/http_service.h - what a request's headers say about how it wants to be served. Pure; any
 * thread. */
#ifndef CMI_SERVER_HTTP_SERVICE_H
#define CMI_SERVER_HTTP_SERVICE_H

#include "server/api.h"

/* Their values; NULL: not sent. */
typedef struct cmi_http_service_headers {
    const char *ttft_ms;       /* x-llm-d-slo-ttft-ms */
    const char *tpot_ms;       /* x-llm-d-slo-tpot-ms */
    const char *timeout_ms;    /* x-request-timeout-ms */
    const char *fairness_id;   /* x-llm-d-inference-fairness-id */
    const char *authorization; /* names the tenant where there is no fairness id */
} cmi_http_service_headers;

/* Writes what is there over the server's defaults in *service. A timeout can only become shorter,
 * a target becomes what the header says; 0 is no target. CMI_ERR_INVALID: err is a 400 that names
 * the header. */
CMI_NODISCARD cmi_status cmi_http_service_read(const cmi_http_service_headers *headers,
                                               cmi_api_service *service, cmi_api_error *err);

#endif
