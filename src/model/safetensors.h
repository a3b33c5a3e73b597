/* model/safetensors.h - one file in the safetensors format, mapped and checked.
 *
 * Layout: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}},
 * then the tensors' bytes. The header is checked in full before anything is used: every tensor lies
 * inside the file, is exactly as long as its shape says, and together they cover the data without
 * overlap or gap, as the format demands. Tensor data need not be aligned.
 *
 * After opening, a file is immutable and may be read by any thread. */
#ifndef CMI_MODEL_SAFETENSORS_H
#define CMI_MODEL_SAFETENSORS_H

#include "base/dtype.h"
#include "base/error.h"
#include "os/file.h"

enum {
    CMI_TENSOR_MAX_DIMS = 8,
    CMI_SAFETENSORS_MAX_HEADER_BYTES = 100 * 1000 * 1000, /* the format's own limit */
    CMI_SAFETENSORS_MAX_TENSORS = 1 << 20,
};

typedef struct cmi_tensor {
    const char *name;        /* with a NUL; owned by the file */
    const char *dtype_label; /* as the format spells it, "BF16"; static */
    cmi_dtype dtype;
    uint32_t n_dims;
    uint64_t dims[CMI_TENSOR_MAX_DIMS];
    uint64_t offset; /* bytes from the start of the file */
    uint64_t n_bytes;
} cmi_tensor;

typedef struct cmi_safetensors {
    cmi_file_map map; /* zeroed when parsed from memory */
    char *path;       /* for error lines */
    const uint8_t *data;
    cmi_tensor *tensors; /* ordered by offset */
    uint32_t n_tensors;
    const cmi_tensor **by_name; /* the same, ordered by name */
    char *names;
} cmi_safetensors;

/* Maps and checks a file. CMI_ERR_NOT_FOUND, CMI_ERR_IO, CMI_ERR_BAD_DATA, CMI_ERR_TOO_LARGE or
 * CMI_ERR_UNSUPPORTED; err names the file and, where one is at fault, the tensor. *file_out is
 * untouched on error. */
CMI_NODISCARD cmi_status cmi_safetensors_open(cmi_safetensors *file_out, const char *path,
                                              cmi_error *err);

/* The same for n_bytes in memory, which must outlive *file_out; path stands in error lines. */
CMI_NODISCARD cmi_status cmi_safetensors_parse(cmi_safetensors *file_out, const uint8_t *data,
                                               size_t n_bytes, const char *path, cmi_error *err);

void cmi_safetensors_close(cmi_safetensors *file); /* NULL or zeroed is fine */

/* NULL when the file has no tensor of that name. O(log n). */
const cmi_tensor *cmi_safetensors_find(const cmi_safetensors *file, const char *name);

/* First byte of a tensor of this file. */
static inline const uint8_t *cmi_safetensors_data(const cmi_safetensors *file,
                                                  const cmi_tensor *tensor)
{
    return file->data + tensor->offset;
}

#endif
