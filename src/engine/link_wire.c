#include "engine/link_wire.h"

#include <stddef.h>

#include "base/strmap.h"

uint32_t cmi_link_build(void)
{
    const uint64_t layout[] = {CMI_MESSAGE_VERSION,
                               sizeof(cmi_request),
                               sizeof(cmi_event),
                               sizeof(cmi_link_load),
                               CMI_MAX_TOP_LOGPROBS,
                               CMI_ADMISSION_N_REASONS,
                               0x01020304}; /* of another byte order it is another number */
    return (uint32_t)cmi_hash_bytes(layout, sizeof layout);
}

static size_t finish(uint8_t *out, const cmi_le_writer *w, uint16_t type)
{
    return cmi_frame_end(out, w, type, 0);
}

size_t cmi_link_write_hello(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_link_hello *hello)
{
    cmi_le_writer w = cmi_frame_begin(out, CMI_LINK_MESSAGE_BYTES);
    const uint32_t fields[] = {hello->build,       hello->vocab_size, hello->max_model_len,
                               hello->max_running, hello->n_kv_pages, hello->kv_page_tokens,
                               hello->max_drafts};
    for (size_t i = 0; i < CMI_LEN(fields); i++) {
        cmi_le_put32(&w, fields[i]);
    }
    return finish(out, &w, CMI_LINK_HELLO);
}

bool cmi_link_read_hello(const cmi_frame *frame, cmi_link_hello *hello_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    uint32_t *const fields[] = {&hello_out->build,         &hello_out->vocab_size,
                                &hello_out->max_model_len, &hello_out->max_running,
                                &hello_out->n_kv_pages,    &hello_out->kv_page_tokens,
                                &hello_out->max_drafts};
    for (size_t i = 0; i < CMI_LEN(fields); i++) {
        *fields[i] = cmi_le_get32(&r);
    }
    return cmi_frame_is_read(frame, &r) && hello_out->vocab_size > 0 &&
           hello_out->max_model_len > 1 && hello_out->max_model_len <= CMI_MAX_PROMPT_TOKENS &&
           hello_out->kv_page_tokens > 0 && hello_out->max_running > 0;
}

size_t cmi_link_write_piece(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_link_piece *piece)
{
    cmi_le_writer w = cmi_frame_begin(out, CMI_LINK_MESSAGE_BYTES);
    cmi_le_put64(&w, piece->number);
    cmi_le_put32(&w, piece->total_bytes);
    cmi_le_put32(&w, piece->offset);
    cmi_le_put_bytes(&w, piece->bytes, piece->n_bytes);
    return finish(out, &w, CMI_LINK_REQUEST);
}

bool cmi_link_read_piece(const cmi_frame *frame, cmi_link_piece *piece_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    piece_out->number = cmi_le_get64(&r);
    piece_out->total_bytes = cmi_le_get32(&r);
    piece_out->offset = cmi_le_get32(&r);
    piece_out->bytes = r.at;
    piece_out->n_bytes = (uint32_t)(r.end - r.at);
    return !r.is_bad && piece_out->n_bytes > 0 && piece_out->offset <= piece_out->total_bytes &&
           piece_out->n_bytes <= piece_out->total_bytes - piece_out->offset;
}

size_t cmi_link_write_number(uint8_t out[CMI_LINK_MESSAGE_BYTES], uint16_t type, uint64_t number)
{
    cmi_le_writer w = cmi_frame_begin(out, CMI_LINK_MESSAGE_BYTES);
    cmi_le_put64(&w, number);
    return finish(out, &w, type);
}

bool cmi_link_read_number(const cmi_frame *frame, uint64_t *number_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    *number_out = cmi_le_get64(&r);
    return cmi_frame_is_read(frame, &r);
}

/* ---- values as they are in memory ---- */

size_t cmi_link_write_events(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_event *events, size_t n)
{
    _Static_assert(sizeof(cmi_event) * CMI_LINK_MAX_EVENTS <= CMI_LINK_PIECE_BYTES, "they fit");
    cmi_le_writer w = cmi_frame_begin(out, CMI_LINK_MESSAGE_BYTES);
    cmi_le_put_bytes(&w, events, n * sizeof *events);
    return finish(out, &w, CMI_LINK_EVENTS);
}

static bool is_sound(const cmi_event *event)
{
    return event->version == CMI_MESSAGE_VERSION && event->type >= CMI_EVENT_PROMPT_TOKEN &&
           event->type <= CMI_EVENT_FINISHED && event->n_top <= CMI_MAX_TOP_LOGPROBS &&
           event->finish_reason <= CMI_FINISH_ERROR &&
           (event->type != CMI_EVENT_FINISHED || event->finish_reason != CMI_FINISH_NONE);
}

bool cmi_link_read_events(const cmi_frame *frame, cmi_event events_out[CMI_LINK_MAX_EVENTS],
                          size_t *n_out)
{
    const size_t n = frame->n_bytes / sizeof *events_out;
    if (n == 0 || n > CMI_LINK_MAX_EVENTS || frame->n_bytes % sizeof *events_out != 0) {
        return false;
    }
    memcpy(events_out, frame->payload, frame->n_bytes);
    for (size_t i = 0; i < n; i++) {
        if (!is_sound(&events_out[i])) {
            return false;
        }
    }
    *n_out = n;
    return true;
}

size_t cmi_link_write_refusal(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_link_refusal *refusal)
{
    cmi_le_writer w = cmi_frame_begin(out, CMI_LINK_MESSAGE_BYTES);
    cmi_le_put64(&w, refusal->number);
    cmi_le_put32(&w, (uint32_t)refusal->status);
    return finish(out, &w, CMI_LINK_REFUSED);
}

bool cmi_link_read_refusal(const cmi_frame *frame, cmi_link_refusal *refusal_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    refusal_out->number = cmi_le_get64(&r);
    refusal_out->status = (int32_t)cmi_le_get32(&r);
    return cmi_frame_is_read(frame, &r) && refusal_out->status != CMI_OK;
}

size_t cmi_link_write_load(uint8_t out[CMI_LINK_MESSAGE_BYTES], const cmi_link_load *load)
{
    cmi_le_writer w = cmi_frame_begin(out, CMI_LINK_MESSAGE_BYTES);
    cmi_le_put_bytes(&w, load, sizeof *load);
    return finish(out, &w, CMI_LINK_LOAD);
}

bool cmi_link_read_load(const cmi_frame *frame, cmi_link_load *load_out)
{
    if (frame->n_bytes != sizeof *load_out ||
        frame->payload[offsetof(cmi_link_load, load.is_known)] > 1) {
        return false;
    }
    memcpy(load_out, frame->payload, sizeof *load_out);
    return true;
}
