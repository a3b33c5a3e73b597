/* What ranks tell each other, to the byte, and what they do not take. */
#include "tests/test.h"

#include "ep/rank_wire.h"

static uint8_t bytes[CMI_EP_MAX_FRAME];

static cmi_frame finish(const cmi_le_writer *w, uint16_t type)
{
    cmi_frame frame;
    const size_t n_bytes = cmi_frame_end(bytes, w, type, 7);
    assert_int_not_equal(n_bytes, 0);
    assert_int_equal(cmi_frame_read(bytes, n_bytes, &frame), CMI_OK);
    assert_int_equal(frame.type, type);
    return frame;
}

static cmi_frame counts_frame(const cmi_ep_counts *head, const uint32_t *counts)
{
    cmi_le_writer w = cmi_frame_begin(bytes, sizeof bytes);
    cmi_ep_write_counts(&w, head, counts);
    return finish(&w, CMI_EP_FRAME_COUNTS);
}

static void counts_come_back(void **state)
{
    (void)state;
    uint32_t counts[CMI_EP_MAX_COUNTS];
    for (uint32_t i = 0; i < CMI_EP_MAX_COUNTS; i++) {
        counts[i] = UINT32_MAX - i * 12345;
    }
    const cmi_ep_counts head = {.layer = 60, .first = 768, .n = CMI_EP_MAX_COUNTS, .is_busy = true};
    const cmi_frame frame = counts_frame(&head, counts);
    cmi_ep_counts got;
    assert_true(cmi_ep_read_counts(&frame, &got));
    assert_int_equal(got.layer, 60);
    assert_int_equal(got.first, 768);
    assert_int_equal(got.n, CMI_EP_MAX_COUNTS);
    assert_true(got.is_busy);
    for (uint32_t i = 0; i < got.n; i++) {
        assert_int_equal(cmi_ep_count_at(&got, i), counts[i]);
    }
}

static void counts_are_these_bytes(void **state)
{
    (void)state;
    static const uint8_t want[] = {2, 1, 0, 0, 4, 0, 0, 0, 0, 0xEF, 0xBE, 0xAD, 0xDE, 1, 0, 0, 0};
    const uint32_t counts[] = {0xDEADBEEF, 1};
    const cmi_frame frame =
        counts_frame(&(cmi_ep_counts){.layer = 258, .first = 4, .n = 2}, counts);
    assert_int_equal(frame.n_bytes, sizeof want);
    assert_memory_equal(frame.payload, want, sizeof want);
}

static void bad_counts_are_refused(void **state)
{
    (void)state;
    const uint32_t counts[CMI_EP_MAX_COUNTS] = {5};
    cmi_frame frame = counts_frame(&(cmi_ep_counts){.layer = 1, .n = CMI_EP_MAX_COUNTS}, counts);
    uint8_t long_one[9 + 4 * (CMI_EP_MAX_COUNTS + 1)] = {0};
    cmi_ep_counts got;
    for (uint32_t n = 0; n < 9 + 4; n++) { /* less than a count, or half of one behind one */
        frame.n_bytes = n;
        assert_false(cmi_ep_read_counts(&frame, &got));
    }
    frame.n_bytes = 9 + 4;
    assert_true(cmi_ep_read_counts(&frame, &got));
    frame.n_bytes = 9 + 4 + 3;
    assert_false(cmi_ep_read_counts(&frame, &got));
    bytes[CMI_FRAME_HEAD_BYTES + 8] = 2; /* neither busy nor not */
    frame.n_bytes = 9 + 4;
    assert_false(cmi_ep_read_counts(&frame, &got));
    frame.payload = long_one;
    frame.n_bytes = sizeof long_one;
    assert_false(cmi_ep_read_counts(&frame, &got));
}

static void rounds_come_back(void **state)
{
    (void)state;
    static const uint8_t want[] = {1, 2, 0, 0, 0, 2, 0, 0};
    cmi_le_writer w = cmi_frame_begin(bytes, sizeof bytes);
    cmi_ep_write_round(&w, &(cmi_ep_round){.n_loaded = 513, .n_switched = 512});
    cmi_frame frame = finish(&w, CMI_EP_FRAME_ROUND);
    cmi_ep_round got;
    assert_int_equal(frame.n_bytes, sizeof want);
    assert_memory_equal(frame.payload, want, sizeof want);
    assert_true(cmi_ep_read_round(&frame, &got));
    assert_int_equal(got.n_loaded, 513);
    assert_int_equal(got.n_switched, 512);
    for (frame.n_bytes = 0; frame.n_bytes < sizeof want; frame.n_bytes++) {
        assert_false(cmi_ep_read_round(&frame, &got));
    }
    bytes[CMI_FRAME_HEAD_BYTES + 4] = 2; /* switched before it was loaded */
    bytes[CMI_FRAME_HEAD_BYTES + 5] = 2;
    assert_false(cmi_ep_read_round(&frame, &got));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_come_back),
        cmocka_unit_test(counts_are_these_bytes),
        cmocka_unit_test(bad_counts_are_refused),
        cmocka_unit_test(rounds_come_back),
    };
    return cmocka_run_group_tests_name("rank_wire", tests, NULL, NULL);
}
