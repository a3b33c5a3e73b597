/* kernels/ref/lanes.h - the 16 lanes of a sum, and the tree that adds them. */
#ifndef CMI_KERNELS_REF_LANES_H
#define CMI_KERNELS_REF_LANES_H

#include "base/compiler.h"

enum { CMI_LANES = 16 };

/* Lane l with l + 8, then + 4, + 2, + 1. Overwrites the lanes. */
static inline float cmi_lanes_sum(float lanes[CMI_LANES])
{
    for (uint32_t half = CMI_LANES / 2; half > 0; half /= 2) {
        for (uint32_t l = 0; l < half; l++) {
            lanes[l] += lanes[l + half];
        }
    }
    return lanes[0];
}

#endif
