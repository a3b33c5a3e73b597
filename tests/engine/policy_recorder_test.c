/* A recorder's file is a sound log: of everything, or up to a mark. */
#include "tests/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "engine/policy_recorder.h"
#include "os/file.h"

enum { LOG_BYTES_MAX = 64 << 20 };

static const cmi_policy_options options = {.pool = {.n_pages = 8, .lease_max_ns = 1},
                                           .scheduler = {.n_slots = 4,
                                                         .max_num_seqs = 2,
                                                         .max_rows = 64,
                                                         .max_decode_rows = 2,
                                                         .max_prefill_rows = 64,
                                                         .max_span_rows = 1,
                                                         .max_tokens = 512}};

static cmi_policy_recorder *start(const char *path, size_t ring_bytes)
{
    cmi_policy_recorder *r = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_policy_recorder_start(&r, path, &options, ring_bytes, &err), CMI_OK);
    return r;
}

static const cmi_scheduler_plan no_plan;

static void a_long_log_is_whole_or_has_a_mark(void **state)
{
    (void)state;
    char path[] = "/tmp/cmi_recorder_XXXXXX";
    close(mkstemp(path));
    const uint32_t n_events = 20000; /* many times around the ring */
    const cmi_scheduler_request request = {.n_prompt = 1, .n_total = 2};
    cmi_policy_recorder *r = start(path, 2 << 20);
    for (uint32_t i = 0; i < n_events; i++) {
        cmi_policy_recorder_arrive(r, 0, &request);
        cmi_policy_recorder_plan(r, i, &no_plan);
        cmi_policy_recorder_finish(r, i, 0);
    }
    cmi_policy_recorder_stop(r);
    cmi_error err = {0};
    cmi_buf bytes;
    cmi_policy_log_info info;
    assert_int_equal(cmi_file_read(&bytes, path, LOG_BYTES_MAX, &err), CMI_OK);
    assert_int_equal(cmi_policy_log_check(bytes.data, bytes.len, &info), CMI_OK);
    assert_int_equal(info.ending == CMI_POLICY_LOG_CUT, info.n_records < 3 * n_events + 1);
    assert_int_not_equal(info.ending, CMI_POLICY_LOG_BROKEN);
    cmi_buf_deinit(&bytes);
    unlink(path);
}

static void a_few_events_are_never_cut(void **state)
{
    (void)state;
    char path[] = "/tmp/cmi_recorder_XXXXXX";
    close(mkstemp(path));
    cmi_policy_recorder *r = start(path, 0);
    for (uint32_t i = 0; i < 1000; i++) {
        cmi_policy_recorder_plan(r, i, &no_plan);
    }
    cmi_policy_recorder_stop(r);
    cmi_error err = {0};
    cmi_buf bytes;
    cmi_policy_log_info info;
    assert_int_equal(cmi_file_read(&bytes, path, LOG_BYTES_MAX, &err), CMI_OK);
    assert_int_equal(cmi_policy_log_check(bytes.data, bytes.len, &info), CMI_OK);
    assert_int_equal(info.ending, CMI_POLICY_LOG_WHOLE);
    assert_int_equal(info.n_records, 1001); /* and the end */
    assert_int_equal(info.options.pool.n_pages, 8);
    cmi_buf_deinit(&bytes);
    unlink(path);
}

typedef struct pipe_reader {
    int fd;
    cmi_buf bytes;
} pipe_reader;

static void *read_pipe(void *arg)
{
    pipe_reader *reader = arg;
    char chunk[4096];
    for (ssize_t n; (n = read(reader->fd, chunk, sizeof chunk)) > 0;) {
        cmi_buf_append(&reader->bytes, chunk, (size_t)n);
    }
    return NULL;
}

/* Nobody reads the pipe until the engine's side has gone on long behind a full ring. */
static void a_full_ring_ends_the_recording_and_nothing_else(void **state)
{
    (void)state;
    char folder[] = "/tmp/cmi_recorder_XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    pipe_reader reader = {.fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
    cmi_buf_init(&reader.bytes, LOG_BYTES_MAX);
    cmi_policy_recorder *r = start(path, 1024);
    for (uint32_t i = 0; i < 100000; i++) {
        cmi_policy_recorder_plan(r, i, &no_plan);
    }
    cmi_policy_log_info info;
    pthread_t thread;
    assert_int_equal(fcntl(reader.fd, F_SETFL, 0), 0); /* from now on a read waits */
    assert_int_equal(pthread_create(&thread, NULL, read_pipe, &reader), 0);
    cmi_policy_recorder_stop(r);
    pthread_join(thread, NULL);
    close(reader.fd);
    assert_int_equal(cmi_policy_log_check(reader.bytes.data, reader.bytes.len, &info), CMI_OK);
    assert_int_equal(info.ending, CMI_POLICY_LOG_CUT);
    assert_true(info.n_records < 100000);
    cmi_buf_deinit(&reader.bytes);
    unlink(path);
    rmdir(folder);
}

static void a_full_disk_ends_the_recording_and_nothing_else(void **state)
{
    (void)state;
    cmi_policy_recorder *r = start("/dev/full", 0);
    for (uint32_t i = 0; i < 1000; i++) {
        cmi_policy_recorder_plan(r, i, &no_plan);
    }
    cmi_policy_recorder_stop(r);
    cmi_policy_recorder_plan(NULL, 1, &no_plan);
    cmi_policy_recorder_stop(NULL);
}

static void a_file_that_cannot_be_made_is_an_error(void **state)
{
    (void)state;
    cmi_policy_recorder *r = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_policy_recorder_start(&r, "/nowhere/log", &options, 0, &err), CMI_ERR_IO);
    assert_non_null(strstr(err.text, "/nowhere/log"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_log_is_whole_or_has_a_mark),
        cmocka_unit_test(a_few_events_are_never_cut),
        cmocka_unit_test(a_full_ring_ends_the_recording_and_nothing_else),
        cmocka_unit_test(a_full_disk_ends_the_recording_and_nothing_else),
        cmocka_unit_test(a_file_that_cannot_be_made_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
