#include "tests/test.h"

#include "base/rng.h"
#include "engine/kv_pool.h"

enum { N_PAGES = 20 };

static void pages_have_one_owner_at_a_time(void **state)
{
    (void)state;
    const cmi_kv_layout layout = {.dtype = CMI_DTYPE_BF16, .n_layers = 1, .page_bytes = 4096};
    cmi_kv_pool pool;
    cmi_error err = {0};
    assert_int_equal(cmi_kv_pool_init(&pool, &layout, N_PAGES, NULL, &err), CMI_OK);
    uint32_t held[N_PAGES];
    uint32_t n_held = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        uint32_t n = (uint32_t)(cmi_philox_uniform(3, i, 0) * 8);
        if (cmi_philox_uniform(3, i, 1) < 0.5f) {
            cmi_status st = cmi_kv_pool_acquire(&pool, n, held + n_held);
            assert_int_equal(st, n <= N_PAGES - n_held ? CMI_OK : CMI_ERR_NO_CAPACITY);
            n_held += st == CMI_OK ? n : 0;
        } else {
            n = CMI_MIN(n, n_held);
            n_held -= n;
            cmi_kv_pool_release(&pool, n, held + n_held);
        }
        assert_int_equal(pool.n_free, N_PAGES - n_held);
        uint32_t seen = 0;
        for (uint32_t k = 0; k < n_held; k++) {
            assert_false(seen >> held[k] & 1);
            seen |= 1u << held[k];
        }
    }
    cmi_kv_pool_release(&pool, n_held, held);
    cmi_kv_pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pages_have_one_owner_at_a_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
