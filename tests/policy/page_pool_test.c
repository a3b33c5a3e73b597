/* The life of a page, step by step; random calls are in prefix_model_test.c. */
#include "tests/test.h"

#include "base/alloc.h"
#include "policy/page_pool.h"

enum { N_PAGES = 5, N_CHECKSUMS = 3, LEASE_MAX_NS = 1000 };

static const cmi_page_pool_options options = {N_PAGES, N_CHECKSUMS, LEASE_MAX_NS};

static int setup(void **state)
{
    size_t n_bytes = cmi_page_pool_bytes(&options);
    void *memory = cmi_alloc_aligned(n_bytes, CMI_CACHE_LINE);
    memset(memory, 0xA5, n_bytes); /* init relies on nothing */
    cmi_page_pool *pool;
    assert_int_equal(cmi_page_pool_init(&pool, memory, n_bytes, &options), CMI_OK);
    *state = pool;
    return 0;
}

static int teardown(void **state)
{
    cmi_page_pool *pool = *state;
    assert_true(cmi_page_pool_check(pool));
    cmi_page_pool_deinit(pool);
    cmi_free(pool); /* it begins where its memory does */
    return 0;
}

static cmi_page_id take(cmi_page_pool *pool, uint64_t owner)
{
    cmi_page_id id;
    assert_int_equal(cmi_page_pool_acquire(pool, owner, 1, &id), CMI_OK);
    return id;
}

static cmi_page_state state_of(const cmi_page_pool *pool, cmi_page_id id)
{
    return cmi_page_pool_info(pool, id.idx).state;
}

static void options_and_memory_are_checked(void **state)
{
    (void)state;
    cmi_page_pool_options none = {0}, many = {CMI_PAGE_POOL_PAGES_MAX + 1u, 0, 0};
    cmi_page_pool *pool = NULL;
    CMI_ALIGNED(64) static uint8_t memory[4096];
    size_t n_bytes = cmi_page_pool_bytes(&options);
    assert_true(n_bytes > 0 && n_bytes < sizeof memory);
    assert_int_equal(cmi_page_pool_bytes(&none), 0);
    assert_int_equal(cmi_page_pool_bytes(&many), 0);
    assert_int_equal(cmi_page_pool_init(&pool, memory, sizeof memory, &none), CMI_ERR_INVALID);
    assert_int_equal(cmi_page_pool_init(&pool, memory + 8, n_bytes, &options), CMI_ERR_INVALID);
    assert_int_equal(cmi_page_pool_init(&pool, memory, n_bytes - 1, &options), CMI_ERR_NO_MEMORY);
    assert_null(pool);
    cmi_page_pool_deinit(NULL);
}

static void acquiring_takes_all_or_none(void **state)
{
    cmi_page_pool *pool = *state;
    cmi_page_id ids[N_PAGES + 1];
    assert_int_equal(cmi_page_pool_acquire(pool, 1, N_PAGES + 1, ids), CMI_ERR_NO_CAPACITY);
    assert_int_equal(cmi_page_pool_acquire(pool, 1, 0, ids), CMI_OK);
    assert_int_equal(cmi_page_pool_acquire(pool, 1, 3, ids), CMI_OK);
    assert_int_equal(cmi_page_pool_acquire(pool, 2, 3, ids + 3), CMI_ERR_NO_CAPACITY);
    assert_int_equal(cmi_page_pool_count(pool, CMI_PAGE_FREE), 2);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(ids[i].idx, i);
        assert_int_equal(cmi_page_pool_info(pool, i).owner, 1);
    }
    cmi_page_pool_release(pool, 1, 3, ids);
    assert_int_equal(cmi_page_pool_count(pool, CMI_PAGE_FREE), N_PAGES);
}

static void an_id_does_not_outlive_its_page(void **state)
{
    cmi_page_pool *pool = *state;
    cmi_page_id old = take(pool, 1);
    assert_true(cmi_page_pool_is_live(pool, old));
    cmi_page_pool_unref(pool, old);
    assert_false(cmi_page_pool_is_live(pool, old));
    cmi_page_id young = take(pool, 2);
    assert_int_equal(young.idx, old.idx);
    assert_false(cmi_page_pool_is_live(pool, old));
    assert_true(cmi_page_pool_is_live(pool, young));
    assert_false(cmi_page_pool_is_live(pool, (cmi_page_id){N_PAGES, 1}));
    assert_int_equal(cmi_page_pool_lease(pool, old, 0, 1), CMI_ERR_NOT_FOUND);
    assert_int_equal(cmi_page_pool_lease_end(pool, (cmi_page_id){N_PAGES, 1}), CMI_ERR_NOT_FOUND);
    cmi_page_pool_unref(pool, young);
}

static void a_sealed_page_lives_as_long_as_its_last_holder(void **state)
{
    cmi_page_pool *pool = *state;
    cmi_page_id id = take(pool, 1);
    cmi_page_pool_seal(pool, 1, id);
    cmi_page_pool_ref(pool, id);
    cmi_page_pool_release(pool, 1, 1, &id);
    assert_int_equal(state_of(pool, id), CMI_PAGE_SEALED);
    assert_true(cmi_page_pool_is_live(pool, id));
    cmi_page_pool_unref(pool, id);
    assert_int_equal(state_of(pool, id), CMI_PAGE_FREE);
}

