#include "cli/serve_ranks.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/rank_port.h"
#include "engine/router.h"
#include "os/clock.h"

static const uint64_t MS = 1000000, SECOND = 1000000000;

static cmi_status open_fabric(cmi_fabric **fabric_out, const cmi_cli_ranks *ranks, const char *name,
                              cmi_error *err)
{
    cmi_fabric_options opt;
    cmi_link_fabric_options(&opt, ranks->n);
    opt.name = name;
    opt.secret = (const uint8_t *)ranks->secret;
    opt.secret_bytes = strlen(ranks->secret);
    opt.handshake_ns = 60 * SECOND; /* a rank may be busy with a grammar */
    return cmi_fabric_create(fabric_out, cmi_rank_hosts_fabric(&ranks->hosts), &opt, err);
}

/* ---- the front ---- */

static cmi_status start_router(cmi_chat *chat, const cmi_cli_ranks *ranks,
                               const cmi_model_options *opt, const cmi_engine_options *engine,
                               cmi_error *err)
{
    char text[CMI_CLI_MAX_RANKS][CMI_FABRIC_MAX_ADDRESS + 1];
    const char *addresses[CMI_CLI_MAX_RANKS];
    cmi_router_options router = {.addresses = addresses,
                                 .n_ranks = ranks->n,
                                 .max_running = opt->max_num_seqs,
                                 .max_queued_requests = engine->max_queued_requests,
                                 .max_queued_tokens = engine->max_queued_tokens,
                                 .n_events = engine->n_events,
                                 .vocab = chat->vocab};
    for (uint32_t i = 0; i < ranks->n; i++) {
        cmi_rank_hosts_address(&ranks->hosts, i, true, text[i], sizeof text[i]);
        addresses[i] = text[i];
    }
    cmi_status st = open_fabric(&router.fabric, ranks, "router", err);
    return st == CMI_OK ? cmi_router_start(&chat->engine, &router, err) : st;
}

/* Until all can be asked, or one of this host has ended. */
static cmi_status wait_for_ranks(cmi_chat *chat, cmi_cli_ranks *ranks, cmi_error *err)
{
    uint64_t say_at_ns = cmi_clock_monotonic_ns() + 10 * SECOND;
    uint32_t n;
    while ((n = cmi_router_wait(chat->engine, ranks->n, 100 * MS)) < ranks->n) {
        if (ranks->hosts.n_hosts > 1 && cmi_clock_monotonic_ns() >= say_at_ns) {
            cmi_log(CMI_LOG_INFO, "%u of %u ranks are up", n, ranks->n);
            say_at_ns += 10 * SECOND;
        }
        for (uint32_t i = ranks->first; i < ranks->first + ranks->n_local; i++) {
            int how;
            if (cmi_child_has_ended(&ranks->children[i], &how)) {
                return cmi_error_set(err, CMI_ERR_PEER, "rank %u has ended with status %d", i, how);
            }
        }
    }
    return CMI_OK;
}

static cmi_status start_all(cmi_cli_ranks *ranks, cmi_error *err)
{
    cmi_status st = CMI_OK;
    for (uint32_t i = 0; st == CMI_OK && i < ranks->n_local; i++) {
        st = cmi_cli_ranks_start(ranks, ranks->first + i, err);
    }
    return st;
}

cmi_status cmi_serve_ranks_open(cmi_chat *chat, cmi_cli_ranks *ranks, const cmi_model_options *opt,
                                const char *chat_template, const cmi_engine_options *engine,
                                cmi_error *err)
{
    cmi_model_config config;
    cmi_buf dir;
    *chat = (cmi_chat){0};
    cmi_buf_init(&dir, 4096);
    cmi_status st = cmi_cli_find_model(&dir, opt, err);
    if (st == CMI_OK) {
        st = cmi_model_config_load(&config, &chat->generation, cmi_buf_cstr(&dir), err);
    }
    if (st == CMI_OK) {
        st = cmi_chat_open_texts(chat, cmi_buf_cstr(&dir), chat_template, &config, err);
    }
    st = st == CMI_OK ? start_all(ranks, err) : st;
    st = st == CMI_OK ? start_router(chat, ranks, opt, engine, err) : st;
    st = st == CMI_OK ? wait_for_ranks(chat, ranks, err) : st;
    cmi_buf_deinit(&dir);
    if (st != CMI_OK) {
        cmi_cli_ranks_end_others(ranks);
        cmi_chat_close(chat);
    }
    return st;
}

static void start_again(cmi_cli_ranks *ranks, uint32_t place)
{
    cmi_error err = {0};
    if (cmi_cli_ranks_start(ranks, place, &err) != CMI_OK) {
        cmi_log(CMI_LOG_ERROR, "rank %u: %s", place, err.text);
    }
}

