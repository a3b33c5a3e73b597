/* base/error.h - a status with one line for people.
 *
 * Whoever first knows the cause writes the line: what is wrong, where (file and field), and what to
 * do. Callers pass it on unchanged; only cli/ and server/ show it. */
#ifndef CMI_BASE_ERROR_H
#define CMI_BASE_ERROR_H

#include "base/status.h"

typedef struct cmi_error {
    cmi_status status; /* CMI_OK until set */
    char text[512];    /* one line of valid UTF-8 without a newline, cut when longer */
} cmi_error;

/* Writes the line and returns st, so that a caller can `return cmi_error_set(...)`. err may be
 * NULL. Control characters and broken UTF-8 that come in through the arguments are replaced by '?',
 * so that hostile file content cannot forge log lines. */
CMI_PRINTF(3, 4) cmi_status cmi_error_set(cmi_error *err, cmi_status st, const char *fmt, ...);

/* Puts "context: " before the line that err already holds and returns its status. */
CMI_PRINTF(2, 3) cmi_status cmi_error_prefix(cmi_error *err, const char *fmt, ...);

#endif
