/* Any bytes as a `traceparent`: what is read of it stands in it, and anything else is nothing. */
#include "server/trace_context.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const char *text = (const char *)data;
    cmi_trace_context c;
    if (cmi_trace_context_parse(&c, text, n_bytes)) {
        assert(n_bytes >= 55 && memcmp(text, "ff", 2) != 0);
        assert(n_bytes == 55 || memcmp(text, "00", 2) != 0);
        assert(strlen(c.trace_id) == 32 && memcmp(c.trace_id, text + 3, 32) == 0);
        assert(strlen(c.parent_id) == 16 && memcmp(c.parent_id, text + 36, 16) == 0);
        assert(strspn(c.trace_id, "0123456789abcdef") == 32 && strspn(c.trace_id, "0") < 32);
        assert(strspn(c.parent_id, "0123456789abcdef") == 16 && strspn(c.parent_id, "0") < 16);
    } else {
        assert(c.trace_id[0] == '\0' && c.parent_id[0] == '\0' && !c.is_sampled);
    }
    return 0;
}
