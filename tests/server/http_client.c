#include "tests/test.h"

#include "tests/server/http_client.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

enum { DEADLINE_MS = 10000 };

static void connect_with(http_client *c, uint16_t port, int receive_bytes)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(c->fd >= 0);
    if (receive_bytes > 0) {
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    }
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(c->fd, (struct sockaddr *)&to, sizeof to), 0);
    cmi_buf_init(&c->in, (size_t)1 << 30);
}

void http_client_connect(http_client *c, uint16_t port)
{
    connect_with(c, port, 0);
}

void http_client_connect_slow(http_client *c, uint16_t port)
{
    connect_with(c, port, 4096);
}

void http_client_close(http_client *c)
{
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
        cmi_buf_deinit(&c->in);
    }
}

void http_client_send(http_client *c, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(c->fd, bytes, n, MSG_NOSIGNAL);
        if (sent < 0) {
            return; /* the server has closed: what it said is to be read */
        }
        bytes += sent;
        n -= (size_t)sent;
    }
}

void http_client_send_str(http_client *c, const char *s)
{
    http_client_send(c, s, strlen(s));
}

void http_client_request(http_client *c, const char *method, const char *path, const char *headers,
                         const char *body)
{
    cmi_buf out;
    cmi_buf_init(&out, (size_t)1 << 30);
    cmi_buf_printf(&out, "%s %s HTTP/1.1\r\nHost: test\r\n%s", method, path, headers);
    if (body != NULL) {
        cmi_buf_printf(&out, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    } else {
        cmi_buf_str(&out, "\r\n");
    }
    http_client_send(c, out.data, out.len);
    cmi_buf_deinit(&out);
}

/* Receives something; false: the connection ended. */
static bool receive(http_client *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    int rc = poll(&p, 1, DEADLINE_MS);
    if (rc == 0) {
        print_error("no answer within %d ms; so far: %s\n", DEADLINE_MS, cmi_buf_cstr(&c->in));
    }
    assert_int_equal(rc, 1);
    char *to = cmi_buf_reserve(&c->in, 65536);
    assert_non_null(to);
    ssize_t n = recv(c->fd, to, 65536, 0);
    if (n <= 0) {
        return false;
    }
    c->in.len += (size_t)n;
    c->in.data[c->in.len] = '\0';
    return true;
}

bool http_client_wait_for(http_client *c, const char *text)
{
    while (memmem(cmi_buf_cstr(&c->in), c->in.len, text, strlen(text)) == NULL) {
        if (!receive(c)) {
            return false;
        }
    }
    return true;
}

void http_client_wait_closed(http_client *c)
{
    while (receive(c)) {
    }
}

bool http_client_is_silent(http_client *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    return c->in.len == 0 && poll(&p, 1, 0) == 0;
}

static void take(http_client *c, cmi_buf *to, size_t n)
{
    cmi_buf_append(to, c->in.data, n);
    cmi_buf_consume(&c->in, n);
}

static bool take_exactly(http_client *c, cmi_buf *to, size_t n)
{
    while (c->in.len < n) {
        if (!receive(c)) {
            return false;
        }
    }
    take(c, to, n);
    return true;
}

static bool take_chunks(http_client *c, cmi_buf *to)
{
    cmi_buf skipped;
    cmi_buf_init(&skipped, 1024);
    bool ok;
    size_t n;
    do {
        ok = http_client_wait_for(c, "\r\n");
        n = ok ? strtoul(c->in.data, NULL, 16) : 0;
        ok = ok && take_exactly(c, &skipped, (size_t)(strstr(c->in.data, "\r\n") + 2 - c->in.data));
        ok = ok && take_exactly(c, to, n) && take_exactly(c, &skipped, 2);
        cmi_buf_clear(&skipped);
    } while (ok && n > 0);
    cmi_buf_deinit(&skipped);
    return ok;
}

http_response http_client_response_head(http_client *c)
{
    http_response r = {0};
    cmi_buf_init(&r.body, (size_t)1 << 30);
    if (!http_client_wait_for(c, "\r\n\r\n")) {
        return r;
    }
    size_t n = (size_t)(strstr(c->in.data, "\r\n\r\n") + 4 - c->in.data);
    r.head = cmi_strndup(c->in.data, n);
    cmi_buf_consume(&c->in, n);
    assert_int_equal(strncmp(r.head, "HTTP/1.1 ", 9), 0);
    r.status = (int)strtol(r.head + 9, NULL, 10);
    r.complete = true;
    return r;
}

http_response http_client_response(http_client *c)
{
    http_response r = http_client_response_head(c);
    if (r.status == 100) {
        http_response_free(&r);
        r = http_client_response_head(c);
    }
    if (r.head == NULL) {
        return r;
    }
    const char *length = http_response_header(&r, "Content-Length");
    const char *encoding = http_response_header(&r, "Transfer-Encoding");
    if (length != NULL) {
        r.complete = take_exactly(c, &r.body, strtoul(length, NULL, 10));
    } else if (encoding != NULL) {
        r.complete = take_chunks(c, &r.body);
    } else if (r.status != 204) {
        http_client_wait_closed(c);
        take(c, &r.body, c->in.len);
    }
    return r;
}

void http_response_free(http_response *r)
{
    cmi_free(r->head);
    cmi_buf_deinit(&r->body);
    *r = (http_response){0};
}

const char *http_response_header(const http_response *r, const char *name)
{
    static _Thread_local char value[1024];
    size_t n_name = strlen(name);
    for (const char *line = strstr(r->head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, n_name) == 0 && line[n_name] == ':') {
            line += n_name + 1;
            while (*line == ' ') {
                line++;
            }
            size_t n = strcspn(line, "\r");
            assert_true(n < sizeof value);
            memcpy(value, line, n);
            value[n] = '\0';
            return value;
        }
    }
    return NULL;
}

http_response http_ask(uint16_t port, const char *method, const char *path, const char *headers,
                       const char *body)
{
    http_client c;
    http_client_connect(&c, port);
    http_client_request(&c, method, path, headers, body);
    http_response r =
        strcmp(method, "HEAD") == 0 ? http_client_response_head(&c) : http_client_response(&c);
    http_client_close(&c);
    return r;
}
