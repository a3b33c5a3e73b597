/* The ring of messages: every length at every place, and a writer that cannot be trusted. */
#include "tests/test.h"

#include "base/alloc.h"
#include "fabric/local/ring.h"

enum { RING_BYTES = 256, MAX_BYTES = 64 };

static cmi_ring writer, reader;
static cmi_ring_shared *shared;

static int make(void **state)
{
    (void)state;
    shared = cmi_alloc_aligned(cmi_ring_shared_bytes(RING_BYTES), CMI_CACHE_LINE);
    cmi_ring_init(&writer, shared, RING_BYTES, MAX_BYTES);
    cmi_ring_init(&reader, shared, RING_BYTES, MAX_BYTES);
    return 0;
}

static int end(void **state)
{
    (void)state;
    cmi_free(shared);
    return 0;
}

static cmi_status read_one(uint8_t *message, size_t *n)
{
    bool was_wanted;
    return cmi_ring_read(&reader, message, n, &was_wanted);
}

static void every_length_at_every_place(void **state)
{
    (void)state;
    uint8_t out[MAX_BYTES], in[MAX_BYTES];
    size_t n;
    for (uint32_t i = 0; i < 10000; i++) {
        uint32_t length = 1 + i * 7 % MAX_BYTES;
        memset(out, (int)i, sizeof out);
        assert_false(cmi_ring_has_message(&reader));
        assert_int_equal(read_one(in, &n), CMI_IN_PROGRESS);
        assert_int_equal(cmi_ring_write(&writer, out, length), CMI_OK);
        assert_true(cmi_ring_has_message(&reader));
        assert_int_equal(read_one(in, &n), CMI_OK);
        assert_int_equal(n, length);
        assert_memory_equal(in, out, n);
    }
}

static void a_full_ring_asks_for_room(void **state)
{
    (void)state;
    uint8_t message[MAX_BYTES] = {0};
    size_t n;
    bool was_wanted;
    for (int i = 0; i < 8; i++) { /* of 32 bytes each */
        assert_int_equal(cmi_ring_write(&writer, message, 17), CMI_OK);
    }
    assert_int_equal(cmi_ring_write(&writer, message, 1), CMI_ERR_NO_CAPACITY);
    assert_false(cmi_ring_has_moved(&writer));
    assert_int_equal(cmi_ring_read(&reader, message, &n, &was_wanted), CMI_OK);
    assert_true(was_wanted);
    assert_true(cmi_ring_has_moved(&writer));
    assert_int_equal(cmi_ring_read(&reader, message, &n, &was_wanted), CMI_OK);
    assert_false(was_wanted);
    assert_int_equal(cmi_ring_write(&writer, message, 56), CMI_OK);
    assert_int_equal(cmi_ring_write(&writer, message, 1), CMI_ERR_NO_CAPACITY);
}

static void nonsense_is_seen(void **state)
{
    static const struct {
        uint64_t tail, length;
    } cases[] = {{8, 1},   {4, 1},        {16, 0},         {16, 9},          {RING_BYTES + 1, 1},
                 {80, 65}, {16, 1 << 20}, {UINT64_MAX, 1}, {16, UINT64_MAX}, {16, UINT64_MAX - 6}};
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        uint8_t message[MAX_BYTES];
        size_t n;
        end(state);
        make(state);
        memcpy(shared->bytes, &cases[i].length, 8);
        atomic_store(&shared->tail, cases[i].tail);
        assert_int_equal(read_one(message, &n), CMI_ERR_BAD_DATA);
    }
    /* a reader that claims to have read what is not there gets nothing written */
    end(state);
    make(state);
    uint8_t message[MAX_BYTES] = {0};
    for (int i = 0; i < 8; i++) {
        assert_int_equal(cmi_ring_write(&writer, message, 17), CMI_OK);
    }
    atomic_store(&shared->head, 1000);
    assert_int_equal(cmi_ring_write(&writer, message, 1), CMI_ERR_NO_CAPACITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_length_at_every_place, make, end),
        cmocka_unit_test_setup_teardown(a_full_ring_asks_for_room, make, end),
        cmocka_unit_test_setup_teardown(nonsense_is_seen, make, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
