#include "cli/bench/load_lines.h"

#include <string.h>

#include "cli/bench/load_data.h"

bool cmi_load_lines_next(cmi_load_lines *lines)
{
    while (lines->at < lines->end) {
        const char *newline = memchr(lines->at, '\n', (size_t)(lines->end - lines->at));
        const char *stop = newline != NULL ? newline : lines->end;
        lines->line = lines->at;
        lines->n = (size_t)(stop - lines->at);
        lines->at = newline != NULL ? newline + 1 : lines->end;
        lines->number++;
        if (lines->n > 0 && lines->line[lines->n - 1] == '\r') {
            lines->n--;
        }
        if (lines->n > 0) {
            return true;
        }
    }
    return false;
}

cmi_status cmi_load_lines_bad(const cmi_load_lines *lines, const char *what, cmi_error *err)
{
    return cmi_error_set(err, CMI_ERR_BAD_DATA, "%s, line %zu: %s", lines->path, lines->number,
                         what);
}

cmi_status cmi_load_lines_end(const cmi_load_lines *lines, size_t n_requests, cmi_error *err)
{
    if (n_requests == 0) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "%s holds no requests", lines->path);
    }
    return CMI_OK;
}

bool cmi_load_is_length(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 0 &&
           json_integer_value(value) <= CMI_LOAD_MAX_TOKENS;
}
