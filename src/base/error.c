#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* Keeps the line one line of valid UTF-8: control characters and stray bytes become '?', and a
 * sequence that the size limit has cut in half is dropped. */
static void clean_line(char *text)
{
    size_t n = strlen(text);
    size_t at = 0;
    while (at < n) {
        uint32_t cp = 0;
        int length = cmi_utf8_next(text + at, n - at, &cp);
        if (length == 0) {
            text[at] = '\0';
            return;
        }
        if (length < 0 || cp < 0x20 || cp == 0x7F) {
            text[at] = '?';
            length = 1;
        }
        at += (size_t)length;
    }
}

cmi_status cmi_error_set(cmi_error *err, cmi_status st, const char *fmt, ...)
{
    if (err == NULL) {
        return st;
    }
    va_list args;
    va_start(args, fmt);
    err->status = st;
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    clean_line(err->text);
    return st;
}

cmi_status cmi_error_prefix(cmi_error *err, const char *fmt, ...)
{
    if (err == NULL) {
        return CMI_ERR_INVALID;
    }
    char line[sizeof err->text];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof line) {
        snprintf(line + n, sizeof line - (size_t)n, ": %s", err->text);
    }
    memcpy(err->text, line, sizeof line);
    clean_line(err->text);
    return err->status;
}
