/* base/le.h - numbers as bytes, little-endian, whatever the host's order and alignment.
 *
 * For what crosses processes or hosts, or is hashed: no struct is laid over bytes. A writer and a
 * reader keep to their end: what does not fit sets is_bad, which stays set, writes nothing and
 * reads zeros, so that a caller may go on and look once at the end. */
#ifndef CMI_BASE_LE_H
#define CMI_BASE_LE_H

#include <string.h>

#include "base/compiler.h"

static inline void cmi_le_store(uint8_t *to, uint64_t value, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        to[i] = (uint8_t)(value >> 8 * i);
    }
}

static inline uint64_t cmi_le_load(const uint8_t *from, size_t n_bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        value |= (uint64_t)from[i] << 8 * i;
    }
    return value;
}

static inline void cmi_le_store16(uint8_t *to, uint16_t value)
{
    cmi_le_store(to, value, 2);
}

static inline void cmi_le_store32(uint8_t *to, uint32_t value)
{
    cmi_le_store(to, value, 4);
}

static inline void cmi_le_store64(uint8_t *to, uint64_t value)
{
    cmi_le_store(to, value, 8);
}

static inline uint16_t cmi_le_load16(const uint8_t *from)
{
    return (uint16_t)cmi_le_load(from, 2);
}

static inline uint32_t cmi_le_load32(const uint8_t *from)
{
    return (uint32_t)cmi_le_load(from, 4);
}

static inline uint64_t cmi_le_load64(const uint8_t *from)
{
    return cmi_le_load(from, 8);
}

/* ---- one after the other ---- */

typedef struct cmi_le_writer {
    uint8_t *at, *end;
    bool is_bad;
} cmi_le_writer;

static inline void cmi_le_put_bytes(cmi_le_writer *w, const void *bytes, size_t n)
{
    if (w->is_bad || (size_t)(w->end - w->at) < n) {
        w->is_bad = true;
    } else if (n > 0) {
        memcpy(w->at, bytes, n);
        w->at += n;
    }
}

static inline void cmi_le_put(cmi_le_writer *w, uint64_t value, size_t n_bytes)
{
    uint8_t bytes[8];
    cmi_le_store(bytes, value, n_bytes);
    cmi_le_put_bytes(w, bytes, n_bytes);
}

static inline void cmi_le_put8(cmi_le_writer *w, uint8_t value)
{
    cmi_le_put(w, value, 1);
}

static inline void cmi_le_put16(cmi_le_writer *w, uint16_t value)
{
    cmi_le_put(w, value, 2);
}

static inline void cmi_le_put32(cmi_le_writer *w, uint32_t value)
{
    cmi_le_put(w, value, 4);
}

static inline void cmi_le_put64(cmi_le_writer *w, uint64_t value)
{
    cmi_le_put(w, value, 8);
}

typedef struct cmi_le_reader {
    const uint8_t *at, *end;
    bool is_bad;
} cmi_le_reader;

/* n bytes where they lie; NULL: there are fewer. */
static inline const uint8_t *cmi_le_get_bytes(cmi_le_reader *r, size_t n)
{
    if (r->is_bad || (size_t)(r->end - r->at) < n) {
        r->is_bad = true;
        return NULL;
    }
    const uint8_t *bytes = r->at;
    r->at += n;
    return bytes;
}

static inline uint64_t cmi_le_get(cmi_le_reader *r, size_t n_bytes)
{
    const uint8_t *bytes = cmi_le_get_bytes(r, n_bytes);
    return bytes != NULL ? cmi_le_load(bytes, n_bytes) : 0;
}

static inline uint8_t cmi_le_get8(cmi_le_reader *r)
{
    return (uint8_t)cmi_le_get(r, 1);
}

static inline uint16_t cmi_le_get16(cmi_le_reader *r)
{
    return (uint16_t)cmi_le_get(r, 2);
}

static inline uint32_t cmi_le_get32(cmi_le_reader *r)
{
    return (uint32_t)cmi_le_get(r, 4);
}

static inline uint64_t cmi_le_get64(cmi_le_reader *r)
{
    return cmi_le_get(r, 8);
}

#endif
