#include "server/trace_context.h"

#include <string.h>

/* Where the parts of "vv-tttttttttttttttttttttttttttttttt-pppppppppppppppp-ff" begin. */
enum { TRACE_AT = 3, PARENT_AT = 36, FLAGS_AT = 53, V0_BYTES = 55 };

/* The value of a digit; capitals are not valid here. */
static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_hex(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (hex_digit(s[i]) < 0) {
            return false;
        }
    }
    return true;
}

/* Copies an id; false: it is not one. */
static bool copy_id(char *out, const char *s, size_t n)
{
    bool is_zero = strspn(s, "0") >= n;
    if (is_zero || !is_hex(s, n)) {
        return false;
    }
    memcpy(out, s, n);
    out[n] = '\0';
    return true;
}

bool cmi_trace_context_parse(cmi_trace_context *out, const char *text, size_t n_bytes)
{
    *out = (cmi_trace_context){0};
    char s[V0_BYTES + 1] = {0}; /* so that no look at it goes past the end */
    if (n_bytes < V0_BYTES) {
        return false;
    }
    memcpy(s, text, V0_BYTES);
    bool is_version_0 = s[0] == '0' && s[1] == '0';
    bool is_version = is_hex(s, 2) && !(s[0] == 'f' && s[1] == 'f');
    bool ends_well = n_bytes == V0_BYTES || (!is_version_0 && text[V0_BYTES] == '-');
    if (!is_version || !ends_well || s[TRACE_AT - 1] != '-' || s[PARENT_AT - 1] != '-' ||
        s[FLAGS_AT - 1] != '-' || !is_hex(s + FLAGS_AT, 2)) {
        return false;
    }
    cmi_trace_context found = {.is_sampled = (hex_digit(s[FLAGS_AT + 1]) & 1) != 0};
    if (!copy_id(found.trace_id, s + TRACE_AT, sizeof found.trace_id - 1) ||
        !copy_id(found.parent_id, s + PARENT_AT, sizeof found.parent_id - 1)) {
        return false;
    }
    *out = found;
    return true;
}
