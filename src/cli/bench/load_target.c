#include "cli/bench/load_target.h"

#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>
#include <unistd.h>

#include "cli/bench/load_http.h"

static cmi_status bad_url(const char *url, cmi_error *err)
{
    return cmi_error_set(err, CMI_ERR_INVALID,
                         "\"%s\" is no address of a server; write it as http://HOST:PORT", url);
}

/* Nothing that would end a line or a header. */
static bool is_printable(const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        if (*at <= ' ' || *at > '~') {
            return false;
        }
    }
    return true;
}

/* Copies n bytes; false when there are none, or too many. */
static bool copy(char *to, size_t size, const char *from, size_t n)
{
    return n > 0 && n < size && snprintf(to, size, "%.*s", (int)n, from) == (int)n;
}

/* "host", "host:port", "[::1]:port" in n bytes */
static bool parse_authority(cmi_load_target *target, const char *text, size_t n)
{
    const char *end = text + n;
    const char *host = text;
    const char *host_end;
    if (n > 0 && text[0] == '[') {
        host++;
        host_end = memchr(text, ']', n);
    } else {
        host_end = memchr(text, ':', n);
        host_end = host_end != NULL ? host_end : end;
    }
    if (host_end == NULL ||
        !copy(target->host, sizeof target->host, host, (size_t)(host_end - host))) {
        return false;
    }
    const char *rest = *text == '[' ? host_end + 1 : host_end;
    snprintf(target->port, sizeof target->port, "80");
    bool has_port = rest < end;
    if (has_port && (*rest != ':' || !copy(target->port, sizeof target->port, rest + 1,
                                           (size_t)(end - rest - 1)))) {
        return false;
    }
    return target->port[strspn(target->port, "0123456789")] == '\0' &&
           copy(target->authority, sizeof target->authority, text, n);
}

cmi_status cmi_load_target_parse(cmi_load_target *target_out, const char *url, cmi_error *err)
{
    static const char scheme[] = "http://";
    cmi_load_target target = {0};
    if (strncasecmp(url, "https://", 8) == 0) {
        return cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                             "https is not spoken here; measure the server's http port, or put a "
                             "proxy before it");
    }
    const char *at = url;
    at += strncasecmp(url, scheme, sizeof scheme - 1) == 0 ? sizeof scheme - 1 : 0;
    size_t n = strcspn(at, "/");
    size_t n_prefix = strlen(at + n);
    while (n_prefix > 0 && at[n + n_prefix - 1] == '/') {
        n_prefix--;
    }
    if (!is_printable(url) || strpbrk(at, "?#@") != NULL || !parse_authority(&target, at, n) ||
        n_prefix >= sizeof target.prefix) {
        return bad_url(url, err);
    }
    snprintf(target.prefix, sizeof target.prefix, "%.*s", (int)n_prefix, at + n);
    *target_out = target;
    return CMI_OK;
}

void cmi_load_target_path(const cmi_load_target *target, const char *endpoint, cmi_buf *out)
{
    size_t n = strlen(target->prefix);
    bool both =
        n >= 3 && strcmp(target->prefix + n - 3, "/v1") == 0 && strncmp(endpoint, "/v1/", 4) == 0;
    cmi_buf_append(out, target->prefix, both ? n - 3 : n);
    cmi_buf_str(out, endpoint);
}

/* A connected socket that waits at most timeout_s for anything, or -1 with errno. */
static int connect_to(const struct sockaddr *address, socklen_t n, uint32_t timeout_s)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    struct timeval timeout = {.tv_sec = (time_t)timeout_s};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, address, n) == 0) {
        return fd;
    }
    int saved = errno == EINPROGRESS ? ETIMEDOUT : errno;
    close(fd);
    errno = saved;
    return -1;
}

