/* A sequence's way through the prefix cache, step by step; random calls are in
 * prefix_model_test.c. */
#include "tests/test.h"

#include "base/alloc.h"
#include "policy/prefix_cache.h"

enum { N_PAGES = 16, N_BLOCKS = 4, MAX_KEYS = 8, SPACE = 77, OTHER_SPACE = 78 };

typedef struct fixture {
    cmi_page_pool *pool;
    cmi_prefix_cache *cache;
    uint64_t now_ns;
} fixture;

static fixture fixture_make(uint32_t n_blocks)
{
    const cmi_page_pool_options pool_opt = {.n_pages = N_PAGES, .lease_max_ns = 1000};
    const cmi_prefix_cache_options cache_opt = {.n_blocks = n_blocks};
    size_t pool_bytes = cmi_page_pool_bytes(&pool_opt);
    size_t cache_bytes = cmi_prefix_cache_bytes(&cache_opt);
    void *pool_memory = cmi_alloc_aligned(pool_bytes, CMI_CACHE_LINE);
    void *cache_memory = cmi_alloc_aligned(cache_bytes, CMI_CACHE_LINE);
    memset(cache_memory, 0xA5, cache_bytes); /* init relies on nothing */
    fixture f = {0};
    assert_int_equal(cmi_page_pool_init(&f.pool, pool_memory, pool_bytes, &pool_opt), CMI_OK);
    assert_int_equal(cmi_prefix_cache_init(&f.cache, cache_memory, cache_bytes, f.pool, &cache_opt),
                     CMI_OK);
    return f;
}

static void fixture_end(fixture *f)
{
    assert_true(cmi_prefix_cache_check(f->cache));
    cmi_prefix_cache_deinit(f->cache);
    assert_true(cmi_page_pool_check(f->pool));
    assert_int_equal(cmi_page_pool_count(f->pool, CMI_PAGE_FREE), N_PAGES);
    cmi_page_pool_deinit(f->pool);
    cmi_free(f->cache);
    cmi_free(f->pool);
}

/* The keys of a chain whose blocks are named by letters. */
static void keys_of(cmi_content_key keys[MAX_KEYS], const char *chain)
{
    for (size_t i = 0; i < strlen(chain); i++) {
        memset(&keys[i], 0, sizeof keys[i]);
        memcpy(keys[i].bytes, chain, i + 1);
        keys[i].bytes[8] = (uint8_t)chain[0]; /* what ghosts are told apart by */
        keys[i].bytes[9] = (uint8_t)i;
    }
}

static cmi_prefix_hit look(fixture *f, const char *chain, uint32_t prompt_tokens,
                           cmi_page_id pages[MAX_KEYS * CMI_BLOCK_PAGES])
{
    cmi_content_key keys[MAX_KEYS];
    cmi_page_id scratch[MAX_KEYS * CMI_BLOCK_PAGES];
    keys_of(keys, chain);
    cmi_prefix_query query = {.keys = keys,
                              .n_keys = (uint32_t)strlen(chain),
                              .prompt_tokens = prompt_tokens,
                              .space_tag = SPACE};
    cmi_prefix_hit hit;
    cmi_prefix_cache_lookup(f->cache, &query, &hit, pages == NULL ? scratch : pages);
    return hit;
}

static cmi_status insert(fixture *f, const char *chain, cmi_block_id parent, uint64_t owner,
                         cmi_prefix_inserted *out)
{
    cmi_content_key keys[MAX_KEYS];
    keys_of(keys, chain);
    cmi_prefix_block block = {
        .key = keys[strlen(chain) - 1], .space_tag = SPACE, .parent = parent, .owner = owner};
    cmi_status st =
        cmi_prefix_cache_acquire_pages(f->cache, f->now_ns, owner, CMI_BLOCK_PAGES, block.pages);
    assert_int_equal(st, CMI_OK);
    st = cmi_prefix_cache_insert(f->cache, ++f->now_ns, &block, out);
    if (st != CMI_OK) {
        cmi_page_pool_release(f->pool, owner, CMI_BLOCK_PAGES, block.pages);
    }
    return st;
}

