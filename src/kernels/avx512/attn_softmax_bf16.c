#include "kernels/avx512/attn_softmax.h"

static inline void store(void *p, size_t t, __m512 first, __m512 second, uint32_t n_vectors)
{
    const __m512bh both = _mm512_cvtne2ps_pbh(second, first);
    const __mmask32 mask = n_vectors > 1 ? ~(__mmask32)0 : (__mmask32)0xFFFF;
    _mm512_mask_storeu_epi16((cmi_bf16 *)p + t, mask, (__m512i)both);
}

void cmi_attn_softmax_bf16_avx512_bf16(const cmi_attn_softmax_args *args)
{
    softmax(args, store, sizeof(cmi_bf16));
}
