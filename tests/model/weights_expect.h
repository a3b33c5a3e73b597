/* tests/model/weights_expect.h - loaded weights against the bytes of their files, element by
 * element and without the loader's code. */
#ifndef CMI_TESTS_MODEL_WEIGHTS_EXPECT_H
#define CMI_TESTS_MODEL_WEIGHTS_EXPECT_H

#include "model/checkpoint.h"
#include "model/weights.h"

typedef struct loaded {
    cmi_checkpoint files;
    cmi_model_config config;
    cmi_weights *weights;
    bool int8_head;
    uint64_t estimated_bytes;
    uint64_t last_done, last_total; /* as progress was reported */
} loaded;

/* What cmi_weights_options says about the types. */
typedef struct loaded_types {
    cmi_dtype dtype;
    bool int8_head;
} loaded_types;

/* Loads config and weights; *m is to be closed when that succeeds. */
cmi_status loaded_open(loaded *m, const char *dir, loaded_types types, uint32_t n_threads,
                       cmi_error *err);
void loaded_close(loaded *m);

/* Every weight has the value of its file's element, alignment and padding are as weights.h says,
 * and w_uk_t is the transpose. INT8 blocks are the nearest codes of each output (the file's own
 * codes where it is INT8), with the scales, the offsets and the zeros of kernels/int8.h. */
void loaded_expect_all(const loaded *m);

#endif