/* Computes and inserts a whole chain; returns the hold. */
static cmi_block_id fill(fixture *f, const char *chain)
{
    cmi_prefix_hit hit = look(f, chain, (uint32_t)(strlen(chain) * 128 + 1), NULL);
    cmi_block_id tip = hit.tip;
    char part[MAX_KEYS + 1];
    for (uint32_t i = hit.n_blocks; i < strlen(chain); i++) {
        cmi_prefix_inserted got;
        snprintf(part, sizeof part, "%.*s", (int)i + 1, chain);
        assert_int_equal(insert(f, part, tip, 1, &got), CMI_OK);
        assert_false(got.is_duplicate);
        tip = got.tip;
    }
    return tip;
}

static void let_go(fixture *f, cmi_block_id tip)
{
    cmi_prefix_cache_release(f->cache, ++f->now_ns, tip);
}

static uint32_t cached(const fixture *f, const char *chain)
{
    cmi_content_key keys[MAX_KEYS];
    keys_of(keys, chain);
    return cmi_prefix_cache_probe(f->cache, keys, (uint32_t)strlen(chain));
}

static void expect_whole(const cmi_prefix_account *a)
{
    uint64_t sum = a->used;
    for (size_t i = 0; i < CMI_PREFIX_N_LOSSES; i++) {
        sum += a->lost[i];
    }
    assert_true(sum == a->prompt);
}

static void a_cached_prefix_is_read_where_it_lies(void **state)
{
    (void)state;
    fixture f = fixture_make(N_BLOCKS);
    cmi_block_id first = fill(&f, "ab");
    cmi_page_id pages[MAX_KEYS * CMI_BLOCK_PAGES];
    cmi_prefix_hit hit = look(&f, "abc", 3 * 128 + 7, pages);
    assert_int_equal(hit.n_blocks, 2);
    assert_true(hit.tip.idx == first.idx && hit.tip.gen == first.gen);
    cmi_block_info info;
    assert_true(cmi_prefix_cache_info(f.cache, hit.tip, &info));
    assert_int_equal(info.refs, 2);
    assert_int_equal(info.depth, 1);
    assert_memory_equal(info.pages, pages + CMI_BLOCK_PAGES, sizeof info.pages);
    for (uint32_t i = 0; i < 2 * CMI_BLOCK_PAGES; i++) {
        cmi_page_info page = cmi_page_pool_info(f.pool, pages[i].idx);
        assert_int_equal(page.state, CMI_PAGE_SEALED);
        assert_int_equal(page.refs, 3); /* the cache and two sequences */
    }
    let_go(&f, first);
    let_go(&f, hit.tip);
    assert_int_equal(cached(&f, "abc"), 2);
    fixture_end(&f);
}

static void every_token_is_used_or_lost_for_a_reason(void **state)
{
    (void)state;
    fixture f = fixture_make(N_BLOCKS);
    let_go(&f, fill(&f, "abc"));
    static const struct {
        const char *chain;
        uint32_t prompt_tokens, used, not_cached, partial_block, last_token;
    } cases[] = {
        {"", 0, 0, 0, 0, 0},        {"", 1, 0, 0, 1, 0},           {"", 127, 0, 0, 127, 0},
        {"a", 128, 0, 0, 0, 128},   {"a", 129, 128, 0, 1, 0},      {"abc", 384, 256, 0, 0, 128},
        {"abc", 385, 384, 0, 1, 0}, {"abcd", 514, 384, 128, 2, 0}, {"axc", 400, 128, 256, 16, 0},
        {"x", 200, 0, 128, 72, 0},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_prefix_hit hit = look(&f, cases[i].chain, cases[i].prompt_tokens, NULL);
        const cmi_prefix_account *a = &hit.account;
        expect_whole(a);
        assert_int_equal(a->prompt, cases[i].prompt_tokens);
        assert_int_equal(a->used, cases[i].used);
        assert_int_equal(a->available, cases[i].used);
        assert_int_equal(a->looked_up, cases[i].used + cases[i].not_cached);
        assert_int_equal(a->lost[CMI_PREFIX_LOSS_NOT_CACHED], cases[i].not_cached);
        assert_int_equal(a->lost[CMI_PREFIX_LOSS_PARTIAL_BLOCK], cases[i].partial_block);
        assert_int_equal(a->lost[CMI_PREFIX_LOSS_LAST_TOKEN], cases[i].last_token);
        let_go(&f, hit.tip);
    }
    fixture_end(&f);
}

