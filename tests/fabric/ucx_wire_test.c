/* What ucx fabrics say to each other is read as it was written, and nothing else is read at all. */
#include "tests/test.h"

#include "fabric/ucx/wire.h"

static void frames_are_read_whole(void **state)
{
    (void)state;
    for (uint32_t kind = UCX_HELLO; kind < CMI_UCX_N_KINDS; kind++) {
        static cmi_ucx_news news, got;
        static uint8_t frame[CMI_UCX_MAX_FRAME + 8];
        news = (cmi_ucx_news){.kind = kind};
        if (kind == UCX_PROOF || kind == UCX_WELCOME) {
            news.enter.entrance.n_worker = 300;
            memset(news.enter.entrance.worker, 0x5A, 300);
        } else {
            memset(&news.hello, 0x11 + (int)kind, 8);
        }
        size_t n = cmi_ucx_frame_write(frame, &news), used = 0;
        for (size_t part = 0; part < n; part++) {
            assert_int_equal(cmi_ucx_frame_read(frame, part, &got, &used), CMI_IN_PROGRESS);
        }
        assert_int_equal(cmi_ucx_frame_read(frame, n + 8, &got, &used), CMI_OK);
        assert_int_equal(used, n);
        assert_memory_equal(&got, &news, sizeof got);
    }
}

static void what_is_no_frame_is_refused(void **state)
{
    (void)state;
    static cmi_ucx_news news = {.kind = UCX_WELCOME, .enter.entrance.n_worker = 10}, got;
    uint8_t frame[CMI_UCX_MAX_FRAME], bad[CMI_UCX_MAX_FRAME];
    size_t n = cmi_ucx_frame_write(frame, &news), used;
    for (size_t i = 0; i < sizeof(cmi_ucx_frame_head); i++) { /* magic, kind, length */
        memcpy(bad, frame, n);
        bad[i] ^= 0x80;
        cmi_status st = cmi_ucx_frame_read(bad, n, &got, &used);
        assert_true(st == CMI_ERR_BAD_DATA || st == CMI_IN_PROGRESS);
        assert_true(st == CMI_ERR_BAD_DATA || i == 6); /* it may claim to be longer */
    }
    assert_int_equal(cmi_ucx_frame_read((const uint8_t *)"G", 1, &got, &used), CMI_ERR_BAD_DATA);
    news.enter.entrance.n_worker = 9; /* not what the length says */
    memcpy(bad, frame, n);
    memcpy(bad + sizeof(cmi_ucx_frame_head) + CMI_PROOF_BYTES + 12, &news.enter.entrance.n_worker,
           4);
    assert_int_equal(cmi_ucx_frame_read(bad, n, &got, &used), CMI_ERR_BAD_DATA);
}

static void active_messages_have_their_size(void **state)
{
    (void)state;
    cmi_ucx_am_view view;
    cmi_ucx_am_signal signal = {.am = {.kind = UCX_AM_SIGNAL, .seq = 7}, .offset = 16};
    cmi_ucx_am_note note = {.am.kind = UCX_AM_NOTE, .head = 3};
    uint8_t message[sizeof(cmi_ucx_am) + 5] = {0};
    cmi_ucx_am am = {.kind = UCX_AM_MESSAGE};
    memcpy(message, &am, sizeof am);
    const uint8_t *s = (const uint8_t *)&signal, *n = (const uint8_t *)&note;
    assert_true(cmi_ucx_am_read(NULL, 0, s, sizeof signal, &view) && view.signal.offset == 16);
    assert_false(cmi_ucx_am_read(NULL, 0, s, sizeof signal - 1, &view));
    assert_true(cmi_ucx_am_read(NULL, 0, n, sizeof note, &view) && view.note.head == 3);
    assert_false(cmi_ucx_am_read(NULL, 0, n, sizeof note - 8, &view));
    assert_true(cmi_ucx_am_read(NULL, 0, message, sizeof message, &view) && view.n_message == 5);
    assert_false(cmi_ucx_am_read(NULL, 0, message, sizeof am, &view));
    assert_false(cmi_ucx_am_read(NULL, 0, message, sizeof am - 1, &view));
    signal.offset = 4;
    assert_false(cmi_ucx_am_read(NULL, 0, s, sizeof signal, &view));
    signal.offset = 8;
    signal.signal = 2;
    assert_false(cmi_ucx_am_read(NULL, 0, s, sizeof signal, &view));
}

