/* A directory of safetensors files: single, sharded, and contradicting its index. */
#include "tests/test.h"

#include "model/checkpoint.h"
#include "tests/model/fixture.h"

static const char index_name[] = "model.safetensors.index.json";

/* A shard with one tensor of four bytes. */
static void write_shard(const temp_dir *dir, const char *file, const char *tensor,
                        const char *bytes)
{
    st_builder b;
    st_begin(&b);
    st_add(&b, tensor, "U8", 0, 4, bytes, 4);
    st_write(&b, dir, file);
}

static void expect_bytes(const cmi_checkpoint *c, const char *name, const char *bytes)
{
    const cmi_checkpoint_tensor *t = cmi_checkpoint_find(c, name);
    assert_non_null(t);
    assert_string_equal(t->tensor->name, name);
    assert_memory_equal(cmi_safetensors_data(t->file, t->tensor), bytes, 4);
}

static void shards_are_found_through_the_index(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    write_shard(&dir, "s1", "b", "bbbb");
    write_shard(&dir, "s2", "a", "aaaa");
    temp_write_text(&dir, index_name, "{\"weight_map\":{\"b\":\"s1\",\"a\":\"s2\"}}");
    cmi_checkpoint c;
    cmi_error err;
    assert_int_equal(cmi_checkpoint_open(&c, dir.path, &err), CMI_OK);
    assert_int_equal(c.n_files, 2);
    assert_int_equal(c.n_tensors, 2);
    expect_bytes(&c, "a", "aaaa");
    expect_bytes(&c, "b", "bbbb");
    assert_null(cmi_checkpoint_find(&c, "c"));
    cmi_checkpoint_close(&c);
    cmi_checkpoint_close(&c);
    cmi_checkpoint_close(NULL);
    temp_dir_remove(&dir);
}

static void the_single_file_goes_before_an_index(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    write_shard(&dir, "model.safetensors", "a", "aaaa");
    temp_write_text(&dir, index_name, "broken");
    cmi_checkpoint c;
    cmi_error err;
    assert_int_equal(cmi_checkpoint_open(&c, dir.path, &err), CMI_OK);
    expect_bytes(&c, "a", "aaaa");
    cmi_checkpoint_close(&c);
    temp_dir_remove(&dir);
}

static void symbolic_links_are_followed(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    temp_mkdir(&dir, "blobs");
    temp_mkdir(&dir, "snapshot");
    write_shard(&dir, "blobs/1234", "a", "aaaa");
    temp_symlink(&dir, "../blobs/1234", "snapshot/s1");
    temp_write_text(&dir, "snapshot/model.safetensors.index.json",
                    "{\"weight_map\":{\"a\":\"s1\"}}");
    cmi_checkpoint c;
    cmi_error err;
    assert_int_equal(cmi_checkpoint_open(&c, temp_path(&dir, "snapshot"), &err), CMI_OK);
    expect_bytes(&c, "a", "aaaa");
    cmi_checkpoint_close(&c);
    temp_dir_remove(&dir);
}

static void broken_indexes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *index;
        cmi_status status;
        const char *says;
    } cases[] = {
        {"{", CMI_ERR_BAD_DATA, "index.json:1: "},
        {"[]", CMI_ERR_BAD_DATA, "weight_map is missing"},
        {"{}", CMI_ERR_BAD_DATA, "weight_map is missing"},
        {"{\"weight_map\":[]}", CMI_ERR_BAD_DATA, "weight_map is missing"},
        {"{\"weight_map\":{\"a\":1}}", CMI_ERR_BAD_DATA, "tensor a is not the plain name"},
        {"{\"weight_map\":{\"a\":\"\"}}", CMI_ERR_BAD_DATA, "tensor a is not the plain name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", CMI_ERR_BAD_DATA, "tensor a is not the plain name"},
        {"{\"weight_map\":{\"a\":\"../s1\"}}", CMI_ERR_BAD_DATA, "tensor a is not the plain"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", CMI_ERR_BAD_DATA, "tensor a is not the"},
        {"{\"weight_map\":{\"a\":\"x/s1\"}}", CMI_ERR_BAD_DATA, "tensor a is not the plain"},
        {"{\"weight_map\":{\"a\":\"s1\",\"a\":\"s1\"}}", CMI_ERR_BAD_DATA, "duplicate"},
        {"{\"weight_map\":{\"a\":\"s9\"}}", CMI_ERR_NOT_FOUND, "/s9: "},
        {"{\"weight_map\":{\"a\":\"s1\",\"b\":\"s1\"}}", CMI_ERR_BAD_DATA, "tensor b is not in s1"},
        {"{\"weight_map\":{\"a\":\"short\"}}", CMI_ERR_BAD_DATA, "/short: "},
    };
    temp_dir dir;
    temp_dir_make(&dir);
    write_shard(&dir, "s1", "a", "aaaa");
    temp_write(&dir, "short", "\x10\0\0\0\0\0\0\0{", 9);
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        temp_write_text(&dir, index_name, cases[i].index);
        cmi_checkpoint c;
        cmi_error err = {0};
        cmi_status st = cmi_checkpoint_open(&c, dir.path, &err);
        if (st != cases[i].status || strstr(err.text, cases[i].says) == NULL) {
            fail_msg("%s: %d, %s", cases[i].index, st, err.text);
        }
        assert_non_null(strstr(err.text, dir.path));
    }
    temp_dir_remove(&dir);
}

static void a_directory_without_safetensors_says_so(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    temp_write_text(&dir, "pytorch_model.bin", "");
    cmi_checkpoint c;
    cmi_error err;
    assert_int_equal(cmi_checkpoint_open(&c, dir.path, &err), CMI_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "only safetensors checkpoints are read"));
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_are_found_through_the_index),
        cmocka_unit_test(the_single_file_goes_before_an_index),
        cmocka_unit_test(symbolic_links_are_followed),
        cmocka_unit_test(broken_indexes_are_refused),
        cmocka_unit_test(a_directory_without_safetensors_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