static void losses_are_named(void **state)
{
    (void)state;
    fixture f = fixture_make(N_BLOCKS);
    let_go(&f, fill(&f, "ab"));
    cmi_content_key keys[MAX_KEYS];
    cmi_page_id pages[MAX_KEYS * CMI_BLOCK_PAGES];
    cmi_prefix_hit hit;
    keys_of(keys, "xy");
    cmi_prefix_query query = {
        .keys = keys, .n_keys = 2, .prompt_tokens = 300, .space_tag = OTHER_SPACE};
    cmi_prefix_cache_lookup(f.cache, &query, &hit, pages);
    assert_int_equal(hit.account.lost[CMI_PREFIX_LOSS_OTHER_NAMESPACE], 256);
    query.is_skipped = true;
    query.skip_reason = CMI_PREFIX_LOSS_PROMPT_LOGITS;
    cmi_prefix_cache_lookup(f.cache, &query, &hit, pages);
    assert_int_equal(hit.account.lost[CMI_PREFIX_LOSS_PROMPT_LOGITS], 256);
    assert_int_equal(hit.account.looked_up, 0);
    assert_int_equal(cmi_prefix_cache_evict(f.cache, f.now_ns, 1), 1);
    hit = look(&f, "ab", 300, NULL);
    assert_int_equal(hit.account.used, 128);
    assert_int_equal(hit.account.lost[CMI_PREFIX_LOSS_EVICTED], 128);
    expect_whole(&hit.account);
    let_go(&f, hit.tip);
    let_go(&f, fill(&f, "ab"));
    hit = look(&f, "ab", 300, NULL);
    assert_int_equal(hit.account.used, 256);
    let_go(&f, hit.tip);
    for (int i = 0; i < CMI_PREFIX_N_LOSSES; i++) {
        assert_true(strlen(cmi_prefix_loss_name((cmi_prefix_loss)i)) > 3);
    }
    fixture_end(&f);
}

static void accounts_are_corrected_and_added(void **state)
{
    (void)state;
    cmi_prefix_account a = {.prompt = 1000, .looked_up = 896, .available = 128, .used = 128};
    a.lost[CMI_PREFIX_LOSS_NOT_CACHED] = 256;
    a.lost[CMI_PREFIX_LOSS_EVICTED] = 512;
    a.lost[CMI_PREFIX_LOSS_PARTIAL_BLOCK] = 104;
    cmi_prefix_account_load(&a, 3);
    assert_int_equal(a.loaded, 384);
    assert_int_equal(a.used, 512);
    expect_whole(&a);
    cmi_prefix_account_blame(&a, 1, CMI_PREFIX_LOSS_LOAD_FAILED);
    cmi_prefix_account_drop(&a, 2, CMI_PREFIX_LOSS_CORRUPT);
    assert_int_equal(a.lost[CMI_PREFIX_LOSS_LOAD_FAILED], 128);
    assert_int_equal(a.lost[CMI_PREFIX_LOSS_CORRUPT], 256);
    assert_int_equal(a.used, 256);
    expect_whole(&a);
    cmi_prefix_account total = {0};
    cmi_prefix_account_add(&total, &a);
    cmi_prefix_account_add(&total, &a);
    assert_int_equal(total.prompt, 2000);
    assert_int_equal(total.loaded, 768);
    expect_whole(&total);
}

