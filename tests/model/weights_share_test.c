/* Weights that several loads of this host have together: who shares with whom, and that the bytes
 * are those of a load of one's own. */
#include "tests/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/strmap.h"
#include "model/weights_internal.h"
#include "tests/model/fixture.h"

static char share_dir[64];
static cmi_team *team;

static int setup(void **state)
{
    (void)state;
    cmi_error err;
    snprintf(share_dir, sizeof share_dir, "/dev/shm/cmi_test_XXXXXX");
    return mkdtemp(share_dir) == NULL || cmi_team_create(&team, 2, &err) != CMI_OK;
}

/* Fails unless everything in the directory is gone. */
static int teardown(void **state)
{
    (void)state;
    cmi_team_destroy(team);
    return rmdir(share_dir);
}

static const char *tiny(void)
{
    static char dir[512];
    const char *models = getenv("CMI_MODELS");
    assert_non_null(models);
    snprintf(dir, sizeof dir, "%s/matrix-tiny", models);
    return dir;
}

static cmi_weights_options options(cmi_dtype dtype)
{
    return (cmi_weights_options){
        .dtype = dtype, .with_mtp = true, .team = team, .share_dir = share_dir};
}

static cmi_weights *load(const char *dir, const cmi_weights_options *opt)
{
    cmi_model_config config;
    cmi_generation_config generation;
    cmi_weights *weights = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_model_config_load(&config, &generation, dir, &err), CMI_OK);
    if (cmi_weights_load(&weights, &config, dir, opt, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return weights;
}

static bool is_maker(const cmi_weights *weights)
{
    assert_non_null(weights->shared);
    return cmi_shared_block_is_maker(weights->shared);
}

static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16, CMI_DTYPE_I8};

static void shared_bytes_are_those_of_an_own_load(void **state)
{
    (void)state;
    for (size_t i = 0; i < CMI_LEN(dtypes); i++) {
        cmi_weights_options opt = options(dtypes[i]);
        cmi_weights_options own_opt = opt;
        own_opt.share_dir = NULL;
        cmi_weights *own = load(tiny(), &own_opt);
        cmi_weights *maker = load(tiny(), &opt);
        cmi_weights *user = load(tiny(), &opt);
        assert_null(own->shared);
        assert_true(is_maker(maker));
        assert_false(is_maker(user));
        assert_ptr_not_equal(maker->block, user->block);
        assert_int_equal(own->n_bytes, user->n_bytes);
        assert_memory_equal(own->block, maker->block, own->block_bytes);
        cmi_weights_destroy(maker);
        assert_memory_equal(own->block, user->block, own->block_bytes);
        /* The structs are the process's own and point into its own mapping. */
        const uint8_t *head = user->lm_head.w;
        assert_true(head >= user->block && head < user->block + user->block_bytes);
        cmi_weights_destroy(user);
        cmi_weights_destroy(own);
    }
}

static void other_options_are_other_weights(void **state)
{
    (void)state;
    cmi_weights_options all[] = {options(CMI_DTYPE_F32),  options(CMI_DTYPE_BF16),
                                 options(CMI_DTYPE_I8),   options(CMI_DTYPE_I8),
                                 options(CMI_DTYPE_BF16), options(CMI_DTYPE_I8)};
    cmi_weights *loaded[CMI_LEN(all)];
    all[3].int8_head = true;
    all[4].with_mtp = false;
    all[5].without_experts = true;
    for (size_t i = 0; i < CMI_LEN(all); i++) {
        loaded[i] = load(tiny(), &all[i]);
        assert_true(is_maker(loaded[i]));
    }
    for (size_t i = 0; i < CMI_LEN(all); i++) {
        cmi_weights_destroy(loaded[i]);
    }
}

/* The block is shared, the experts are each process's own. */
static void experts_are_set_beside_a_shared_block(void **state)
{
    (void)state;
    cmi_weights_options opt = options(CMI_DTYPE_BF16);
    opt.without_experts = true;
    cmi_weights *maker = load(tiny(), &opt), *user = load(tiny(), &opt);
    assert_true(is_maker(maker));
    assert_false(is_maker(user));
    assert_memory_equal(&maker->digest, &user->digest, sizeof user->digest);
    const uint8_t slab[2] = {0};
    const cmi_ffn ffn = {.gate_up = {.w = slab}, .down = {.w = slab + 1}};
    cmi_weights_set_expert(user, 2, 5, &ffn);
    assert_ptr_equal(user->layers[2].experts[5].gate_up.w, slab);
    assert_ptr_equal(user->layers[2].experts[5].down.w, slab + 1);
    assert_true(user->layers[2].experts[5].gate_up.stride > 0); /* as it was */
    assert_null(user->layers[2].experts[4].gate_up.w);
    assert_null(maker->layers[2].experts[5].gate_up.w);
    cmi_weights_destroy(maker);
    cmi_weights_destroy(user);
}

