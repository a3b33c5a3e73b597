#include "cli/bench/load_sse.h"

#include <string.h>

void cmi_load_sse_init(cmi_load_sse *sse)
{
    *sse = (cmi_load_sse){0};
    cmi_buf_init(&sse->line, CMI_LOAD_SSE_MAX_EVENT_BYTES);
    cmi_buf_init(&sse->data, CMI_LOAD_SSE_MAX_EVENT_BYTES);
}

void cmi_load_sse_deinit(cmi_load_sse *sse)
{
    cmi_buf_deinit(&sse->line);
    cmi_buf_deinit(&sse->data);
}

void cmi_load_sse_reset(cmi_load_sse *sse)
{
    cmi_buf line = sse->line;
    cmi_buf data = sse->data;
    *sse = (cmi_load_sse){.line = line, .data = data};
    cmi_buf_clear(&sse->line);
    cmi_buf_clear(&sse->data);
}

/* Up to the next CR or LF. Carriage returns are rare, so the newline is looked for first. */
static const char *find_line_end(const char *at, const char *end)
{
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    const char *stop = newline != NULL ? newline : end;
    const char *cr = memchr(at, '\r', (size_t)(stop - at));
    return cr != NULL ? cr : stop;
}

/* True: the whole line in sse->line ends an event. */
static bool take_line(cmi_load_sse *sse)
{
    const char *line = cmi_buf_cstr(&sse->line);
    const char *end = line + sse->line.len;
    if (!sse->after_start && sse->line.len >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
        line += 3;
    }
    sse->after_start = true;
    if (line == end) {
        return sse->has_data;
    }
    size_t n_name = 4;
    bool is_data = (size_t)(end - line) >= n_name && memcmp(line, "data", n_name) == 0 &&
                   (line + n_name == end || line[n_name] == ':');
    if (!is_data) {
        return false;
    }
    line += n_name;
    line += line < end ? 1 : 0;
    line += line < end && *line == ' ' ? 1 : 0;
    if (sse->has_data) {
        cmi_buf_char(&sse->data, '\n');
    }
    cmi_buf_append(&sse->data, line, (size_t)(end - line));
    sse->has_data = true;
    return false;
}

static void forget_event(cmi_load_sse *sse)
{
    if (sse->was_taken) {
        cmi_buf_clear(&sse->data);
        sse->was_taken = false;
        sse->has_data = false;
    }
}

static bool take_whole_line(cmi_load_sse *sse)
{
    bool is_event = take_line(sse);
    sse->is_too_large = sse->is_too_large || sse->line.overflow || sse->data.overflow;
    cmi_buf_clear(&sse->line);
    sse->was_taken = is_event;
    return is_event;
}

bool cmi_load_sse_next(cmi_load_sse *sse, const char **at, const char *end)
{
    forget_event(sse);
    while (*at < end && !sse->is_too_large) {
        if (sse->after_cr && **at == '\n') {
            sse->after_cr = false;
            (*at)++;
            continue;
        }
        sse->after_cr = false;
        const char *stop = find_line_end(*at, end);
        cmi_buf_append(&sse->line, *at, (size_t)(stop - *at));
        sse->is_too_large = sse->line.overflow;
        *at = stop;
        if (stop < end) {
            sse->after_cr = *stop == '\r';
            (*at)++;
            if (take_whole_line(sse) && !sse->is_too_large) {
                return true;
            }
        }
    }
    *at = end;
    return false;
}

bool cmi_load_sse_end(cmi_load_sse *sse)
{
    forget_event(sse);
    if (sse->line.len > 0 && !sse->is_too_large) {
        (void)take_whole_line(sse);
    }
    sse->was_taken = sse->has_data && !sse->is_too_large;
    return sse->was_taken;
}
