/* fabric/fabric.c - the calls that do not depend on a backend; see fabric.h. */
#include "fabric/fabric_internal.h"

#include <string.h>

#include "os/clock.h"

/* Looks at the word between two calls of progress: a load costs a hundredth of one. */
enum { LOOKS_PER_PROGRESS = 16 };

static const uint64_t DEFAULT_HANDSHAKE_NS = 2000000000u;

/* ---- options ---- */

void cmi_fabric_options_default(cmi_fabric_options *opt)
{
    *opt = (cmi_fabric_options){.name = "",
                                .n_endpoints = 64,
                                .n_regions = 16,
                                .n_remotes = 1024,
                                .n_ops = 1024,
                                .message_bytes = 4096,
                                .ring_bytes = 1 << 16,
                                .handshake_ns = DEFAULT_HANDSHAKE_NS,
                                .spin_ns = 20000};
}

static uint64_t monotonic_ns(void *arg)
{
    (void)arg;
    return cmi_clock_monotonic_ns();
}

static bool is_between(uint64_t value, uint64_t least, uint64_t most)
{
    return value >= least && value <= most;
}

static const char *find_wrong_option(const cmi_fabric_options *opt)
{
    if (opt->name == NULL || strlen(opt->name) > CMI_FABRIC_MAX_NAME) {
        return "name is too long";
    }
    if (opt->secret == NULL ||
        !is_between(opt->secret_bytes, CMI_FABRIC_MIN_SECRET, CMI_FABRIC_MAX_SECRET)) {
        return "the secret has 16 to 1024 bytes";
    }
    if (!is_between(opt->n_endpoints, 1, 1 << 16) || !is_between(opt->n_regions, 1, 1 << 16) ||
        !is_between(opt->n_remotes, 1, 1 << 20) || !is_between(opt->n_ops, 1, 1 << 20)) {
        return "a table is too small or too large";
    }
    if (!is_between(opt->message_bytes, 1, CMI_FABRIC_MAX_MESSAGE) ||
        !is_between(opt->ring_bytes, 4 * (uint64_t)opt->message_bytes, 1 << 28) ||
        (opt->ring_bytes & (opt->ring_bytes - 1)) != 0 || opt->ring_bytes < 64) {
        return "ring_bytes is a power of two that holds four messages";
    }
    if (opt->hung_after_ns != 0 && opt->hung_after_ns < CMI_FABRIC_MIN_HUNG_NS) {
        return "hung_after_ns is at least 10 ms";
    }
    return NULL;
}

cmi_status cmi_fabric_init(cmi_fabric *fabric, const cmi_fabric_backend *backend,
                           const cmi_fabric_options *opt, cmi_error *err)
{
    const char *wrong = find_wrong_option(opt);
    if (wrong != NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "fabric: %s", wrong);
    }
    fabric->backend = backend;
    fabric->opt = *opt;
    fabric->opt.name = NULL;
    fabric->opt.secret = NULL;
    if (fabric->opt.handshake_ns == 0) {
        fabric->opt.handshake_ns = DEFAULT_HANDSHAKE_NS;
    }
    if (fabric->opt.now_ns == NULL) {
        fabric->opt.now_ns = monotonic_ns;
    }
    return CMI_OK;
}

cmi_status cmi_fabric_create(cmi_fabric **fabric_out, const char *kind,
                             const cmi_fabric_options *opt, cmi_error *err)
{
    if (strcmp(kind, "local") == 0) {
        return cmi_fabric_create_local(fabric_out, opt, err);
    }
    if (strcmp(kind, "ucx") == 0) {
        return cmi_fabric_create_ucx(fabric_out, opt, err);
    }
    return cmi_error_set(err, CMI_ERR_INVALID, "\"%.32s\" is no fabric: local or ucx", kind);
}

void cmi_fabric_destroy(cmi_fabric *fabric)
{
    if (fabric != NULL) {
        fabric->backend->destroy(fabric);
    }
}

