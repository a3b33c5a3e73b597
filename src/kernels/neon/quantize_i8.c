#include "kernels/neon/lanes.h"
#include "kernels/neon/rms.h"

/* What turns a row of the greatest magnitude amax into bytes; see cmi_quantize_i8_ref. */
typedef struct i8_scale {
    float inverse, scale;
} i8_scale;

static i8_scale scale_of(float32x4_t amax_lanes)
{
    const float amax = vmaxvq_f32(amax_lanes);
    const bool is_zero = amax < 1e-30f;
    return (i8_scale){is_zero ? 0.0f : 127.0f / amax, is_zero ? 0.0f : amax / 127.0f};
}

/* Four values as integers; the conversion rounds as rintf does. */
static inline int16x4_t quantized(float32x4_t v, float32x4_t inverse)
{
    return vmovn_s32(vcvtnq_s32_f32(vmulq_f32(v, inverse)));
}

/* The first n of 8 values to bytes. */
static inline void store_bytes(uint8_t *q, size_t n, int16x4_t lo, int16x4_t hi)
{
    uint8x8_t bytes = vreinterpret_u8_s8(vmovn_s16(vcombine_s16(lo, hi)));
    bytes = veor_u8(bytes, vdup_n_u8(CMI_I8_ZERO)); /* + 128 */
    if (n >= 8) {
        vst1_u8(q, bytes);
    } else {
        uint8_t tail[8];
        vst1_u8(tail, bytes);
        memcpy(q, tail, n);
    }
}

void cmi_quantize_i8_neon(const float *x, uint32_t n, uint8_t *q, float *scale_out)
{
    float32x4_t amax[LANES_REGISTERS];
    for (size_t j = 0; j < LANES_REGISTERS; j++) {
        amax[j] = vdupq_n_f32(0.0f);
    }
    for (size_t i = 0; i < n; i += CMI_LANES) {
        for (size_t j = 0; j < LANES_REGISTERS; j++) {
            float32x4_t v = lanes_load(x, i + j * LANES_QUARTER, n);
            amax[j] = vmaxq_f32(amax[j], vabsq_f32(v));
        }
    }
    const i8_scale s =
        scale_of(vmaxq_f32(vmaxq_f32(amax[0], amax[1]), vmaxq_f32(amax[2], amax[3])));
    const float32x4_t inverse = vdupq_n_f32(s.inverse);
    for (size_t i = 0; i < n; i += 2 * LANES_QUARTER) {
        store_bytes(q + i, n - i, quantized(lanes_load(x, i, n), inverse),
                    quantized(lanes_load(x, i + LANES_QUARTER, n), inverse));
    }
    *scale_out = s.scale;
}

static inline float32x4_t normed(const float *x, const float *w, float32x4_t scale, size_t i,
                                 size_t n)
{
    return vmulq_f32(vmulq_f32(lanes_load(x, i, n), scale), lanes_load(w, i, n));
}

void cmi_rmsnorm_quantize_i8_neon(const float *x, const float *w, float eps, uint32_t n, float *y,
                                  uint8_t *q, float *scale_out)
{
    const float32x4_t scale = vdupq_n_f32(rms_scale(x, eps, n));
    float32x4_t amax = vdupq_n_f32(0.0f);
    for (size_t i = 0; i < n; i += LANES_QUARTER) {
        float32x4_t v = normed(x, w, scale, i, n);
        amax = vmaxq_f32(amax, vabsq_f32(v));
        if (y != NULL) {
            lanes_store(y, i, n, v);
        }
    }
    const i8_scale s = scale_of(amax);
    const float32x4_t inverse = vdupq_n_f32(s.inverse);
    for (size_t i = 0; i < n; i += 2 * LANES_QUARTER) {
        store_bytes(q + i, n - i, quantized(normed(x, w, scale, i, n), inverse),
                    quantized(normed(x, w, scale, i + LANES_QUARTER, n), inverse));
    }
    *scale_out = s.scale;
}
