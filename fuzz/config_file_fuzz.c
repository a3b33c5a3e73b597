/* Any bytes as a file of options: calls with keys and values that are strings, or an error. */
#include "cli/config_file.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static cmi_status on_value(void *arg, const char *key, const char *value, size_t line,
                           cmi_error *err)
{
    size_t *n_left = arg;
    assert(key != NULL && line >= 1);
    if (value != NULL && strcmp(value, "stop") == 0) {
        return cmi_error_set(err, CMI_ERR_CANCELLED, "stop");
    }
    assert(*n_left > 0); /* a value has at least a byte of text, or a separator */
    --*n_left;
    return CMI_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    cmi_error err = {0};
    size_t n_left = n_bytes;
    cmi_status st = cmi_config_parse((const char *)data, n_bytes, on_value, &n_left, &err);
    assert(st == CMI_OK || err.text[0] != '\0');
    return 0;
}