uint64_t cmi_fabric_now_ns(const cmi_fabric *fabric)
{
    return fabric->opt.now_ns(fabric->opt.now_arg);
}

uint64_t cmi_fabric_after_ns(const cmi_fabric *fabric, uint64_t ns)
{
    uint64_t now_ns = cmi_fabric_now_ns(fabric);
    return ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + ns;
}

/* ---- memory and endpoints ---- */

cmi_status cmi_fabric_alloc(cmi_fabric *fabric, size_t n_bytes, const char *what,
                            cmi_region_id *region_out, cmi_error *err)
{
    return fabric->backend->alloc(fabric, n_bytes, what, region_out, err);
}

cmi_status cmi_fabric_register(cmi_fabric *fabric, void *memory, size_t n_bytes,
                               cmi_region_id *region_out, cmi_error *err)
{
    if (memory == NULL || n_bytes == 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "fabric: no memory to register");
    }
    return fabric->backend->register_memory(fabric, memory, n_bytes, region_out, err);
}

void cmi_fabric_deregister(cmi_fabric *fabric, cmi_region_id region)
{
    fabric->backend->deregister(fabric, region);
}

void *cmi_region_memory(cmi_fabric *fabric, cmi_region_id region)
{
    return fabric->backend->region_memory(fabric, region);
}

cmi_status cmi_region_get_rkey(cmi_fabric *fabric, cmi_region_id region, cmi_rkey *rkey_out)
{
    return fabric->backend->get_rkey(fabric, region, rkey_out);
}

cmi_status cmi_fabric_listen(cmi_fabric *fabric, const char *address, cmi_error *err)
{
    return fabric->backend->listen(fabric, address, err);
}

const char *cmi_fabric_address(const cmi_fabric *fabric)
{
    return fabric->backend->address(fabric);
}

cmi_status cmi_fabric_connect(cmi_fabric *fabric, const char *address, uint64_t deadline_ns,
                              cmi_endpoint_id *endpoint_out)
{
    return fabric->backend->connect(fabric, address, deadline_ns, endpoint_out);
}

void cmi_endpoint_close(cmi_fabric *fabric, cmi_endpoint_id endpoint)
{
    fabric->backend->close(fabric, endpoint);
}

cmi_status cmi_endpoint_get_info(const cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                 cmi_endpoint_info *info_out)
{
    return fabric->backend->get_info(fabric, endpoint, info_out);
}

cmi_status cmi_endpoint_open_rkey(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                  const cmi_rkey *rkey, cmi_remote_id *remote_out)
{
    if (rkey->n_bytes > CMI_FABRIC_MAX_RKEY) {
        return CMI_ERR_BAD_DATA;
    }
    return fabric->backend->open_rkey(fabric, endpoint, rkey, remote_out);
}

void *cmi_remote_memory(cmi_fabric *fabric, cmi_endpoint_id endpoint, cmi_remote_id remote)
{
    const cmi_fabric_backend *backend = fabric->backend;
    return backend->remote_memory != NULL ? backend->remote_memory(fabric, endpoint, remote) : NULL;
}

/* ---- operations ---- */

static cmi_status begin(cmi_fabric *fabric, cmi_endpoint_id endpoint, const cmi_transfer *transfer,
                        cmi_op *op, _Atomic uint64_t *n_ops, _Atomic uint64_t *n_bytes)
{
    cmi_status st = fabric->backend->begin(fabric, endpoint, transfer, op);
    if (st == CMI_OK) {
        cmi_fabric_count(n_ops, 1);
        if (n_bytes != NULL) {
            cmi_fabric_count(n_bytes, transfer->n_bytes);
        }
    } else if (st == CMI_ERR_NO_CAPACITY) {
        cmi_fabric_count(&fabric->counters.n_refused, 1);
    }
    return st;
}

