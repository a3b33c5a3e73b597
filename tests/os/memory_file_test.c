/* Memory behind a descriptor: shared, sealed, checked before it is mapped. */
#include "tests/test.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/memory_file.h"

static void two_maps_are_one_memory(void **state)
{
    (void)state;
    int fd = -1;
    void *first = NULL, *second = NULL;
    enum { N = 100000 };
    assert_int_equal(cmi_memory_file_create(&fd, &first, N, "things", NULL), CMI_OK);
    assert_int_equal(((char *)first)[N - 1], 0);
    assert_int_equal(cmi_memory_file_map(&second, fd, N, "things", NULL), CMI_OK);
    assert_ptr_not_equal(first, second);
    memcpy((char *)first + N - 4, "last", 4);
    assert_memory_equal((char *)second + N - 4, "last", 4);
    close(fd);
    pid_t pid = fork();
    if (pid == 0) {
        memcpy(second, "child", 5);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_memory_equal(first, "child", 5);
    cmi_memory_file_unmap(first, N);
    cmi_memory_file_unmap(second, N);
    cmi_memory_file_unmap(NULL, N);
}

static void its_size_is_sealed(void **state)
{
    (void)state;
    int fd = -1;
    void *bytes = NULL;
    assert_int_equal(cmi_memory_file_create(&fd, &bytes, 8192, "things", NULL), CMI_OK);
    assert_int_not_equal(ftruncate(fd, 4096), 0);
    assert_int_not_equal(ftruncate(fd, 1 << 20), 0);
    cmi_memory_file_unmap(bytes, 8192);
    close(fd);
}

static void what_could_be_cut_is_not_mapped(void **state)
{
    (void)state;
    int fd = -1;
    void *bytes = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_memory_file_create(&fd, &bytes, 8192, "things", NULL), CMI_OK);
    cmi_memory_file_unmap(bytes, 8192);
    assert_int_equal(cmi_memory_file_map(&bytes, fd, 8193, "things", &err), CMI_ERR_BAD_DATA);
    assert_non_null(strstr(err.text, "things: not shared memory of 8193 bytes"));
    assert_int_equal(cmi_memory_file_map(&bytes, fd, 0, "things", &err), CMI_ERR_BAD_DATA);
    close(fd);
    fd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, 8192), 0);
    assert_int_equal(cmi_memory_file_map(&bytes, fd, 8192, "things", &err), CMI_ERR_BAD_DATA);
    close(fd);
    fd = open("/proc/self/maps", O_RDONLY);
    assert_int_equal(cmi_memory_file_map(&bytes, fd, 8192, "things", &err), CMI_ERR_BAD_DATA);
    close(fd);
    assert_int_equal(cmi_memory_file_map(&bytes, -1, 8192, "things", &err), CMI_ERR_BAD_DATA);
}

static void what_cannot_be_had_is_refused(void **state)
{
    (void)state;
    int fd = -1;
    void *bytes = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_memory_file_create(&fd, &bytes, 0, "things", &err), CMI_ERR_INVALID);
    assert_int_equal(cmi_memory_file_create(&fd, &bytes, SIZE_MAX, "things", &err),
                     CMI_ERR_INVALID);
    assert_int_equal(cmi_memory_file_create(&fd, &bytes, (size_t)1 << 60, "things", &err),
                     CMI_ERR_NO_MEMORY);
    assert_non_null(strstr(err.text, "no shared memory for things"));
    assert_int_equal(fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_maps_are_one_memory),
        cmocka_unit_test(its_size_is_sealed),
        cmocka_unit_test(what_could_be_cut_is_not_mapped),
        cmocka_unit_test(what_cannot_be_had_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
