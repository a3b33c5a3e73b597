#include "tests/fabric/cases.h"

#include <signal.h>
#include <unistd.h>

#include "base/alloc.h"
#include "os/clock.h"

static bool wait_for_end(rig_there *t)
{
    cmi_fabric_event event;
    return rig_event(t->fabric, CMI_EVENT_LOST, &event);
}

/* Progresses f until other has an event of an endpoint. */
static bool event_beside(cmi_fabric *f, cmi_fabric *other, cmi_fabric_event *event_out)
{
    uint64_t until_ns = cmi_fabric_after_ns(f, PATIENCE_NS);
    while (!cmi_fabric_poll(other, event_out)) {
        cmi_fabric_progress(f);
        cmi_fabric_sleep(other, cmi_fabric_after_ns(other, 200000));
        if (cmi_fabric_now_ns(f) >= until_ns) {
            return false;
        }
    }
    return true;
}

/* How a connection of a fabric with these options to f ends. */
static cmi_status try_connect(cmi_fabric *f, const cmi_fabric_options *opt, const char *address)
{
    cmi_fabric *other = rig_make(opt, false);
    cmi_endpoint_id ep;
    cmi_fabric_event event = {.status = CMI_ERR_INVALID};
    cmi_status st =
        cmi_fabric_connect(other, address, cmi_fabric_after_ns(other, PATIENCE_NS), &ep);
    if (st == CMI_OK && event_beside(f, other, &event)) {
        st = event.kind == CMI_EVENT_OPEN ? CMI_OK : event.status;
    }
    cmi_fabric_destroy(other);
    return st;
}

/* ---- coming ---- */

void strangers_are_refused(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    const char *address = cmi_fabric_address(f);

    cmi_fabric_options other = rig_options("without the secret");
    other.secret = (const uint8_t *)"another secret for a cluster tests";
    assert_int_equal(try_connect(f, &other, address), CMI_ERR_DENIED);
    other = rig_options("a short one");
    other.secret_bytes--;
    assert_int_equal(try_connect(f, &other, address), CMI_ERR_DENIED);
    other = rig_options("of another version");
    other.version++;
    assert_int_equal(try_connect(f, &other, address), CMI_ERR_UNSUPPORTED);
    other = rig_options("lost");
    assert_int_equal(try_connect(f, &other, rig_nobodys_address()), CMI_ERR_NOT_FOUND);
    assert_int_equal(try_connect(f, &other, rig_is_ucx() ? "ucx:" : "local:"), CMI_ERR_INVALID);
    assert_int_equal(try_connect(f, &other, "tcp:1.2.3.4:5"), CMI_ERR_INVALID);
    other = rig_options("friend");
    assert_int_equal(try_connect(f, &other, address), CMI_OK);

    cmi_fabric_event event; /* nothing was heard here of those that were refused */
    assert_true(rig_event(f, CMI_EVENT_OPEN, &event));
    cmi_endpoint_info info;
    assert_int_equal(cmi_endpoint_get_info(f, event.endpoint, &info), CMI_OK);
    assert_string_equal(info.peer_name, "friend");

    cmi_error err = {0};
    cmi_fabric *none = NULL;
    other.secret_bytes = 3;
    assert_int_equal(cmi_fabric_create(&none, world.backend, &other, &err), CMI_ERR_INVALID);
    assert_non_null(strstr(err.text, "secret"));
    other =
        rig_options("one with a name that is far too long to be of any use in the lines of a log");
    assert_int_equal(cmi_fabric_create(&none, world.backend, &other, &err), CMI_ERR_INVALID);
    assert_int_equal(cmi_fabric_create(&none, "none", &other, &err), CMI_ERR_INVALID);
    other = rig_options("twin");
    cmi_fabric *twin = rig_make(&other, false);
    assert_int_equal(cmi_fabric_listen(twin, address, &err), CMI_ERR_CLOSED);
    cmi_fabric_destroy(twin);
    cmi_fabric_destroy(f);
}

/* Time goes on when the test says so, too: what is to be too slow then need not be waited for, and
 * what must not be has all the time it wants. */
static uint64_t skipped_ns;

