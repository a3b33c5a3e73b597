/* server/http_error.h - errors of the HTTP side, in the shape of the API's. Pure; any thread. */
#ifndef CMI_SERVER_HTTP_ERROR_H
#define CMI_SERVER_HTTP_ERROR_H

#include "server/api.h"

/* Fills in err: the type follows from the status. A line that is too long, or becomes invalid UTF-8
 * through its arguments, is cut there. */
CMI_PRINTF(3, 4)
void cmi_http_error_set(cmi_api_error *err, int http_status, const char *fmt, ...);

/* 429 with the time to come back, for what an engine did not take. */
void cmi_http_error_set_refused(cmi_api_error *err, cmi_admission_verdict verdict,
                                const char *message);

/* What a client is told when the engine returns st. */
int cmi_http_status_from(cmi_status st);

#endif
