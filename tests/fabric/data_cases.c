#include "tests/fabric/cases.h"

#include "base/alloc.h"
#include "base/crc32c.h"

/* ---- bytes there and back ---- */

enum { REGION_BYTES = 3 << 20 };
static const struct {
    size_t offset, n;
} pieces[] = {{0, 0},           {8, 1},          {64, 63},          {128, 4096},
              {8192, 65536},    {131073, 65537}, {300000, 1000001}, {1500000, 700000},
              {2500007, 12345}, {3 << 20, 0}};

/* Puts every piece, signals, and reads all of it back. */
static bool put_pieces(rig_there *t)
{
    cmi_remote to = {0};
    NEED(rig_receive_rkey(t->fabric, &t->here, &to.id));
    uint8_t *bytes = cmi_alloc(REGION_BYTES, 1), *back = cmi_alloc(REGION_BYTES, 1);
    for (size_t i = 0; i < CMI_LEN(pieces); i++) {
        to.offset = pieces[i].offset;
        rig_fill(bytes + to.offset, pieces[i].n, i);
        NEED(rig_put(t->fabric, t->here, bytes + to.offset, to, pieces[i].n));
    }
    to.offset = 0;
    NEED(rig_signal(t->fabric, t->here, to, CMI_SIGNAL_MAX, 1));
    NEED(rig_flush(t->fabric, t->here));
    NEED(rig_get(t->fabric, t->here, back, to, REGION_BYTES));
    for (size_t i = 0; i < CMI_LEN(pieces); i++) {
        NEED(memcmp(back + pieces[i].offset, bytes + pieces[i].offset, pieces[i].n) == 0);
    }
    cmi_free(bytes);
    cmi_free(back);
    return true;
}