cmi_status cmi_endpoint_put(cmi_fabric *fabric, cmi_endpoint_id endpoint, const void *local,
                            cmi_remote to, size_t n_bytes, cmi_op *op)
{
    cmi_transfer transfer = {
        .kind = CMI_OP_PUT, .remote = to, .local = (uint8_t *)(uintptr_t)local, .n_bytes = n_bytes};
    return begin(fabric, endpoint, &transfer, op, &fabric->counters.n_puts,
                 &fabric->counters.put_bytes);
}

cmi_status cmi_endpoint_get(cmi_fabric *fabric, cmi_endpoint_id endpoint, void *local,
                            cmi_remote from, size_t n_bytes, cmi_op *op)
{
    cmi_transfer transfer = {
        .kind = CMI_OP_GET, .remote = from, .local = local, .n_bytes = n_bytes};
    return begin(fabric, endpoint, &transfer, op, &fabric->counters.n_gets,
                 &fabric->counters.get_bytes);
}

cmi_status cmi_endpoint_signal(cmi_fabric *fabric, cmi_endpoint_id endpoint, cmi_remote word,
                               cmi_signal kind, uint64_t operand, cmi_op *op)
{
    if (word.offset % sizeof(uint64_t) != 0) {
        return CMI_ERR_INVALID;
    }
    cmi_transfer transfer = {.kind = CMI_OP_SIGNAL,
                             .remote = word,
                             .n_bytes = sizeof(uint64_t),
                             .operand = operand,
                             .signal = kind};
    return begin(fabric, endpoint, &transfer, op, &fabric->counters.n_signals, NULL);
}

cmi_status cmi_endpoint_flush(cmi_fabric *fabric, cmi_endpoint_id endpoint, cmi_op *op)
{
    if (op == NULL) {
        return CMI_ERR_INVALID;
    }
    cmi_transfer transfer = {.kind = CMI_OP_FLUSH};
    return begin(fabric, endpoint, &transfer, op, &fabric->counters.n_flushes, NULL);
}

cmi_status cmi_endpoint_send(cmi_fabric *fabric, cmi_endpoint_id endpoint, const void *message,
                             size_t n_bytes)
{
    if (n_bytes == 0) {
        return CMI_ERR_INVALID;
    }
    cmi_status st = fabric->backend->send(fabric, endpoint, message, n_bytes);
    if (st == CMI_OK) {
        cmi_fabric_count(&fabric->counters.n_sent, 1);
        cmi_fabric_count(&fabric->counters.sent_bytes, n_bytes);
    } else if (st == CMI_ERR_NO_CAPACITY) {
        cmi_fabric_count(&fabric->counters.n_refused, 1);
    }
    return st;
}

bool cmi_fabric_receive(cmi_fabric *fabric, cmi_endpoint_id *endpoint_out, void *buffer,
                        size_t *n_bytes_out)
{
    if (!fabric->backend->receive(fabric, endpoint_out, buffer, n_bytes_out)) {
        return false;
    }
    cmi_fabric_count(&fabric->counters.n_received, 1);
    cmi_fabric_count(&fabric->counters.received_bytes, *n_bytes_out);
    return true;
}

/* ---- getting on ---- */

bool cmi_fabric_progress(cmi_fabric *fabric)
{
    return fabric->backend->progress(fabric, cmi_fabric_now_ns(fabric));
}

bool cmi_fabric_poll(cmi_fabric *fabric, cmi_fabric_event *event_out)
{
    if (!fabric->backend->poll(fabric, event_out)) {
        return false;
    }
    if (event_out->kind == CMI_EVENT_OPEN) {
        cmi_fabric_count(&fabric->counters.n_opened, 1);
    } else if (event_out->kind == CMI_EVENT_LOST) {
        cmi_fabric_count(&fabric->counters.n_lost, 1);
    }
    return true;
}

static void sleep_until(cmi_fabric *fabric, uint64_t deadline_ns, const cmi_wait *wait)
{
    cmi_fabric_count(&fabric->counters.n_sleeps, 1);
    fabric->backend->sleep(fabric, deadline_ns, wait);
}

