#include "base/utf8.h"

/* Lowest code point that needs the given sequence length; shorter is overlong. */
static const uint32_t min_of_length[5] = {0, 0, 0x80, 0x800, 0x10000};

static int sequence_length(unsigned char lead)
{
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xC2 && lead <= 0xDF) {
        return 2;
    }
    if (lead >= 0xE0 && lead <= 0xEF) {
        return 3;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        return 4;
    }
    return -1;
}

/* The second byte already decides overlong forms, surrogates and values past U+10FFFF. */
static bool second_byte_ok(unsigned char lead, unsigned char second)
{
    switch (lead) {
    case 0xE0:
        return second >= 0xA0;
    case 0xED:
        return second <= 0x9F;
    case 0xF0:
        return second >= 0x90;
    case 0xF4:
        return second <= 0x8F;
    default:
        return true;
    }
}

int cmi_utf8_next(const char *p, size_t n, uint32_t *cp)
{
    if (n == 0) {
        return 0;
    }
    const unsigned char *u = (const unsigned char *)p;
    int length = sequence_length(u[0]);
    if (length == 1) {
        *cp = u[0];
        return 1;
    }
    if (length < 0) {
        return -1;
    }
    uint32_t value = u[0] & (0x7Fu >> length);
    for (int i = 1; i < length; i++) {
        if ((size_t)i == n) {
            return 0;
        }
        if ((u[i] & 0xC0) != 0x80 || (i == 1 && !second_byte_ok(u[0], u[1]))) {
            return -1;
        }
        value = value << 6 | (u[i] & 0x3Fu);
    }
    if (value < min_of_length[length]) {
        return -1;
    }
    *cp = value;
    return length;
}

size_t cmi_utf8_valid_prefix(const char *p, size_t n)
{
    size_t at = 0;
    uint32_t cp;
    while (at < n) {
        int length = cmi_utf8_next(p + at, n - at, &cp);
        if (length <= 0) {
            break;
        }
        at += (size_t)length;
    }
    return at;
}

size_t cmi_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}
