#include "tests/fabric/rig.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "os/clock.h"

rig_world world = {.name = "threads"};

static const uint8_t secret[] = "a secret of the cluster for tests";

cmi_fabric_options rig_options(const char *name)
{
    cmi_fabric_options opt;
    cmi_fabric_options_default(&opt);
    opt.name = name;
    opt.secret = secret;
    opt.secret_bytes = sizeof secret;
    opt.version = 7;
    return opt;
}

static cmi_fabric *make(const cmi_fabric_options *opt, cmi_error *err)
{
    cmi_fabric *fabric = NULL;
    if (cmi_fabric_create_local(&fabric, opt, err) != CMI_OK || !world.has_faults) {
        return fabric;
    }
    cmi_fault_options faults = {.seed = 5,
                                .n_ops = 256,
                                .max_delay_ns = 100000,
                                .shuffles_events = true,
                                .refuse_ppm = 30000};
    cmi_fabric *wrapped = NULL;
    return cmi_fabric_wrap_faults(&wrapped, fabric, &faults, err) == CMI_OK ? wrapped : NULL;
}

cmi_fabric *rig_make(const cmi_fabric_options *opt, bool listens)
{
    cmi_error err = {0};
    cmi_fabric *fabric = make(opt, &err);
    if (fabric == NULL || (listens && cmi_fabric_listen(fabric, "local:", &err) != CMI_OK)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    return fabric;
}

/* ---- there ---- */

static bool run_there(rig_there *there)
{
    there->fabric = rig_make(&there->opt, false);
    cmi_fabric *f = there->fabric;
    cmi_fabric_event event;
    NEED(cmi_fabric_connect(f, there->address, cmi_fabric_after_ns(f, 2 * SECOND_NS),
                            &there->here) == CMI_OK);
    NEED(rig_event(f, CMI_EVENT_OPEN, &event));
    return there->fn(there);
}

static void *thread_main(void *arg)
{
    rig_there *there = arg;
    there->is_good = run_there(there);
    cmi_fabric_destroy(there->fabric);
    return NULL;
}

void rig_start(rig_there *there, rig_fn *fn, uint32_t idx, const cmi_fabric *to,
               const cmi_fabric_options *opt)
{
    *there = (rig_there){.fn = fn, .idx = idx, .opt = *opt, .is_running = true};
    snprintf(there->address, sizeof there->address, "%s", cmi_fabric_address(to));
    if (!world.is_process) {
        assert_int_equal(pthread_create(&there->thread, NULL, thread_main, there), 0);
        return;
    }
    fflush(NULL);
    there->process = fork();
    assert_true(there->process >= 0);
    if (there->process == 0) {
        bool is_good = run_there(there);
        cmi_fabric_destroy(there->fabric);
        _exit(is_good ? 0 : 1);
    }
}

void rig_join(rig_there *there)
{
    if (!world.is_process) {
        assert_int_equal(pthread_join(there->thread, NULL), 0);
        assert_true(there->is_good);
        return;
    }
    int status;
    assert_int_equal(waitpid(there->process, &status, 0), there->process);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

void rig_kill(rig_there *there)
{
    int status;
    kill(there->process, SIGKILL);
    assert_int_equal(waitpid(there->process, &status, 0), there->process);
}

/* ---- calls with patience ---- */

bool rig_event(cmi_fabric *fabric, cmi_event_kind kind, cmi_fabric_event *event_out)
{
    uint64_t until_ns = cmi_fabric_after_ns(fabric, 2 * SECOND_NS);
    do {
        while (cmi_fabric_poll(fabric, event_out)) {
            if (event_out->kind == kind) {
                return true;
            }
        }
        cmi_fabric_sleep(fabric, until_ns);
    } while (cmi_fabric_now_ns(fabric) < until_ns);
    return false;
}

cmi_endpoint_id rig_accept(cmi_fabric *fabric)
{
    cmi_fabric_event event = {0};
    return rig_event(fabric, CMI_EVENT_OPEN, &event) ? event.endpoint : (cmi_endpoint_id){0};
}

static uint64_t patience(const cmi_fabric *f)
{
    return cmi_fabric_after_ns(f, 20 * SECOND_NS);
}

/* True: the call is to be made again. */
static bool is_to_repeat(cmi_fabric *f, cmi_status st, uint64_t until_ns)
{
    if (st != CMI_ERR_NO_CAPACITY || cmi_fabric_now_ns(f) >= until_ns) {
        return false;
    }
    cmi_fabric_progress(f);
    return true;
}

bool rig_put(cmi_fabric *f, cmi_endpoint_id ep, const void *local, cmi_remote to, size_t n)
{
    cmi_status st;
    uint64_t until_ns = patience(f);
    do {
        st = cmi_endpoint_put(f, ep, local, to, n, NULL);
    } while (is_to_repeat(f, st, until_ns));
    return st == CMI_OK;
}

bool rig_signal(cmi_fabric *f, cmi_endpoint_id ep, cmi_remote to, cmi_signal kind, uint64_t value)
{
    cmi_status st;
    uint64_t until_ns = patience(f);
    do {
        st = cmi_endpoint_signal(f, ep, to, kind, value, NULL);
    } while (is_to_repeat(f, st, until_ns));
    return st == CMI_OK;
}

bool rig_get(cmi_fabric *f, cmi_endpoint_id ep, void *local, cmi_remote from, size_t n)
{
    cmi_status st;
    uint64_t until_ns = patience(f);
    do {
        st = cmi_endpoint_get(f, ep, local, from, n, NULL);
    } while (is_to_repeat(f, st, until_ns));
    return st == CMI_OK && rig_flush(f, ep);
}

/* A full ring is left in peace until there is room. */
bool rig_send(cmi_fabric *f, cmi_endpoint_id ep, const void *message, size_t n)
{
    cmi_status st;
    uint64_t until_ns = patience(f);
    while ((st = cmi_endpoint_send(f, ep, message, n)) == CMI_ERR_NO_CAPACITY &&
           cmi_fabric_now_ns(f) < until_ns) {
        cmi_fabric_sleep(f, cmi_fabric_after_ns(f, world.has_faults ? 100000 : SECOND_NS));
    }
    return st == CMI_OK;
}

bool rig_receive(cmi_fabric *f, cmi_endpoint_id *ep_out, void *message, size_t *n_out)
{
    uint64_t until_ns = patience(f);
    cmi_fabric_event event;
    while (!cmi_fabric_receive(f, ep_out, message, n_out)) {
        if (cmi_fabric_now_ns(f) >= until_ns) {
            return false;
        }
        while (cmi_fabric_poll(f, &event)) {
        }
        cmi_fabric_sleep(f, until_ns);
    }
    return true;
}

bool rig_wait(cmi_fabric *f, cmi_endpoint_id from, const void *word, uint64_t at_least)
{
    cmi_wait wait = {.word = word, .at_least = at_least, .deadline_ns = patience(f), .from = from};
    return cmi_fabric_wait(f, &wait) == CMI_OK;
}

bool rig_flush(cmi_fabric *f, cmi_endpoint_id ep)
{
    return cmi_endpoint_flush_wait(f, ep, patience(f)) == CMI_OK;
}

bool rig_flush_last(cmi_fabric *f, cmi_endpoint_id ep)
{
    cmi_status st = cmi_endpoint_flush_wait(f, ep, patience(f));
    return st == CMI_OK || st == CMI_ERR_CLOSED;
}

bool rig_send_rkey(cmi_fabric *f, cmi_endpoint_id ep, cmi_region_id region)
{
    cmi_rkey key;
    return cmi_region_get_rkey(f, region, &key) == CMI_OK &&
           rig_send(f, ep, key.bytes, key.n_bytes);
}

bool rig_receive_rkey(cmi_fabric *f, cmi_endpoint_id *ep_out, cmi_remote_id *remote_out)
{
    uint8_t message[RIG_MAX_MESSAGE];
    size_t n;
    if (!rig_receive(f, ep_out, message, &n) || n > CMI_FABRIC_MAX_RKEY) {
        return false;
    }
    cmi_rkey key = {.n_bytes = (uint16_t)n};
    memcpy(key.bytes, message, n);
    return cmi_endpoint_open_rkey(f, *ep_out, &key, remote_out) == CMI_OK;
}

/* ---- bytes ---- */

static uint8_t byte_at(uint64_t seed, size_t i)
{
    uint64_t x = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15) + i * UINT64_C(0xBF58476D1CE4E5B9);
    return (uint8_t)(x >> 56 ^ x >> 24);
}

void rig_fill(void *bytes, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        ((uint8_t *)bytes)[i] = byte_at(seed, i);
    }
}

bool rig_is_filled(const void *bytes, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        if (((const uint8_t *)bytes)[i] != byte_at(seed, i)) {
            return false;
        }
    }
    return true;
}
