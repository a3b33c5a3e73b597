#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/api_internal.h"
#include "server/http_error.h"
#include "server/json_out.h"
#include "server/sse.h"

cmi_status cmi_api_fail(cmi_api_error *err, cmi_status st, const char *message)
{
    int http_status = st == CMI_ERR_CANCELLED ? 503 : cmi_http_status_from(st);
    cmi_http_error_set(err, http_status, "%s", message);
    return st;
}

cmi_status cmi_api_refuse_as(cmi_api_error *err, int http_status, const char *param,
                             const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    cmi_error line; /* makes one clean line of it, whatever the client wrote */
    cmi_error_set(&line, CMI_ERR_INVALID, "%s", text);
    cmi_http_error_set(err, http_status, "%s", line.text);
    snprintf(err->param, sizeof err->param, "%s", param == NULL ? "" : param);
    return http_status == 404 ? CMI_ERR_NOT_FOUND : CMI_ERR_INVALID;
}

void cmi_api_error_write(const cmi_api_error *err, cmi_buf *out)
{
    cmi_buf_str(out, "{\"error\":{\"message\":");
    cmi_json_write_cstr(out, err->message);
    cmi_buf_str(out, ",\"type\":");
    cmi_json_write_cstr(out, err->type);
    cmi_buf_str(out, ",\"param\":");
    cmi_json_write_string_or_null(out, err->param, strlen(err->param));
    cmi_buf_printf(out, ",\"code\":%d}}", err->http_status);
}

void cmi_api_error_write_event(const cmi_api_error *err, cmi_buf *out)
{
    cmi_sse_begin(out);
    cmi_api_error_write(err, out);
    cmi_sse_end(out);
    cmi_sse_done(out);
}
