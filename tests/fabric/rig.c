#include "tests/fabric/rig.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/local_socket.h"
#include "os/tcp_socket.h"
#include "os/watch.h"

rig_world world = {.name = "threads", .backend = "local"};

static const uint8_t secret[] = "a secret of the cluster for tests";

cmi_fabric_options rig_options(const char *name)
{
    cmi_fabric_options opt;
    cmi_fabric_options_default(&opt);
    opt.name = name;
    opt.secret = secret;
    opt.secret_bytes = sizeof secret;
    opt.version = 7;
    opt.handshake_ns = PATIENCE_NS;
    return opt;
}

static cmi_fabric *make(const cmi_fabric_options *opt, cmi_error *err)
{
    cmi_fabric *fabric = NULL;
    if (cmi_fabric_create(&fabric, world.backend, opt, err) != CMI_OK || !world.has_faults) {
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
    if (fabric == NULL ||
        (listens && cmi_fabric_listen(fabric, rig_any_address(), &err) != CMI_OK)) {
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
    NEED(cmi_fabric_connect(f, there->address, cmi_fabric_after_ns(f, PATIENCE_NS), &there->here) ==
         CMI_OK);
    NEED(rig_event(f, CMI_EVENT_OPEN, &event));
    return there->fn(there);
}

static void *thread_main(void *arg)
{
    rig_there *there = arg;
    there->is_good = run_there(there);
    cmi_fabric_destroy(there->fabric);
    atomic_store(&there->has_returned, true);
    return NULL;
}

static void child_main(rig_there *there)
{
    bool is_good = run_there(there);
    cmi_fabric_destroy(there->fabric);
    _exit(is_good ? 0 : 1);
}

/* ---- the process that children are forked from ---- */

/* It is asked through a socket for a child (with its rig_there; pointers mean the same in all three
 * processes, as long as they are to the program's own data) or for its end (a process to reap),
 * and answers with the child, or with how it ended. */
typedef struct rig_wish {
    bool is_end;
    pid_t process;
    rig_there there;
} rig_wish;

static int nursery = -1;

static bool transfer_all(int fd, void *bytes, size_t n, bool is_out)
{
    for (size_t done = 0; done < n;) {
        uint8_t *at = (uint8_t *)bytes + done;
        ssize_t moved = is_out ? write(fd, at, n - done) : read(fd, at, n - done);
        if (moved <= 0 && errno != EINTR) {
            return false;
        }
        done += moved > 0 ? (size_t)moved : 0;
    }
    return true;
}

static int grant(rig_wish *wish, int fd)
{
    int status = 0;
    if (wish->is_end) {
        return waitpid(wish->process, &status, 0) == wish->process ? status : -1;
    }
    pid_t process = fork();
    if (process == 0) {
        close(fd);
        child_main(&wish->there);
    }
    return process;
}

static void run_nursery(int fd)
{
    rig_wish wish;
    while (transfer_all(fd, &wish, sizeof wish, false)) {
        int answer = grant(&wish, fd);
        if (!transfer_all(fd, &answer, sizeof answer, true)) {
            break;
        }
    }
    _exit(0);
}

void rig_init(void)
{
    int fds[2];
    /* It would notice a dead peer after seconds, and hide that we do not. */
    setenv("UCX_KEEPALIVE_INTERVAL", "inf", 0);
    if (!rig_is_ucx() || !world.is_process) {
        return;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
        abort();
    }
    pid_t process = fork();
    if (process == 0) {
        close(fds[0]);
        run_nursery(fds[1]);
    }
    close(fds[1]);
    nursery = fds[0];
}

static int wish_for(const rig_wish *wish)
{
    rig_wish sent = *wish;
    int answer = -1;
    assert_true(transfer_all(nursery, &sent, sizeof sent, true));
    assert_true(transfer_all(nursery, &answer, sizeof answer, false));
    return answer;
}

static pid_t start_process(const rig_there *there)
{
    if (nursery >= 0) {
        return wish_for(&(rig_wish){.there = *there});
    }
    fflush(NULL);
    pid_t process = fork();
    if (process == 0) {
        rig_there own = *there;
        child_main(&own);
    }
    return process;
}

static int end_process(pid_t process)
{
    int status;
    if (nursery >= 0) {
        return wish_for(&(rig_wish){.is_end = true, .process = process});
    }
    assert_int_equal(waitpid(process, &status, 0), process);
    return status;
}

/* A child that has ended and was not reaped is a zombie; its descriptor is readable. */
static bool has_process_ended(int process_fd)
{
    struct pollfd one = {.fd = process_fd, .events = POLLIN};
    return process_fd < 0 || poll(&one, 1, 0) > 0;
}

void rig_start(rig_there *there, rig_fn *fn, uint32_t idx, const cmi_fabric *to,
               const cmi_fabric_options *opt)
{
    *there = (rig_there){
        .fn = fn, .idx = idx, .opt = *opt, .to = (cmi_fabric *)(uintptr_t)to, .is_running = true};
    snprintf(there->address, sizeof there->address, "%s", cmi_fabric_address(to));
    if (!world.is_process) {
        assert_int_equal(pthread_create(&there->thread, NULL, thread_main, there), 0);
        return;
    }
    there->process = start_process(there);
    assert_true(there->process > 0);
}

/* Until it has returned, or for a minute: then joining it waits for ever, and says so. */
static void go_on_until_returned(rig_there *there)
{
    int process_fd = world.is_process ? cmi_watch_open_process(there->process) : -1;
    uint64_t until_ns = there->to == NULL ? 0 : cmi_fabric_after_ns(there->to, 60 * SECOND_NS);
    while (
        there->to != NULL && cmi_fabric_now_ns(there->to) < until_ns &&
        !(world.is_process ? has_process_ended(process_fd) : atomic_load(&there->has_returned))) {
        cmi_fabric_sleep(there->to, cmi_fabric_after_ns(there->to, 1000000));
    }
    if (process_fd >= 0) {
        close(process_fd);
    }
}

void rig_join(rig_there *there)
{
    go_on_until_returned(there);
    if (!world.is_process) {
        assert_int_equal(pthread_join(there->thread, NULL), 0);
        assert_true(there->is_good);
        return;
    }
    int status = end_process(there->process);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

void rig_kill(rig_there *there)
{
    kill(there->process, SIGKILL);
    (void)end_process(there->process);
}

/* ---- what differs between backends ---- */

bool rig_is_ucx(void)
{
    return strcmp(world.backend, "ucx") == 0;
}

bool rig_reaches_registered(void)
{
    return rig_is_ucx() || !world.is_process;
}

const char *rig_any_address(void)
{
    return rig_is_ucx() ? "ucx:127.0.0.1:0" : "local:";
}

const char *rig_nobodys_address(void)
{
    return rig_is_ucx() ? "ucx:127.0.0.1:1" : "local:nobody-of-this-name";
}

int rig_dial_raw(const cmi_fabric *to)
{
    int fd = -1;
    const char *address = cmi_fabric_address(to);
    if (rig_is_ucx()) {
        uint16_t port = (uint16_t)strtoull(strrchr(address, ':') + 1, NULL, 10);
        assert_int_equal(cmi_tcp_connect(&fd, "127.0.0.1", port), CMI_OK);
        struct pollfd one = {.fd = fd, .events = POLLOUT};
        assert_int_equal(poll(&one, 1, 60000), 1);
    } else {
        assert_int_equal(cmi_local_socket_connect(&fd, address + strlen("local:")), CMI_OK);
    }
    return fd;
}

void rig_send_raw(int fd, const void *bytes, size_t n)
{
    cmi_local_datagram datagram = {.bytes = (void *)(uintptr_t)bytes, .n_bytes = n};
    size_t sent = n;
    cmi_status st =
        rig_is_ucx() ? cmi_tcp_send(fd, bytes, n, &sent) : cmi_local_socket_send(fd, &datagram);
    assert_int_equal(st, CMI_OK);
    assert_int_equal(sent, n);
}

bool rig_is_raw_closed(int fd)
{
    uint8_t bytes[4096];
    cmi_local_datagram datagram = {.bytes = bytes, .n_bytes = sizeof bytes};
    size_t n;
    cmi_status st = rig_is_ucx() ? cmi_tcp_receive(fd, bytes, sizeof bytes, &n)
                                 : cmi_local_socket_receive(fd, &datagram);
    return st == CMI_ERR_PEER;
}

/* ---- calls with patience ---- */

bool rig_event(cmi_fabric *fabric, cmi_event_kind kind, cmi_fabric_event *event_out)
{
    uint64_t until_ns = cmi_fabric_after_ns(fabric, PATIENCE_NS);
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
    return cmi_fabric_after_ns(f, PATIENCE_NS);
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
