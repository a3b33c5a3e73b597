/* What the fault wrapper does, and that it does the same again for the same seed. */
#include "tests/test.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "fabric/fault.h"

enum { REGION_BYTES = 1 << 16 };
static const uint64_t SECOND_NS = 1000000000u;
static const uint8_t secret[] = "a secret of the cluster for tests";

/* A clock that only the test moves. */
static uint64_t fake_now_ns;

static uint64_t fake_clock(void *arg)
{
    (void)arg;
    return fake_now_ns;
}

/* Two fabrics of this thread; `sender` is under faults. */
typedef struct pair {
    cmi_fabric *sender, *receiver;
    cmi_endpoint_id to, from;
    cmi_remote remote;
    uint8_t *memory; /* of the receiver */
} pair;

static cmi_fabric *make(bool has_fake_clock)
{
    cmi_fabric_options opt;
    cmi_fabric_options_default(&opt);
    opt.secret = secret;
    opt.secret_bytes = sizeof secret;
    opt.now_ns = has_fake_clock ? fake_clock : NULL;
    cmi_fabric *f = NULL;
    assert_int_equal(cmi_fabric_create_local(&f, &opt, NULL), CMI_OK);
    return f;
}

static bool poll_open(cmi_fabric *f, cmi_endpoint_id *ep_out)
{
    cmi_fabric_event event;
    if (!cmi_fabric_poll(f, &event)) {
        return false;
    }
    assert_int_equal(event.kind, CMI_EVENT_OPEN);
    *ep_out = event.endpoint;
    return true;
}

static pair make_pair(uint64_t seed, bool has_fake_clock)
{
    pair p = {.receiver = make(has_fake_clock)};
    cmi_fabric *inner = make(has_fake_clock);
    cmi_fault_options none = {.seed = seed, .n_ops = 64};
    assert_int_equal(cmi_fabric_wrap_faults(&p.sender, inner, &none, NULL), CMI_OK);
    assert_int_equal(cmi_fabric_listen(p.receiver, "local:", NULL), CMI_OK);
    assert_int_equal(cmi_fabric_connect(p.sender, cmi_fabric_address(p.receiver),
                                        fake_now_ns + 10 * SECOND_NS + cmi_fabric_now_ns(p.sender),
                                        &p.to),
                     CMI_OK);
    for (int n_open = 0; n_open < 2;) {
        fake_now_ns += 2000000;
        cmi_fabric_progress(p.sender);
        cmi_fabric_progress(p.receiver);
        n_open += poll_open(p.sender, &p.to);
        n_open += poll_open(p.receiver, &p.from);
    }
    cmi_region_id region;
    cmi_rkey key;
    assert_int_equal(cmi_fabric_alloc(p.receiver, REGION_BYTES, "target", &region, NULL), CMI_OK);
    assert_int_equal(cmi_region_get_rkey(p.receiver, region, &key), CMI_OK);
    assert_int_equal(cmi_endpoint_open_rkey(p.sender, p.to, &key, &p.remote.id), CMI_OK);
    p.memory = cmi_region_memory(p.receiver, region);
    return p;
}

static void end_pair(pair *p)
{
    cmi_fabric_destroy(p->sender);
    cmi_fabric_destroy(p->receiver);
}

static cmi_status flush(pair *p)
{
    return cmi_endpoint_flush_wait(p->sender, p->to, cmi_fabric_after_ns(p->sender, 5 * SECOND_NS));
}

static size_t count_flipped(const uint8_t *a, const uint8_t *b, size_t n)
{
    size_t n_bits = 0;
    for (size_t i = 0; i < n; i++) {
        n_bits += (size_t)__builtin_popcount(a[i] ^ b[i]);
    }
    return n_bits;
}

static void one_bit_flips(void **state)
{
    (void)state;
    pair p = make_pair(3, false);
    uint8_t bytes[2000], back[2000], message[4096];
    memset(bytes, 0x5A, sizeof bytes);
    for (size_t n = 1; n <= sizeof bytes; n = n * 2 + 1) {
        cmi_fault_set(p.sender, &(cmi_fault_options){.corrupt_nth = 1});
        assert_int_equal(cmi_endpoint_put(p.sender, p.to, bytes, p.remote, n, NULL), CMI_OK);
        assert_int_equal(flush(&p), CMI_OK);
        assert_int_equal(count_flipped(bytes, p.memory, n), 1);
        assert_int_not_equal(cmi_crc32c(0, bytes, n), cmi_crc32c(0, p.memory, n));
        assert_int_equal(cmi_endpoint_put(p.sender, p.to, bytes, p.remote, n, NULL), CMI_OK);
        assert_int_equal(flush(&p), CMI_OK);
        assert_memory_equal(bytes, p.memory, n);
        cmi_fault_set(p.sender, &(cmi_fault_options){.corrupt_ppm = 1000000});
        assert_int_equal(cmi_endpoint_get(p.sender, p.to, back, p.remote, n, NULL), CMI_OK);
        assert_int_equal(flush(&p), CMI_OK);
        assert_int_equal(count_flipped(bytes, back, n), 1);
        size_t got;
        cmi_endpoint_id from;
        assert_int_equal(cmi_endpoint_send(p.sender, p.to, bytes, n), CMI_OK);
        assert_true(cmi_fabric_receive(p.receiver, &from, message, &got));
        assert_int_equal(got, n);
        assert_int_equal(count_flipped(bytes, message, n), 1);
    }
    end_pair(&p);
}

