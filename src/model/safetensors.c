/* model/safetensors.c - see safetensors.h.
 *
 * The header is read with jansson, which refuses duplicate names, numbers beyond 64 bits and deep
 * nesting by itself. Every tensor then becomes one cmi_tensor; sorted by offset, each must begin
 * where the one before it ends, which rules out overlaps and gaps in one pass. Names are looked up
 * by binary search: a hash table would let a hostile file choose colliding names. */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"

enum { LENGTH_BYTES = 8 };

typedef struct dtype_row {
    const char *label;
    cmi_dtype dtype;
    uint32_t n_bits;
} dtype_row;

/* All element types of the format. Types below 8 bits are counted in bits. */
static const dtype_row dtype_rows[] = {
    {"F32", CMI_DTYPE_F32, 32},
    {"F16", CMI_DTYPE_F16, 16},
    {"BF16", CMI_DTYPE_BF16, 16},
    {"F8_E4M3", CMI_DTYPE_F8_E4M3, 8},
    {"I8", CMI_DTYPE_I8, 8},
    {"BOOL", CMI_DTYPE_OTHER, 8},
    {"U8", CMI_DTYPE_OTHER, 8},
    {"I16", CMI_DTYPE_OTHER, 16},
    {"U16", CMI_DTYPE_OTHER, 16},
    {"I32", CMI_DTYPE_OTHER, 32},
    {"U32", CMI_DTYPE_OTHER, 32},
    {"I64", CMI_DTYPE_OTHER, 64},
    {"U64", CMI_DTYPE_OTHER, 64},
    {"F64", CMI_DTYPE_OTHER, 64},
    {"C64", CMI_DTYPE_OTHER, 64},
    {"F8_E5M2", CMI_DTYPE_OTHER, 8},
    {"F8_E8M0", CMI_DTYPE_OTHER, 8},
    {"F8_E4M3FNUZ", CMI_DTYPE_OTHER, 8},
    {"F8_E5M2FNUZ", CMI_DTYPE_OTHER, 8},
    {"F6_E2M3", CMI_DTYPE_OTHER, 6},
    {"F6_E3M2", CMI_DTYPE_OTHER, 6},
    {"F4", CMI_DTYPE_OTHER, 4},
};

/* What the steps of one parse share. */
typedef struct parse {
    cmi_safetensors *file;
    uint64_t data_begin; /* of the tensors' bytes in the file */
    uint64_t data_bytes;
    cmi_error *err;
} parse;

static CMI_PRINTF(3, 4) cmi_status
    tensor_error(const parse *p, const char *name, const char *fmt, ...)
{
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return cmi_error_set(p->err, CMI_ERR_BAD_DATA, "%s: tensor %.160s: %s", p->file->path, name,
                         what);
}

static const dtype_row *dtype_row_find(const char *label)
{
    for (size_t i = 0; i < CMI_LEN(dtype_rows); i++) {
        if (strcmp(dtype_rows[i].label, label) == 0) {
            return &dtype_rows[i];
        }
    }
    return NULL;
}

static cmi_status read_dtype(const parse *p, cmi_tensor *t, const json_t *entry, uint32_t *n_bits)
{
    const char *label = json_string_value(json_object_get(entry, "dtype"));
    if (label == NULL) {
        return tensor_error(p, t->name, "dtype is missing or not a string");
    }
    const dtype_row *row = dtype_row_find(label);
    if (row == NULL) {
        return tensor_error(p, t->name, "dtype \"%.40s\" is not one of the format's types", label);
    }
    t->dtype = row->dtype;
    t->dtype_label = row->label;
    *n_bits = row->n_bits;
    return CMI_OK;
}

/* Sets dims and n_bytes, the bytes that the shape asks for. */
static cmi_status read_shape(const parse *p, cmi_tensor *t, const json_t *entry, uint32_t n_bits)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) {
        return tensor_error(p, t->name, "shape is missing or not a list");
    }
    if (json_array_size(shape) > CMI_TENSOR_MAX_DIMS) {
        return tensor_error(p, t->name, "shape has %zu dimensions, more than %d",
                            json_array_size(shape), CMI_TENSOR_MAX_DIMS);
    }
    uint64_t total_bits = n_bits;
    bool empty = false;
    t->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < t->n_dims; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) {
            return tensor_error(p, t->name, "shape[%u] is not a size", i);
        }
        t->dims[i] = (uint64_t)json_integer_value(dim);
        empty = empty || t->dims[i] == 0;
        if (!empty && cmi_mul_overflow(total_bits, t->dims[i], &total_bits)) {
            return tensor_error(p, t->name, "shape has more elements than any file can hold");
        }
    }
    if (!empty && total_bits % 8 != 0) {
        return tensor_error(p, t->name, "shape does not fill whole bytes");
    }
    t->n_bytes = empty ? 0 : total_bits / 8;
    return CMI_OK;
}

