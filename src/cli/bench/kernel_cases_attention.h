/* cli/bench/kernel_cases_attention.h - the attention kernels' part of kernel_cases.h. */
#ifndef CMI_CLI_BENCH_KERNEL_CASES_ATTENTION_H
#define CMI_CLI_BENCH_KERNEL_CASES_ATTENTION_H

#include "cli/bench/kernel_cases.h"

/* Both operand types: what lies in memory is a sane number as either. */
cmi_bench_call_fn cmi_bench_call_attn_scores, cmi_bench_call_attn_latent_scores,
    cmi_bench_call_attn_softmax, cmi_bench_call_attn_values, cmi_bench_call_attn_merge,
    cmi_bench_call_attn_pack, cmi_bench_call_attn_dequantize;

/* The cases of a kernel whose name begins with "attn": DeepSeek-V3's shapes, and 16 heads. */
size_t cmi_bench_attn_cases(const char *kernel, cmi_bench_case cases_out[CMI_BENCH_MAX_CASES]);

#endif