static bool look_at_word(const cmi_wait *wait)
{
    for (int i = 0; i < LOOKS_PER_PROGRESS; i++) {
        if (cmi_word_load(wait->word) >= wait->at_least) {
            return true;
        }
        cmi_cpu_relax();
    }
    return false;
}

/* CMI_OK: go on. */
static cmi_status look_at_peer(const cmi_fabric *fabric, cmi_endpoint_id from)
{
    cmi_endpoint_info info;
    if (from.gen == 0) {
        return CMI_OK;
    }
    cmi_status st = fabric->backend->get_info(fabric, from, &info);
    return st != CMI_OK || info.status == CMI_IN_PROGRESS ? st : info.status;
}

cmi_status cmi_fabric_wait(cmi_fabric *fabric, const cmi_wait *wait)
{
    uint64_t spin_until_ns = cmi_fabric_after_ns(fabric, fabric->opt.spin_ns);
    while (!look_at_word(wait)) {
        uint64_t now_ns = cmi_fabric_now_ns(fabric);
        bool is_moving = fabric->backend->progress(fabric, now_ns);
        cmi_status st = look_at_peer(fabric, wait->from);
        if (st == CMI_OK && now_ns >= wait->deadline_ns) {
            st = CMI_ERR_TIMEOUT;
        }
        if (st != CMI_OK) {
            return cmi_wait_is_over(wait) ? CMI_OK : st;
        }
        if (!is_moving && now_ns >= spin_until_ns) {
            sleep_until(fabric, wait->deadline_ns, wait);
        }
    }
    return CMI_OK;
}

cmi_status cmi_endpoint_flush_wait(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                   uint64_t deadline_ns)
{
    for (bool is_moving = true;;) {
        cmi_endpoint_info info;
        cmi_status st = fabric->backend->get_info(fabric, endpoint, &info);
        if (st != CMI_OK) {
            return st;
        }
        if (fabric->backend->is_settled(fabric, endpoint)) {
            return fabric->backend->take_failure(fabric, endpoint);
        }
        uint64_t now_ns = cmi_fabric_now_ns(fabric);
        if (now_ns >= deadline_ns) {
            return CMI_ERR_TIMEOUT;
        }
        if (!is_moving) {
            static const _Atomic uint64_t never;
            cmi_wait wait = {.word = &never, .at_least = 1};
            sleep_until(fabric, deadline_ns, &wait);
        }
        is_moving = fabric->backend->progress(fabric, now_ns);
    }
}

void cmi_fabric_sleep(cmi_fabric *fabric, uint64_t deadline_ns)
{
    uint64_t spin_until_ns = cmi_fabric_after_ns(fabric, fabric->opt.spin_ns);
    for (bool has_slept = false;;) {
        uint64_t now_ns = cmi_fabric_now_ns(fabric);
        bool is_moving = fabric->backend->progress(fabric, now_ns);
        bool is_woken = atomic_exchange(&fabric->is_woken, false);
        if (is_woken || has_slept || now_ns >= deadline_ns || fabric->backend->is_busy(fabric)) {
            return;
        }
        if (is_moving || now_ns < spin_until_ns) {
            cmi_cpu_relax();
            continue;
        }
        sleep_until(fabric, deadline_ns, NULL);
        has_slept = true;
    }
}

/* seq_cst, like the sleeper's look: either it sees the flag, or its watch sees the bell. */
void cmi_fabric_wake(cmi_fabric *fabric)
{
    atomic_store(&fabric->is_woken, true);
    fabric->backend->wake(fabric);
}

void cmi_fabric_get_counters(const cmi_fabric *fabric, cmi_fabric_counters *counters_out)
{
#define CMI_FABRIC_COUNTER_READ(name)                                                              \
    counters_out->name = atomic_load_explicit(&fabric->counters.name, memory_order_relaxed);
    CMI_FABRIC_COUNTERS(CMI_FABRIC_COUNTER_READ)
#undef CMI_FABRIC_COUNTER_READ
}