static uint64_t skipping_clock(void *arg)
{
    (void)arg;
    return cmi_clock_monotonic_ns() + skipped_ns;
}

static bool is_hung_up(cmi_fabric *f, int fd)
{
    uint64_t until_ns = cmi_clock_monotonic_ns() + PATIENCE_NS;
    while (cmi_clock_monotonic_ns() < until_ns) {
        cmi_fabric_progress(f);
        if (rig_is_raw_closed(fd)) {
            return true;
        }
        skipped_ns += SECOND_NS;
        cmi_fabric_sleep(f, cmi_fabric_after_ns(f, 1000000));
    }
    return false;
}

void what_does_not_speak_is_dropped(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    opt.n_endpoints = 2;
    opt.now_ns = skipping_clock;
    cmi_fabric *f = rig_make(&opt, true);
    int silent = rig_dial_raw(f);
    uint8_t noise[1000];
    rig_fill(noise, sizeof noise, 1);
    for (size_t n = 1; n < sizeof noise; n = n * 3 + 1) {
        int babbling = rig_dial_raw(f);
        rig_send_raw(babbling, noise, n);
        assert_true(is_hung_up(f, babbling));
        close(babbling);
    }
    assert_true(is_hung_up(f, silent));
    close(silent);
    cmi_fabric_event event;
    assert_false(cmi_fabric_poll(f, &event));
    cmi_fabric_options other = rig_options("friend");
    assert_int_equal(try_connect(f, &other, cmi_fabric_address(f)), CMI_OK);
    cmi_fabric_destroy(f);
}

void a_full_house_says_so(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    opt.n_endpoints = 1;
    cmi_fabric *f = rig_make(&opt, true);
    cmi_fabric_options other = rig_options("there");
    cmi_fabric *first = rig_make(&other, false);
    cmi_fabric_event event;
    cmi_endpoint_id ep;
    assert_int_equal(
        cmi_fabric_connect(first, cmi_fabric_address(f), cmi_fabric_after_ns(f, PATIENCE_NS), &ep),
        CMI_OK);
    assert_true(event_beside(f, first, &event));
    assert_int_equal(event.kind, CMI_EVENT_OPEN);
    assert_int_equal(try_connect(f, &other, cmi_fabric_address(f)), CMI_ERR_NO_CAPACITY);
    assert_int_equal(cmi_fabric_connect(f, cmi_fabric_address(f), 0, &ep), CMI_ERR_NO_CAPACITY);
    cmi_fabric_destroy(first);
    assert_true(rig_event(f, CMI_EVENT_LOST, &event));
    cmi_endpoint_close(f, event.endpoint);
    assert_int_equal(try_connect(f, &other, cmi_fabric_address(f)), CMI_OK);
    cmi_fabric_destroy(f);
}

/* ---- going ---- */

static bool send_and_leave(rig_there *t)
{
    NEED(rig_send(t->fabric, t->here, "last words", 10));
    cmi_endpoint_close(t->fabric, t->here);
    NEED(cmi_endpoint_send(t->fabric, t->here, "?", 1) == CMI_ERR_NOT_FOUND);
    return true;
}

void a_farewell_is_not_a_death(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region;
    assert_int_equal(cmi_fabric_alloc(f, 8, "word", &region, NULL), CMI_OK);
    rig_there there;
    rig_start(&there, send_and_leave, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f), from;
    rig_join(&there);
    cmi_wait wait = {.word = cmi_region_memory(f, region),
                     .at_least = 1,
                     .deadline_ns = cmi_fabric_after_ns(f, PATIENCE_NS),
                     .from = ep};
    assert_int_equal(cmi_fabric_wait(f, &wait), CMI_ERR_CLOSED);
    cmi_fabric_event event;
    assert_true(rig_event(f, CMI_EVENT_LOST, &event));
    assert_int_equal(event.status, CMI_ERR_CLOSED);
    assert_int_equal(cmi_endpoint_send(f, ep, "?", 1), CMI_ERR_CLOSED);
    cmi_op op = {0};
    assert_int_equal(cmi_endpoint_flush(f, ep, &op), CMI_ERR_CLOSED);
    char message[RIG_MAX_MESSAGE];
    size_t n;
    assert_true(cmi_fabric_receive(f, &from, message, &n));
    assert_memory_equal(message, "last words", 10);
    assert_int_equal(from.idx, ep.idx);
    cmi_endpoint_close(f, ep);
    assert_int_equal(cmi_endpoint_send(f, ep, "?", 1), CMI_ERR_NOT_FOUND);
    cmi_endpoint_close(f, ep);
    cmi_fabric_destroy(f);
    cmi_fabric_destroy(NULL);
}

