#include "tests/test.h"

#include "cluster/frame.h"

enum { N_PAYLOAD = 9, N_FRAME = CMI_FRAME_HEAD_BYTES + N_PAYLOAD };

static size_t make(uint8_t *bytes)
{
    cmi_le_writer w = cmi_frame_begin(bytes, N_FRAME);
    cmi_le_put8(&w, 0xAB);
    cmi_le_put64(&w, 0x0102030405060708);
    return cmi_frame_end(bytes, &w, CMI_FRAME_EP + 3, 0x1122334455667788);
}

/* Byte for byte, as docs/WIRE.md has it. */
static void a_frame_has_its_bytes(void **state)
{
    (void)state;
    static const uint8_t want[N_FRAME] = {
        'C',  'M',  'I',  'F',  1,    0,    0x03, 0x02, 9, 0, 0, 0, 0x0E, 0x22, 0x40, 0x2F, 0x88,
        0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xAB, 8, 7, 6, 5, 4,    3,    2,    1};
    uint8_t bytes[N_FRAME];
    assert_int_equal(make(bytes), N_FRAME);
    assert_memory_equal(bytes, want, N_FRAME);
    cmi_frame frame;
    assert_int_equal(cmi_frame_read(bytes, N_FRAME, &frame), CMI_OK);
    assert_int_equal(frame.type, CMI_FRAME_EP + 3);
    assert_int_equal(frame.epoch, 0x1122334455667788);
    assert_int_equal(frame.n_bytes, N_PAYLOAD);
    cmi_le_reader r = cmi_frame_reader(&frame);
    assert_int_equal(cmi_le_get8(&r), 0xAB);
    assert_int_equal(cmi_le_get64(&r), 0x0102030405060708);
    assert_true(cmi_frame_is_read(&frame, &r));
}

static void no_changed_bit_passes(void **state)
{
    (void)state;
    uint8_t bytes[N_FRAME];
    cmi_frame frame;
    make(bytes);
    for (size_t bit = 0; bit < 8 * N_FRAME; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        const cmi_status want = bit / 8 == 4 ? CMI_ERR_UNSUPPORTED : CMI_ERR_BAD_DATA;
        assert_int_equal(cmi_frame_read(bytes, N_FRAME, &frame), want);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t n = 0; n < N_FRAME; n++) {
        assert_int_equal(cmi_frame_read(bytes, n, &frame), CMI_ERR_BAD_DATA);
    }
}

static void what_does_not_fit_is_no_frame(void **state)
{
    (void)state;
    uint8_t bytes[N_FRAME];
    for (size_t n = 0; n < N_FRAME; n++) {
        cmi_le_writer w = cmi_frame_begin(bytes, n);
        cmi_le_put8(&w, 1);
        cmi_le_put64(&w, 2);
        assert_true(w.is_bad);
        assert_int_equal(cmi_frame_end(bytes, &w, CMI_FRAME_EP, 0), 0);
    }
}

/* More behind what is known: from a newer minor version only. */
static void a_newer_minor_version_may_say_more(void **state)
{
    (void)state;
    uint8_t bytes[N_FRAME];
    cmi_frame frame;
    make(bytes);
    assert_int_equal(cmi_frame_read(bytes, N_FRAME, &frame), CMI_OK);
    cmi_le_reader r = cmi_frame_reader(&frame);
    (void)cmi_le_get8(&r);
    assert_false(cmi_frame_is_read(&frame, &r));
    frame.minor = CMI_FRAME_MINOR + 1;
    assert_true(cmi_frame_is_read(&frame, &r));
    for (int i = 0; i < 3; i++) { /* less never does */
        assert_int_equal(cmi_le_get32(&r) == 0, i == 2);
    }
    assert_false(cmi_frame_is_read(&frame, &r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_has_its_bytes),
        cmocka_unit_test(no_changed_bit_passes),
        cmocka_unit_test(what_does_not_fit_is_no_frame),
        cmocka_unit_test(a_newer_minor_version_may_say_more),
    };
    return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
