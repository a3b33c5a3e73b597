/* cli/bench/onednn.h - oneDNN's INT8 matrix product, the peer that gemm_i8 is held against.
 *
 * The library is not one of ours: it is found when the bench runs (dlopen), if the binary was built
 * where its header is (Debian's libdnnl-dev), so that nothing else depends on it. oneDNN 2. */
#ifndef CMI_CLI_BENCH_ONEDNN_H
#define CMI_CLI_BENCH_ONEDNN_H

#include "cli/bench/rig.h"

typedef struct cmi_onednn cmi_onednn;

/* NULL, with why in err, where it is not to be had. It may use AVX2, or without avx2_only AVX-512
 * with VNNI and BF16, but no AMX, which none of our kernels uses; it keeps what the first call of
 * the process said. */
cmi_onednn *cmi_onednn_open(bool avx2_only, cmi_error *err);
void cmi_onednn_close(cmi_onednn *dnn); /* NULL is fine */

/* Y = X W^T as it does it best: X u8 with zero point 128, W s8 in its own packed form, Y float32
 * scaled for each column. (gemm_i8 also scales each row.) */
typedef struct cmi_onednn_matmul cmi_onednn_matmul;

/* Random operands, the weights in n_copies places, which calls use in turn. Checks the product
 * once. NULL, with why in err. */
cmi_onednn_matmul *cmi_onednn_matmul_create(cmi_onednn *dnn, uint32_t n_rows, uint32_t n_cols,
                                            uint32_t n_k, uint32_t n_threads, uint32_t n_copies,
                                            cmi_error *err);
void cmi_onednn_matmul_destroy(cmi_onednn_matmul *matmul); /* NULL is fine */

/* One product, by as many threads of its own. They go on spinning for some milliseconds. */
void cmi_onednn_matmul_run(cmi_onednn_matmul *matmul);

#endif