static cmi_status read_offsets(const parse *p, cmi_tensor *t, const json_t *entry)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0);
    const json_t *second = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second)) {
        return tensor_error(p, t->name, "data_offsets is not a list of two numbers");
    }
    long long begin = json_integer_value(first);
    long long end = json_integer_value(second);
    if (begin < 0 || end < begin) {
        return tensor_error(p, t->name, "data_offsets [%lld, %lld] is not a range", begin, end);
    }
    if ((uint64_t)end > p->data_bytes) {
        return tensor_error(p, t->name,
                            "data ends at byte %lld, but the file holds only %llu bytes of data: "
                            "truncated?",
                            end, (unsigned long long)p->data_bytes);
    }
    if ((uint64_t)(end - begin) != t->n_bytes) {
        return tensor_error(p, t->name, "%lld bytes of data, but dtype and shape ask for %llu",
                            end - begin, (unsigned long long)t->n_bytes);
    }
    t->offset = p->data_begin + (uint64_t)begin;
    return CMI_OK;
}

static cmi_status read_tensor(const parse *p, cmi_tensor *t, const json_t *entry)
{
    if (!json_is_object(entry)) {
        return tensor_error(p, t->name, "its header entry is not an object");
    }
    uint32_t n_bits = 0;
    cmi_status st = read_dtype(p, t, entry, &n_bits);
    if (st == CMI_OK) {
        st = read_shape(p, t, entry, n_bits);
    }
    if (st == CMI_OK) {
        st = read_offsets(p, t, entry);
    }
    return st;
}

static bool is_tensor_key(const char *key)
{
    return strcmp(key, "__metadata__") != 0;
}

static cmi_status read_tensors(const parse *p, json_t *root)
{
    cmi_safetensors *file = p->file;
    size_t n_tensors = 0;
    size_t names_bytes = 0;
    const char *key;
    json_t *entry;
    json_object_foreach(root, key, entry)
    {
        n_tensors += is_tensor_key(key);
        names_bytes += strlen(key) + 1;
    }
    if (n_tensors > CMI_SAFETENSORS_MAX_TENSORS) {
        return cmi_error_set(p->err, CMI_ERR_TOO_LARGE, "%s: %zu tensors, more than %d", file->path,
                             n_tensors, CMI_SAFETENSORS_MAX_TENSORS);
    }
    file->tensors = cmi_alloc(n_tensors, sizeof *file->tensors);
    file->names = cmi_alloc(names_bytes, 1);
    char *name = file->names;
    json_object_foreach(root, key, entry)
    {
        if (!is_tensor_key(key)) {
            continue;
        }
        cmi_tensor *t = &file->tensors[file->n_tensors++];
        size_t size = strlen(key) + 1;
        memcpy(name, key, size);
        t->name = name;
        name += size;
        cmi_status st = read_tensor(p, t, entry);
        if (st != CMI_OK) {
            return st;
        }
    }
    return CMI_OK;
}

static int compare_tensors(const void *left, const void *right)
{
    const cmi_tensor *a = left;
    const cmi_tensor *b = right;
    if (a->offset != b->offset) {
        return a->offset < b->offset ? -1 : 1;
    }
    if (a->n_bytes != b->n_bytes) {
        return a->n_bytes < b->n_bytes ? -1 : 1;
    }
    return strcmp(a->name, b->name);
}

static cmi_status check_cover(const parse *p)
{
    cmi_safetensors *file = p->file;
    qsort(file->tensors, file->n_tensors, sizeof *file->tensors, compare_tensors);
    uint64_t covered = p->data_begin;
    for (uint32_t i = 0; i < file->n_tensors; i++) {
        const cmi_tensor *t = &file->tensors[i];
        if (t->offset < covered) {
            return tensor_error(p, t->name, "its data overlaps that of %.80s",
                                file->tensors[i - 1].name);
        }
        if (t->offset > covered) {
            return tensor_error(p, t->name, "%llu bytes before its data belong to no tensor",
                                (unsigned long long)(t->offset - covered));
        }
        covered += t->n_bytes;
    }
    uint64_t end = p->data_begin + p->data_bytes;
    if (covered != end) {
        return cmi_error_set(p->err, CMI_ERR_BAD_DATA,
                             "%s: the last %llu bytes belong to no tensor", file->path,
                             (unsigned long long)(end - covered));
    }
    return CMI_OK;
}

