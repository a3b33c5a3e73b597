/* One file in the safetensors format: what is read, and what every kind of broken header says. */
#include "tests/test.h"

#include "model/safetensors.h"
#include "tests/model/fixture.h"

static void tensors_are_found_by_name_with_type_shape_and_bytes(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    st_builder b;
    st_begin(&b);
    st_add(&b, "one", "U8", 0, 1, "!", 1); /* leaves what follows unaligned */
    st_add(&b, "two", "BF16", 3, 2, "abcdefghijkl", 12);
    st_add(&b, "none", "F32", 0, 0, NULL, 0);
    st_write(&b, &dir, "x.safetensors");
    cmi_safetensors file;
    cmi_error err;
    assert_int_equal(cmi_safetensors_open(&file, temp_path(&dir, "x.safetensors"), &err), CMI_OK);
    assert_int_equal(file.n_tensors, 3);
    const cmi_tensor *two = cmi_safetensors_find(&file, "two");
    assert_non_null(two);
    assert_int_equal(two->dtype, CMI_DTYPE_BF16);
    assert_int_equal(two->n_dims, 2);
    assert_int_equal(two->dims[0], 3);
    assert_int_equal(two->dims[1], 2);
    assert_int_equal(two->n_bytes, 12);
    assert_memory_equal(cmi_safetensors_data(&file, two), "abcdefghijkl", 12);
    assert_int_equal(cmi_safetensors_find(&file, "one")->dtype, CMI_DTYPE_OTHER);
    assert_int_equal(cmi_safetensors_find(&file, "none")->n_bytes, 0);
    assert_null(cmi_safetensors_find(&file, "tw"));
    assert_null(cmi_safetensors_find(&file, ""));
    cmi_safetensors_close(&file);
    cmi_safetensors_close(&file);
    cmi_safetensors_close(NULL);
    temp_dir_remove(&dir);
}

typedef struct header_case {
    const char *header;
    size_t n_data;
    cmi_status status;
    const char *says; /* a part of the error line */
} header_case;

#define TENSOR(dtype, shape, offsets)                                                              \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TWO(first, second)                                                                         \
    "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" first                               \
    "},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" second "}}"

