#include "tests/fabric/cases.h"

enum { RING_BYTES = 1024, MAX_BYTES = 256, N_MESSAGES = 4000 };

static cmi_fabric_options small_ring(const char *name)
{
    cmi_fabric_options opt = rig_options(name);
    opt.message_bytes = MAX_BYTES;
    opt.ring_bytes = RING_BYTES;
    return opt;
}

static size_t length_of(uint64_t i)
{
    return 1 + i * 37 % MAX_BYTES;
}

static bool send_many(rig_there *t)
{
    uint8_t message[MAX_BYTES];
    for (uint64_t i = 0; i < N_MESSAGES; i++) {
        rig_fill(message, length_of(i), i);
        NEED(rig_send(t->fabric, t->here, message, length_of(i)));
    }
    size_t n;
    NEED(rig_receive(t->fabric, &t->here, message, &n));
    return true;
}

void messages_come_in_order_around_the_ring(void **state)
{
    (void)state;
    cmi_fabric_options opt = small_ring("here");
    cmi_fabric *f = rig_make(&opt, true);
    rig_there there;
    rig_start(&there, send_many, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f), from;
    uint8_t message[MAX_BYTES];
    size_t n;
    for (uint64_t i = 0; i < N_MESSAGES; i++) {
        assert_true(rig_receive(f, &from, message, &n));
        assert_int_equal(from.idx, ep.idx);
        assert_int_equal(n, length_of(i));
        assert_true(rig_is_filled(message, n, i));
    }
    assert_false(cmi_fabric_receive(f, &from, message, &n));
    assert_true(rig_send(f, ep, "done", 4));
    rig_join(&there);
    cmi_fabric_counters counters;
    cmi_fabric_get_counters(f, &counters);
    assert_int_equal(counters.n_received, N_MESSAGES);
    cmi_fabric_destroy(f);
}

/* ---- full ---- */

static bool fill_and_drain(rig_there *t)
{
    uint8_t message[MAX_BYTES];
    cmi_remote full = {0};
    NEED(rig_receive_rkey(t->fabric, &t->here, &full.id));
    uint64_t n_sent = 0;
    for (bool has_room = true;
         has_room;) { /* stops when the ring is full, for whatever is refused */
        cmi_status st = CMI_ERR_NO_CAPACITY;
        memset(message, (int)n_sent, sizeof message);
        for (int i = 0; i < 20 && st == CMI_ERR_NO_CAPACITY; i++) {
            st = cmi_endpoint_send(t->fabric, t->here, message, 100);
        }
        has_room = st == CMI_OK;
        n_sent += has_room;
        NEED(has_room || st == CMI_ERR_NO_CAPACITY);
    }
    NEED(n_sent == RING_BYTES / 112); /* 8 bytes of head, rounded up to 8 */
    NEED(cmi_endpoint_send(t->fabric, t->here, message, 0) == CMI_ERR_INVALID);
    cmi_status st;
    while ((st = cmi_endpoint_send(t->fabric, t->here, message, MAX_BYTES + 1)) ==
           CMI_ERR_NO_CAPACITY) {
        NEED(world.has_faults);
    }
    NEED(st == CMI_ERR_TOO_LARGE);
    NEED(rig_signal(t->fabric, t->here, full, CMI_SIGNAL_ADD, n_sent));
    NEED(rig_flush(t->fabric, t->here));
    cmi_region_id region;
    cmi_rkey key;
    NEED(cmi_fabric_alloc(t->fabric, 8, "sign", &region, NULL) == CMI_OK);
    NEED(cmi_region_get_rkey(t->fabric, region, &key) == CMI_OK);
    NEED(rig_send(t->fabric, t->here, key.bytes, key.n_bytes)); /* sleeps until there is room */
    NEED(rig_wait(t->fabric, t->here, cmi_region_memory(t->fabric, region), n_sent));
    return true;
}

