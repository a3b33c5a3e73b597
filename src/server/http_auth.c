/* server/http_auth.c - whose key opens what.
 *
 * Health probes are open. What serves users wants one of the keys, if there are any; a key of the
 * administrators opens it too. What changes the server for all wants a key of the administrators if
 * there are any of those, else it is like the rest. */
#include <string.h>
#include <strings.h>

#include "server/server_internal.h"

/* Takes as long for a key that differs in the first byte as for one that differs in the last. */
static bool key_equals(const char *key, const char *given)
{
    size_t n_key = strlen(key);
    size_t n_given = strlen(given);
    unsigned char differs = n_key != n_given;
    for (size_t i = 0; i < n_given; i++) {
        differs |= (unsigned char)(given[i] ^ key[i < n_key ? i : 0]);
    }
    return differs == 0;
}

static bool is_one_of(const char *const *keys, size_t n_keys, const char *given)
{
    if (given[0] == '\0') {
        return false; /* even if somebody made that a key */
    }
    bool found = false;
    for (size_t i = 0; i < n_keys; i++) {
        found |= key_equals(keys[i], given); /* all of them, so that the time does not tell which */
    }
    return found;
}

/* The bearer token; "", which is no key, when there is none. */
static const char *bearer_token(const cmi_http_request *req)
{
    const char *given =
        MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, "Authorization");
    if (given == NULL || strncasecmp(given, "Bearer ", 7) != 0) {
        return "";
    }
    given += 7;
    return given + strspn(given, " ");
}

void cmi_http_check_key(cmi_http_request *req)
{
    const cmi_server_options *opt = &req->server->opt;
    cmi_http_access access = cmi_http_route_get(req->route)->access;
    bool wants_admin = access == CMI_HTTP_ACCESS_ADMIN && opt->n_admin_api_keys > 0;
    if (access == CMI_HTTP_ACCESS_OPEN || (opt->n_api_keys == 0 && !wants_admin)) {
        return;
    }
    const char *given = bearer_token(req);
    bool is_admin = is_one_of(opt->admin_api_keys, opt->n_admin_api_keys, given);
    bool is_user = is_one_of(opt->api_keys, opt->n_api_keys, given);
    if (is_admin || (is_user && !wants_admin)) {
        return;
    }
    if (is_user) {
        cmi_http_error_set(&req->refusal, 403, "%s wants an administrator's API key.",
                           cmi_http_route_get(req->route)->path);
    } else {
        cmi_http_error_set(&req->refusal, 401,
                           "The API key is missing or wrong; send it as \"Authorization: Bearer "
                           "KEY\".");
    }
}
