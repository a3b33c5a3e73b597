#include "cli/bench/onednn.h"

#include <dlfcn.h>
#include <dnnl.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "os/host_memory.h"

/* The functions used, by their names in the library. */
#define DNNL_FUNCTIONS(X)                                                                          \
    X(dnnl_set_max_cpu_isa)                                                                        \
    X(dnnl_engine_create)                                                                          \
    X(dnnl_engine_destroy)                                                                         \
    X(dnnl_stream_create)                                                                          \
    X(dnnl_stream_destroy)                                                                         \
    X(dnnl_stream_wait)                                                                            \
    X(dnnl_memory_desc_init_by_tag)                                                                \
    X(dnnl_memory_desc_get_size)                                                                   \
    X(dnnl_memory_create)                                                                          \
    X(dnnl_memory_set_data_handle)                                                                 \
    X(dnnl_memory_destroy)                                                                         \
    X(dnnl_primitive_attr_create)                                                                  \
    X(dnnl_primitive_attr_set_output_scales)                                                       \
    X(dnnl_primitive_attr_set_zero_points)                                                         \
    X(dnnl_primitive_attr_destroy)                                                                 \
    X(dnnl_matmul_desc_init)                                                                       \
    X(dnnl_reorder_primitive_desc_create)                                                          \
    X(dnnl_primitive_desc_create)                                                                  \
    X(dnnl_primitive_desc_query_md)                                                                \
    X(dnnl_primitive_desc_destroy)                                                                 \
    X(dnnl_primitive_create)                                                                       \
    X(dnnl_primitive_execute)                                                                      \
    X(dnnl_primitive_destroy)

