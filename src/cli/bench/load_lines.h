/* cli/bench/load_lines.h - what the readers of files of requests have in common. */
#ifndef CMI_CLI_BENCH_LOAD_LINES_H
#define CMI_CLI_BENCH_LOAD_LINES_H

#include <jansson.h>

#include "base/error.h"

/* Walks a text line by line; set at, end and path. */
typedef struct cmi_load_lines {
    const char *at, *end;
    const char *path;
    size_t number; /* of the line, from 1 */
    const char *line;
    size_t n; /* its bytes, without its end */
} cmi_load_lines;

/* Goes to the next line that is not empty; false at the end. */
CMI_NODISCARD bool cmi_load_lines_next(cmi_load_lines *lines);

/* "path, line 7: what". Returns CMI_ERR_BAD_DATA. */
cmi_status cmi_load_lines_bad(const cmi_load_lines *lines, const char *what, cmi_error *err);

/* CMI_OK, or CMI_ERR_BAD_DATA when there were no requests. */
CMI_NODISCARD cmi_status cmi_load_lines_end(const cmi_load_lines *lines, size_t n_requests,
                                            cmi_error *err);

/* A number of tokens that one request may have. */
bool cmi_load_is_length(const json_t *value);

#endif
