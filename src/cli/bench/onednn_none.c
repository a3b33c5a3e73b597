/* In place of onednn.c where the library's header is missing, and under sanitizers. */
#include "cli/bench/onednn.h"

cmi_onednn *cmi_onednn_open(bool avx2_only, cmi_error *err)
{
    (void)avx2_only;
    cmi_error_set(
        err, CMI_ERR_UNSUPPORTED,
        "built without the header of oneDNN 2 (Debian: libdnnl-dev), or under a sanitizer");
    return NULL;
}

void cmi_onednn_close(cmi_onednn *dnn)
{
    (void)dnn;
}

cmi_onednn_matmul *cmi_onednn_matmul_create(cmi_onednn *dnn, uint32_t n_rows, uint32_t n_cols,
                                            uint32_t n_k, uint32_t n_threads, uint32_t n_copies,
                                            cmi_error *err)
{
    (void)dnn, (void)n_rows, (void)n_cols, (void)n_k, (void)n_threads, (void)n_copies;
    cmi_error_set(err, CMI_ERR_UNSUPPORTED, "built without oneDNN");
    return NULL;
}

void cmi_onednn_matmul_destroy(cmi_onednn_matmul *matmul)
{
    (void)matmul;
}

void cmi_onednn_matmul_run(cmi_onednn_matmul *matmul)
{
    (void)matmul;
}
