/* From a MODEL argument to a directory. */
#include "tests/test.h"

#include "model/model_dir.h"
#include "tests/model/fixture.h"

static const cmi_model_dir_env no_env;

/* A Hugging Face cache at dir/hub with org/name, whose main snapshot is complete. */
static void make_cache(const temp_dir *dir)
{
    temp_mkdir(dir, "hub");
    temp_mkdir(dir, "hub/models--org--na.me");
    temp_mkdir(dir, "hub/models--org--na.me/blobs");
    temp_mkdir(dir, "hub/models--org--na.me/refs");
    temp_mkdir(dir, "hub/models--org--na.me/snapshots");
    temp_mkdir(dir, "hub/models--org--na.me/snapshots/0123abcd");
    temp_write_text(dir, "hub/models--org--na.me/blobs/77", "{}");
    temp_write_text(dir, "hub/models--org--na.me/refs/main", "0123abcd\n");
    temp_symlink(dir, "../../blobs/77", "hub/models--org--na.me/snapshots/0123abcd/config.json");
}

static void expect_dir(const char *model, const cmi_model_dir_env *env, const char *want)
{
    cmi_buf got;
    cmi_error err = {0};
    cmi_status st = cmi_model_dir_resolve(&got, model, env, &err);
    if (st != CMI_OK) {
        fail_msg("%s: %s", model, err.text);
    }
    assert_string_equal(cmi_buf_cstr(&got), want);
    cmi_buf_deinit(&got);
}

static void expect_error(const char *model, const cmi_model_dir_env *env, cmi_status want,
                         const char *says)
{
    cmi_buf got;
    cmi_error err = {0};
    cmi_status st = cmi_model_dir_resolve(&got, model, env, &err);
    if (st != want || strstr(err.text, says) == NULL) {
        fail_msg("%s: %d, %s", model, st, err.text);
    }
    cmi_buf_deinit(&got);
}

static void directories_cache_folders_and_names_lead_to_the_files(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    make_cache(&dir);
    char want[256];
    char hub[256];
    snprintf(want, sizeof want, "%s/hub/models--org--na.me/snapshots/0123abcd", dir.path);
    snprintf(hub, sizeof hub, "%s/hub", dir.path);
    expect_dir(want, &no_env, want);
    expect_dir(temp_path(&dir, "hub/models--org--na.me"), &no_env, want);
    expect_dir("org/na.me", &(cmi_model_dir_env){.hf_hub_cache = hub}, want);
    expect_dir("org/na.me", &(cmi_model_dir_env){.hf_home = dir.path, .home = "/none"}, want);
    expect_dir("org/na.me", &(cmi_model_dir_env){.hf_hub_cache = "", .hf_home = dir.path}, want);
    temp_dir_remove(&dir);
}

static void the_default_cache_is_below_home(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    make_cache(&dir);
    temp_mkdir(&dir, ".cache");
    temp_mkdir(&dir, ".cache/huggingface");
    temp_symlink(&dir, "../../hub", ".cache/huggingface/hub");
    char want[256];
    snprintf(want, sizeof want, "%s/.cache/huggingface/hub/models--org--na.me/snapshots/0123abcd",
             dir.path);
    expect_dir("org/na.me", &(cmi_model_dir_env){.home = dir.path}, want);
    const char *xdg = temp_path(&dir, ".cache");
    expect_dir("org/na.me", &(cmi_model_dir_env){.xdg_cache_home = xdg, .home = "/none"}, want);
    temp_dir_remove(&dir);
}

static void what_cannot_be_found_says_where_it_was_looked_for(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    cmi_model_dir_env env = {.hf_hub_cache = dir.path};
    char long_name[9000];
    memset(long_name, 'a', sizeof long_name);
    long_name[3] = '/';
    long_name[sizeof long_name - 1] = '\0';
    expect_error("org/name", &env, CMI_ERR_NOT_FOUND, dir.path);
    expect_error("org/name", &env, CMI_ERR_NOT_FOUND, "download it");
    expect_error("org/name", &no_env, CMI_ERR_NOT_FOUND, "neither HF_HOME nor HOME");
    expect_error(dir.path, &env, CMI_ERR_NOT_FOUND, "has no config.json");
    expect_error("name", &env, CMI_ERR_NOT_FOUND, "no such directory");
    expect_error("", &env, CMI_ERR_NOT_FOUND, "no such directory");
    expect_error("../..x/y", &env, CMI_ERR_NOT_FOUND, "no such directory");
    expect_error("/no/such", &env, CMI_ERR_NOT_FOUND, "no such directory");
    expect_error("a/b/c", &env, CMI_ERR_NOT_FOUND, "no such directory");
    expect_error("a/..", &env, CMI_ERR_NOT_FOUND, "no such directory");
    expect_error(long_name, &env, CMI_ERR_NOT_FOUND, "no such directory");
    temp_dir_remove(&dir);
}

static void broken_caches_are_refused(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    make_cache(&dir);
    const char ref[] = "hub/models--org--na.me/refs/main";
    char root[256];
    snprintf(root, sizeof root, "%s/hub/models--org--na.me", dir.path);
    temp_write_text(&dir, ref, "ffff");
    expect_error(root, &no_env, CMI_ERR_NOT_FOUND, "download is not complete");
    temp_write_text(&dir, ref, "../../../etc");
    expect_error(root, &no_env, CMI_ERR_BAD_DATA, "name of a snapshot");
    temp_write_text(&dir, ref, "");
    expect_error(root, &no_env, CMI_ERR_BAD_DATA, "name of a snapshot");
    temp_write(&dir, ref, "0123\0bcd", 8);
    expect_error(root, &no_env, CMI_ERR_BAD_DATA, "name of a snapshot");
    assert_int_equal(remove(temp_path(&dir, ref)), 0);
    expect_error(root, &no_env, CMI_ERR_NOT_FOUND, "refs/main");
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directories_cache_folders_and_names_lead_to_the_files),
        cmocka_unit_test(the_default_cache_is_below_home),
        cmocka_unit_test(what_cannot_be_found_says_where_it_was_looked_for),
        cmocka_unit_test(broken_caches_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
