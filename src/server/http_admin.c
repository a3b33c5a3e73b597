/* server/http_admin.c - endpoints that change the server for everybody. */
#include <jansson.h>
#include <string.h>

#include "server/server_internal.h"

static enum MHD_Result reply_count(cmi_http_request *req, const char *name, size_t n)
{
    cmi_buf body;
    cmi_buf_init(&body, 256);
    cmi_buf_printf(&body, "{\"success\":true,\"%s\":%zu}", name, n);
    return cmi_http_reply_body(req, 200, CMI_HTTP_JSON, &body);
}

enum MHD_Result cmi_http_admin_flush(cmi_http_request *req)
{
    cmi_engine *engine = atomic_load(&req->server->engine);
    cmi_engine_flush_prefix_cache(engine);
    cmi_buf body;
    cmi_buf_init(&body, 256);
    cmi_buf_str(&body, "{\"success\":true}");
    return cmi_http_reply_body(req, 200, CMI_HTTP_JSON, &body);
}

static enum MHD_Result refuse(cmi_http_request *req, const char *message)
{
    cmi_api_error err;
    cmi_http_error_set(&err, 400, "%s", message);
    return cmi_http_reply_error(req, &err);
}

enum MHD_Result cmi_http_admin_abort(cmi_http_request *req)
{
    json_t *root = json_loadb(cmi_buf_cstr(&req->body), req->body.len, 0, NULL);
    const json_t *id = json_object_get(root, "rid");
    id = id != NULL ? id : json_object_get(root, "request_id");
    bool all = json_is_true(json_object_get(root, "abort_all"));
    enum MHD_Result result;
    if (all || (json_is_string(id) && json_string_length(id) > 0)) {
        cmi_api_error why;
        cmi_http_error_set(&why, 403, "The request was aborted by an administrator.");
        size_t n = cmi_exchange_table_abort(req->server->exchanges,
                                            all ? NULL : json_string_value(id), &why);
        result = reply_count(req, "aborted", n);
    } else {
        result = refuse(req, "Say which request: {\"rid\": \"ID\"}, where ID is the answer's id or "
                             "its X-Request-Id, or {\"abort_all\": true}.");
    }
    json_decref(root);
    return result;
}
