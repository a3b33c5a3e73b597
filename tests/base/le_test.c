#include "tests/test.h"

#include "base/le.h"

static void numbers_have_their_bytes(void **state)
{
    (void)state;
    uint8_t bytes[9] = {0};
    cmi_le_store64(bytes + 1, 0x0102030405060708); /* at any address */
    assert_memory_equal(bytes, "\0\x08\x07\x06\x05\x04\x03\x02\x01", 9);
    assert_int_equal(cmi_le_load64(bytes + 1), 0x0102030405060708);
    assert_int_equal(cmi_le_load32(bytes + 1), 0x05060708);
    assert_int_equal(cmi_le_load16(bytes + 1), 0x0708);
    cmi_le_store16(bytes, 0xFFFE);
    cmi_le_store32(bytes + 2, 0xFFFFFFFD);
    assert_memory_equal(bytes, "\xFE\xFF\xFD\xFF\xFF\xFF\x03\x02\x01", 9);
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    uint8_t bytes[18];
    cmi_le_writer w = {bytes, bytes + sizeof bytes, false};
    cmi_le_put8(&w, 1);
    cmi_le_put16(&w, 2);
    cmi_le_put32(&w, UINT32_MAX);
    cmi_le_put64(&w, UINT64_MAX - 1);
    cmi_le_put_bytes(&w, "abc", 3);
    cmi_le_put_bytes(&w, NULL, 0);
    assert_false(w.is_bad);
    assert_ptr_equal(w.at, w.end);
    cmi_le_reader r = {bytes, w.at, false};
    assert_int_equal(cmi_le_get8(&r), 1);
    assert_int_equal(cmi_le_get16(&r), 2);
    assert_int_equal(cmi_le_get32(&r), UINT32_MAX);
    assert_int_equal(cmi_le_get64(&r), UINT64_MAX - 1);
    assert_memory_equal(cmi_le_get_bytes(&r, 3), "abc", 3);
    assert_false(r.is_bad);
    assert_ptr_equal(r.at, r.end);
}

/* Once bad, always bad, and nothing behind the end is touched. */
static void the_end_is_kept_to(void **state)
{
    (void)state;
    uint8_t bytes[4] = {9, 9, 9, 9};
    cmi_le_writer w = {bytes, bytes + 3, false};
    cmi_le_put16(&w, 0);
    cmi_le_put32(&w, 0);
    assert_true(w.is_bad);
    cmi_le_put8(&w, 0);
    assert_ptr_equal(w.at, bytes + 2);
    assert_int_equal(bytes[2], 9);
    assert_int_equal(bytes[3], 9);
    cmi_le_reader r = {bytes, bytes + 3, false};
    assert_int_equal(cmi_le_get32(&r), 0);
    assert_true(r.is_bad);
    assert_int_equal(cmi_le_get8(&r), 0);
    assert_null(cmi_le_get_bytes(&r, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_have_their_bytes),
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(the_end_is_kept_to),
    };
    return cmocka_run_group_tests_name("le", tests, NULL, NULL);
}
