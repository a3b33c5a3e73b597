#include "tests/test.h"

#include "cluster/gang_wire.h"

static uint8_t bytes[CMI_GANG_MAX_FRAME];

static cmi_frame read_back(size_t n_bytes)
{
    cmi_frame frame;
    assert_true(n_bytes >= CMI_FRAME_HEAD_BYTES);
    assert_int_equal(cmi_frame_read(bytes, n_bytes, &frame), CMI_OK);
    return frame;
}

static void every_message_comes_back(void **state)
{
    (void)state;
    for (int kind = CMI_GANG_STATE; kind <= CMI_GANG_COMMIT; kind++) {
        cmi_gang_message message = {.kind = (cmi_gang_message_kind)kind, .epoch = 0x700000123}, got;
        if (kind == CMI_GANG_STATE) {
            message.flags = CMI_GANG_SHORT;
            message.leader = CMI_GANG_NOBODY;
            message.installed = 0x600000999;
        }
        if (kind == CMI_GANG_PROPOSE) {
            message.digest = UINT64_MAX - 1;
        }
        if (kind == CMI_GANG_STATE || kind == CMI_GANG_PROPOSE) {
            cmi_gang_set_add(&message.set, 0);
            cmi_gang_set_add(&message.set, 77);
            cmi_gang_set_add(&message.set, CMI_GANG_MAX_RANKS - 1);
        }
        const cmi_frame frame = read_back(cmi_gang_write_message(bytes, &message));
        assert_true(cmi_gang_read_message(&frame, &got));
        assert_int_equal(got.kind, kind);
        assert_int_equal(got.epoch, message.epoch);
        assert_int_equal(got.flags, message.flags);
        assert_int_equal(got.leader, message.leader);
        assert_int_equal(got.installed, message.installed);
        assert_int_equal(got.digest, message.digest);
        assert_true(cmi_gang_set_equal(&got.set, &message.set));
    }
}

static void the_largest_greeting_fits(void **state)
{
    (void)state;
    cmi_gang_hello hello = {.slot = 3,
                            .n_slots = 1024,
                            .generation = 5,
                            .gang = 6,
                            .n_blob = CMI_GANG_MAX_BLOB},
                   got = {0};
    memset(hello.address, 'a', CMI_MEMBER_MAX_ADDRESS);
    memset(hello.blob, 9, CMI_GANG_MAX_BLOB);
    const cmi_frame frame = read_back(cmi_gang_write_hello(bytes, &hello));
    assert_true(cmi_gang_read_hello(&frame, &got));
    assert_int_equal(got.slot, 3);
    assert_int_equal(got.n_slots, 1024);
    assert_int_equal(got.generation, 5);
    assert_int_equal(got.gang, 6);
    assert_string_equal(got.address, hello.address);
    assert_int_equal(got.n_blob, hello.n_blob);
    assert_memory_equal(got.blob, hello.blob, sizeof got.blob);
}

static void members_and_goodbyes_come_back(void **state)
{
    (void)state;
    const cmi_gang_member member = {.slot = 2, .generation = 8, .address = "local:x"};
    cmi_gang_member got;
    cmi_frame frame = read_back(cmi_gang_write_member(bytes, &member));
    assert_true(cmi_gang_read_member(&frame, &got));
    assert_int_equal(got.slot, 2);
    assert_int_equal(got.generation, 8);
    assert_string_equal(got.address, "local:x");
    const cmi_gang_goodbye goodbye = {.reason = 77, .generation = 4};
    cmi_gang_goodbye bye;
    frame = read_back(cmi_gang_write_goodbye(bytes, &goodbye));
    assert_true(cmi_gang_read_goodbye(&frame, &bye));
    assert_int_equal(bye.reason, 77);
    assert_int_equal(bye.generation, 4);
}

/* Payloads cut at every byte, and a byte too long, are of no message. */
static void cut_payloads_are_refused(void **state)
{
    (void)state;
    const cmi_gang_hello hello = {.slot = 3, .address = "local:abc", .n_blob = 4};
    cmi_gang_hello got;
    cmi_frame frame = read_back(cmi_gang_write_hello(bytes, &hello));
    const uint32_t n_bytes = frame.n_bytes;
    for (frame.n_bytes = 0; frame.n_bytes < n_bytes; frame.n_bytes++) {
        assert_false(cmi_gang_read_hello(&frame, &got));
    }
    frame.n_bytes = n_bytes + 1;
    assert_false(cmi_gang_read_hello(&frame, &got));
    frame.minor++;
    assert_true(cmi_gang_read_hello(&frame, &got));
}

/* Flags that a newer minor version adds are not ours to judge. */
static void newer_flags_are_passed_over(void **state)
{
    (void)state;
    cmi_gang_message message = {.kind = CMI_GANG_STATE, .flags = 0x81}, got;
    cmi_frame frame = read_back(cmi_gang_write_message(bytes, &message));
    assert_true(cmi_gang_read_message(&frame, &got));
    assert_int_equal(got.flags, 0x81);
    frame.minor++;
    assert_true(cmi_gang_read_message(&frame, &got));
    assert_int_equal(got.flags, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back),
        cmocka_unit_test(the_largest_greeting_fits),
        cmocka_unit_test(members_and_goodbyes_come_back),
        cmocka_unit_test(cut_payloads_are_refused),
        cmocka_unit_test(newer_flags_are_passed_over),
    };
    return cmocka_run_group_tests_name("gang_wire", tests, NULL, NULL);
}
