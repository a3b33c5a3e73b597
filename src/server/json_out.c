#include "server/json_out.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static void write_control(cmi_buf *out, unsigned char c)
{
    switch (c) {
    case '"':
        cmi_buf_str(out, "\\\"");
        break;
    case '\\':
        cmi_buf_str(out, "\\\\");
        break;
    case '\n':
        cmi_buf_str(out, "\\n");
        break;
    case '\r':
        cmi_buf_str(out, "\\r");
        break;
    case '\t':
        cmi_buf_str(out, "\\t");
        break;
    default:
        cmi_buf_printf(out, "\\u%04x", c);
    }
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

void cmi_json_write_escaped(cmi_buf *out, const char *s, size_t n)
{
    if (n == 0) {
        return; /* s may be NULL */
    }
    size_t copied = 0; /* s[copied .. at) is valid and waits to be copied in one piece */
    size_t at = 0;
    while (at < n) {
        unsigned char c = (unsigned char)s[at];
        if (is_plain(c)) {
            at++;
            continue;
        }
        uint32_t cp;
        int length = c < 0x80 ? 0 : cmi_utf8_next(s + at, n - at, &cp);
        if (length > 0) {
            at += (size_t)length;
            continue;
        }
        cmi_buf_append(out, s + copied, at - copied);
        if (c < 0x80) {
            write_control(out, c);
        } else {
            cmi_buf_str(out, "\xEF\xBF\xBD");
        }
        copied = ++at;
    }
    cmi_buf_append(out, s + copied, n - copied);
}

void cmi_json_write_string(cmi_buf *out, const char *s, size_t n)
{
    cmi_buf_char(out, '"');
    cmi_json_write_escaped(out, s, n);
    cmi_buf_char(out, '"');
}

void cmi_json_write_cstr(cmi_buf *out, const char *s)
{
    cmi_json_write_string(out, s, strlen(s));
}

void cmi_json_write_string_or_null(cmi_buf *out, const char *s, size_t n)
{
    if (n == 0) {
        cmi_buf_str(out, "null");
    } else {
        cmi_json_write_string(out, s, n);
    }
}

void cmi_json_write_float(cmi_buf *out, float x)
{
    if (!isfinite(x)) {
        cmi_buf_str(out, "null");
        return;
    }
    char text[32];
    for (int digits = 6; digits <= 9; digits++) { /* 9 digits always suffice */
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) {
            break;
        }
    }
    cmi_buf_str(out, text);
    if (strpbrk(text, ".e") == NULL) {
        cmi_buf_str(out, ".0"); /* stays a float in every client */
    }
}
