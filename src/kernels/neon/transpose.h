/* kernels/neon/transpose.h - 4 registers of 4 lanes, transposed. */
#ifndef CMI_KERNELS_NEON_TRANSPOSE_H
#define CMI_KERNELS_NEON_TRANSPOSE_H

#include <arm_neon.h>

static inline void transpose_4(uint32x4_t v[4])
{
    uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(v[0], v[1])); /* lanes 0 and 2 of rows 0, 1 */
    uint64x2_t b = vreinterpretq_u64_u32(vtrn2q_u32(v[0], v[1])); /* lanes 1 and 3 */
    uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(v[2], v[3])); /* of rows 2, 3 */
    uint64x2_t d = vreinterpretq_u64_u32(vtrn2q_u32(v[2], v[3]));
    v[0] = vreinterpretq_u32_u64(vzip1q_u64(a, c));
    v[1] = vreinterpretq_u32_u64(vzip1q_u64(b, d));
    v[2] = vreinterpretq_u32_u64(vzip2q_u64(a, c));
    v[3] = vreinterpretq_u32_u64(vzip2q_u64(b, d));
}

#endif