struct cmi_onednn {
    void *library;
#define MEMBER(name) __typeof__(name) *name;
    DNNL_FUNCTIONS(MEMBER)
#undef MEMBER
    void (*omp_set_num_threads)(int n); /* of the OpenMP that the library uses; may be NULL */
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

struct cmi_onednn_matmul {
    cmi_onednn *dnn;
    uint32_t n_rows, n_cols, n_k, n_threads;
    uint32_t n_copies, next_copy;
    uint8_t *x;
    int8_t *w; /* [n_k][n_cols], as the library takes it */
    float *y;
    uint8_t *packed; /* [n_copies][packed_bytes] */
    size_t packed_bytes;
    dnnl_memory_t x_memory, w_memory, y_memory;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
};

static bool find_functions(cmi_onednn *dnn)
{
    bool ok = true;
    void *symbol;
#define FIND(name)                                                                                 \
    symbol = dlsym(dnn->library, #name);                                                           \
    ok = ok && symbol != NULL;                                                                     \
    memcpy(&dnn->name, &symbol, sizeof symbol);
    DNNL_FUNCTIONS(FIND)
#undef FIND
    symbol = dlsym(dnn->library, "omp_set_num_threads");
    memcpy(&dnn->omp_set_num_threads, &symbol, sizeof symbol);
    return ok;
}

cmi_onednn *cmi_onednn_open(bool avx2_only, cmi_error *err)
{
    cmi_onednn *dnn = cmi_alloc(1, sizeof *dnn);
    dnn->library = dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (dnn->library == NULL) {
        cmi_error_set(err, CMI_ERR_NOT_FOUND, "%s", dlerror());
        cmi_free(dnn);
        return NULL;
    }
    bool ok = find_functions(dnn);
    if (ok) { /* fails when it is too late */
        (void)dnn->dnnl_set_max_cpu_isa(avx2_only ? dnnl_cpu_isa_avx2
                                                  : dnnl_cpu_isa_avx512_core_bf16);
    }
    ok = ok && dnn->dnnl_engine_create(&dnn->engine, dnnl_cpu, 0) == dnnl_success &&
         dnn->dnnl_stream_create(&dnn->stream, dnn->engine, dnnl_stream_default_flags) ==
             dnnl_success;
    if (!ok) {
        cmi_error_set(err, CMI_ERR_UNSUPPORTED, "libdnnl.so.2 cannot be used");
        cmi_onednn_close(dnn);
        return NULL;
    }
    return dnn;
}

void cmi_onednn_close(cmi_onednn *dnn)
{
    if (dnn == NULL) {
        return;
    }
    if (dnn->stream != NULL) {
        dnn->dnnl_stream_destroy(dnn->stream);
    }
    if (dnn->engine != NULL) {
        dnn->dnnl_engine_destroy(dnn->engine);
    }
    /* The library stays loaded: its threads may still be spinning. */
    cmi_free(dnn);
}

/* ---- one product ---- */

static bool memory_2d(const cmi_onednn *dnn, uint32_t n_rows, uint32_t n_cols,
                      dnnl_data_type_t type, dnnl_format_tag_t tag, dnnl_memory_desc_t *desc_out)
{
    dnnl_dims_t dims = {n_rows, n_cols};
    return dnn->dnnl_memory_desc_init_by_tag(desc_out, 2, dims, type, tag) == dnnl_success;
}

/* A primitive is made for the threads that there are when it is made. */
static void use_threads(const cmi_onednn_matmul *m)
{
    if (m->dnn->omp_set_num_threads != NULL) {
        m->dnn->omp_set_num_threads((int)m->n_threads);
    }
}

static bool make_desc(cmi_onednn_matmul *m, const dnnl_memory_desc_t *x,
                      const dnnl_memory_desc_t *w, const dnnl_memory_desc_t *y)
{
    const cmi_onednn *dnn = m->dnn;
    const int32_t zero_point = 128;
    float *scales = cmi_alloc(m->n_cols, sizeof *scales);
    for (uint32_t i = 0; i < m->n_cols; i++) {
        scales[i] = 1;
    }
    dnnl_primitive_attr_t attr = NULL;
    dnnl_matmul_desc_t matmul;
    bool ok =
        dnn->dnnl_primitive_attr_create(&attr) == dnnl_success &&
        dnn->dnnl_primitive_attr_set_output_scales(attr, m->n_cols, 1 << 1, scales) ==
            dnnl_success &&
        dnn->dnnl_primitive_attr_set_zero_points(attr, DNNL_ARG_SRC, 1, 0, &zero_point) ==
            dnnl_success &&
        dnn->dnnl_matmul_desc_init(&matmul, x, w, NULL, y) == dnnl_success &&
        dnn->dnnl_primitive_desc_create(&m->desc, &matmul, attr, dnn->engine, NULL) == dnnl_success;
    if (attr != NULL) {
        dnn->dnnl_primitive_attr_destroy(attr);
    }
    cmi_free(scales);
    return ok && dnn->dnnl_primitive_create(&m->primitive, m->desc) == dnnl_success;
}

/* Brings the weights into the form that the primitive asks for. */
static bool pack(cmi_onednn_matmul *m, const dnnl_memory_desc_t *packed_desc)
{
    const cmi_onednn *dnn = m->dnn;
    dnnl_memory_desc_t plain_desc;
    dnnl_memory_t plain = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    bool ok = memory_2d(dnn, m->n_k, m->n_cols, dnnl_s8, dnnl_ab, &plain_desc) &&
              dnn->dnnl_memory_create(&plain, &plain_desc, dnn->engine, m->w) == dnnl_success &&
              dnn->dnnl_reorder_primitive_desc_create(&desc, &plain_desc, dnn->engine, packed_desc,
                                                      dnn->engine, NULL) == dnnl_success &&
              dnn->dnnl_primitive_create(&reorder, desc) == dnnl_success;
    if (ok) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, m->w_memory}};
        ok = dnn->dnnl_primitive_execute(reorder, dnn->stream, CMI_LEN(args), args) ==
                 dnnl_success &&
             dnn->dnnl_stream_wait(dnn->stream) == dnnl_success;
    }
    if (reorder != NULL) {
        dnn->dnnl_primitive_destroy(reorder);
    }
    if (desc != NULL) {
        dnn->dnnl_primitive_desc_destroy(desc);
    }
    if (plain != NULL) {
        dnn->dnnl_memory_destroy(plain);
    }
    for (uint32_t i = 1; ok && i < m->n_copies; i++) {
        memcpy(m->packed + i * m->packed_bytes, m->packed, m->packed_bytes);
    }
    cmi_host_memory_collapse(m->packed, m->n_copies * m->packed_bytes);
    return ok;
}

static void make_operands(cmi_onednn_matmul *m)
{
    size_t n_x = (size_t)m->n_rows * m->n_k, n_w = (size_t)m->n_k * m->n_cols;
    m->x = cmi_alloc_aligned(n_x, CMI_CACHE_LINE);
    m->w = cmi_alloc_aligned(n_w, CMI_CACHE_LINE);
    m->y = cmi_alloc_aligned((size_t)m->n_rows * m->n_cols * sizeof *m->y, CMI_CACHE_LINE);
    cmi_bench_fill(m->x, n_x, 1);
    cmi_bench_fill(m->w, n_w, 2);
}

