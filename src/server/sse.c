#include "server/sse.h"

void cmi_sse_begin(cmi_buf *out)
{
    cmi_buf_str(out, "data: ");
}

void cmi_sse_end(cmi_buf *out)
{
    cmi_buf_str(out, "\n\n");
}

void cmi_sse_done(cmi_buf *out)
{
    cmi_buf_str(out, "data: [DONE]\n\n");
}

void cmi_sse_ping(cmi_buf *out)
{
    cmi_buf_str(out, ": ping\n\n");
}
