#include "ep/layout.h"

enum { DISPATCH_FLAGS, COMBINE_FLAGS, N_FLAGS };

static size_t flags_bytes(const cmi_ep_layout *l)
{
    return (size_t)N_FLAGS * l->shape.n_ranks * CMI_CACHE_LINE;
}

/* Then no size overflows: two windows of 2^10 ranks, 2^20 rows and 2^20 bytes are 2^51. */
static bool is_sane(const cmi_ep_shape *s)
{
    const uint32_t max_rows = 1u << 20, max_top_k = 64;
    const size_t max_bytes = (size_t)1 << 20;
    return s->n_ranks >= 1 && s->n_ranks <= CMI_EP_MAX_RANKS && s->max_rows >= 1 &&
           s->max_rows <= max_rows && s->top_k >= 1 && s->top_k <= max_top_k &&
           s->max_local_experts >= 1 && s->row_bytes >= 1 && s->row_bytes <= max_bytes &&
           s->result_bytes >= 1 && s->result_bytes <= max_bytes;
}

cmi_status cmi_ep_layout_make(cmi_ep_layout *l, const cmi_ep_shape *shape, cmi_error *err)
{
    *l = (cmi_ep_layout){.shape = *shape};
    if (!is_sane(shape)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "expert parallelism over %u ranks of %u rows",
                             shape->n_ranks, shape->max_rows);
    }
    const uint32_t k = CMI_MIN(shape->top_k, shape->max_local_experts);
    l->max_pairs = shape->max_rows * k;
    l->scale_offset = CMI_ROUND_UP(shape->row_bytes, sizeof(float));
    l->message_bytes = CMI_ROUND_UP(l->scale_offset + sizeof(float), (size_t)CMI_EP_MESSAGE_ALIGN);
    l->result_stride = CMI_ROUND_UP(shape->result_bytes, (size_t)CMI_CACHE_LINE);
    l->pairs = sizeof(cmi_ep_head);
    l->messages =
        CMI_ROUND_UP(l->pairs + l->max_pairs * sizeof(cmi_ep_pair), (size_t)CMI_EP_MESSAGE_ALIGN);
    l->source_bytes = l->messages + shape->max_rows * l->message_bytes;
    l->combine = CMI_ROUND_UP(flags_bytes(l), (size_t)CMI_EP_MESSAGE_ALIGN) +
                 (size_t)CMI_EP_WINDOWS * shape->n_ranks * l->source_bytes;
    l->region_bytes = l->combine + (size_t)shape->max_rows * shape->top_k * l->result_stride;
    return CMI_OK;
}

static size_t flag(const cmi_ep_layout *l, uint32_t kind, uint32_t source)
{
    return ((size_t)kind * l->shape.n_ranks + source) * CMI_CACHE_LINE;
}

size_t cmi_ep_dispatch_flag(const cmi_ep_layout *l, uint32_t source)
{
    return flag(l, DISPATCH_FLAGS, source);
}

size_t cmi_ep_combine_flag(const cmi_ep_layout *l, uint32_t source)
{
    return flag(l, COMBINE_FLAGS, source);
}

size_t cmi_ep_window(const cmi_ep_layout *l, uint64_t sequence, uint32_t source)
{
    const size_t begin = CMI_ROUND_UP(flags_bytes(l), (size_t)CMI_EP_MESSAGE_ALIGN);
    const size_t window = sequence % CMI_EP_WINDOWS;
    return begin + (window * l->shape.n_ranks + source) * l->source_bytes;
}
