/* Any bytes as a safetensors file: an error line, or tensors whose every byte can be read. */
#include "model/safetensors.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    cmi_safetensors file;
    cmi_error err = {0};
    cmi_status st = cmi_safetensors_parse(&file, data, n_bytes, "input", &err);
    if (st != CMI_OK) {
        assert(strncmp(err.text, "input: ", 7) == 0);
        return 0;
    }
    volatile uint8_t sink = 0;
    size_t n_covered = 0;
    for (uint32_t i = 0; i < file.n_tensors; i++) {
        const cmi_tensor *t = &file.tensors[i];
        assert(cmi_safetensors_find(&file, t->name) == t);
        const uint8_t *bytes = cmi_safetensors_data(&file, t);
        for (uint64_t k = 0; k < t->n_bytes; k++) {
            sink ^= bytes[k];
        }
        n_covered += t->n_bytes;
    }
    (void)sink;
    assert(n_covered <= n_bytes);
    cmi_safetensors_close(&file);
    return 0;
}
