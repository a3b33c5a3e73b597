#include "tests/test.h"

#include "tests/server/server_fixture.h"

#include <stdlib.h>

#include "base/log.h"

static const scripted_engine_options DEFAULT_ENGINE = {
    .info = {.vocab_size = 2048,
             .max_model_len = 2048,
             .max_queued_requests = 256,
             .n_kv_pages = 512,
             .kv_page_tokens = 64},
};

void server_fixture_start_unattached(server_fixture *f, const cmi_server_options *server_opt,
                                     const scripted_engine_options *engine_opt)
{
    static bool is_quiet;
    if (!is_quiet) { /* no other thread runs before the first server */
        cmi_log_set_level(CMI_LOG_ERROR);
        is_quiet = true;
    }
    *f = (server_fixture){0};
    scripted_engine_options engine = engine_opt == NULL ? DEFAULT_ENGINE : *engine_opt;
    if (engine.info.vocab_size == 0) {
        engine.info = DEFAULT_ENGINE.info;
    }
    f->engine = scripted_engine_create(&engine);
    cmi_error err = {0};
    cmi_server_options server = server_opt == NULL ? (cmi_server_options){0} : *server_opt;
    server.model_name = "matrix-tiny";
    server.id_seed = 7;
    cmi_status st = cmi_server_start(&f->server, &server, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(st, CMI_OK);
    f->port = cmi_server_port(f->server);
}

void server_fixture_start(server_fixture *f, const cmi_server_options *server_opt,
                          const scripted_engine_options *engine_opt)
{
    server_fixture_start_unattached(f, server_opt, engine_opt);
    cmi_error err = {0};
    assert_int_equal(cmi_server_attach(f->server, world.api, f->engine, &err), CMI_OK);
}

void server_fixture_stop(server_fixture *f)
{
    cmi_server_stop(f->server, 0);
    scripted_engine_destroy(f->engine);
}

double server_fixture_metric(const server_fixture *f, const char *line_start)
{
    http_response r = http_ask(f->port, "GET", "/metrics", "", NULL);
    assert_int_equal(r.status, 200);
    char with_newline[256];
    snprintf(with_newline, sizeof with_newline, "\n%s", line_start);
    const char *line = strstr(r.body.data, with_newline);
    if (line == NULL) {
        print_error("no sample %s in:\n%s\n", line_start, r.body.data);
    }
    assert_non_null(line);
    const char *end = strchr(line + 1, '\n');
    while (end[-1] != ' ') {
        end--;
    }
    double value = strtod(end, NULL);
    http_response_free(&r);
    return value;
}
