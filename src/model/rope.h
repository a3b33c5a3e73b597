/* model/rope.h - rotary position embedding: tables of cos and sin, with YaRN.
 *
 * The tables are computed once in float64 with our own sin, cos, exp and log, so that every host
 * and C library gives the same bits, and then rounded to float32. */
#ifndef CMI_MODEL_ROPE_H
#define CMI_MODEL_ROPE_H

#include "model/config.h"

typedef struct cmi_rope {
    float *cos_sin; /* [n_positions][2][n_pairs]: cos of a position's pairs, then sin */
    uint32_t n_positions;
    uint32_t n_pairs; /* qk_rope_head_dim / 2 */
} cmi_rope;

/* Tables for positions 0 .. n_positions-1. */
void cmi_rope_init(cmi_rope *rope, const cmi_model_config *config, uint32_t n_positions);
void cmi_rope_deinit(cmi_rope *rope); /* NULL or zeroed is fine */

static inline const float *cmi_rope_cos(const cmi_rope *rope, uint32_t position)
{
    return rope->cos_sin + (size_t)position * 2 * rope->n_pairs;
}

static inline const float *cmi_rope_sin(const cmi_rope *rope, uint32_t position)
{
    return cmi_rope_cos(rope, position) + rope->n_pairs;
}

/* The factor of attention scores: (nope + rope)^-1/2, times mscale^2 under YaRN. */
float cmi_rope_softmax_scale(const cmi_model_config *config);

#endif
