#include "engine/handover_internal.h"

#include <stddef.h>

#include "base/crc32c.h"

cmi_handover_box cmi_handover_box_make(const cmi_kv_layout *layout, uint32_t max_model_len)
{
    const uint64_t n_pages = cmi_kv_pages_for(max_model_len);
    const uint64_t line = CMI_CACHE_LINE;
    cmi_handover_box box = {.record_at = line};
    box.checksums_at = box.record_at + CMI_ROUND_UP(sizeof(cmi_handover_record), line);
    box.order_at =
        box.checksums_at + CMI_ROUND_UP(n_pages * layout->n_layers * sizeof(uint32_t), line);
    box.n_bytes = box.order_at + CMI_ROUND_UP(cmi_handover_request_at((uint32_t)n_pages) +
                                                  cmi_request_max_bytes(max_model_len),
                                              line);
    return box;
}

uint32_t cmi_handover_record_checksum(const cmi_handover_record *record, const uint32_t *checksums,
                                      size_t n_checksums)
{
    static const uint32_t none = 0;
    const size_t n_own = sizeof record->checksum;
    _Static_assert(offsetof(cmi_handover_record, checksum) == 0, "the checksum comes first");
    uint32_t crc = cmi_crc32c(0, &none, n_own);
    crc = cmi_crc32c(crc, (const uint8_t *)record + n_own, sizeof *record - n_own);
    return cmi_crc32c(crc, checksums, n_checksums * sizeof *checksums);
}

static bool is_note(uint32_t kind)
{
    return kind == CMI_HANDOVER_WELCOME || kind == CMI_HANDOVER_ASK ||
           kind == CMI_HANDOVER_CANCEL || kind == CMI_HANDOVER_DONE || kind == CMI_HANDOVER_ENDED;
}

bool cmi_handover_message_is_good(const cmi_handover_message *message, size_t n_bytes)
{
    if (n_bytes < sizeof message->kind) {
        return false;
    }
    if (is_note(message->kind)) {
        return n_bytes == sizeof message->note;
    }
    if (message->kind == CMI_HANDOVER_HELLO) {
        return n_bytes == sizeof message->hello && message->hello.n_seats > 0 &&
               message->hello.pages.n_bytes <= CMI_FABRIC_MAX_RKEY &&
               message->hello.boxes.n_bytes <= CMI_FABRIC_MAX_RKEY;
    }
    return message->kind == CMI_HANDOVER_PROMPT_EVENT && n_bytes == sizeof message->event &&
           message->event.event.n_top <= CMI_MAX_TOP_LOGPROBS;
}

cmi_handover_shape cmi_handover_shape_make(const cmi_instance *in, const cmi_content_model *model)
{
    return (cmi_handover_shape){.model = *model,
                                .page_bytes = in->kv_pool.layout.page_bytes,
                                .layer_bytes = in->kv_pool.layout.layer_bytes,
                                .n_layers = in->kv_pool.layout.n_layers,
                                .max_model_len = in->max_model_len,
                                .vocab_size = in->config.vocab_size,
                                .message_version = CMI_MESSAGE_VERSION};
}

bool cmi_handover_shape_equal(const cmi_handover_shape *a, const cmi_handover_shape *b)
{
    const cmi_content_model *x = &a->model, *y = &b->model;
    return memcmp(x->weights_digest, y->weights_digest, sizeof x->weights_digest) == 0 &&
           x->quantization == y->quantization && x->compute_dtype == y->compute_dtype &&
           x->kv_dtype == y->kv_dtype && x->kv_layout_version == y->kv_layout_version &&
           x->with_mtp == y->with_mtp && a->page_bytes == b->page_bytes &&
           a->layer_bytes == b->layer_bytes && a->n_layers == b->n_layers &&
           a->max_model_len == b->max_model_len && a->vocab_size == b->vocab_size &&
           a->message_version == b->message_version;
}

cmi_fabric_options cmi_handover_fabric_options(const cmi_handover_options *opt)
{
    cmi_fabric_options fabric;
    cmi_fabric_options_default(&fabric);
    fabric.name = opt->name;
    fabric.secret = opt->secret;
    fabric.secret_bytes = sizeof opt->secret;
    fabric.version = CMI_HANDOVER_VERSION;
    fabric.n_endpoints = CMI_HANDOVER_MAX_PEERS;
    fabric.message_bytes = sizeof(cmi_handover_message);
    fabric.n_ops = 4096;
    fabric.spin_ns = 0; /* the processors belong to the instances */
    return fabric;
}