void handles_do_not_outlive_their_things(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("both");
    opt.n_endpoints = 2;
    opt.n_regions = 1;
    cmi_fabric *f = rig_make(&opt, true);
    cmi_endpoint_id old_ep = {0}, zero_ep = {0};
    cmi_region_id old_region = {0};
    cmi_remote old_remote = {0};
    cmi_rkey old_key = {0};
    for (int round = 0; round < 20; round++) {
        cmi_region_id region;
        cmi_rkey key;
        cmi_remote to = {0};
        cmi_fabric_event event;
        assert_int_equal(cmi_fabric_alloc(f, 4096, "again", &region, NULL), CMI_OK);
        cmi_endpoint_id ep;
        assert_int_equal(
            cmi_fabric_connect(f, cmi_fabric_address(f), cmi_fabric_after_ns(f, PATIENCE_NS), &ep),
            CMI_OK);
        cmi_endpoint_id sides[2];
        for (int i = 0; i < 2; i++) {
            assert_true(rig_event(f, CMI_EVENT_OPEN, &event));
            sides[i] = event.endpoint;
        }
        assert_int_equal(cmi_region_get_rkey(f, region, &key), CMI_OK);
        assert_int_equal(cmi_endpoint_open_rkey(f, ep, &key, &to.id), CMI_OK);
        cmi_remote_id again;
        assert_int_equal(cmi_endpoint_open_rkey(f, ep, &key, &again), CMI_OK);
        assert_memory_equal(&again, &to.id, sizeof again);
        assert_true(rig_put(f, ep, "abc", to, 3));
        assert_true(rig_flush(f, ep));
        if (round > 0) {
            assert_null(cmi_region_memory(f, old_region));
            assert_int_equal(cmi_endpoint_put(f, old_ep, "x", to, 1, NULL), CMI_ERR_NOT_FOUND);
            assert_int_equal(cmi_endpoint_put(f, ep, "x", old_remote, 1, NULL), CMI_ERR_NOT_FOUND);
            assert_int_equal(cmi_endpoint_open_rkey(f, ep, &old_key, &again), CMI_ERR_NOT_FOUND);
            cmi_endpoint_close(f, old_ep);
        }
        assert_int_equal(cmi_endpoint_put(f, zero_ep, "x", to, 1, NULL), CMI_ERR_NOT_FOUND);
        old_ep = ep;
        old_region = region;
        old_remote = to;
        old_key = key;
        cmi_fabric_deregister(f, region);
        cmi_fabric_deregister(f, region);
        cmi_endpoint_close(f, sides[0]);
        cmi_endpoint_close(f, sides[1]);
    }
    cmi_fabric_destroy(f);
}

/* A fabric that is its own peer has each of its regions twice: once for each end. */
static cmi_fabric *make_loop(cmi_fabric_options *opt, cmi_endpoint_id *ep_out)
{
    cmi_fabric *f = rig_make(opt, true);
    cmi_fabric_event event;
    assert_int_equal(
        cmi_fabric_connect(f, cmi_fabric_address(f), cmi_fabric_after_ns(f, PATIENCE_NS), ep_out),
        CMI_OK);
    assert_true(rig_event(f, CMI_EVENT_OPEN, &event));
    assert_true(rig_event(f, CMI_EVENT_OPEN, &event));
    return f;
}

