#include "base/ids.h"

#include <string.h>

#include "base/alloc.h"

void cmi_ids_deinit(cmi_ids *ids)
{
    if (ids != NULL) {
        cmi_free(ids->data);
        *ids = (cmi_ids){0};
    }
}

void cmi_ids_reserve(cmi_ids *ids, size_t n)
{
    size_t need = ids->len + n;
    if (need > ids->cap) {
        size_t cap = CMI_MAX(need, ids->cap + ids->cap / 2 + 16);
        ids->data = cmi_realloc(ids->data, cap, sizeof *ids->data);
        ids->cap = cap;
    }
}

void cmi_ids_append(cmi_ids *ids, const uint32_t *items, size_t n)
{
    if (n > 0) {
        cmi_ids_reserve(ids, n);
        memcpy(ids->data + ids->len, items, n * sizeof *items);
        ids->len += n;
    }
}