static cmi_region_id alloc(cmi_fabric *f, size_t n)
{
    cmi_region_id region = {0};
    cmi_error err = {0};
    if (cmi_fabric_alloc(f, n, "a test", &region, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return region;
}

void bits_arrive(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region = alloc(f, REGION_BYTES);
    const uint8_t *memory = cmi_region_memory(f, region);
    rig_there there;
    rig_start(&there, put_pieces, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f);
    assert_true(rig_send_rkey(f, ep, region));
    assert_true(rig_wait(f, ep, memory, 1));
    for (size_t i = 0; i < CMI_LEN(pieces); i++) {
        assert_true(rig_is_filled(memory + pieces[i].offset, pieces[i].n, i));
    }
    rig_join(&there);
    cmi_fabric_destroy(f);
}

/* ---- expert parallelism in small: slots, pieces of a token, a sequence number ---- */

enum { N_SLOTS = 8, TOKEN_BYTES = 7680, N_TOKENS = 600 };
enum { WORD_BYTES = 64, SLOTS_BYTES = WORD_BYTES + N_SLOTS * TOKEN_BYTES };

static bool send_tokens(rig_there *t)
{
    cmi_region_id acks;
    cmi_remote to = {0};
    NEED(cmi_fabric_alloc(t->fabric, WORD_BYTES, "acks", &acks, NULL) == CMI_OK);
    NEED(rig_send_rkey(t->fabric, t->here, acks));
    NEED(rig_receive_rkey(t->fabric, &t->here, &to.id));
    const void *acked = cmi_region_memory(t->fabric, acks);
    static const size_t cuts[] = {0, 100, 4000, TOKEN_BYTES};
    uint8_t *tokens = cmi_alloc(N_SLOTS * TOKEN_BYTES, 1);
    for (uint64_t n = 1; n <= N_TOKENS; n++) {
        uint64_t slot = n % N_SLOTS;
        NEED(n <= N_SLOTS || rig_wait(t->fabric, t->here, acked, n - N_SLOTS));
        rig_fill(tokens + slot * TOKEN_BYTES, TOKEN_BYTES, n);
        for (size_t i = 0; i + 1 < CMI_LEN(cuts); i++) {
            to.offset = WORD_BYTES + slot * TOKEN_BYTES + cuts[i];
            NEED(rig_put(t->fabric, t->here, tokens + slot * TOKEN_BYTES + cuts[i], to,
                         cuts[i + 1] - cuts[i]));
        }
        to.offset = 0;
        NEED(rig_signal(t->fabric, t->here, to, CMI_SIGNAL_MAX, n));
    }
    NEED(rig_wait(t->fabric, t->here, acked, N_TOKENS));
    cmi_free(tokens);
    return true;
}

void signals_follow_puts(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region = alloc(f, SLOTS_BYTES);
    const uint8_t *memory = cmi_region_memory(f, region);
    rig_there there;
    rig_start(&there, send_tokens, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f);
    cmi_remote ack = {0};
    assert_true(rig_receive_rkey(f, &ep, &ack.id));
    assert_true(rig_send_rkey(f, ep, region));
    for (uint64_t n = 1; n <= N_TOKENS; n++) {
        assert_true(rig_wait(f, ep, memory, n));
        const uint8_t *token = memory + WORD_BYTES + n % N_SLOTS * TOKEN_BYTES;
        assert_true(rig_is_filled(token, TOKEN_BYTES, n));
        assert_true(rig_signal(f, ep, ack, CMI_SIGNAL_MAX, n));
    }
    assert_true(rig_flush_last(f, ep));
    rig_join(&there);
    cmi_fabric_counters counters;
    cmi_fabric_get_counters(f, &counters);
    assert_int_equal(counters.n_signals, N_TOKENS);
    assert_int_equal(counters.n_opened, 1);
    cmi_fabric_destroy(f);
}

/* ---- KV hand-off in small: layers of pages, a checksum each, one count ---- */

enum { N_LAYERS = 12, N_PAGES = 3, SLICE_BYTES = 73728 };
enum { HAND_OVER_BYTES = 4096 + N_LAYERS * N_PAGES * SLICE_BYTES };

static bool hand_over(rig_there *t)
{
    cmi_remote to = {0};
    NEED(rig_receive_rkey(t->fabric, &t->here, &to.id));
    uint8_t *pages = cmi_alloc(HAND_OVER_BYTES, 1);
    uint32_t sums[N_LAYERS][N_PAGES];
    for (size_t layer = 0; layer < N_LAYERS; layer++) {
        for (size_t page = 0; page < N_PAGES; page++) {
            size_t at = 4096 + (layer * N_PAGES + page) * SLICE_BYTES;
            rig_fill(pages + at, SLICE_BYTES, at);
            sums[layer][page] = cmi_crc32c(0, pages + at, SLICE_BYTES);
            to.offset = at;
            NEED(rig_put(t->fabric, t->here, pages + at, to, SLICE_BYTES));
        }
        to.offset = 64 + layer * sizeof sums[0];
        NEED(rig_put(t->fabric, t->here, sums[layer], to, sizeof sums[0]));
        to.offset = 0;
        NEED(rig_signal(t->fabric, t->here, to, CMI_SIGNAL_ADD, 1));
    }
    NEED(rig_flush(t->fabric, t->here));
    cmi_free(pages);
    return true;
}

void layers_are_handed_over(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region = alloc(f, HAND_OVER_BYTES);
    const uint8_t *memory = cmi_region_memory(f, region);
    rig_there there;
    rig_start(&there, hand_over, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f);
    assert_true(rig_send_rkey(f, ep, region));
    for (size_t layer = 0; layer < N_LAYERS; layer++) {
        assert_true(rig_wait(f, ep, memory, layer + 1));
        for (size_t page = 0; page < N_PAGES; page++) {
            uint32_t sum;
            size_t idx = layer * N_PAGES + page;
            memcpy(&sum, memory + 64 + idx * sizeof sum, sizeof sum);
            assert_int_equal(cmi_crc32c(0, memory + 4096 + idx * SLICE_BYTES, SLICE_BYTES), sum);
        }
    }
    rig_join(&there);
    cmi_fabric_destroy(f);
}

/* ---- many peers at once ---- */

enum { N_PEERS = 4, N_ADDS = 500 };

static bool add(rig_there *t)
{
    cmi_remote to = {0};
    NEED(rig_receive_rkey(t->fabric, &t->here, &to.id));
    for (uint64_t i = 1; i <= N_ADDS; i++) {
        uint64_t mine = i * 1000 + t->idx;
        to.offset = 64 + 8 * t->idx;
        NEED(rig_put(t->fabric, t->here, &mine, to, sizeof mine));
        NEED(rig_flush(t->fabric, t->here)); /* mine is about to change */
        to.offset = 0;
        NEED(rig_signal(t->fabric, t->here, to, CMI_SIGNAL_ADD, 1));
    }
    NEED(rig_flush(t->fabric, t->here));
    return true;
}

void sums_of_many_peers_are_exact(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region = alloc(f, 4096);
    const uint64_t *memory = cmi_region_memory(f, region);
    rig_there there[N_PEERS];
    for (uint32_t i = 0; i < N_PEERS; i++) {
        rig_start(&there[i], add, i, f, &opt);
    }
    for (uint32_t i = 0; i < N_PEERS; i++) {
        assert_true(rig_send_rkey(f, rig_accept(f), region));
    }
    assert_true(rig_wait(f, (cmi_endpoint_id){0}, memory, N_PEERS * N_ADDS));
    assert_int_equal(memory[0], N_PEERS * N_ADDS);
    for (uint32_t i = 0; i < N_PEERS; i++) {
        assert_int_equal(memory[8 + i], N_ADDS * 1000 + i);
        rig_join(&there[i]);
    }
    cmi_fabric_destroy(f);
}

/* ---- arguments ---- */

static bool reach_outside(rig_there *t)
{
    cmi_remote to = {0};
    uint64_t bytes[4] = {0};
    NEED(rig_receive_rkey(t->fabric, &t->here, &to.id));
    static const struct {
        uint64_t offset;
        size_t n;
    } cases[] = {{4089, 8},       {4097, 0},           {0, 4097},
                 {UINT64_MAX, 2}, {UINT64_MAX - 7, 8}, {8, SIZE_MAX}};
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        to.offset = cases[i].offset;
        NEED(cmi_endpoint_put(t->fabric, t->here, bytes, to, cases[i].n, NULL) == CMI_ERR_INVALID);
        NEED(cmi_endpoint_get(t->fabric, t->here, bytes, to, cases[i].n, NULL) == CMI_ERR_INVALID);
    }
    static const uint64_t words[] = {1, 4, 4090, 4096, UINT64_MAX - 7};
    for (size_t i = 0; i < CMI_LEN(words); i++) {
        to.offset = words[i];
        NEED(cmi_endpoint_signal(t->fabric, t->here, to, CMI_SIGNAL_ADD, 1, NULL) ==
             CMI_ERR_INVALID);
    }
    to.offset = 4088;
    NEED(rig_signal(t->fabric, t->here, to, CMI_SIGNAL_ADD, 5));
    NEED(cmi_endpoint_flush(t->fabric, t->here, NULL) == CMI_ERR_INVALID);
    NEED(rig_flush(t->fabric, t->here));

    cmi_rkey key = {.n_bytes = 3};
    NEED(cmi_endpoint_open_rkey(t->fabric, t->here, &key, &to.id) == CMI_ERR_BAD_DATA);
    key.n_bytes = CMI_FABRIC_MAX_RKEY + 1;
    NEED(cmi_endpoint_open_rkey(t->fabric, t->here, &key, &to.id) == CMI_ERR_BAD_DATA);
    cmi_region_id own;
    NEED(cmi_fabric_alloc(t->fabric, 10, "own", &own, NULL) == CMI_OK);
    NEED(cmi_region_get_rkey(t->fabric, own, &key) == CMI_OK);
    NEED(cmi_endpoint_open_rkey(t->fabric, t->here, &key, &to.id) < 0); /* not the peer's */
    return true;
}

void what_is_outside_is_refused(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region = alloc(f, 4096);
    const uint64_t *memory = cmi_region_memory(f, region);
    rig_there there;
    rig_start(&there, reach_outside, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f);
    assert_true(rig_send_rkey(f, ep, region));
    assert_true(rig_wait(f, ep, &memory[511], 5));
    rig_join(&there);
    for (size_t i = 0; i < 511; i++) {
        assert_int_equal(memory[i], 0);
    }
    cmi_error err = {0};
    assert_int_equal(cmi_fabric_register(f, NULL, 3, &region, &err), CMI_ERR_INVALID);
    assert_int_equal(cmi_fabric_alloc(f, 0, "nothing", &region, &err), CMI_ERR_INVALID);
    cmi_fabric_destroy(f);
}

/* ---- events ---- */

enum { N_OPS = 200, LONG_BYTES = 200000 };

static bool begin(rig_there *t, uint64_t i, cmi_remote to, uint8_t *bytes, cmi_op *op)
{
    cmi_status st = CMI_ERR_NO_CAPACITY;
    while (st == CMI_ERR_NO_CAPACITY) {
        cmi_fabric_progress(t->fabric);
        st = i % 4 == 0   ? cmi_endpoint_put(t->fabric, t->here, bytes, to, LONG_BYTES, op)
             : i % 4 == 1 ? cmi_endpoint_get(t->fabric, t->here, bytes + LONG_BYTES, to, 1000, op)
             : i % 4 == 2 ? cmi_endpoint_signal(t->fabric, t->here, to, CMI_SIGNAL_MAX, 0, op)
                          : cmi_endpoint_flush(t->fabric, t->here, op);
    }
    return st == CMI_OK;
}

static bool count_events(rig_there *t)
{
    cmi_remote to = {0};
    NEED(rig_receive_rkey(t->fabric, &t->here, &to.id));
    uint8_t *bytes = cmi_alloc(2, LONG_BYTES);
    cmi_op ops[N_OPS];
    uint32_t n_seen[N_OPS] = {0};
    for (uint64_t i = 0; i < N_OPS; i++) {
        ops[i].tag = i + 1000;
        NEED(begin(t, i, to, bytes, &ops[i]));
    }
    for (uint32_t i = 0; i < N_OPS; i++) {
        cmi_fabric_event event;
        NEED(rig_event(t->fabric, CMI_EVENT_DONE, &event));
        NEED(event.status == CMI_OK && event.tag >= 1000 && event.tag < 1000 + N_OPS);
        uint64_t op = event.tag - 1000;
        NEED(n_seen[op]++ == 0);
        NEED(event.op.idx == ops[op].id.idx && event.op.gen == ops[op].id.gen);
        NEED(event.endpoint.idx == t->here.idx && event.endpoint.gen == t->here.gen);
    }
    cmi_endpoint_info info;
    cmi_fabric_event event;
    NEED(!cmi_fabric_poll(t->fabric, &event));
    NEED(cmi_endpoint_get_info(t->fabric, t->here, &info) == CMI_OK && info.n_ops == 0);
    to.offset = LONG_BYTES; /* not where puts have been: a word is for signals only */
    NEED(rig_signal(t->fabric, t->here, to, CMI_SIGNAL_MAX, 1));
    NEED(rig_flush(t->fabric, t->here));
    cmi_free(bytes);
    return true;
}

void operations_have_one_event_each(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region = alloc(f, LONG_BYTES + 8);
    const uint8_t *memory = cmi_region_memory(f, region);
    rig_there there;
    rig_start(&there, count_events, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f);
    assert_true(rig_send_rkey(f, ep, region));
    assert_true(rig_wait(f, ep, memory + LONG_BYTES, 1));
    rig_join(&there);
    cmi_fabric_destroy(f);
}

/* ---- the caller's own memory ---- */

static bool reach_registered(rig_there *t)
{
    cmi_remote to = {0};
    uint8_t message[RIG_MAX_MESSAGE];
    size_t n;
    if (!rig_reaches_registered()) {
        NEED(rig_receive(t->fabric, &t->here, message, &n));
        cmi_rkey key = {.n_bytes = (uint16_t)n};
        memcpy(key.bytes, message, n);
        NEED(cmi_endpoint_open_rkey(t->fabric, t->here, &key, &to.id) == CMI_ERR_UNSUPPORTED);
        NEED(rig_send(t->fabric, t->here, "x", 1));
        return true;
    }
    NEED(rig_receive_rkey(t->fabric, &t->here, &to.id));
    NEED(rig_put(t->fabric, t->here, "here it is", to, 11));
    NEED(rig_flush(t->fabric, t->here));
    NEED(rig_send(t->fabric, t->here, "x", 1));
    NEED(rig_receive(t->fabric, &t->here, message, &n)); /* revoked now */
    cmi_status st;
    while ((st = cmi_endpoint_put(t->fabric, t->here, "no", to, 3, NULL)) != CMI_ERR_NOT_FOUND) {
        NEED(st == CMI_OK || st == CMI_ERR_NO_CAPACITY);
        cmi_fabric_progress(t->fabric);
    }
    return true;
}

void memory_of_the_caller_can_be_a_region(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("here");
    cmi_fabric *f = rig_make(&opt, true);
    char memory[100] = "";
    char message[RIG_MAX_MESSAGE];
    size_t n;
    cmi_region_id region;
    assert_int_equal(cmi_fabric_register(f, memory, sizeof memory, &region, NULL), CMI_OK);
    assert_ptr_equal(cmi_region_memory(f, region), memory);
    rig_there there;
    rig_start(&there, reach_registered, 0, f, &opt);
    cmi_endpoint_id ep = rig_accept(f);
    assert_true(rig_send_rkey(f, ep, region));
    assert_true(rig_receive(f, &ep, message, &n));
    cmi_fabric_deregister(f, region);
    assert_null(cmi_region_memory(f, region));
    assert_string_equal(memory, rig_reaches_registered() ? "here it is" : "");
    memset(memory, 0, sizeof memory); /* nobody else touches it any more */
    if (rig_reaches_registered()) {
        assert_true(rig_send(f, ep, "y", 1));
    }
    rig_join(&there);
    assert_string_equal(memory, "");
    cmi_fabric_destroy(f);
}

/* ---- itself ---- */

void a_fabric_can_be_its_own_peer(void **state)
{
    (void)state;
    cmi_fabric_options opt = rig_options("both");
    cmi_fabric *f = rig_make(&opt, true);
    cmi_region_id region = alloc(f, 1 << 20);
    uint8_t *memory = cmi_region_memory(f, region);
    cmi_endpoint_id out;
    cmi_fabric_event event;
    assert_int_equal(
        cmi_fabric_connect(f, cmi_fabric_address(f), cmi_fabric_after_ns(f, PATIENCE_NS), &out),
        CMI_OK);
    assert_true(rig_event(f, CMI_EVENT_OPEN, &event));
    assert_true(rig_event(f, CMI_EVENT_OPEN, &event));
    cmi_rkey key;
    cmi_remote to = {0};
    assert_int_equal(cmi_region_get_rkey(f, region, &key), CMI_OK);
    assert_int_equal(cmi_endpoint_open_rkey(f, out, &key, &to.id), CMI_OK);
    rig_fill(memory + 500000, 400000, 3);
    to.offset = 64;
    assert_true(rig_put(f, out, memory + 500000, to, 400000));
    to.offset = 0;
    assert_true(rig_signal(f, out, to, CMI_SIGNAL_ADD, 1));
    assert_true(rig_wait(f, out, memory, 1));
    assert_true(rig_is_filled(memory + 64, 400000, 3));
    cmi_endpoint_close(f, out);
    assert_true(rig_event(f, CMI_EVENT_LOST, &event));
    assert_int_equal(event.status, CMI_ERR_CLOSED);
    cmi_fabric_destroy(f);
}