static void the_one_who_is_later_joins(void **state)
{
    (void)state;
    fixture f = fixture_make(N_BLOCKS);
    cmi_prefix_inserted a, b, c;
    assert_int_equal(insert(&f, "a", CMI_BLOCK_NONE, 1, &a), CMI_OK);
    assert_int_equal(insert(&f, "a", CMI_BLOCK_NONE, 2, &b), CMI_OK);
    assert_false(a.is_duplicate);
    assert_true(b.is_duplicate);
    assert_int_equal(a.tip.idx, b.tip.idx);
    assert_memory_equal(a.pages, b.pages, sizeof a.pages);
    assert_int_equal(cmi_page_pool_count(f.pool, CMI_PAGE_FREE), N_PAGES - CMI_BLOCK_PAGES);
    let_go(&f, a.tip);
    assert_int_equal(insert(&f, "ab", b.tip, 2, &c), CMI_OK);
    let_go(&f, c.tip);
    assert_int_equal(insert(&f, "a", CMI_BLOCK_NONE, 3, &b), CMI_OK); /* idle is found, too */
    assert_true(b.is_duplicate);
    let_go(&f, b.tip);
    assert_int_equal(cmi_prefix_cache_get_stats(f.cache).n_duplicates, 2);
    fixture_end(&f);
}

static void the_longest_idle_goes_first_and_children_before_parents(void **state)
{
    (void)state;
    fixture f = fixture_make(N_BLOCKS);
    cmi_block_id ab = fill(&f, "ab"), cd = fill(&f, "cd");
    let_go(&f, cd);
    let_go(&f, ab);
    let_go(&f, look(&f, "c", 129, NULL).tip); /* c is used again, d is not */
    static const struct {
        uint32_t ab, cd;
    } left[] = {{2, 1}, {1, 1}, {0, 1}, {0, 0}};
    for (size_t i = 0; i < CMI_LEN(left); i++) {
        assert_int_equal(cmi_prefix_cache_evict(f.cache, f.now_ns, 1), 1);
        assert_int_equal(cached(&f, "ab"), left[i].ab);
        assert_int_equal(cached(&f, "cd"), left[i].cd);
        assert_true(cmi_prefix_cache_check(f.cache));
    }
    assert_int_equal(cmi_prefix_cache_evict(f.cache, f.now_ns, 1), 0);
    fixture_end(&f);
}

static void a_full_table_evicts_or_refuses(void **state)
{
    (void)state;
    fixture f = fixture_make(N_BLOCKS);
    cmi_block_id abc = fill(&f, "abc"), x = fill(&f, "x");
    cmi_prefix_inserted got;
    assert_int_equal(insert(&f, "abcd", abc, 1, &got), CMI_ERR_NO_CAPACITY);
    let_go(&f, x);
    assert_int_equal(insert(&f, "abcd", abc, 1, &got), CMI_OK);
    assert_int_equal(cached(&f, "x"), 0);
    cmi_prefix_cache_stats stats = cmi_prefix_cache_get_stats(f.cache);
    assert_int_equal(stats.n_refused, 1);
    assert_int_equal(stats.n_evicted, 1);
    assert_int_equal(stats.n_blocks, N_BLOCKS);
    cmi_block_info info;
    assert_false(cmi_prefix_cache_info(f.cache, x, &info)); /* its place has a new owner */
    let_go(&f, got.tip);
    fixture_end(&f);
}

static void idle_blocks_make_room_for_pages(void **state)
{
    (void)state;
    fixture f = fixture_make(N_BLOCKS);
    cmi_page_id pages[N_PAGES];
    let_go(&f, fill(&f, "abcd"));
    cmi_prefix_hit hit = look(&f, "ab", 257, NULL);
    assert_int_equal(cmi_prefix_cache_room(f.cache), N_PAGES - 2 * CMI_BLOCK_PAGES);
    assert_int_equal(cmi_prefix_cache_acquire_pages(f.cache, f.now_ns, 9, 13, pages),
                     CMI_ERR_NO_CAPACITY);
    assert_int_equal(cached(&f, "abcd"), 4); /* nothing went in vain */
    assert_int_equal(cmi_prefix_cache_acquire_pages(f.cache, f.now_ns, 9, 9, pages), CMI_OK);
    assert_int_equal(cached(&f, "abcd"), 3);
    assert_int_equal(cmi_prefix_cache_acquire_pages(f.cache, f.now_ns, 9, 3, pages + 9), CMI_OK);
    assert_int_equal(cached(&f, "abcd"), 2);
    cmi_page_pool_release(f.pool, 9, 12, pages);
    let_go(&f, hit.tip);
    fixture_end(&f);
}

