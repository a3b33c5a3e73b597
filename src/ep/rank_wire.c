#include "ep/rank_wire.h"

size_t cmi_ep_write_hello(uint8_t out[CMI_EP_MAX_HELLO], const cmi_ep_hello *hello)
{
    cmi_le_writer w = {out, out + CMI_EP_MAX_HELLO, false};
    cmi_le_put(&w, hello->model, 8);
    cmi_le_put(&w, hello->n_regions, 4);
    for (uint32_t i = 0; i < hello->n_regions; i++) {
        cmi_le_put(&w, hello->regions[i].n_bytes, 2);
        cmi_le_put_bytes(&w, hello->regions[i].bytes, hello->regions[i].n_bytes);
    }
    return w.is_bad ? 0 : (size_t)(w.at - out);
}

bool cmi_ep_read_hello(const void *bytes, size_t n_bytes, cmi_ep_hello *hello_out)
{
    cmi_le_reader r = {bytes, (const uint8_t *)bytes + n_bytes, false};
    *hello_out = (cmi_ep_hello){0};
    hello_out->model = cmi_le_get64(&r);
    hello_out->n_regions = cmi_le_get32(&r);
    if (hello_out->n_regions > CMI_EP_MAX_REGIONS) {
        return false;
    }
    for (uint32_t i = 0; i < hello_out->n_regions; i++) {
        cmi_rkey *rkey = &hello_out->regions[i];
        const uint16_t n = cmi_le_get16(&r);
        const uint8_t *from = n <= sizeof rkey->bytes ? cmi_le_get_bytes(&r, n) : NULL;
        if (from == NULL) {
            return false;
        }
        rkey->n_bytes = n;
        memcpy(rkey->bytes, from, n);
    }
    return !r.is_bad && r.at == r.end;
}

void cmi_ep_write_call(cmi_le_writer *w, const cmi_ep_call *call)
{
    cmi_le_put(w, call->sequence, 8);
    cmi_le_put(w, call->pass, 4);
}

bool cmi_ep_read_call(const cmi_frame *frame, cmi_ep_call *call_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    call_out->sequence = cmi_le_get64(&r);
    call_out->pass = cmi_le_get32(&r);
    return cmi_frame_is_read(frame, &r);
}

void cmi_ep_write_counts(cmi_le_writer *w, const cmi_ep_counts *head, const uint32_t *counts)
{
    cmi_le_put32(w, head->layer);
    cmi_le_put32(w, head->first);
    cmi_le_put8(w, head->is_busy ? 1 : 0);
    for (uint32_t i = 0; i < head->n; i++) {
        cmi_le_put32(w, counts[i]);
    }
}

bool cmi_ep_read_counts(const cmi_frame *frame, cmi_ep_counts *counts_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    counts_out->layer = cmi_le_get32(&r);
    counts_out->first = cmi_le_get32(&r);
    const uint8_t busy = cmi_le_get8(&r);
    const size_t n_bytes = (size_t)(r.end - r.at);
    counts_out->is_busy = busy == 1;
    counts_out->counts = r.at;
    counts_out->n = (uint32_t)(n_bytes / 4);
    return !r.is_bad && busy <= 1 && n_bytes % 4 == 0 && counts_out->n >= 1 &&
           counts_out->n <= CMI_EP_MAX_COUNTS;
}

void cmi_ep_write_round(cmi_le_writer *w, const cmi_ep_round *round)
{
    cmi_le_put32(w, round->n_loaded);
    cmi_le_put32(w, round->n_switched);
}

bool cmi_ep_read_round(const cmi_frame *frame, cmi_ep_round *round_out)
{
    cmi_le_reader r = cmi_frame_reader(frame);
    round_out->n_loaded = cmi_le_get32(&r);
    round_out->n_switched = cmi_le_get32(&r);
    return cmi_frame_is_read(frame, &r) && round_out->n_switched <= round_out->n_loaded &&
           round_out->n_loaded - round_out->n_switched <= 1;
}
