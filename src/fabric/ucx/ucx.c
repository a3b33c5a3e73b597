/* fabric/ucx/ucx.c - making and ending a ucx fabric; see ucx_internal.h. */
#include "fabric/ucx/ucx_internal.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <ucs/debug/debug.h>
#include <ucs/debug/log_def.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "os/random.h"

static const uint64_t FAREWELL_NS = 100000000u; /* of a destroy, for peers to hear it */
static const uint64_t LET_GO_NS = 1000000000u;  /* for UCX, which needs microseconds */

/* ---- UCX as a guest in this process ---- */

/* Its lines go where ours go: standard output, where it would write them, may be somebody's data.
 * Its errors are about links, which we report ourselves, so they are no more than warnings. */
static ucs_log_func_rc_t log_line(const char *file, unsigned line, const char *function,
                                  ucs_log_level_t level, const ucs_log_component_config_t *conf,
                                  const char *format, va_list args)
{
    char text[256];
    (void)file;
    (void)line;
    (void)function;
    (void)conf;
    if (level > UCS_LOG_LEVEL_WARN) {
        return UCS_LOG_FUNC_RC_CONTINUE; /* the user has asked for it */
    }
    vsnprintf(text, sizeof text, format, args);
    if (strstr(text, "MM_ERROR_HANDLING") != NULL) {
        return UCS_LOG_FUNC_RC_STOP; /* the user wants no shared memory: it has no such option */
    }
    cmi_log(level == UCS_LOG_LEVEL_FATAL ? CMI_LOG_ERROR : CMI_LOG_WARN, "ucx: %s", text);
    return UCS_LOG_FUNC_RC_STOP;
}

/* UCX takes over the signals of crashes when it is loaded. They belong to the program, whose
 * sanitizers and core dumps would show UCX's frames. */
static void tame(void)
{
    for (unsigned i = 0; i < ucs_global_opts.error_signals.count; i++) {
        ucs_debug_disable_signal(ucs_global_opts.error_signals.signals[i]);
    }
    ucs_log_push_handler(log_line);
}

/* ---- ending ---- */

static const char *get_address(const cmi_fabric *fabric)
{
    return cmi_ucx_of(fabric)->address;
}

static bool has_links(const cmi_ucx_fabric *f)
{
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        if (f->links[i].state != LINK_FREE) {
            return true;
        }
    }
    return false;
}

/* Time is the monotonic clock's or the caller's; where that stands still, calls are counted. */
static void go_on_for(cmi_ucx_fabric *f, uint64_t ns)
{
    uint64_t begin_ns = cmi_fabric_now_ns(&f->base);
    for (int n = 0; has_links(f) && n < 2000; n++) {
        uint64_t now_ns = cmi_fabric_now_ns(&f->base);
        if (now_ns - begin_ns >= ns) {
            return;
        }
        cmi_ucx_progress(&f->base, now_ns);
        static const _Atomic uint64_t never;
        cmi_wait wait = {.word = &never, .at_least = 1};
        cmi_ucx_sleep(&f->base, now_ns + 1000000, &wait);
    }
}

static void end_links(cmi_ucx_fabric *f)
{
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        if (f->links[i].endpoint != CMI_UCX_NONE) {
            cmi_ucx_close(&f->base, f->links[i].id);
        }
    }
    go_on_for(f, FAREWELL_NS);
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        f->links[i].deadline_ns = 0; /* of leaving */
        cmi_ucx_stir(&f->links[i]);
    }
    go_on_for(f, LET_GO_NS);
}