static void the_nth_fails(void **state)
{
    (void)state;
    pair p = make_pair(1, false);
    cmi_fabric_event event;
    cmi_op op = {.tag = 9};
    cmi_fault_options faults = {.fail_nth = 2, .fail_status = CMI_ERR_IO};
    cmi_fault_set(p.sender, &faults);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cmi_endpoint_put(p.sender, p.to, "abc", p.remote, 3, &op), CMI_OK);
        cmi_fabric_progress(p.sender);
        assert_true(cmi_fabric_poll(p.sender, &event));
        assert_int_equal(event.status, i == 1 ? CMI_ERR_IO : CMI_OK);
        assert_int_equal(event.tag, 9);
    }
    assert_int_equal(flush(&p), CMI_OK); /* the event has told it */

    cmi_fault_set(p.sender, &faults);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cmi_endpoint_put(p.sender, p.to, "abc", p.remote, 3, NULL), CMI_OK);
    }
    assert_int_equal(flush(&p), CMI_ERR_IO);
    assert_int_equal(flush(&p), CMI_OK);

    cmi_fault_set(p.sender, &faults);
    assert_int_equal(cmi_endpoint_send(p.sender, p.to, "abc", 3), CMI_OK);
    assert_int_equal(cmi_endpoint_send(p.sender, p.to, "abc", 3), CMI_ERR_IO);
    cmi_fabric_counters counters;
    cmi_fabric_get_counters(p.sender, &counters);
    assert_int_equal(counters.n_failed, 2);
    assert_int_equal(counters.n_sent, 1);
    end_pair(&p);
}

/* Both sides see a death; what is held, under way or done ends once. */
static void a_dropped_endpoint_is_dead(void **state)
{
    (void)state;
    pair p = make_pair(1, false);
    static uint8_t bytes[REGION_BYTES];
    cmi_fabric_event event;
    uint32_t n_done = 0, n_failed = 0, n_lost = 0;
    cmi_fault_options faults = {.max_delay_ns = SECOND_NS, .corrupt_ppm = 500000, .drop_nth = 21};
    cmi_fault_set(p.sender, &faults);
    for (uint64_t i = 0; i < 20; i++) {
        cmi_op op = {.tag = i};
        assert_int_equal(cmi_endpoint_put(p.sender, p.to, bytes, p.remote, sizeof bytes, &op),
                         CMI_OK);
        cmi_fabric_progress(p.sender);
    }
    assert_int_equal(cmi_endpoint_put(p.sender, p.to, bytes, p.remote, 1, NULL), CMI_ERR_PEER);
    while (cmi_fabric_poll(p.sender, &event)) {
        n_done += event.kind == CMI_EVENT_DONE;
        n_failed += event.kind == CMI_EVENT_DONE && event.status == CMI_ERR_PEER;
        n_lost += event.kind == CMI_EVENT_LOST && event.status == CMI_ERR_PEER;
    }
    assert_int_equal(n_done, 20);
    assert_true(n_failed > 0);
    assert_int_equal(n_lost, 1);
    assert_int_equal(flush(&p), CMI_ERR_PEER);
    uint64_t until_ns = cmi_fabric_after_ns(p.receiver, SECOND_NS);
    while (!cmi_fabric_poll(p.receiver, &event)) {
        cmi_fabric_sleep(p.receiver, until_ns);
        assert_true(cmi_fabric_now_ns(p.receiver) < until_ns);
    }
    assert_int_equal(event.kind, CMI_EVENT_LOST);
    assert_int_equal(event.status, CMI_ERR_PEER);
    cmi_endpoint_close(p.sender, p.to);
    assert_false(cmi_fabric_poll(p.sender, &event));
    end_pair(&p);
}

/* What was given before a close ends as cancelled. */
static void a_close_cancels_what_is_held(void **state)
{
    (void)state;
    pair p = make_pair(1, false);
    cmi_fault_set(p.sender,
                  &(cmi_fault_options){.min_delay_ns = SECOND_NS, .max_delay_ns = SECOND_NS});
    cmi_op op = {.tag = 1};
    cmi_fabric_event event;
    assert_int_equal(cmi_endpoint_put(p.sender, p.to, "abc", p.remote, 3, &op), CMI_OK);
    cmi_endpoint_close(p.sender, p.to);
    assert_true(cmi_fabric_poll(p.sender, &event));
    assert_int_equal(event.status, CMI_ERR_CANCELLED);
    assert_int_equal(p.memory[0], 0);
    end_pair(&p);
}