static void more_remotes_than_places(void)
{
    cmi_fabric_options opt = rig_options("both");
    cmi_endpoint_id ep;
    opt.n_remotes = 1;
    cmi_fabric *f = make_loop(&opt, &ep);
    uint32_t n_opened = 0;
    for (int i = 0; i < 3; i++) {
        cmi_region_id region;
        cmi_rkey rkey;
        cmi_remote_id remote;
        assert_int_equal(cmi_fabric_alloc(f, 64, "one of many", &region, NULL), CMI_OK);
        assert_int_equal(cmi_region_get_rkey(f, region, &rkey), CMI_OK);
        cmi_status st = cmi_endpoint_open_rkey(f, ep, &rkey, &remote);
        assert_true(st == CMI_OK || st == CMI_ERR_NO_CAPACITY);
        n_opened += st == CMI_OK;
    }
    assert_true(n_opened <= 1);
    cmi_fabric_destroy(f);
}

void tables_are_full_and_empty_again(void **state)
{
    (void)state;
    more_remotes_than_places();
    cmi_fabric_options opt = rig_options("both");
    cmi_endpoint_id ep;
    cmi_region_id region, more;
    cmi_rkey rkey;
    cmi_remote to = {0};
    opt.n_ops = 6;
    opt.n_regions = 2;
    cmi_fabric *f = make_loop(&opt, &ep);
    assert_int_equal(cmi_fabric_alloc(f, 1 << 20, "one", &region, NULL), CMI_OK);
    assert_int_equal(cmi_fabric_alloc(f, 4096, "two", &more, NULL), CMI_OK);
    assert_int_equal(cmi_fabric_alloc(f, 4096, "three", &more, NULL), CMI_ERR_NO_CAPACITY);
    assert_int_equal(cmi_region_get_rkey(f, region, &rkey), CMI_OK);
    assert_int_equal(cmi_endpoint_open_rkey(f, ep, &rkey, &to.id), CMI_OK);
    uint8_t *bytes = cmi_alloc(1, 200000);
    for (int round = 0; round < 3; round++) {
        uint32_t n = 0, n_refused = 0;
        while (n_refused < 20) { /* one alone may be the wrapper's whim */
            cmi_op op = {.tag = n};
            bool is_taken = cmi_endpoint_put(f, ep, bytes, to, 200000, &op) == CMI_OK;
            n += is_taken;
            n_refused = is_taken ? 0 : n_refused + 1;
        }
        assert_true(world.has_faults ? n >= 6 : n == 6); /* the wrapper has a table of its own */
        for (uint32_t i = 0; i < n; i++) {
            cmi_fabric_event event;
            assert_true(rig_event(f, CMI_EVENT_DONE, &event));
            assert_int_equal(event.status, CMI_OK);
        }
    }
    cmi_free(bytes);
    cmi_fabric_destroy(f);
}

/* ---- deadlines ---- */

void waits_have_deadlines(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_fabric *other = rig_make(&opt, false);
    cmi_region_id region;
    assert_int_equal(cmi_fabric_alloc(f, 8, "word", &region, NULL), CMI_OK);
    static const uint64_t after_ns[] = {0, 1000, 3000000, 30000000};
    for (size_t i = 0; i < CMI_LEN(after_ns); i++) {
        uint64_t begin_ns = cmi_fabric_now_ns(f);
        cmi_wait wait = {.word = cmi_region_memory(f, region),
                         .at_least = 1,
                         .deadline_ns = begin_ns + after_ns[i]};
        assert_int_equal(cmi_fabric_wait(f, &wait), CMI_ERR_TIMEOUT);
        assert_true(cmi_fabric_now_ns(f) - begin_ns >= after_ns[i]);
        cmi_fabric_sleep(f, cmi_fabric_after_ns(f, after_ns[i]));
    }
    /* f does not progress, so nobody answers */
    cmi_endpoint_id ep;
    cmi_fabric_event event;
    uint64_t begin_ns = cmi_fabric_now_ns(other);
    assert_int_equal(cmi_fabric_connect(other, cmi_fabric_address(f), begin_ns + 50000000, &ep),
                     CMI_OK);
    cmi_remote nothing = {0};
    cmi_status st = cmi_endpoint_put(other, ep, "x", nothing, 1, NULL);
    assert_int_equal(st, CMI_ERR_NO_CAPACITY); /* not open yet */
    assert_true(rig_event(other, CMI_EVENT_LOST, &event));
    assert_int_equal(event.status, CMI_ERR_TIMEOUT);
    assert_true(cmi_fabric_now_ns(other) - begin_ns >= 50000000);
    cmi_fabric_destroy(other);
    cmi_fabric_destroy(f);
}