void cmi_serve_ranks_watch(cmi_cli_ranks *ranks, int stop_fd)
{
    const uint32_t n = ranks->n_local;
    cmi_child *children = ranks->children + ranks->first;
    struct pollfd fds[CMI_CLI_MAX_RANKS + 1];
    for (;;) {
        int how, timeout_ms = -1;
        fds[n] = (struct pollfd){.fd = stop_fd, .events = POLLIN};
        for (uint32_t i = 0; i < n; i++) {
            fds[i] = (struct pollfd){.fd = cmi_child_fd(&children[i]), .events = POLLIN};
            timeout_ms = children[i].pid == 0 ? 1000 : timeout_ms;
        }
        const int n_ready = poll(fds, n + 1, timeout_ms);
        if (fds[n].revents != 0) {
            return;
        }
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t place = ranks->first + i;
            if (children[i].pid == 0 && n_ready == 0) { /* a second later */
                start_again(ranks, place);
            } else if (cmi_child_has_ended(&children[i], &how)) {
                cmi_log(CMI_LOG_WARN, "rank %u has ended with status %d; it is started again",
                        place, how);
            }
        }
    }
}

cmi_status cmi_serve_ranks_of_host(cmi_cli_ranks *ranks, int stop_fd, cmi_error *err)
{
    cmi_status st = start_all(ranks, err);
    if (st == CMI_OK) {
        cmi_log(CMI_LOG_INFO, "ranks %u to %u of %u run here; requests go to %s", ranks->first,
                ranks->first + ranks->n_local - 1, ranks->n, ranks->hosts.hosts[0].name);
        cmi_serve_ranks_watch(ranks, stop_fd);
    }
    return st;
}

/* ---- a rank ---- */

static void on_lost(void *arg)
{
    const uint64_t one = 1;
    const ssize_t n = write(*(const int *)arg, &one, sizeof one);
    (void)n;
}

static void wait_for_end(int stop_fd, int lost_fd)
{
    struct pollfd fds[] = {{.fd = stop_fd, .events = POLLIN}, {.fd = lost_fd, .events = POLLIN}};
    while (poll(fds, CMI_LEN(fds), -1) <= 0) {
    }
}

static cmi_status open_port(cmi_rank_port **port_out, const cmi_cli_ranks *ranks, cmi_error *err)
{
    char name[16], address[CMI_FABRIC_MAX_ADDRESS + 1];
    cmi_fabric *fabric = NULL;
    snprintf(name, sizeof name, "port-%u", ranks->place);
    cmi_rank_hosts_address(&ranks->hosts, ranks->place, true, address, sizeof address);
    cmi_status st = open_fabric(&fabric, ranks, name, err);
    st = st == CMI_OK ? cmi_fabric_listen(fabric, address, err) : st;
    st = st == CMI_OK ? cmi_rank_port_create(port_out, fabric, err) : st;
    if (st != CMI_OK) {
        cmi_fabric_destroy(fabric);
    }
    return st;
}

/* With all its texts, for grammars. */
static cmi_status open_rank(cmi_chat *chat, cmi_cli_ranks *ranks, const cmi_model_options *opt,
                            const char *chat_template, cmi_error *err)
{
    cmi_model_options own = *opt;
    cmi_instance_options options = cmi_cli_sized_options(&own, false);
    cmi_buf dir = {0};
    cmi_status st = cmi_cli_ranks_join(ranks, &own, false, &options, err);
    st = st == CMI_OK ? cmi_cli_open_instance(&chat->instance, &dir, &options, &own, err) : st;
    if (st == CMI_OK) {
        st = cmi_chat_open_texts(chat, cmi_buf_cstr(&dir), chat_template, &chat->instance->config,
                                 err);
    }
    cmi_buf_deinit(&dir);
    return st;
}

cmi_status cmi_serve_rank(cmi_cli_ranks *ranks, const cmi_model_options *opt,
                          const char *chat_template, const cmi_engine_options *engine, int stop_fd,
                          cmi_error *err)
{
    cmi_chat chat = {0};
    cmi_rank_port *port = NULL;
    int lost_fd = eventfd(0, EFD_CLOEXEC);
    cmi_status st = lost_fd >= 0 ? open_rank(&chat, ranks, opt, chat_template, err)
                                 : cmi_error_set(err, CMI_ERR_IO, "cannot make an eventfd");
    st = st == CMI_OK ? open_port(&port, ranks, err) : st;
    if (st == CMI_OK) {
        cmi_engine_options own = *engine;
        own.vocab = chat.vocab;
        own.notify = cmi_rank_port_notify;
        own.notify_arg = port;
        own.lost = on_lost;
        own.lost_arg = &lost_fd;
        st = cmi_engine_start(&chat.engine, chat.instance, &own, err);
    }
    st = st == CMI_OK ? cmi_rank_port_start(port, chat.engine, opt->max_num_seqs, err) : st;
    if (st == CMI_OK) {
        wait_for_end(stop_fd, lost_fd);
    }
    cmi_rank_port_destroy(port);
    cmi_chat_close(&chat);
    if (lost_fd >= 0) {
        close(lost_fd);
    }
    return st;
}