static const header_case cases[] = {
    {TENSOR("F32", "[2,3]", "[0,24]"), 24, CMI_OK, NULL},
    {TENSOR("F32", "[2,3]", "[0,24]") "   ", 24, CMI_OK, NULL},
    {TENSOR("F32", "[]", "[0,4]"), 4, CMI_OK, NULL},
    {TENSOR("F4", "[4]", "[0,2]"), 2, CMI_OK, NULL},
    {TENSOR("F64", "[0,1152921504606846976]", "[0,0]"), 0, CMI_OK, NULL},
    {"{\"__metadata__\":{\"format\":\"pt\"}}", 0, CMI_OK, NULL},
    {TWO("[4,8]", "[0,4]"), 8, CMI_OK, NULL},
    /* not a header */
    {"", 0, CMI_ERR_BAD_DATA, "header"},
    {"[]", 0, CMI_ERR_BAD_DATA, "not a JSON object"},
    {"{\"t\":", 0, CMI_ERR_BAD_DATA, "header, byte"},
    {"{} {}", 0, CMI_ERR_BAD_DATA, "header, byte"},
    {"{\"\xff\":1}", 0, CMI_ERR_BAD_DATA, "header, byte"},
    {"{\"t\":1}", 0, CMI_ERR_BAD_DATA, "tensor t: its header entry is not an object"},
    {"{\"a\":{},\"a\":{}}", 0, CMI_ERR_BAD_DATA, "duplicate"},
    /* dtype */
    {"{\"t\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, CMI_ERR_BAD_DATA, "tensor t: dtype"},
    {TENSOR("F31", "[1]", "[0,4]"), 4, CMI_ERR_BAD_DATA, "dtype \"F31\""},
    /* shape */
    {TENSOR("F32", "1", "[0,4]"), 4, CMI_ERR_BAD_DATA, "tensor t: shape is missing"},
    {TENSOR("F32", "[-1]", "[0,4]"), 4, CMI_ERR_BAD_DATA, "shape[0] is not a size"},
    {TENSOR("F32", "[1,\"2\"]", "[0,4]"), 4, CMI_ERR_BAD_DATA, "shape[1] is not a size"},
    {TENSOR("F32", "[1.0]", "[0,4]"), 4, CMI_ERR_BAD_DATA, "shape[0] is not a size"},
    {TENSOR("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, CMI_ERR_BAD_DATA, "9 dimensions"},
    {TENSOR("F32", "[1152921504606846976,16]", "[0,4]"), 4, CMI_ERR_BAD_DATA, "more elements"},
    {TENSOR("F32", "[4294967296,4294967297]", "[0,4]"), 4, CMI_ERR_BAD_DATA, "more elements"},
    {TENSOR("F32", "[1152921504606846976]", "[0,0]"), 0, CMI_ERR_BAD_DATA, "more elements"},
    {TENSOR("F32", "[99999999999999999999]", "[0,4]"), 4, CMI_ERR_BAD_DATA, "header, byte"},
    {TENSOR("F4", "[3]", "[0,2]"), 2, CMI_ERR_BAD_DATA, "whole bytes"},
    /* data_offsets */
    {TENSOR("F32", "[1]", "[0]"), 4, CMI_ERR_BAD_DATA, "data_offsets"},
    {TENSOR("F32", "[1]", "[0,4,8]"), 4, CMI_ERR_BAD_DATA, "data_offsets"},
    {TENSOR("F32", "[1]", "[0,\"4\"]"), 4, CMI_ERR_BAD_DATA, "data_offsets"},
    {TENSOR("F32", "[1]", "[-4,0]"), 4, CMI_ERR_BAD_DATA, "[-4, 0] is not a range"},
    {TENSOR("F32", "[1]", "[4,0]"), 4, CMI_ERR_BAD_DATA, "[4, 0] is not a range"},
    {TENSOR("F32", "[1]", "[0,3]"), 3, CMI_ERR_BAD_DATA, "dtype and shape ask for 4"},
    {TENSOR("F32", "[1]", "[0,8]"), 8, CMI_ERR_BAD_DATA, "dtype and shape ask for 4"},
    {TENSOR("F32", "[2]", "[0,8]"), 4, CMI_ERR_BAD_DATA, "truncated?"},
    {TENSOR("F32", "[1]", "[9223372036854775803,9223372036854775807]"), 4, CMI_ERR_BAD_DATA,
     "truncated?"},
    /* cover */
    {TWO("[0,4]", "[3,7]"), 7, CMI_ERR_BAD_DATA, "tensor b: its data overlaps that of a"},
    {TWO("[0,4]", "[0,4]"), 4, CMI_ERR_BAD_DATA, "tensor b: its data overlaps that of a"},
    {TWO("[0,4]", "[5,9]"), 9, CMI_ERR_BAD_DATA, "tensor b: 1 bytes before"},
    {TWO("[1,5]", "[5,9]"), 9, CMI_ERR_BAD_DATA, "tensor a: 1 bytes before"},
    {TWO("[0,4]", "[4,8]"), 9, CMI_ERR_BAD_DATA, "the last 1 bytes"},
    {"{}", 1, CMI_ERR_BAD_DATA, "the last 1 bytes"},
};

static void broken_headers_name_file_and_tensor(void **state)
{
    (void)state;
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        const header_case *c = &cases[i];
        cmi_buf bytes = st_bytes(c->header, c->n_data);
        cmi_safetensors file = {0};
        cmi_error err = {0};
        cmi_status st = cmi_safetensors_parse(&file, (const uint8_t *)bytes.data, bytes.len,
                                              "dir/x.safetensors", &err);
        if (st != c->status) {
            fail_msg("%s: status %d (%s), want %d", c->header, st, err.text, c->status);
        }
        if (st != CMI_OK &&
            (strncmp(err.text, "dir/x.safetensors: ", 19) != 0 || !strstr(err.text, c->says))) {
            fail_msg("%s: says \"%s\"", c->header, err.text);
        }
        cmi_safetensors_close(&file);
        cmi_buf_deinit(&bytes);
    }
}

static void lying_lengths_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        size_t n_bytes;
        cmi_status status;
    } lies[] = {
        {0, 0, CMI_ERR_BAD_DATA},
        {2, 7, CMI_ERR_BAD_DATA},
        {1, 8, CMI_ERR_BAD_DATA},
        {93, 100, CMI_ERR_BAD_DATA},
        {CMI_SAFETENSORS_MAX_HEADER_BYTES, 100, CMI_ERR_BAD_DATA},
        {CMI_SAFETENSORS_MAX_HEADER_BYTES + 1ull, 100, CMI_ERR_TOO_LARGE},
        {UINT64_MAX, 100, CMI_ERR_TOO_LARGE},
    };
    for (size_t i = 0; i < CMI_LEN(lies); i++) {
        uint8_t bytes[100] = {0};
        for (int k = 0; k < 8; k++) {
            bytes[k] = (uint8_t)(lies[i].length >> 8 * k);
        }
        cmi_safetensors file;
        cmi_error err = {0};
        assert_int_equal(cmi_safetensors_parse(&file, bytes, lies[i].n_bytes, "x", &err),
                         lies[i].status);
        assert_true(strncmp(err.text, "x: ", 3) == 0);
    }
}

static void every_prefix_of_a_file_is_refused(void **state)
{
    (void)state;
    cmi_buf bytes = st_bytes(TWO("[0,4]", "[4,8]"), 8);
    for (size_t n = 0; n < bytes.len; n++) {
        cmi_safetensors file;
        cmi_error err = {0};
        cmi_status st = cmi_safetensors_parse(&file, (const uint8_t *)bytes.data, n, "x", &err);
        assert_int_equal(st, CMI_ERR_BAD_DATA);
    }
    cmi_buf_deinit(&bytes);
}

static void hostile_names_cannot_forge_lines(void **state)
{
    (void)state;
    cmi_buf bytes = st_bytes("{\"a\\nERROR all is lost\\u001b[2J\":1}", 0);
    cmi_safetensors file;
    cmi_error err = {0};
    assert_int_equal(
        cmi_safetensors_parse(&file, (const uint8_t *)bytes.data, bytes.len, "x", &err),
        CMI_ERR_BAD_DATA);
    assert_null(strpbrk(err.text, "\n\x1b"));
    cmi_buf_deinit(&bytes);
}

static void a_missing_file_and_a_directory_are_errors(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    temp_write(&dir, "empty", "", 0);
    cmi_safetensors file;
    cmi_error err;
    assert_int_equal(cmi_safetensors_open(&file, temp_path(&dir, "none"), &err), CMI_ERR_NOT_FOUND);
    assert_int_equal(cmi_safetensors_open(&file, dir.path, &err), CMI_ERR_IO);
    assert_int_equal(cmi_safetensors_open(&file, temp_path(&dir, "empty"), &err), CMI_ERR_BAD_DATA);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_found_by_name_with_type_shape_and_bytes),
        cmocka_unit_test(broken_headers_name_file_and_tensor),
        cmocka_unit_test(lying_lengths_are_refused),
        cmocka_unit_test(every_prefix_of_a_file_is_refused),
        cmocka_unit_test(hostile_names_cannot_forge_lines),
        cmocka_unit_test(a_missing_file_and_a_directory_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
