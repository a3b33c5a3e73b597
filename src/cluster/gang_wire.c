#include "cluster/gang_wire.h"

enum { SET_BYTES = CMI_GANG_MAX_RANKS / 8 };

/* ---- pieces ---- */

/* A text of at most 255 bytes: its length, then its bytes. */
static void put_text(cmi_le_writer *w, const char *text)
{
    const size_t n = strlen(text);
    cmi_le_put8(w, (uint8_t)n);
    cmi_le_put_bytes(w, text, n);
}

/* One that is too long, or holds a NUL, is bad. */
static void get_text(cmi_le_reader *r, char *text_out, size_t max)
{
    const size_t n = cmi_le_get8(r);
    const uint8_t *bytes = cmi_le_get_bytes(r, n);
    text_out[0] = '\0';
    if (bytes == NULL || n > max || memchr(bytes, '\0', n) != NULL) {
        r->is_bad = true;
        return;
    }
    memcpy(text_out, bytes, n);
    text_out[n] = '\0';
}

/* Without the zeros at its end. */
static void put_set(cmi_le_writer *w, const cmi_gang_set *set)
{
    uint8_t bytes[SET_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < SET_BYTES; i++) {
        bytes[i] = (uint8_t)(set->words[i / 8] >> i % 8 * 8);
        n = bytes[i] != 0 ? i + 1 : n;
    }
    cmi_le_put8(w, (uint8_t)n);
    cmi_le_put_bytes(w, bytes, n);
}

static void get_set(cmi_le_reader *r, cmi_gang_set *set_out)
{
    const size_t n = cmi_le_get8(r);
    const uint8_t *bytes = n <= SET_BYTES ? cmi_le_get_bytes(r, n) : NULL;
    if (bytes == NULL) {
        r->is_bad = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        set_out->words[i / 8] |= (uint64_t)bytes[i] << i % 8 * 8;
    }
}

/* ---- the machine's messages ---- */

size_t cmi_gang_write_message(uint8_t out[CMI_GANG_MAX_FRAME], const cmi_gang_message *message)
{
    cmi_le_writer w = cmi_frame_begin(out, CMI_GANG_MAX_FRAME);
    if (message->kind == CMI_GANG_STATE) {
        cmi_le_put32(&w, message->flags);
        cmi_le_put32(&w, message->leader);
        cmi_le_put64(&w, message->installed);
        put_set(&w, &message->set);
    } else if (message->kind == CMI_GANG_PROPOSE) {
        cmi_le_put64(&w, message->digest);
        put_set(&w, &message->set);
    }
    const uint16_t type = (uint16_t)(CMI_GANG_FRAME_MACHINE + (unsigned)message->kind);
    return cmi_frame_end(out, &w, type, message->epoch);
}

bool cmi_gang_read_message(const cmi_frame *frame, cmi_gang_message *message_out)
{
    const int kind = frame->type - CMI_GANG_FRAME_MACHINE;
    if (kind < CMI_GANG_STATE || kind > CMI_GANG_COMMIT) {
        return false;
    }
    cmi_le_reader r = cmi_frame_reader(frame);
    *message_out = (cmi_gang_message){.kind = (cmi_gang_message_kind)kind, .epoch = frame->epoch};
    if (kind == CMI_GANG_STATE) {
        message_out->flags = cmi_le_get32(&r);
        if (frame->minor > CMI_FRAME_MINOR) {
            message_out->flags &= CMI_GANG_ALL_FLAGS;
        }
        message_out->leader = cmi_le_get32(&r);
        message_out->installed = cmi_le_get64(&r);
        get_set(&r, &message_out->set);
    } else if (kind == CMI_GANG_PROPOSE) {
        message_out->digest = cmi_le_get64(&r);
        get_set(&r, &message_out->set);
    }
    return cmi_frame_is_read(frame, &r);
}

/* ---- around them ---- */

size_t cmi_gang_write_hello(uint8_t out[CMI_GANG_MAX_FRAME], const cmi_gang_hello *hello)
{
    cmi_le_writer w = cmi_frame_begin(out, CMI_GANG_MAX_FRAME);
    cmi_le_put32(&w, hello->slot);
    cmi_le_put32(&w, hello->n_slots);
    cmi_le_put64(&w, hello->generation);
    cmi_le_put64(&w, hello->gang);
    put_text(&w, hello->address);
    cmi_le_put16(&w, hello->n_blob);
    cmi_le_put_bytes(&w, hello->blob, hello->n_blob);
    return cmi_frame_end(out, &w, CMI_GANG_FRAME_HELLO, 0);
}

bool cmi_gang_read_hello(const cmi_frame *frame, cmi_gang_hello *hello_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    hello_out->slot = cmi_le_get32(&r);
    hello_out->n_slots = cmi_le_get32(&r);
    hello_out->generation = cmi_le_get64(&r);
    hello_out->gang = cmi_le_get64(&r);
    get_text(&r, hello_out->address, CMI_MEMBER_MAX_ADDRESS);
    hello_out->n_blob = cmi_le_get16(&r);
    const uint8_t *blob = cmi_le_get_bytes(&r, hello_out->n_blob);
    if (blob == NULL || hello_out->n_blob > CMI_GANG_MAX_BLOB) {
        return false;
    }
    memcpy(hello_out->blob, blob, hello_out->n_blob);
    return cmi_frame_is_read(frame, &r);
}

size_t cmi_gang_write_goodbye(uint8_t out[CMI_GANG_MAX_FRAME], const cmi_gang_goodbye *goodbye)
{
    cmi_le_writer w = cmi_frame_begin(out, CMI_GANG_MAX_FRAME);
    cmi_le_put32(&w, goodbye->reason);
    cmi_le_put64(&w, goodbye->generation);
    return cmi_frame_end(out, &w, CMI_GANG_FRAME_GOODBYE, 0);
}

bool cmi_gang_read_goodbye(const cmi_frame *frame, cmi_gang_goodbye *goodbye_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    goodbye_out->reason = cmi_le_get32(&r);
    goodbye_out->generation = cmi_le_get64(&r);
    return cmi_frame_is_read(frame, &r);
}

size_t cmi_gang_write_member(uint8_t out[CMI_GANG_MAX_FRAME], const cmi_gang_member *member)
{
    cmi_le_writer w = cmi_frame_begin(out, CMI_GANG_MAX_FRAME);
    cmi_le_put32(&w, member->slot);
    cmi_le_put64(&w, member->generation);
    put_text(&w, member->address);
    return cmi_frame_end(out, &w, CMI_GANG_FRAME_MEMBER, 0);
}

bool cmi_gang_read_member(const cmi_frame *frame, cmi_gang_member *member_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    member_out->slot = cmi_le_get32(&r);
    member_out->generation = cmi_le_get64(&r);
    get_text(&r, member_out->address, CMI_MEMBER_MAX_ADDRESS);
    return cmi_frame_is_read(frame, &r);
}