static void destroy(cmi_fabric *fabric)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    if (f->worker != NULL && f->links != NULL) {
        end_links(f);
        cmi_ucx_free_regions(f);
    }
    if (f->worker_address != NULL) {
        ucp_worker_release_address(f->worker, f->worker_address);
    }
    if (f->worker != NULL) {
        ucp_worker_destroy(f->worker);
    }
    for (uint32_t i = 0; f->links != NULL && i < f->n_links_used; i++) {
        if (f->links[i].state != LINK_FREE) { /* UCX did not let go before its worker went */
            cmi_ucx_free_link(f, &f->links[i]);
        }
    }
    if (f->context != NULL) {
        ucp_cleanup(f->context);
    }
    for (int i = 0; i < CMI_UCX_N_TURNED_AWAY; i++) {
        if (f->turned_away[i] >= 0) {
            close(f->turned_away[i]);
        }
    }
    if (f->listen_fd >= 0) {
        close(f->listen_fd);
    }
    cmi_watch_deinit(&f->watch);
    cmi_proof_forget_key(f->key);
    cmi_free(f->regions);
    cmi_free(f->remotes);
    cmi_free(f->endpoints);
    cmi_free(f->links);
    cmi_free(f->ops);
    cmi_free(f);
}

static const cmi_fabric_backend backend = {
    .destroy = destroy,
    .alloc = cmi_ucx_alloc,
    .register_memory = cmi_ucx_register,
    .deregister = cmi_ucx_deregister,
    .region_memory = cmi_ucx_region_memory,
    .get_rkey = cmi_ucx_get_rkey,
    .listen = cmi_ucx_listen,
    .address = get_address,
    .connect = cmi_ucx_connect,
    .close = cmi_ucx_close,
    .drop = cmi_ucx_drop,
    .get_info = cmi_ucx_get_info,
    .open_rkey = cmi_ucx_open_rkey,
    .check = cmi_ucx_check,
    .begin = cmi_ucx_begin,
    .take_failure = cmi_ucx_take_failure,
    .is_settled = cmi_ucx_is_settled,
    .send = cmi_ucx_send,
    .receive = cmi_ucx_receive,
    .progress = cmi_ucx_progress,
    .poll = cmi_ucx_poll,
    .sleep = cmi_ucx_sleep,
    .is_busy = cmi_ucx_is_busy,
    .wake = cmi_ucx_wake,
};

/* ---- making ---- */

/* Every entry free, in a list from the first to the last. */
static void make_tables(cmi_ucx_fabric *f)
{
    const cmi_fabric_options *opt = &f->base.opt;
    f->n_links = 2 * opt->n_endpoints;
    uint32_t n_ops = opt->n_ops + f->n_links;
    f->regions = cmi_alloc(2 * (size_t)opt->n_regions, sizeof *f->regions);
    f->remotes = cmi_alloc(opt->n_remotes, sizeof *f->remotes);
    f->endpoints = cmi_alloc(opt->n_endpoints, sizeof *f->endpoints);
    f->links = cmi_alloc(f->n_links, sizeof *f->links);
    f->ops = cmi_alloc(n_ops, sizeof *f->ops);
    for (uint32_t i = 0; i < 2 * opt->n_regions; i++) {
        f->regions[i].gen = 1;
    }
    for (uint32_t i = 0; i < opt->n_remotes; i++) {
        f->remotes[i] = (cmi_ucx_remote){.gen = 1, .link = CMI_UCX_NONE};
    }
    for (uint32_t i = 0; i < opt->n_endpoints; i++) {
        uint32_t next = i + 1 < opt->n_endpoints ? i + 1 : CMI_UCX_NONE;
        f->endpoints[i] = (cmi_ucx_endpoint){.gen = 1, .link = CMI_UCX_NONE, .next = next};
    }
    for (uint32_t i = 0; i < f->n_links; i++) {
        uint32_t next = i + 1 < f->n_links ? i + 1 : CMI_UCX_NONE;
        f->links[i] =
            (cmi_ucx_link){.fabric = f, .gen = 1, .endpoint = CMI_UCX_NONE, .fd = -1, .next = next};
    }
    for (uint32_t i = 0; i < n_ops; i++) {
        uint32_t next = i + 1 < opt->n_ops ? i + 1 : CMI_UCX_NONE;
        f->ops[i] = (cmi_ucx_op){.gen = 1, .next = next};
    }
}

static cmi_status fail(cmi_error *err, const char *what, ucs_status_t st)
{
    return cmi_error_set(err, st == UCS_ERR_NO_MEMORY ? CMI_ERR_NO_MEMORY : CMI_ERR_IO,
                         "UCX: %s: %s", what, ucs_status_string(st));
}

