/* tests/server/server_fixture.h - a server on a free port in front of a scripted engine.
 *
 * The api is api_util.h's world, which a test group sets up and tears down. */
#ifndef CMI_TESTS_SERVER_FIXTURE_H
#define CMI_TESTS_SERVER_FIXTURE_H

#include "server/server.h"
#include "tests/server/api_util.h"
#include "tests/server/http_client.h"
#include "tests/server/scripted_engine.h"

typedef struct server_fixture {
    cmi_engine *engine;
    cmi_server *server; /* NULL it after stopping it in a test */
    uint16_t port;
} server_fixture;

/* Both may be NULL: an engine that does nothing by itself with a queue of 256, default limits. */
void server_fixture_start(server_fixture *f, const cmi_server_options *server_opt,
                          const scripted_engine_options *engine_opt);
/* As above, but the server has no model yet. */
void server_fixture_start_unattached(server_fixture *f, const cmi_server_options *server_opt,
                                     const scripted_engine_options *engine_opt);
void server_fixture_stop(server_fixture *f);

/* Bodies of requests for this model. */
#define ASK_HEAD "{\"model\":\"matrix-tiny\",\"prompt\":\"hello\",\"max_tokens\":50"
#define ASK_COMPLETION ASK_HEAD "}"
#define ASK_STREAM ASK_HEAD ",\"stream\":true}"
#define ASK_COMPLETION_3 ASK_HEAD ",\"n\":3}"
#define ASK_STREAM_3 ASK_HEAD ",\"stream\":true,\"n\":3}"

/* What engines say: a letter. The bundled tokenizer's bytes begin at 3, with the printable ones. */
enum { SERVER_FIXTURE_TOKEN = 3 + 'J' - '!' };

/* The value of the sample whose line begins with this; fails when there is none. */
double server_fixture_metric(const server_fixture *f, const char *line_start);

#endif