static bool make_matmul(cmi_onednn_matmul *m, cmi_error *err)
{
    const cmi_onednn *dnn = m->dnn;
    dnnl_memory_desc_t x, w, y;
    use_threads(m);
    make_operands(m);
    if (!memory_2d(dnn, m->n_rows, m->n_k, dnnl_u8, dnnl_ab, &x) ||
        !memory_2d(dnn, m->n_k, m->n_cols, dnnl_s8, dnnl_format_tag_any, &w) ||
        !memory_2d(dnn, m->n_rows, m->n_cols, dnnl_f32, dnnl_ab, &y) || !make_desc(m, &x, &w, &y)) {
        return false;
    }
    const dnnl_memory_desc_t *packed =
        dnn->dnnl_primitive_desc_query_md(m->desc, dnnl_query_weights_md, 0);
    m->packed_bytes = dnn->dnnl_memory_desc_get_size(packed);
    void *block;
    if (cmi_host_memory_map(&block, m->n_copies * m->packed_bytes, "oneDNN's weights", err) !=
        CMI_OK) {
        return false;
    }
    m->packed = block;
    return dnn->dnnl_memory_create(&m->x_memory, &x, dnn->engine, m->x) == dnnl_success &&
           dnn->dnnl_memory_create(&m->w_memory, packed, dnn->engine, m->packed) == dnnl_success &&
           dnn->dnnl_memory_create(&m->y_memory, &y, dnn->engine, m->y) == dnnl_success &&
           pack(m, packed);
}

/* A row's product with a column, in plain C; oneDNN may round in between. */
static bool is_right(const cmi_onednn_matmul *m, uint32_t row, uint32_t col)
{
    double want = 0;
    for (uint32_t k = 0; k < m->n_k; k++) {
        want += (m->x[(size_t)row * m->n_k + k] - 128) * m->w[(size_t)k * m->n_cols + col];
    }
    return fabs(want - (double)m->y[(size_t)row * m->n_cols + col]) <= 1e-4 * fabs(want) + 64;
}

cmi_onednn_matmul *cmi_onednn_matmul_create(cmi_onednn *dnn, uint32_t n_rows, uint32_t n_cols,
                                            uint32_t n_k, uint32_t n_threads, uint32_t n_copies,
                                            cmi_error *err)
{
    cmi_onednn_matmul *m = cmi_alloc(1, sizeof *m);
    *m = (cmi_onednn_matmul){.dnn = dnn,
                             .n_rows = n_rows,
                             .n_cols = n_cols,
                             .n_k = n_k,
                             .n_threads = n_threads,
                             .n_copies = n_copies};
    cmi_error_set(err, CMI_ERR_UNSUPPORTED, "oneDNN refuses this product");
    if (!make_matmul(m, err)) {
        cmi_onednn_matmul_destroy(m);
        return NULL;
    }
    cmi_onednn_matmul_run(m);
    if (!is_right(m, 0, 0) || !is_right(m, n_rows - 1, n_cols - 1)) {
        cmi_error_set(err, CMI_ERR_BAD_DATA, "oneDNN's product is another one than ours");
        cmi_onednn_matmul_destroy(m);
        return NULL;
    }
    return m;
}

void cmi_onednn_matmul_destroy(cmi_onednn_matmul *m)
{
    if (m == NULL) {
        return;
    }
    const dnnl_memory_t memories[] = {m->x_memory, m->w_memory, m->y_memory};
    for (size_t i = 0; i < CMI_LEN(memories); i++) {
        if (memories[i] != NULL) {
            m->dnn->dnnl_memory_destroy(memories[i]);
        }
    }
    if (m->primitive != NULL) {
        m->dnn->dnnl_primitive_destroy(m->primitive);
    }
    if (m->desc != NULL) {
        m->dnn->dnnl_primitive_desc_destroy(m->desc);
    }
    cmi_host_memory_unmap(m->packed, m->n_copies * m->packed_bytes);
    cmi_free(m->x);
    cmi_free(m->w);
    cmi_free(m->y);
    cmi_free(m);
}

void cmi_onednn_matmul_run(cmi_onednn_matmul *m)
{
    const cmi_onednn *dnn = m->dnn;
    use_threads(m);
    dnn->dnnl_memory_set_data_handle(m->w_memory, m->packed + m->next_copy * m->packed_bytes);
    m->next_copy = (m->next_copy + 1) % m->n_copies;
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, m->x_memory}, {DNNL_ARG_WEIGHTS, m->w_memory}, {DNNL_ARG_DST, m->y_memory}};
    (void)dnn->dnnl_primitive_execute(m->primitive, dnn->stream, CMI_LEN(args), args);
    (void)dnn->dnnl_stream_wait(dnn->stream);
}