static void copy_file(const temp_dir *dir, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", tiny(), name);
    cmi_file_map map;
    assert_int_equal(cmi_file_map_open(&map, path, NULL), CMI_OK);
    temp_write(dir, name, map.data, map.n_bytes);
    cmi_file_map_close(&map);
}

static void the_files_decide_not_their_path(void **state)
{
    (void)state;
    temp_dir dir, linked;
    temp_dir_make(&dir);
    temp_dir_make(&linked);
    copy_file(&dir, "config.json");
    copy_file(&dir, "model.safetensors");
    temp_symlink(&linked, temp_path(&dir, "config.json"), "config.json");
    temp_symlink(&linked, temp_path(&dir, "model.safetensors"), "model.safetensors");
    cmi_weights_options opt = options(CMI_DTYPE_BF16);
    cmi_weights *first = load(dir.path, &opt);
    cmi_weights *same = load(linked.path, &opt);
    cmi_weights *equal = load(tiny(), &opt); /* the same bytes in another file */
    assert_true(is_maker(first));
    assert_false(is_maker(same));
    assert_true(is_maker(equal));
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, temp_path(&dir, "model.safetensors"), times, 0), 0);
    cmi_weights *changed = load(dir.path, &opt);
    assert_true(is_maker(changed));
    cmi_weights_destroy(changed);
    cmi_weights_destroy(equal);
    cmi_weights_destroy(same);
    cmi_weights_destroy(first);
    temp_dir_remove(&linked);
    temp_dir_remove(&dir);
}

static void taken_bytes_are_those_that_loading_will_not_take(void **state)
{
    (void)state;
    cmi_model_config config;
    cmi_generation_config generation;
    assert_int_equal(cmi_model_config_load(&config, &generation, tiny(), NULL), CMI_OK);
    cmi_weights_options opt = options(CMI_DTYPE_I8);
    cmi_weights_options own = opt, other = opt;
    own.share_dir = NULL;
    other.int8_head = true;
    assert_int_equal(cmi_weights_taken_bytes(&config, tiny(), &opt), 0);
    cmi_weights *weights = load(tiny(), &opt);
    assert_int_equal(cmi_weights_taken_bytes(&config, tiny(), &opt), weights->block_bytes);
    assert_int_equal(cmi_weights_taken_bytes(&config, tiny(), &own), 0);
    assert_int_equal(cmi_weights_taken_bytes(&config, tiny(), &other), 0);
    assert_int_equal(cmi_weights_taken_bytes(&config, "/none", &opt), 0);
    cmi_weights_destroy(weights);
}

static void a_directory_that_cannot_share_is_an_error(void **state)
{
    (void)state;
    cmi_model_config config;
    cmi_generation_config generation;
    cmi_error err = {0};
    cmi_weights *weights = NULL;
    cmi_weights_options opt = options(CMI_DTYPE_BF16);
    opt.share_dir = "/proc";
    assert_int_equal(cmi_model_config_load(&config, &generation, tiny(), &err), CMI_OK);
    assert_int_equal(cmi_weights_load(&weights, &config, tiny(), &opt, &err), CMI_ERR_INVALID);
    assert_non_null(strstr(err.text, "/proc: shared weights need a directory in memory"));
    assert_null(weights);
}

/* A process may map what another version of the program has packed: whoever changes the bytes has
 * to count CMI_WEIGHTS_LAYOUT up. So, when a digest here changes, count it up, and put both in. */
static void other_bytes_are_another_layout(void **state)
{
    (void)state;
    static const struct {
        cmi_dtype dtype;
        bool int8_head;
        uint64_t digest;
    } cases[] = {
        {CMI_DTYPE_F32, false, 0xb4045890634f948c},
        {CMI_DTYPE_BF16, false, 0x8811154e7a8f1f3e},
        {CMI_DTYPE_I8, false, 0x714fadd12dae6708},
        {CMI_DTYPE_I8, true, 0xb2f02acb717ba3d4},
    };
    assert_int_equal(CMI_WEIGHTS_LAYOUT, 2);
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_weights_options opt = options(cases[i].dtype);
        opt.int8_head = cases[i].int8_head;
        opt.share_dir = NULL;
        cmi_weights *weights = load(tiny(), &opt);
        uint64_t digest = cmi_hash_bytes(weights->block, weights->block_bytes);
        if (digest != cases[i].digest) {
            fail_msg("case %zu: the digest is 0x%016llx", i, (unsigned long long)digest);
        }
        cmi_weights_destroy(weights);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(shared_bytes_are_those_of_an_own_load, setup, teardown),
        cmocka_unit_test_setup_teardown(other_options_are_other_weights, setup, teardown),
        cmocka_unit_test_setup_teardown(experts_are_set_beside_a_shared_block, setup, teardown),
        cmocka_unit_test_setup_teardown(the_files_decide_not_their_path, setup, teardown),
        cmocka_unit_test_setup_teardown(taken_bytes_are_those_that_loading_will_not_take, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_directory_that_cannot_share_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(other_bytes_are_another_layout, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
