/* The bundled models, tensor by tensor against the bytes of their files. Made-up and broken
 * checkpoints are in weights_files_test.c. */
#include "tests/test.h"

#include <stdlib.h>

#include "tests/model/weights_expect.h"

static const char *model_dir(const char *model)
{
    static char dir[512];
    const char *models = getenv("CMI_MODELS");
    assert_non_null(models);
    snprintf(dir, sizeof dir, "%s/%s", models, model);
    return dir;
}

static void bundled_model_loads(const char *model, loaded_types types, uint32_t n_threads)
{
    loaded m;
    cmi_error err = {0};
    if (loaded_open(&m, model_dir(model), types, n_threads, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(m.weights->dtype, types.dtype);
    assert_int_equal(m.weights->n_bytes, m.estimated_bytes);
    assert_non_null(m.weights->mtp);
    loaded_expect_all(&m);
    loaded_close(&m);
}

static void bf16_model_loads_as_f32(void **state)
{
    (void)state;
    bundled_model_loads("matrix-tiny", (loaded_types){CMI_DTYPE_F32}, 1);
}

static void bf16_model_loads_as_bf16(void **state)
{
    (void)state;
    bundled_model_loads("matrix-tiny", (loaded_types){CMI_DTYPE_BF16}, 3);
}

static void fp8_model_loads_as_f32(void **state)
{
    (void)state;
    bundled_model_loads("matrix-tiny-fp8", (loaded_types){CMI_DTYPE_F32}, 3);
}

static void fp8_model_loads_as_bf16(void **state)
{
    (void)state;
    bundled_model_loads("matrix-tiny-fp8", (loaded_types){CMI_DTYPE_BF16}, 1);
}

static void bf16_model_loads_as_int8(void **state)
{
    (void)state;
    bundled_model_loads("matrix-tiny", (loaded_types){CMI_DTYPE_I8, true}, 3);
}

static void fp8_model_loads_as_int8(void **state)
{
    (void)state;
    bundled_model_loads("matrix-tiny-fp8", (loaded_types){CMI_DTYPE_I8, false}, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_model_loads_as_f32),  cmocka_unit_test(bf16_model_loads_as_bf16),
        cmocka_unit_test(fp8_model_loads_as_f32),   cmocka_unit_test(fp8_model_loads_as_bf16),
        cmocka_unit_test(bf16_model_loads_as_int8), cmocka_unit_test(fp8_model_loads_as_int8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