static int compare_names(const void *left, const void *right)
{
    const cmi_tensor *const *a = left;
    const cmi_tensor *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static void index_names(cmi_safetensors *file)
{
    file->by_name = cmi_alloc(file->n_tensors, sizeof *file->by_name);
    for (uint32_t i = 0; i < file->n_tensors; i++) {
        file->by_name[i] = &file->tensors[i];
    }
    qsort(file->by_name, file->n_tensors, sizeof *file->by_name, compare_names);
}

static cmi_status header_bytes(uint64_t *out, const uint8_t *data, size_t n_bytes, const char *path,
                               cmi_error *err)
{
    if (n_bytes < LENGTH_BYTES) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA,
                             "%s: %zu bytes are too few for a safetensors file", path, n_bytes);
    }
    uint64_t length = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        length = length << 8 | data[i];
    }
    if (length > CMI_SAFETENSORS_MAX_HEADER_BYTES) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE,
                             "%s: header length %llu is over the limit of %d bytes: not a "
                             "safetensors file?",
                             path, (unsigned long long)length, CMI_SAFETENSORS_MAX_HEADER_BYTES);
    }
    if (length > n_bytes - LENGTH_BYTES) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA,
                             "%s: header length %llu reaches past the end of the file (%zu bytes): "
                             "truncated?",
                             path, (unsigned long long)length, n_bytes);
    }
    *out = length;
    return CMI_OK;
}

static cmi_status parse_header(const parse *p, uint64_t n_header)
{
    json_error_t why;
    const char *text = (const char *)p->file->data + LENGTH_BYTES;
    json_t *root = json_loadb(text, n_header, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        return cmi_error_set(p->err, CMI_ERR_BAD_DATA, "%s: header, byte %d: %s", p->file->path,
                             why.position, why.text);
    }
    cmi_status st = CMI_OK;
    if (!json_is_object(root)) {
        st = cmi_error_set(p->err, CMI_ERR_BAD_DATA, "%s: header is not a JSON object",
                           p->file->path);
    } else {
        st = read_tensors(p, root);
    }
    json_decref(root);
    return st;
}

cmi_status cmi_safetensors_parse(cmi_safetensors *file_out, const uint8_t *data, size_t n_bytes,
                                 const char *path, cmi_error *err)
{
    uint64_t n_header = 0;
    cmi_status st = header_bytes(&n_header, data, n_bytes, path, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_safetensors file = {.path = cmi_strndup(path, strlen(path)), .data = data};
    uint64_t data_begin = LENGTH_BYTES + n_header;
    parse p = {&file, data_begin, n_bytes - data_begin, err};
    st = parse_header(&p, n_header);
    if (st == CMI_OK) {
        st = check_cover(&p);
    }
    if (st != CMI_OK) {
        cmi_safetensors_close(&file);
        return st;
    }
    index_names(&file);
    *file_out = file;
    return CMI_OK;
}

cmi_status cmi_safetensors_open(cmi_safetensors *file_out, const char *path, cmi_error *err)
{
    cmi_file_map map = {0};
    cmi_status st = cmi_file_map_open(&map, path, err);
    if (st != CMI_OK) {
        return st;
    }
    st = cmi_safetensors_parse(file_out, map.data, map.n_bytes, path, err);
    if (st != CMI_OK) {
        cmi_file_map_close(&map);
        return st;
    }
    file_out->map = map;
    return CMI_OK;
}

void cmi_safetensors_close(cmi_safetensors *file)
{
    if (file == NULL) {
        return;
    }
    cmi_free(file->by_name);
    cmi_free(file->names);
    cmi_free(file->tensors);
    cmi_free(file->path);
    cmi_file_map_close(&file->map);
    *file = (cmi_safetensors){0};
}

const cmi_tensor *cmi_safetensors_find(const cmi_safetensors *file, const char *name)
{
    const cmi_tensor key = {.name = name};
    const cmi_tensor *key_ptr = &key;
    const cmi_tensor *const *found =
        bsearch(&key_ptr, file->by_name, file->n_tensors, sizeof *file->by_name, compare_names);
    return found == NULL ? NULL : *found;
}