/* ---- time and order ---- */

/* Time is the wrapped clock's: nothing happens before it moves, everything when it has. */
static void delays_follow_the_clock(void **state)
{
    (void)state;
    pair p = make_pair(4, true);
    cmi_fault_set(p.sender, &(cmi_fault_options){.min_delay_ns = 5 * SECOND_NS,
                                                 .max_delay_ns = 9 * SECOND_NS});
    cmi_remote word = p.remote;
    word.offset = 64;
    assert_int_equal(cmi_endpoint_put(p.sender, p.to, "abc", p.remote, 3, NULL), CMI_OK);
    assert_int_equal(cmi_endpoint_signal(p.sender, p.to, word, CMI_SIGNAL_ADD, 1, NULL), CMI_OK);
    fake_now_ns += 5 * SECOND_NS - 1;
    for (int i = 0; i < 100; i++) {
        cmi_fabric_progress(p.sender);
    }
    assert_int_equal(p.memory[0], 0);
    assert_int_equal(cmi_endpoint_flush_wait(p.sender, p.to, fake_now_ns), CMI_ERR_TIMEOUT);
    fake_now_ns += 4 * SECOND_NS + 1;
    while (cmi_fabric_progress(p.sender)) {
    }
    assert_memory_equal(p.memory, "abc", 3);
    assert_int_equal(p.memory[64], 1);
    end_pair(&p);
}

enum { N_OPS = 40 };

/* Runs operations in steps of the clock; order_out: the tags of the events. */
static cmi_fault_counts run(uint64_t seed, uint64_t order_out[N_OPS])
{
    pair p = make_pair(seed, true);
    cmi_fault_options faults = {.max_delay_ns = 1000000,
                                .shuffles_events = true,
                                .refuse_ppm = 200000,
                                .corrupt_ppm = 100000};
    cmi_fault_set(p.sender, &faults);
    uint32_t n_given = 0, n_done = 0;
    while (n_done < N_OPS) {
        cmi_op op = {.tag = n_given};
        cmi_fabric_event event;
        if (n_given < N_OPS) {
            bool is_signal = n_given % 8 == 7;
            cmi_status st =
                is_signal ? cmi_endpoint_signal(p.sender, p.to, p.remote, CMI_SIGNAL_ADD, 0, &op)
                          : cmi_endpoint_put(p.sender, p.to, "12345678", p.remote, 8, &op);
            n_given += st == CMI_OK;
        }
        fake_now_ns += 50000;
        cmi_fabric_progress(p.sender);
        while (n_given % 10 == 0 && cmi_fabric_poll(p.sender, &event)) {
            assert_int_equal(event.status, CMI_OK);
            order_out[n_done++] = event.tag;
        }
    }
    cmi_fault_counts counts;
    cmi_fault_get_counts(p.sender, &counts);
    end_pair(&p);
    return counts;
}

static void a_seed_repeats_itself(void **state)
{
    (void)state;
    uint64_t first[N_OPS], second[N_OPS], other[N_OPS], sorted[N_OPS];
    cmi_fault_counts a = run(11, first), b = run(11, second);
    assert_memory_equal(first, second, sizeof first);
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.n_refused > 0 && a.n_corrupted > 0 && a.n_overtaken > 0);
    run(12, other);
    assert_memory_not_equal(first, other, sizeof first);
    for (uint64_t i = 0; i < N_OPS; i++) {
        sorted[i] = i;
    }
    assert_memory_not_equal(first, sorted, sizeof first);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    cmi_fabric *inner = make(false), *f = NULL;
    cmi_error err = {0};
    cmi_fault_options opt = {0};
    assert_int_equal(cmi_fabric_wrap_faults(&f, inner, &opt, &err), CMI_ERR_INVALID);
    opt = (cmi_fault_options){.n_ops = 1, .min_delay_ns = 2, .max_delay_ns = 1};
    assert_int_equal(cmi_fabric_wrap_faults(&f, inner, &opt, &err), CMI_ERR_INVALID);
    cmi_fabric_destroy(inner);
}

int main(void)
{
    cmi_log_set_level(CMI_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_bit_flips),
        cmocka_unit_test(the_nth_fails),
        cmocka_unit_test(a_dropped_endpoint_is_dead),
        cmocka_unit_test(a_close_cancels_what_is_held),
        cmocka_unit_test(delays_follow_the_clock),
        cmocka_unit_test(a_seed_repeats_itself),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