void a_full_ring_changes_nothing(void **state)
{
    (void)state;
    cmi_fabric_options opt = small_ring("here");
    cmi_fabric *f = rig_make(&opt, true);
    rig_there there;
    rig_start(&there, fill_and_drain, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f), from;
    cmi_endpoint_info info;
    assert_int_equal(cmi_endpoint_get_info(f, ep, &info), CMI_OK);
    assert_int_equal(info.message_bytes, MAX_BYTES);
    assert_true(info.is_incoming);
    cmi_region_id region;
    assert_int_equal(cmi_fabric_alloc(f, 8, "sign", &region, NULL), CMI_OK);
    assert_true(rig_send_rkey(f, ep, region));
    assert_true(rig_wait(f, ep, cmi_region_memory(f, region), 1));
    uint8_t message[MAX_BYTES];
    size_t n;
    uint64_t n_seen = 0;
    for (;; n_seen++) {
        assert_true(rig_receive(f, &from, message, &n));
        if (n != 100) {
            break;
        }
        assert_int_equal(message[0], n_seen & 0xFF);
        assert_int_equal(message[99], n_seen & 0xFF);
    }
    cmi_rkey key = {.n_bytes = (uint16_t)n};
    memcpy(key.bytes, message, n);
    cmi_remote to = {0};
    assert_int_equal(cmi_endpoint_open_rkey(f, from, &key, &to.id), CMI_OK);
    assert_true(rig_signal(f, from, to, CMI_SIGNAL_ADD, n_seen));
    assert_true(rig_flush_last(f, from));
    rig_join(&there);
    cmi_fabric_destroy(f);
}

/* ---- turns ---- */

enum { N_PEERS = 3, N_EACH = 300 };

static bool send_numbers(rig_there *t)
{
    for (uint32_t i = 0; i < N_EACH; i++) {
        uint32_t words[2] = {t->idx, i};
        NEED(rig_send(t->fabric, t->here, words, sizeof words));
    }
    uint8_t message[MAX_BYTES];
    size_t n;
    NEED(rig_receive(t->fabric, &t->here, message, &n));
    return true;
}

void messages_of_many_peers_take_turns(void **state)
{
    (void)state;
    cmi_fabric_options opt = small_ring("here");
    cmi_fabric *f = rig_make(&opt, true);
    rig_there there[N_PEERS];
    cmi_endpoint_id from, ep_of[N_PEERS] = {{0}};
    for (uint32_t i = 0; i < N_PEERS; i++) {
        rig_start(&there[i], send_numbers, i, f, &opt);
    }
    uint32_t next[N_PEERS] = {0};
    for (uint32_t i = 0; i < N_PEERS * N_EACH; i++) {
        uint32_t words[MAX_BYTES / 4];
        size_t n;
        assert_true(rig_receive(f, &from, words, &n));
        assert_int_equal(n, 8);
        assert_true(words[0] < N_PEERS);
        assert_int_equal(words[1], next[words[0]]++);
        ep_of[words[0]] = from;
    }
    for (uint32_t i = 0; i < N_PEERS; i++) {
        assert_true(rig_send(f, ep_of[i], "done", 4));
        rig_join(&there[i]);
    }
    cmi_fabric_destroy(f);
}

/* ---- waking ---- */

static void *wake(void *arg)
{
    cmi_fabric_wake(arg);
    return NULL;
}

void a_wake_ends_a_sleep(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("sleeper");
    cmi_fabric *f = rig_make(&opt, false);
    for (int i = 0; i < 50; i++) {
        uint64_t until_ns = cmi_fabric_after_ns(f, PATIENCE_NS);
        if (i % 2 == 0) { /* before it sleeps */
            cmi_fabric_wake(f);
            cmi_fabric_progress(f);
            cmi_fabric_sleep(f, until_ns);
        } else {
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, wake, f), 0);
            cmi_fabric_sleep(f, until_ns);
            assert_int_equal(pthread_join(thread, NULL), 0);
            cmi_fabric_sleep(f, 0); /* forgets a wake that came after the sleep had ended early */
        }
        assert_true(cmi_fabric_now_ns(f) < until_ns);
    }
    cmi_fabric_destroy(f);
}
