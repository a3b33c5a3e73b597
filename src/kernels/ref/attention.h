/* kernels/ref/attention.h - how a block's softmax joins those before it (kernels/attention.h). */
#ifndef CMI_KERNELS_REF_ATTENTION_H
#define CMI_KERNELS_REF_ATTENTION_H

#include "kernels/ref/math.h"

static inline void cmi_softmax_merge_ref(float m_b, float l_b, float *m, float *l, float *alpha_out,
                                         float *beta_out)
{
    if (m_b == -INFINITY) {
        *alpha_out = 1.0f;
        *beta_out = 0.0f;
        return;
    }
    const float max = m_b > *m ? m_b : *m;
    *alpha_out = cmi_expf_ref(*m - max);
    *beta_out = cmi_expf_ref(m_b - max);
    *l = fmaf(*l, *alpha_out, l_b * *beta_out);
    *m = max;
}

#endif
