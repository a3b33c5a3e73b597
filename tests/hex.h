/* tests/hex.h - digests as text, for comparing with vectors. */
#ifndef CMI_TESTS_HEX_H
#define CMI_TESTS_HEX_H

#include "tests/test.h"

/* Fails the test unless the bytes are those of the lower-case hex. */
static inline void expect_hex(const uint8_t *bytes, size_t n, const char *want)
{
    char text[129];
    assert_true(2 * n < sizeof text);
    for (size_t i = 0; i < n; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    assert_string_equal(text, want);
}

#endif
