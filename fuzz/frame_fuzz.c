/* Any bytes as a message between the ranks of a gang, and any payload in a frame that is otherwise
 * sound: refused, or what it says is written as the same bytes again; and a machine that hears it
 * keeps to its rules.
 *
 * A checksum keeps bytes that were changed out of everything behind it. So the input is read twice:
 * as a message, and as a byte of type, one of minor version, then a payload that gets its frame. */
#include <assert.h>
#include <string.h>

#include "cluster/gang_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { N_SLOTS = 70, SELF = 3, FROM = 65 };

static void drain(cmi_gang_machine *m)
{
    cmi_gang_action action;
    while (cmi_gang_machine_next(m, &action)) {
        assert(action.kind != CMI_GANG_INSTALL || action.message.epoch == 0);
        if (action.kind == CMI_GANG_SEND) {
            assert(action.slot < N_SLOTS && action.slot != SELF);
        }
    }
}

static void hear(const cmi_gang_message *message)
{
    static cmi_gang_machine m;
    static cmi_gang_peer peers[N_SLOTS];
    cmi_gang_machine_options opt;
    cmi_gang_machine_options_default(&opt);
    opt.n_slots = N_SLOTS;
    opt.self = SELF;
    opt.min_ranks = 2;
    bool is_good = cmi_gang_machine_init(&m, peers, &opt, 0);
    assert(is_good);
    drain(&m);
    is_good = cmi_gang_machine_link_up(&m, 0, FROM, message->epoch & 0x3FFFFF);
    drain(&m);
    if (is_good) {
        const bool is_heard = cmi_gang_machine_hear(&m, 1, FROM, message);
        drain(&m);
        assert(is_heard || cmi_gang_machine_n_seen(&m) == 1);
    }
    cmi_gang_machine_tick(&m, cmi_gang_machine_due_ns(&m));
    drain(&m);
    assert(cmi_gang_machine_phase(&m) != CMI_GANG_READY); /* one message makes no view of two */
}

static void compare(const cmi_frame *frame, const uint8_t *written, size_t n_written)
{
    assert(n_written >= CMI_FRAME_HEAD_BYTES);
    const size_t n_payload = n_written - CMI_FRAME_HEAD_BYTES;
    assert(n_payload <= frame->n_bytes);
    if (frame->minor == CMI_FRAME_MINOR) {
        assert(n_payload == frame->n_bytes);
        assert(memcmp(written + CMI_FRAME_HEAD_BYTES, frame->payload, n_payload) == 0);
    }
}

static void read_frame(const cmi_frame *frame)
{
    static uint8_t out[CMI_GANG_MAX_FRAME];
    cmi_gang_hello hello;
    cmi_gang_goodbye goodbye;
    cmi_gang_member member;
    cmi_gang_message message;
    if (cmi_gang_read_message(frame, &message)) {
        const size_t n = cmi_gang_write_message(out, &message);
        cmi_frame again;
        cmi_gang_message got;
        const cmi_status st = cmi_frame_read(out, n, &again);
        assert(st == CMI_OK && cmi_gang_read_message(&again, &got));
        assert(got.epoch == message.epoch && cmi_gang_set_equal(&got.set, &message.set));
        hear(&message);
    }
    if (frame->type == CMI_GANG_FRAME_HELLO && cmi_gang_read_hello(frame, &hello)) {
        compare(frame, out, cmi_gang_write_hello(out, &hello));
    }
    if (frame->type == CMI_GANG_FRAME_GOODBYE && cmi_gang_read_goodbye(frame, &goodbye)) {
        compare(frame, out, cmi_gang_write_goodbye(out, &goodbye));
    }
    if (frame->type == CMI_GANG_FRAME_MEMBER && cmi_gang_read_member(frame, &member)) {
        compare(frame, out, cmi_gang_write_member(out, &member));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    cmi_frame frame;
    if (cmi_frame_read(data, n_bytes, &frame) == CMI_OK) {
        read_frame(&frame);
    }
    if (n_bytes >= 10) {
        frame = (cmi_frame){.minor = data[1],
                            .type = (uint16_t)(CMI_FRAME_GANG + data[0]),
                            .epoch = cmi_le_load64(data + 2),
                            .payload = data + 10,
                            .n_bytes = (uint32_t)(n_bytes - 10)};
        read_frame(&frame);
    }
    return 0;
}