static void a_hold_can_be_doubled(void **state)
{
    (void)state;
    fixture f = fixture_make(N_BLOCKS);
    cmi_block_id tip = fill(&f, "ab");
    cmi_prefix_cache_hold(f.cache, tip);
    cmi_prefix_cache_hold(f.cache, CMI_BLOCK_NONE);
    let_go(&f, tip);
    assert_int_equal(cmi_prefix_cache_get_stats(f.cache).n_idle, 0);
    let_go(&f, tip);
    let_go(&f, CMI_BLOCK_NONE);
    assert_int_equal(cmi_prefix_cache_get_stats(f.cache).n_idle, 2);
    fixture_end(&f);
}

static void pages_that_a_peer_reads_are_free_after_the_lease(void **state)
{
    (void)state;
    fixture f = fixture_make(N_BLOCKS);
    cmi_page_id pages[MAX_KEYS * CMI_BLOCK_PAGES];
    let_go(&f, fill(&f, "a"));
    cmi_prefix_hit hit = look(&f, "a", 129, pages);
    assert_int_equal(cmi_page_pool_lease(f.pool, pages[0], 100, 50), CMI_OK);
    let_go(&f, hit.tip);
    assert_int_equal(cmi_prefix_cache_evict(f.cache, 120, UINT32_MAX), 1);
    assert_int_equal(cmi_page_pool_count(f.pool, CMI_PAGE_LEASED), 1);
    assert_int_equal(cmi_page_pool_expire(f.pool, 150), 1);
    fixture_end(&f);
}

static void without_blocks_nothing_is_cached(void **state)
{
    (void)state;
    fixture f = fixture_make(0);
    cmi_prefix_inserted got;
    assert_int_equal(insert(&f, "a", CMI_BLOCK_NONE, 1, &got), CMI_ERR_NO_CAPACITY);
    cmi_prefix_hit hit = look(&f, "ab", 300, NULL);
    assert_int_equal(hit.account.lost[CMI_PREFIX_LOSS_DISABLED], 256);
    assert_true(cmi_block_is_none(hit.tip));
    expect_whole(&hit.account);
    fixture_end(&f);
}

static void options_and_memory_are_checked(void **state)
{
    (void)state;
    fixture f = fixture_make(1);
    cmi_prefix_cache_options many = {CMI_PREFIX_CACHE_BLOCKS_MAX + 1u}, few = {1};
    cmi_prefix_cache *cache = NULL;
    CMI_ALIGNED(64) static uint8_t memory[4096];
    size_t n_bytes = cmi_prefix_cache_bytes(&few);
    assert_int_equal(cmi_prefix_cache_bytes(&many), 0);
    assert_int_equal(cmi_prefix_cache_init(&cache, memory, n_bytes - 1, f.pool, &few),
                     CMI_ERR_NO_MEMORY);
    assert_int_equal(cmi_prefix_cache_init(&cache, memory + 4, n_bytes, f.pool, &few),
                     CMI_ERR_INVALID);
    assert_null(cache);
    cmi_prefix_cache_deinit(NULL);
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cached_prefix_is_read_where_it_lies),
        cmocka_unit_test(every_token_is_used_or_lost_for_a_reason),
        cmocka_unit_test(losses_are_named),
        cmocka_unit_test(accounts_are_corrected_and_added),
        cmocka_unit_test(the_one_who_is_later_joins),
        cmocka_unit_test(the_longest_idle_goes_first_and_children_before_parents),
        cmocka_unit_test(a_full_table_evicts_or_refuses),
        cmocka_unit_test(idle_blocks_make_room_for_pages),
        cmocka_unit_test(a_hold_can_be_doubled),
        cmocka_unit_test(pages_that_a_peer_reads_are_free_after_the_lease),
        cmocka_unit_test(without_blocks_nothing_is_cached),
        cmocka_unit_test(options_and_memory_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
