/* base/ids.h - a growable array of token ids.
 *
 * One owner; not thread-safe. A zeroed array is empty and ready for use. Its writers bound its
 * size: a text of n bytes gives at most n ids and a begin token. */
#ifndef CMI_BASE_IDS_H
#define CMI_BASE_IDS_H

#include "base/compiler.h"

typedef struct cmi_ids {
    uint32_t *data; /* NULL until the first append */
    size_t len;
    size_t cap;
} cmi_ids;

void cmi_ids_deinit(cmi_ids *ids); /* NULL or zeroed is fine */

void cmi_ids_append(cmi_ids *ids, const uint32_t *items, size_t n);

/* Makes room for n more. */
void cmi_ids_reserve(cmi_ids *ids, size_t n);

static inline void cmi_ids_push(cmi_ids *ids, uint32_t id)
{
    if (CMI_UNLIKELY(ids->len == ids->cap)) {
        cmi_ids_reserve(ids, 1);
    }
    ids->data[ids->len++] = id;
}

#endif
