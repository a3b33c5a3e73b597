#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/file.h"

static char path[] = "/tmp/cmi_file_test_XXXXXX";

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd >= 0 && write(fd, "hello\0world", 11) == 11 && close(fd) == 0 ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void reads_and_maps_the_same_bytes(void **state)
{
    (void)state;
    cmi_error err;
    cmi_buf text;
    assert_int_equal(cmi_file_read(&text, path, 11, &err), CMI_OK);
    assert_int_equal(text.len, 11);
    cmi_file_map map;
    assert_int_equal(cmi_file_map_open(&map, path, &err), CMI_OK);
    assert_int_equal(map.n_bytes, 11);
    assert_memory_equal(map.data, text.data, 11);
    cmi_file_map_release(&map, 0, 11);
    cmi_file_map_close(&map);
    cmi_buf_deinit(&text);
}

static void errors_name_the_path(void **state)
{
    (void)state;
    cmi_error err;
    cmi_buf text;
    assert_int_equal(cmi_file_read(&text, "/nonexistent/x", 10, &err), CMI_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/x"));
    cmi_buf_deinit(&text);
    assert_int_equal(cmi_file_read(&text, path, 10, &err), CMI_ERR_TOO_LARGE);
    cmi_buf_deinit(&text);
    assert_int_equal(cmi_file_read(&text, "/tmp", 10, &err), CMI_ERR_IO);
    cmi_buf_deinit(&text);
    assert_true(cmi_file_exists(path));
    assert_false(cmi_file_exists("/nonexistent/x"));
}

/* A page that the file has no more is an error here, where touching it would be a signal. */
static void fetching_says_what_cannot_be_read(void **state)
{
    (void)state;
    enum { N_BYTES = 1 << 20 };
    char large[] = "/tmp/cmi_file_test_XXXXXX";
    cmi_error err = {0};
    cmi_file_map map;
    int fd = mkstemp(large);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, N_BYTES), 0);
    assert_int_equal(cmi_file_map_open(&map, large, &err), CMI_OK);
    assert_int_equal(cmi_file_map_fetch(&map, 0, N_BYTES, &err), CMI_OK);
    assert_int_equal(cmi_file_map_fetch(&map, N_BYTES - 1, 1, &err), CMI_OK);
    assert_int_equal(cmi_file_map_fetch(&map, 5, 0, &err), CMI_OK);
    assert_int_equal(ftruncate(fd, N_BYTES / 2), 0);
    assert_int_equal(cmi_file_map_fetch(&map, 0, N_BYTES / 2, &err), CMI_OK);
    /* Linux 5.14, but no emulator */
    const bool is_new =
        madvise((void *)(uintptr_t)(map.data + N_BYTES / 2), N_BYTES / 2, 22) != 0 &&
        errno == EFAULT;
    assert_int_equal(cmi_file_map_fetch(&map, 1, N_BYTES - 1, &err), is_new ? CMI_ERR_IO : CMI_OK);
    assert_true(!is_new || strstr(err.text, "bytes 1 to 1048575 cannot be read") != NULL);
    cmi_file_map_close(&map);
    close(fd);
    unlink(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_maps_the_same_bytes),
        cmocka_unit_test(errors_name_the_path),
        cmocka_unit_test(fetching_says_what_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