/* UCX's shared memory says that it can lose a peer only when asked to; else it would not be used
 * for endpoints that handle errors, and peers of a host would talk over TCP. */
static cmi_status make_context(cmi_ucx_fabric *f, cmi_error *err)
{
    ucp_config_t *config;
    ucp_params_t param = {.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME,
                          .features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
                          .name = "cminfer"};
    ucs_status_t st = ucp_config_read(NULL, NULL, &config);
    if (st != UCS_OK) {
        return fail(err, "its configuration", st);
    }
    if (ucp_config_modify(config, "MM_ERROR_HANDLING", "y") != UCS_OK) {
        cmi_log(CMI_LOG_WARN, "ucx: no MM_ERROR_HANDLING: shared memory will not be used");
    }
    st = ucp_init(&param, config, &f->context);
    ucp_config_release(config);
    if (st != UCS_OK) {
        f->context = NULL;
        return fail(err, "ucp_init", st);
    }
    return CMI_OK;
}

static cmi_status make_worker(cmi_ucx_fabric *f, cmi_error *err)
{
    ucp_worker_params_t param = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                 .thread_mode = UCS_THREAD_MODE_SERIALIZED};
    int fd;
    ucs_status_t st = ucp_worker_create(f->context, &param, &f->worker);
    if (st != UCS_OK) {
        f->worker = NULL;
        return fail(err, "ucp_worker_create", st);
    }
    st = ucp_worker_get_address(f->worker, &f->worker_address, &f->n_worker_address);
    if (st != UCS_OK) {
        f->worker_address = NULL;
        return fail(err, "its address", st);
    }
    if (f->n_worker_address > CMI_UCX_MAX_WORKER) {
        return cmi_error_set(err, CMI_ERR_IO,
                             "UCX has too many devices (an address of %zu bytes): "
                             "name fewer in UCX_NET_DEVICES",
                             f->n_worker_address);
    }
    st = ucp_worker_get_efd(f->worker, &fd);
    if (st != UCS_OK) {
        return fail(err, "its descriptor", st);
    }
    if (cmi_watch_add(&f->watch, fd, cmi_ucx_watch_key(NULL, CMI_UCX_WATCH_WORKER)) != CMI_OK ||
        cmi_ucx_set_am_handler(f) != CMI_OK) {
        return cmi_error_set(err, CMI_ERR_IO, "fabric %s: cannot watch UCX", f->name);
    }
    return CMI_OK;
}

static cmi_status make_parts(cmi_ucx_fabric *f, cmi_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, tame);
    if (!cmi_random_bytes(&f->id, sizeof f->id)) {
        return cmi_error_set(err, CMI_ERR_IO, "fabric: the kernel has no randomness");
    }
    cmi_status st = cmi_watch_init(&f->watch, err);
    if (st == CMI_OK) {
        st = make_context(f, err);
    }
    if (st == CMI_OK) {
        st = make_worker(f, err);
    }
    if (st == CMI_OK) {
        make_tables(f);
    }
    return st;
}

cmi_status cmi_fabric_create_ucx(cmi_fabric **fabric_out, const cmi_fabric_options *opt,
                                 cmi_error *err)
{
    cmi_ucx_fabric *f = cmi_alloc(1, sizeof *f);
    f->listen_fd = -1;
    memset(f->turned_away, -1, sizeof f->turned_away);
    f->free_endpoint = f->free_link = f->free_op = 0;
    f->first_done = f->last_done = CMI_UCX_NONE;
    f->first_event_endpoint = f->last_event_endpoint = CMI_UCX_NONE;
    cmi_status st = cmi_fabric_init(&f->base, &backend, opt, err);
    if (st != CMI_OK) {
        cmi_free(f);
        return st;
    }
    memcpy(f->name, opt->name, strlen(opt->name));
    cmi_proof_make_key(f->key, opt->secret, opt->secret_bytes);
    st = make_parts(f, err);
    if (st != CMI_OK) {
        destroy(&f->base);
        return st;
    }
    *fabric_out = &f->base;
    return CMI_OK;
}
