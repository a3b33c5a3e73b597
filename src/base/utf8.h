/* base/utf8.h - decoding and checking UTF-8 (RFC 3629: no surrogates, no overlong forms). */
#ifndef CMI_BASE_UTF8_H
#define CMI_BASE_UTF8_H

#include "base/compiler.h"

/* Reads one code point from the n bytes at p.
 * Returns its length 1..4 and sets *cp; 0 when the bytes are a proper prefix of a sequence that
 * could still become valid (or n is 0); -1 when no continuation can make them valid. */
int cmi_utf8_next(const char *p, size_t n, uint32_t *cp);

/* Length of the longest prefix that is valid UTF-8. Equal to n exactly when all of it is. */
size_t cmi_utf8_valid_prefix(const char *p, size_t n);

/* Writes cp (a Unicode scalar value) to out and returns the number of bytes written, 1..4. */
size_t cmi_utf8_encode(uint32_t cp, char out[4]);

#endif
