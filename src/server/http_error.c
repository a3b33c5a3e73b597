#include "server/http_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static const char *type_name(int http_status)
{
    switch (http_status) {
    case 400:
        return "BadRequestError";
    case 401:
        return "AuthenticationError";
    case 403:
        return "PermissionDeniedError";
    case 404:
        return "NotFoundError";
    case 405:
        return "MethodNotAllowedError";
    case 408:
        return "RequestTimeoutError";
    case 413:
        return "PayloadTooLargeError";
    case 429:
        return "RateLimitError";
    case 503:
        return "ServiceUnavailableError";
    default:
        return "InternalServerError";
    }
}

void cmi_http_error_set(cmi_api_error *err, int http_status, const char *fmt, ...)
{
    *err = (cmi_api_error){.http_status = http_status};
    snprintf(err->type, sizeof err->type, "%s", type_name(http_status));
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    err->message[cmi_utf8_valid_prefix(err->message, strlen(err->message))] = '\0';
}

void cmi_http_error_set_refused(cmi_api_error *err, cmi_admission_verdict verdict,
                                const char *message)
{
    cmi_http_error_set(err, 429, "%s", message);
    err->retry_after_ms = verdict.retry_after_ms;
}

int cmi_http_status_from(cmi_status st)
{
    switch (st) {
    case CMI_ERR_INVALID:
        return 400;
    case CMI_ERR_NO_CAPACITY:
        return 429;
    case CMI_ERR_TIMEOUT:
        return 408;
    case CMI_ERR_CLOSED:
        return 503;
    default:
        return 500;
    }
}