cmi_status cmi_load_target_find(cmi_load_target *target, uint32_t timeout_s, cmi_error *err)
{
    struct addrinfo *found = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int error = getaddrinfo(target->host, target->port, &hints, &found);
    if (error != 0) {
        return cmi_error_set(err, CMI_ERR_NOT_FOUND, "no address for \"%s\": %s", target->host,
                             gai_strerror(error));
    }
    int fd = -1;
    for (const struct addrinfo *info = found; info != NULL && fd < 0; info = info->ai_next) {
        fd = connect_to(info->ai_addr, info->ai_addrlen, timeout_s);
        if (fd >= 0) {
            memcpy(&target->address, info->ai_addr, info->ai_addrlen);
            target->address_bytes = info->ai_addrlen;
        }
    }
    int saved = errno;
    freeaddrinfo(found);
    if (fd < 0) {
        return cmi_error_set(err, CMI_ERR_IO, "cannot connect to %s: %s", target->authority,
                             strerror(saved));
    }
    close(fd);
    return CMI_OK;
}

static cmi_status exchange(int fd, const cmi_buf *request, cmi_load_http *http, cmi_buf *body,
                           cmi_error *err)
{
    char bytes[4096];
    size_t n_used;
    cmi_status st = CMI_IN_PROGRESS;
    if (send(fd, request->data, request->len, MSG_NOSIGNAL) != (ssize_t)request->len) {
        return cmi_error_set(err, CMI_ERR_IO, "cannot send: %s", strerror(errno));
    }
    while (st == CMI_IN_PROGRESS) {
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return cmi_error_set(err, CMI_ERR_IO, "no answer: %s", strerror(errno));
        }
        if (n == 0) {
            st = cmi_load_http_end(http);
            return st == CMI_OK ? st : cmi_error_set(err, st, "the answer was cut off");
        }
        st = cmi_load_http_feed(http, bytes, (size_t)n, body, &n_used, err);
    }
    return st;
}

cmi_status cmi_load_target_get(const cmi_load_target *target, const char *endpoint,
                               const char *headers, uint32_t timeout_s, cmi_buf *body_out,
                               cmi_error *err)
{
    cmi_buf request;
    cmi_load_http http;
    cmi_buf_init(&request, 1 << 20);
    cmi_load_http_init(&http);
    cmi_buf_str(&request, "GET ");
    cmi_load_target_path(target, endpoint, &request);
    cmi_buf_printf(&request, " HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n",
                   target->authority, headers);
    int fd =
        connect_to((const struct sockaddr *)&target->address, target->address_bytes, timeout_s);
    cmi_status st = fd >= 0 ? exchange(fd, &request, &http, body_out, err)
                            : cmi_error_set(err, CMI_ERR_IO, "cannot connect: %s", strerror(errno));
    if (st == CMI_OK && http.status != 200) {
        st = cmi_error_set(err, CMI_ERR_IO, "HTTP %d: %.200s", http.status, cmi_buf_cstr(body_out));
    }
    if (fd >= 0) {
        close(fd);
    }
    cmi_load_http_deinit(&http);
    cmi_buf_deinit(&request);
    return st == CMI_OK ? st : cmi_error_prefix(err, "%s%s", target->authority, endpoint);
}

cmi_status cmi_load_target_model(const cmi_load_target *target, const char *headers,
                                 uint32_t timeout_s, cmi_buf *model_out, cmi_error *err)
{
    cmi_buf body;
    cmi_buf_init(&body, 16 << 20);
    cmi_status st = cmi_load_target_get(target, "/v1/models", headers, timeout_s, &body, err);
    if (st == CMI_OK) {
        json_t *json = json_loadb(cmi_buf_cstr(&body), body.len, 0, NULL);
        const json_t *first = json_array_get(json_object_get(json, "data"), 0);
        const char *id = json_string_value(json_object_get(first, "id"));
        st = id != NULL && cmi_buf_str(model_out, id)
                 ? CMI_OK
                 : cmi_error_set(err, CMI_ERR_BAD_DATA,
                                 "%s/v1/models names no model; give one with --model",
                                 target->authority);
        json_decref(json);
    }
    cmi_buf_deinit(&body);
    return st;
}
