/* Any bytes as the value of each header that says how to serve a request: refused with a 400, or a
 * number in range; a timeout never becomes longer. */
#include "server/http_service.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    char *text = cmi_strndup((const char *)data, n_bytes);
    const cmi_http_service_headers headers[] = {{.ttft_ms = text},
                                                {.tpot_ms = text},
                                                {.timeout_ms = text},
                                                {.fairness_id = text},
                                                {.authorization = text}};
    for (size_t i = 0; i < CMI_LEN(headers); i++) {
        cmi_api_service service = {.timeout_ms = 1000};
        cmi_api_error err = {0};
        cmi_status st = cmi_http_service_read(&headers[i], &service, &err);
        assert(st == CMI_OK || (st == CMI_ERR_INVALID && err.http_status == 400));
        assert(i < 3 || st == CMI_OK);
        assert(service.timeout_ms >= 1 && service.timeout_ms <= 1000);
        assert(service.ttft_us <= 4000000000u && service.tpot_us <= 4000000000u);
    }
    cmi_free(text);
    return 0;
}