static void checksums_belong_to_a_page_and_begin_as_zeros(void **state)
{
    cmi_page_pool *pool = *state;
    static const uint32_t zeros[N_CHECKSUMS];
    cmi_page_id a = take(pool, 1), b = take(pool, 1);
    memset(cmi_page_pool_checksums(pool, a), 0xFF, sizeof zeros);
    assert_memory_equal(cmi_page_pool_checksums(pool, b), zeros, sizeof zeros);
    cmi_page_pool_unref(pool, a);
    a = take(pool, 1);
    assert_memory_equal(cmi_page_pool_checksums(pool, a), zeros, sizeof zeros);
    cmi_page_pool_release(pool, 1, 1, &a);
    cmi_page_pool_release(pool, 1, 1, &b);
}

static void a_leased_page_is_free_when_the_peer_is_done(void **state)
{
    cmi_page_pool *pool = *state;
    cmi_page_id id = take(pool, 1);
    assert_int_equal(cmi_page_pool_lease(pool, id, 10, 100), CMI_OK);
    assert_int_equal(cmi_page_pool_lease(pool, id, 20, 100), CMI_OK);
    cmi_page_pool_unref(pool, id);
    assert_int_equal(state_of(pool, id), CMI_PAGE_LEASED);
    assert_false(cmi_page_pool_is_live(pool, id));
    assert_int_equal(cmi_page_pool_lease(pool, id, 20, 100), CMI_ERR_NOT_FOUND);
    assert_int_equal(cmi_page_pool_lease_end(pool, id), CMI_OK);
    assert_int_equal(state_of(pool, id), CMI_PAGE_LEASED);
    assert_int_equal(cmi_page_pool_lease_end(pool, id), CMI_OK);
    assert_int_equal(state_of(pool, id), CMI_PAGE_FREE);
    assert_int_equal(cmi_page_pool_lease_end(pool, id), CMI_ERR_NOT_FOUND);
}

static void a_lease_ends_by_itself(void **state)
{
    cmi_page_pool *pool = *state;
    cmi_page_id ids[3];
    static const uint64_t for_ns[] = {100, 10, UINT64_MAX}; /* the last is cut to LEASE_MAX_NS */
    for (size_t i = 0; i < CMI_LEN(ids); i++) {
        ids[i] = take(pool, 1);
        assert_int_equal(cmi_page_pool_lease(pool, ids[i], 50, for_ns[i]), CMI_OK);
    }
    assert_int_equal(cmi_page_pool_expire(pool, 1000000), 0); /* all are held */
    cmi_page_pool_release(pool, 1, 3, ids);
    assert_int_equal(cmi_page_pool_expire(pool, 59), 0);
    assert_int_equal(cmi_page_pool_expire(pool, 60), 1);
    assert_int_equal(state_of(pool, ids[1]), CMI_PAGE_FREE);
    assert_int_equal(cmi_page_pool_lease_end(pool, ids[1]), CMI_ERR_NOT_FOUND);
    assert_true(cmi_page_pool_check(pool));
    assert_int_equal(cmi_page_pool_expire(pool, 50 + LEASE_MAX_NS - 1), 1);
    assert_int_equal(cmi_page_pool_expire(pool, 50 + LEASE_MAX_NS), 1);
    assert_int_equal(cmi_page_pool_count(pool, CMI_PAGE_FREE), N_PAGES);
}

static void leases_that_ran_out_do_not_count_with_new_ones(void **state)
{
    cmi_page_pool *pool = *state;
    cmi_page_id id = take(pool, 1);
    assert_int_equal(cmi_page_pool_lease(pool, id, 0, 10), CMI_OK);
    assert_int_equal(cmi_page_pool_lease(pool, id, 500, 10), CMI_OK);
    assert_int_equal(cmi_page_pool_info(pool, id.idx).n_leases, 1);
    cmi_page_pool_unref(pool, id);
    assert_int_equal(cmi_page_pool_lease_end(pool, id), CMI_OK);
    assert_int_equal(state_of(pool, id), CMI_PAGE_FREE);
    id = take(pool, 1);
    assert_int_equal(cmi_page_pool_lease(pool, id, UINT64_MAX - 5, 10), CMI_OK);
    assert_true(cmi_page_pool_info(pool, id.idx).lease_end_ns == UINT64_MAX);
    cmi_page_pool_unref(pool, id);
    assert_int_equal(cmi_page_pool_expire(pool, UINT64_MAX - 1), 0);
    assert_int_equal(cmi_page_pool_expire(pool, UINT64_MAX), 1);
}

#define WITH_POOL(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_memory_are_checked),
        WITH_POOL(acquiring_takes_all_or_none),
        WITH_POOL(an_id_does_not_outlive_its_page),
        WITH_POOL(a_sealed_page_lives_as_long_as_its_last_holder),
        WITH_POOL(checksums_belong_to_a_page_and_begin_as_zeros),
        WITH_POOL(a_leased_page_is_free_when_the_peer_is_done),
        WITH_POOL(a_lease_ends_by_itself),
        WITH_POOL(leases_that_ran_out_do_not_count_with_new_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
