#include "model/rope.h"

#include <math.h>

#include "base/alloc.h"

/* ---- float64 functions from additions, multiplications and divisions only
 * ------------------------
 *
 * libm's pow, sin and cos differ in the last bit between versions and architectures; after rounding
 * to float32 that would rarely, but sometimes, show. */

static const double LN2 = 0.693147180559945309417;
static const double PI = 3.14159265358979323846;

/* ln x for x > 0: x = m 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m-1)/(m+1)). */
static double log_f64(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752440) {
        m *= 2;
        e--;
    }
    double t = (m - 1) / (m + 1);
    double t2 = t * t;
    double sum = 0;
    for (int k = 27; k >= 1; k -= 2) {
        sum = sum * t2 + 1.0 / k;
    }
    return 2 * t * sum + e * LN2;
}

/* e^x for |x| < 700: x = n ln2 + r, Taylor series of e^r. */
static double exp_f64(double x)
{
    double n = floor(x / LN2 + 0.5);
    double r = x - n * LN2;
    double sum = 1;
    for (int k = 18; k >= 1; k--) {
        sum = 1 + sum * r / k;
    }
    return ldexp(sum, (int)n);
}

/* cos and sin of 0 <= x < 2^24: x = n pi/2 + r with pi/2 in three parts (Cody and Waite), then
 * Taylor series on |r| <= pi/4. x's own rounding included, r is off by less than 2^-29: a thirtieth
 * of the last place of the float32 that cos and sin become. */
static void cos_sin_f64(double x, double *cos_out, double *sin_out)
{
    static const double half_pi_1 = 0x1.921fb544p+0;  /* 33 bits: n * part is exact for n < 2^20 */
    static const double half_pi_2 = 0x1.0b4611a6p-34; /* the next 33 */
    static const double half_pi_3 = 0x1.3198a2e037073p-69; /* the rest */
    double n = floor(x / (PI / 2) + 0.5);
    double r = ((x - n * half_pi_1) - n * half_pi_2) - n * half_pi_3;
    double r2 = r * r;
    double c = 1;
    double s = 1;
    for (int k = 20; k >= 2; k -= 2) {
        c = 1 - c * r2 / (k * (k - 1));
        s = 1 - s * r2 / (k * (k + 1));
    }
    s *= r;
    switch ((int)fmod(n, 4)) {
    case 0:
        *cos_out = c, *sin_out = s;
        break;
    case 1:
        *cos_out = -s, *sin_out = c;
        break;
    case 2:
        *cos_out = -c, *sin_out = -s;
        break;
    default:
        *cos_out = s, *sin_out = -c;
        break;
    }
}

/* ---- YaRN (Peng et al., arXiv 2309.00071)
 * --------------------------------------------------------- */

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log_f64(factor) + 1;
}

/* The pair index, as a real number, whose wave turns n_turns times in the original context. */
static double yarn_turning_pair(const cmi_model_config *config, double n_turns)
{
    double length = config->rope_scaling.original_max_position_embeddings;
    return config->qk_rope_head_dim * log_f64(length / (n_turns * 2 * PI)) /
           (2 * log_f64(config->rope_theta));
}

/* The frequency of pair i: interpolated for long waves, unchanged for short ones, a ramp between.
 */
static double pair_frequency(const cmi_model_config *config, uint32_t pair_idx)
{
    const cmi_rope_scaling *scaling = &config->rope_scaling;
    double dim = config->qk_rope_head_dim;
    double frequency = exp_f64(-2.0 * pair_idx / dim * log_f64(config->rope_theta));
    if (!scaling->is_yarn) {
        return frequency;
    }
    double low = CMI_MAX(floor(yarn_turning_pair(config, scaling->beta_fast)), 0.0);
    double high = CMI_MIN(ceil(yarn_turning_pair(config, scaling->beta_slow)), dim - 1);
    if (low == high) {
        high += 0.001; /* as published: no division by zero */
    }
    double ramp = (pair_idx - low) / (high - low);
    ramp = CMI_MIN(CMI_MAX(ramp, 0.0), 1.0);
    return frequency / scaling->factor * ramp + frequency * (1 - ramp);
}

void cmi_rope_init(cmi_rope *rope, const cmi_model_config *config, uint32_t n_positions)
{
    uint32_t n_pairs = config->qk_rope_head_dim / 2;
    *rope = (cmi_rope){.n_positions = n_positions, .n_pairs = n_pairs};
    rope->cos_sin = cmi_alloc((size_t)n_positions * 2 * n_pairs, sizeof(float));
    const cmi_rope_scaling *scaling = &config->rope_scaling;
    double amplitude = 1;
    if (scaling->is_yarn) {
        amplitude = yarn_mscale(scaling->factor, scaling->mscale) /
                    yarn_mscale(scaling->factor, scaling->mscale_all_dim);
    }
    for (uint32_t i = 0; i < n_pairs; i++) {
        double frequency = pair_frequency(config, i);
        for (uint32_t position = 0; position < n_positions; position++) {
            double c;
            double s;
            cos_sin_f64(position * frequency, &c, &s);
            float *row = rope->cos_sin + (size_t)position * 2 * n_pairs;
            row[i] = (float)(c * amplitude);
            row[n_pairs + i] = (float)(s * amplitude);
        }
    }
}

void cmi_rope_deinit(cmi_rope *rope)
{
    if (rope != NULL) {
        cmi_free(rope->cos_sin);
        *rope = (cmi_rope){0};
    }
}

float cmi_rope_softmax_scale(const cmi_model_config *config)
{
    const cmi_rope_scaling *scaling = &config->rope_scaling;
    double scale = 1 / sqrt((double)(config->qk_nope_head_dim + config->qk_rope_head_dim));
    if (scaling->is_yarn && scaling->mscale_all_dim != 0) {
        double mscale = yarn_mscale(scaling->factor, scaling->mscale_all_dim);
        scale *= mscale * mscale;
    }
    return (float)scale;
}
