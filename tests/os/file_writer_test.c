/* What is appended is there, and what cannot be written is an error that names the file. */
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

#include "os/file.h"
#include "os/file_writer.h"

static void what_was_there_is_replaced(void **state)
{
    (void)state;
    char path[] = "/tmp/cmi_file_writer_XXXXXX";
    close(mkstemp(path));
    cmi_error err = {0};
    for (int i = 2; i > 0; i--) {
        cmi_file_writer w;
        assert_int_equal(cmi_file_writer_open(&w, path, &err), CMI_OK);
        for (int k = 0; k < i; k++) {
            assert_int_equal(cmi_file_writer_append(&w, "abc", 3, &err), CMI_OK);
        }
        assert_int_equal(w.n_bytes, 3 * i);
        assert_int_equal(cmi_file_writer_close(&w, &err), CMI_OK);
    }
    cmi_buf content;
    assert_int_equal(cmi_file_read(&content, path, 100, &err), CMI_OK);
    assert_string_equal(cmi_buf_cstr(&content), "abc");
    cmi_buf_deinit(&content);
    unlink(path);
}

static void errors_name_the_file(void **state)
{
    (void)state;
    cmi_file_writer w;
    cmi_error err = {0};
    assert_int_equal(cmi_file_writer_open(&w, "/nowhere/file", &err), CMI_ERR_IO);
    assert_non_null(strstr(err.text, "/nowhere/file: "));
    assert_int_equal(cmi_file_writer_open(&w, "/dev/full", &err), CMI_OK);
    assert_int_equal(cmi_file_writer_append(&w, "abc", 3, &err), CMI_ERR_IO);
    assert_non_null(strstr(err.text, "/dev/full: "));
    assert_int_equal(cmi_file_writer_close(&w, &err), CMI_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_there_is_replaced),
        cmocka_unit_test(errors_name_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