static void what_is_carried_has_its_header(void **state)
{
    (void)state;
    cmi_ucx_am_view view;
    const uint8_t bytes[3] = {1, 2, 3};
    cmi_ucx_am_data data = {.am = {.kind = UCX_AM_PUT, .seq = 9}, .to = 4, .offset = 5};
    assert_true(cmi_ucx_am_read(&data, sizeof data, bytes, 3, &view));
    assert_true(view.am.seq == 9 && view.data.to == 4 && view.data.offset == 5);
    assert_true(view.message == bytes && view.n_message == 3);
    assert_false(cmi_ucx_am_read(&data, sizeof data, bytes, 0, &view));
    assert_false(cmi_ucx_am_read(&data, sizeof data - 8, bytes, 3, &view));
    data.am.kind = UCX_AM_GOT;
    assert_true(cmi_ucx_am_read(&data, sizeof data, bytes, 3, &view));
    assert_false(cmi_ucx_am_read(&data, sizeof data, bytes, 0, &view));
    data.status = CMI_ERR_NOT_FOUND;
    assert_true(cmi_ucx_am_read(&data, sizeof data, bytes, 0, &view));
    assert_false(cmi_ucx_am_read(&data, sizeof data, bytes, 3, &view));
    data.am.kind = UCX_AM_SIGNAL;
    assert_false(cmi_ucx_am_read(&data, sizeof data, bytes, 3, &view));
    cmi_ucx_am_get get = {.am = {.kind = UCX_AM_GET}, .n_bytes = 1};
    assert_true(cmi_ucx_am_read(NULL, 0, (const uint8_t *)&get, sizeof get, &view));
    assert_false(cmi_ucx_am_read(NULL, 0, (const uint8_t *)&get, sizeof get - 1, &view));
    get.n_bytes = 0;
    assert_false(cmi_ucx_am_read(NULL, 0, (const uint8_t *)&get, sizeof get, &view));
}

static void an_rkey_with_a_flipped_bit_is_none(void **state)
{
    (void)state;
    cmi_ucx_rkey rkey = {.serial = 3, .address = 0x1000, .n_bytes = 64, .n_packed = 25}, got;
    uint8_t packed[25], back[CMI_UCX_MAX_PACKED];
    cmi_rkey key;
    memset(packed, 7, sizeof packed);
    cmi_ucx_rkey_write(&key, &rkey, packed);
    assert_true(cmi_ucx_rkey_read(&key, &got, back));
    assert_memory_equal(&got, &rkey, sizeof got);
    assert_memory_equal(back, packed, sizeof packed);
    assert_int_equal(back[25], 0);
    for (size_t bit = 0; bit < 8u * key.n_bytes; bit++) {
        cmi_rkey bad = key;
        bad.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(cmi_ucx_rkey_read(&bad, &got, back));
    }
    key.n_bytes--;
    assert_false(cmi_ucx_rkey_read(&key, &got, back));
}

static void addresses_have_a_host_and_a_port(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {{"ucx:127.0.0.1:0", "127.0.0.1", 0},
                {"ucx:node-7.rack:65535", "node-7.rack", 65535},
                {"ucx:[::1]:80", "::1", 80}};
    static const char *const bad[] = {
        "",         "ucx:",    "ucx::1",  "ucx:a:",   "ucx:a",   "ucx:a:65536",
        "ucx:a:1x", "local:a", "tcp:a:1", "ucx:[]:1", "ucx:a:-1"};
    char host[CMI_FABRIC_MAX_ADDRESS + 1];
    uint16_t port;
    for (size_t i = 0; i < CMI_LEN(good); i++) {
        assert_true(cmi_ucx_address_read(good[i].text, host, &port));
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        assert_false(cmi_ucx_address_read(bad[i], host, &port));
    }
    char longest[CMI_FABRIC_MAX_ADDRESS + 3];
    memset(longest, 'a', sizeof longest);
    memcpy(longest, "ucx:", 4);
    memcpy(longest + sizeof longest - 3, ":1", 3);
    assert_false(cmi_ucx_address_read(longest, host, &port));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_read_whole),
        cmocka_unit_test(what_is_no_frame_is_refused),
        cmocka_unit_test(active_messages_have_their_size),
        cmocka_unit_test(what_is_carried_has_its_header),
        cmocka_unit_test(an_rkey_with_a_flipped_bit_is_none),
        cmocka_unit_test(addresses_have_a_host_and_a_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