/* ---- dying ---- */

enum { VICTIM_BYTES = 32 << 20 };

/* Puts for ever, until it is killed. */
static bool put_for_ever(rig_there *t)
{
    cmi_region_id region;
    cmi_remote to = {0};
    NEED(cmi_fabric_alloc(t->fabric, VICTIM_BYTES, "victim", &region, NULL) == CMI_OK);
    NEED(rig_send_rkey(t->fabric, t->here, region));
    NEED(rig_receive_rkey(t->fabric, &t->here, &to.id));
    uint8_t *bytes = cmi_alloc(1, 1 << 20);
    for (uint64_t i = 1;; i++) {
        to.offset = 64;
        NEED(rig_put(t->fabric, t->here, bytes, to, 1 << 20));
        to.offset = 0;
        NEED(rig_signal(t->fabric, t->here, to, CMI_SIGNAL_MAX, i));
    }
}

/* In the middle of transfers in both directions. (A thread cannot be killed: fault_test.c drops its
 * endpoint instead.) */
void a_killed_peer_is_noticed(void **state)
{
    (void)state;
    if (!world.is_process) {
        skip();
    }
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region;
    assert_int_equal(cmi_fabric_alloc(f, 2 << 20, "target", &region, NULL), CMI_OK);
    rig_there there;
    rig_start(&there, put_for_ever, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f);
    cmi_remote to = {0};
    assert_true(rig_receive_rkey(f, &ep, &to.id));
    assert_true(rig_send_rkey(f, ep, region));
    assert_true(rig_wait(f, ep, cmi_region_memory(f, region), 3));

    uint8_t *bytes = cmi_alloc(1, VICTIM_BYTES);
    uint64_t n_given = 0, n_ended = 0, n_failed = 0;
    for (int i = 0; i < 60; i++) {
        cmi_op op = {.tag = n_given};
        bool is_put = i % 2 == 0;
        n_given += (is_put ? cmi_endpoint_put(f, ep, bytes, to, VICTIM_BYTES, &op)
                           : cmi_endpoint_get(f, ep, bytes, to, VICTIM_BYTES, &op)) == CMI_OK;
    }
    assert_true(n_given > 30);
    cmi_fabric_progress(f);
    rig_kill(&there);
    bool is_noticed = false;
    uint64_t until_ns = cmi_fabric_after_ns(f, PATIENCE_NS);
    while ((!is_noticed || n_ended < n_given) && cmi_fabric_now_ns(f) < until_ns) {
        cmi_fabric_event event;
        while (cmi_fabric_poll(f, &event)) {
            if (event.kind == CMI_EVENT_LOST) {
                assert_int_equal(event.status, CMI_ERR_PEER);
                is_noticed = true;
                continue;
            }
            assert_int_equal(event.kind, CMI_EVENT_DONE);
            assert_true(event.status == CMI_OK || event.status == CMI_ERR_PEER);
            n_failed += event.status != CMI_OK;
            n_ended++;
        }
        cmi_fabric_progress(f);
    }
    assert_int_equal(n_ended, n_given);
    /* UCX over shared memory has copied all inside the calls */
    assert_true(n_failed > 0 || rig_is_ucx());
    assert_true(is_noticed);
    assert_int_equal(cmi_endpoint_put(f, ep, bytes, to, 1, NULL), CMI_ERR_PEER);
    assert_int_equal(cmi_endpoint_send(f, ep, bytes, 1), CMI_ERR_PEER);
    assert_int_equal(cmi_endpoint_flush_wait(f, ep, until_ns), CMI_ERR_PEER);
    cmi_fabric_counters counters;
    cmi_fabric_get_counters(f, &counters);
    assert_int_equal(counters.n_lost, 1);
    cmi_endpoint_close(f, ep);
    cmi_free(bytes);
    cmi_fabric_destroy(f);
}

