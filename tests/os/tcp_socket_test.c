/* A TCP connection between two ends of this process. */
#include "tests/test.h"

#include <poll.h>
#include <unistd.h>

#include "os/tcp_socket.h"

static int listener, a, b;
static uint16_t port;

static void wait_for(int fd, short what)
{
    struct pollfd one = {.fd = fd, .events = what};
    assert_int_equal(poll(&one, 1, 60000), 1);
}

static int make(void **state)
{
    (void)state;
    port = 0;
    assert_int_equal(cmi_tcp_listen(&listener, "127.0.0.1", &port, NULL), CMI_OK);
    assert_int_not_equal(port, 0);
    assert_int_equal(cmi_tcp_connect(&a, "127.0.0.1", port), CMI_OK);
    wait_for(a, POLLOUT);
    assert_int_equal(cmi_tcp_finish_connect(a), CMI_OK);
    wait_for(listener, POLLIN);
    assert_int_equal(cmi_tcp_accept(&b, listener), CMI_OK);
    return 0;
}

static int end(void **state)
{
    (void)state;
    close(listener);
    close(a);
    close(b);
    return 0;
}

static void bytes_arrive_and_ends_are_told(void **state)
{
    (void)state;
    char got[16];
    size_t n;
    assert_int_equal(cmi_tcp_accept(&(int){0}, listener), CMI_IN_PROGRESS);
    assert_int_equal(cmi_tcp_receive(b, got, sizeof got, &n), CMI_IN_PROGRESS);
    assert_int_equal(cmi_tcp_send(a, "abc", 3, &n), CMI_OK);
    assert_int_equal(n, 3);
    wait_for(b, POLLIN);
    assert_int_equal(cmi_tcp_receive(b, got, sizeof got, &n), CMI_OK);
    assert_int_equal(n, 3);
    assert_memory_equal(got, "abc", 3);
    cmi_tcp_end_sending(a);
    wait_for(b, POLLIN);
    assert_int_equal(cmi_tcp_receive(b, got, sizeof got, &n), CMI_ERR_PEER);
    assert_int_equal(cmi_tcp_send(b, "still", 5, &n), CMI_OK);
    wait_for(a, POLLIN);
    assert_int_equal(cmi_tcp_receive(a, got, sizeof got, &n), CMI_OK);
    assert_int_equal(n, 5);
}

static void the_own_address_is_that_of_the_way(void **state)
{
    (void)state;
    char own[CMI_TCP_MAX_HOST + 1];
    assert_int_equal(cmi_tcp_own_address(own, "127.0.0.1", 7000), CMI_OK);
    assert_string_equal(own, "127.0.0.1");
    assert_int_equal(cmi_tcp_own_address(own, "no such host", 7000), CMI_ERR_NOT_FOUND);
}

static void a_full_connection_takes_what_fits(void **state)
{
    (void)state;
    static char bytes[1 << 20];
    size_t n = 1, total = 0;
    while (n > 0) {
        assert_int_equal(cmi_tcp_send(a, bytes, sizeof bytes, &n), CMI_OK);
        total += n;
    }
    while (total > 0) {
        wait_for(b, POLLIN);
        assert_int_equal(cmi_tcp_receive(b, bytes, sizeof bytes, &n), CMI_OK);
        total -= n;
    }
}

static void nobody_is_found_at_once(void **state)
{
    (void)state;
    int fd = -1;
    cmi_error err = {0};
    uint16_t taken = port;
    assert_int_equal(cmi_tcp_listen(&fd, "127.0.0.1", &taken, &err), CMI_ERR_CLOSED);
    assert_non_null(strstr(err.text, "127.0.0.1"));
    assert_int_equal(cmi_tcp_listen(&fd, "300.1.1.1.1", &taken, &err), CMI_ERR_INVALID);
    close(listener);
    cmi_status st = cmi_tcp_connect(&fd, "127.0.0.1", port);
    if (st == CMI_OK) {
        wait_for(fd, POLLOUT);
        st = cmi_tcp_finish_connect(fd);
        close(fd);
    }
    assert_int_equal(st, CMI_ERR_NOT_FOUND);
    listener = dup(a); /* for end */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_own_address_is_that_of_the_way),
        cmocka_unit_test_setup_teardown(bytes_arrive_and_ends_are_told, make, end),
        cmocka_unit_test_setup_teardown(a_full_connection_takes_what_fits, make, end),
        cmocka_unit_test_setup_teardown(nobody_is_found_at_once, make, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
