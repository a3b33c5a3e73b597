/* base/buf.h - a growable run of bytes with a limit that is named at the start.
 *
 * An append that would pass the limit appends nothing and sets `overflow`, which stays set until
 * cmi_buf_clear: a writer may append many times and look once at the end. The bytes are always
 * followed by a NUL that `len` does not count. One owner; not thread-safe. */
#ifndef CMI_BASE_BUF_H
#define CMI_BASE_BUF_H

#include "base/compiler.h"

typedef struct cmi_buf {
    char *data; /* NULL until the first append; read it through cmi_buf_cstr when it may be empty */
    size_t len; /* bytes */
    size_t cap; /* bytes allocated */
    size_t max; /* bytes, the limit of len */
    bool overflow;
} cmi_buf;

void cmi_buf_init(cmi_buf *b, size_t max);
void cmi_buf_deinit(cmi_buf *b); /* NULL or zeroed is fine */

/* All return false, and change nothing but `overflow`, when the limit would be passed. */
bool cmi_buf_append(cmi_buf *b, const void *bytes, size_t n);
bool cmi_buf_str(cmi_buf *b, const char *s);
bool cmi_buf_char(cmi_buf *b, char c);
CMI_PRINTF(2, 3) bool cmi_buf_printf(cmi_buf *b, const char *fmt, ...);

/* Makes room for n more bytes and returns where they go; the caller then adds to len. NULL on
 * overflow. */
char *cmi_buf_reserve(cmi_buf *b, size_t n);

/* Drops the first n bytes (n <= len). O(len). */
void cmi_buf_consume(cmi_buf *b, size_t n);

/* Drops what lies behind the first n bytes (n <= len); `overflow` stays as it is. */
void cmi_buf_truncate(cmi_buf *b, size_t n);

void cmi_buf_clear(cmi_buf *b);             /* keeps the memory */
const char *cmi_buf_cstr(const cmi_buf *b); /* "" when empty; valid until the next change */

#endif
