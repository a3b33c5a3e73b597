/* tests/server/http_client.h - a small HTTP client that a test can stop at any byte.
 *
 * Every wait has a deadline of 10 s, then the test fails. */
#ifndef CMI_TESTS_HTTP_CLIENT_H
#define CMI_TESTS_HTTP_CLIENT_H

#include "base/buf.h"

typedef struct http_client {
    int fd;
    cmi_buf in; /* received, not yet consumed */
} http_client;

typedef struct http_response {
    int status;
    char *head; /* with its empty line */
    cmi_buf body;
    bool complete; /* the connection did not end before the body did */
} http_response;

void http_client_connect(http_client *c, uint16_t port);
/* With a small receive buffer, so that the server soon cannot write. */
void http_client_connect_slow(http_client *c, uint16_t port);
void http_client_close(http_client *c); /* closed is fine */

void http_client_send(http_client *c, const char *bytes, size_t n);
void http_client_send_str(http_client *c, const char *s);

/* "METHOD path HTTP/1.1", Host, the given header lines ("" or "A: b\r\n..."), Content-Length and
 * body (NULL: none of both). */
void http_client_request(http_client *c, const char *method, const char *path, const char *headers,
                         const char *body);

/* Waits until the received bytes hold text; false: the connection ended first. */
bool http_client_wait_for(http_client *c, const char *text);
/* Waits until the server closes; what comes until then stays in c->in. */
void http_client_wait_closed(http_client *c);
/* Whether nothing can be read right now. */
bool http_client_is_silent(http_client *c);

/* Reads one response, with its body by Content-Length, by chunks, or to the end. */
http_response http_client_response(http_client *c);
/* Reads the answer to HEAD. */
http_response http_client_response_head(http_client *c);
void http_response_free(http_response *r);

/* The value of a header, valid until the thread's next call; NULL: not there. */
const char *http_response_header(const http_response *r, const char *name);

/* Connects, asks, reads, closes. */
http_response http_ask(uint16_t port, const char *method, const char *path, const char *headers,
                       const char *body);

#endif
