/* Datagrams with descriptors between two ends of this process. */
#include "tests/test.h"

#include <fcntl.h>
#include <unistd.h>

#include "os/local_socket.h"

static int listener, a, b;
static char name[64];

static int make(void **state)
{
    (void)state;
    snprintf(name, sizeof name, "cminfer-test-%d", (int)getpid());
    return cmi_local_socket_listen(&listener, name, NULL) != CMI_OK ||
           cmi_local_socket_connect(&a, name) != CMI_OK ||
           cmi_local_socket_accept(&b, listener) != CMI_OK;
}

static int end(void **state)
{
    (void)state;
    close(listener);
    close(a);
    close(b);
    return 0;
}

static cmi_status receive(int fd, char *buffer, size_t n, cmi_local_datagram *datagram)
{
    *datagram = (cmi_local_datagram){.bytes = buffer, .n_bytes = n};
    return cmi_local_socket_receive(fd, datagram);
}

static cmi_status send_text(int fd, const char *text)
{
    cmi_local_datagram datagram = {.bytes = (void *)(uintptr_t)text, .n_bytes = strlen(text)};
    return cmi_local_socket_send(fd, &datagram);
}

static void datagrams_stay_whole(void **state)
{
    (void)state;
    char buffer[16];
    cmi_local_datagram got;
    assert_int_equal(receive(b, buffer, sizeof buffer, &got), CMI_IN_PROGRESS);
    assert_int_equal(send_text(a, "one"), CMI_OK);
    assert_int_equal(send_text(a, "longer than the buffer"), CMI_OK);
    assert_int_equal(send_text(a, "three"), CMI_OK);
    assert_int_equal(receive(b, buffer, sizeof buffer, &got), CMI_OK);
    assert_int_equal(got.n_bytes, 3);
    assert_memory_equal(buffer, "one", 3);
    assert_int_equal(receive(b, buffer, sizeof buffer, &got), CMI_ERR_TOO_LARGE);
    assert_int_equal(receive(b, buffer, sizeof buffer, &got), CMI_OK);
    assert_memory_equal(buffer, "three", 5);
}

static void descriptors_travel(void **state)
{
    (void)state;
    int pipe_fds[2];
    char buffer[16];
    assert_int_equal(pipe(pipe_fds), 0);
    cmi_local_datagram sent = {
        .bytes = buffer, .n_bytes = 1, .fds = {pipe_fds[0], pipe_fds[1]}, .n_fds = 2};
    assert_int_equal(cmi_local_socket_send(a, &sent), CMI_OK);
    cmi_local_datagram got;
    assert_int_equal(receive(b, buffer, sizeof buffer, &got), CMI_OK);
    assert_int_equal(got.n_fds, 2);
    assert_int_not_equal(fcntl(got.fds[0], F_GETFD) & FD_CLOEXEC, 0);
    assert_int_equal(write(got.fds[1], "x", 1), 1);
    assert_int_equal(read(pipe_fds[0], buffer, 1), 1);
    for (int i = 0; i < 2; i++) {
        close(pipe_fds[i]);
        close(got.fds[i]);
    }
}

/* What was said before comes first, also when the other side left things unread. */
static void an_end_is_heard_last(void **state)
{
    (void)state;
    char buffer[16];
    cmi_local_datagram got;
    assert_int_equal(send_text(b, "unread"), CMI_OK);
    assert_int_equal(send_text(a, "last"), CMI_OK);
    close(a);
    assert_int_equal(receive(b, buffer, sizeof buffer, &got), CMI_OK);
    assert_memory_equal(buffer, "last", 4);
    assert_int_equal(receive(b, buffer, sizeof buffer, &got), CMI_ERR_PEER);
    assert_int_equal(send_text(b, "?"), CMI_ERR_PEER);
    a = -1;
}

static void a_full_socket_takes_no_more(void **state)
{
    (void)state;
    cmi_status st;
    int n = 0;
    while ((st = send_text(a, "again and again")) == CMI_OK) {
        assert_true(++n < 1000000);
    }
    assert_int_equal(st, CMI_ERR_NO_CAPACITY);
    assert_true(n > 100);
}

static void names_are_taken_once(void **state)
{
    (void)state;
    int fd;
    cmi_error err = {0};
    char long_name[CMI_LOCAL_SOCKET_MAX_NAME + 2];
    memset(long_name, 'x', sizeof long_name);
    long_name[CMI_LOCAL_SOCKET_MAX_NAME + 1] = '\0';
    assert_int_equal(cmi_local_socket_listen(&fd, name, &err), CMI_ERR_CLOSED);
    assert_int_equal(cmi_local_socket_listen(&fd, "", &err), CMI_ERR_INVALID);
    assert_int_equal(cmi_local_socket_listen(&fd, long_name, &err), CMI_ERR_INVALID);
    assert_int_equal(cmi_local_socket_connect(&fd, long_name), CMI_ERR_INVALID);
    assert_int_equal(cmi_local_socket_connect(&fd, "cminfer-test-nobody"), CMI_ERR_NOT_FOUND);
    assert_int_equal(cmi_local_socket_accept(&fd, listener), CMI_IN_PROGRESS);
    assert_int_equal(cmi_local_socket_peer_process(a), getpid());
    long_name[CMI_LOCAL_SOCKET_MAX_NAME] = '\0';
    assert_int_equal(cmi_local_socket_listen(&fd, long_name, &err), CMI_OK);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(datagrams_stay_whole, make, end),
        cmocka_unit_test_setup_teardown(descriptors_travel, make, end),
        cmocka_unit_test_setup_teardown(an_end_is_heard_last, make, end),
        cmocka_unit_test_setup_teardown(a_full_socket_takes_no_more, make, end),
        cmocka_unit_test_setup_teardown(names_are_taken_once, make, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