static void *kill_later(void *arg)
{
    rig_there *there = arg;
    cmi_fabric_options opt = rig_options("clock");
    cmi_fabric *f = rig_make(&opt, false);
    cmi_fabric_sleep(f, cmi_fabric_after_ns(f, SECOND_NS / 20));
    kill(there->process, SIGKILL);
    cmi_fabric_destroy(f);
    return NULL;
}

/* The waiter sleeps in the kernel when it happens. */
void a_killed_peer_ends_a_wait(void **state)
{
    (void)state;
    if (!world.is_process) {
        skip();
    }
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region;
    assert_int_equal(cmi_fabric_alloc(f, 8, "word", &region, NULL), CMI_OK);
    rig_there there;
    pthread_t thread;
    rig_start(&there, wait_for_end, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f);
    assert_int_equal(pthread_create(&thread, NULL, kill_later, &there), 0);
    cmi_wait wait = {.word = cmi_region_memory(f, region),
                     .at_least = 1,
                     .deadline_ns = cmi_fabric_after_ns(f, PATIENCE_NS),
                     .from = ep};
    assert_int_equal(cmi_fabric_wait(f, &wait), CMI_ERR_PEER);
    assert_int_equal(pthread_join(thread, NULL), 0);
    rig_kill(&there);
    cmi_fabric_destroy(f);
}

void a_hung_peer_is_noticed(void **state)
{
    (void)state;
    if (!world.is_process) {
        skip();
    }
    cmi_fabric_options opt = rig_options("here"), other = rig_options("there");
    opt.hung_after_ns = SECOND_NS / 5;
    cmi_fabric *f = rig_make(&opt, true);
    rig_there there;
    rig_start(&there, wait_for_end, 0, f, &other);
    cmi_endpoint_id ep = rig_accept(f);
    kill(there.process, SIGSTOP);
    cmi_fabric_event event;
    assert_true(rig_event(f, CMI_EVENT_LOST, &event));
    assert_int_equal(event.status, CMI_ERR_PEER);
    assert_int_equal(event.endpoint.idx, ep.idx);
    rig_kill(&there);
    cmi_fabric_destroy(f);
}

static bool is_lost(const cmi_fabric *f, cmi_endpoint_id ep)
{
    cmi_endpoint_info info;
    return cmi_endpoint_get_info(f, ep, &info) != CMI_OK || info.status != CMI_OK;
}

static bool idle(rig_there *t)
{
    while (!is_lost(t->fabric, t->here)) { /* asleep for most of the time */
        cmi_fabric_sleep(t->fabric, cmi_fabric_after_ns(t->fabric, SECOND_NS));
    }
    return true;
}

/* For three times as long as silence is borne. */
static bool is_taken_for_hung(cmi_fabric *f, uint64_t hung_ns)
{
    bool is_hung = false;
    uint64_t until_ns = cmi_fabric_after_ns(f, 3 * hung_ns);
    while (!is_hung && cmi_fabric_now_ns(f) < until_ns) {
        cmi_fabric_event event;
        cmi_fabric_sleep(f, until_ns);
        while (cmi_fabric_poll(f, &event)) {
            is_hung |= event.kind == CMI_EVENT_LOST;
        }
    }
    return is_hung;
}

/* Only one side asks for beats. On a machine that gives the other side no processor for so long,
 * it is silent; whoever never beats is lost every time. */
void an_idle_peer_is_not_hung(void **state)
{
    (void)state;
    bool is_silent = true;
    for (uint64_t hung_ns = SECOND_NS / 5; is_silent && hung_ns < 10 * SECOND_NS; hung_ns *= 2) {
        cmi_fabric_options opt = rig_options("here"), other = rig_options("there");
        opt.hung_after_ns = hung_ns;
        cmi_fabric *f = rig_make(&opt, true);
        rig_there there;
        rig_start(&there, idle, 0, f, &other);
        (void)rig_accept(f);
        is_silent = is_taken_for_hung(f, hung_ns);
        cmi_fabric_destroy(f);
        there.to = NULL;
        rig_join(&there);
    }
    assert_false(is_silent);
}
