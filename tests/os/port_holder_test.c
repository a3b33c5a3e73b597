#include "tests/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/port_holder.h"

static int bind_any(int family, uint16_t *port_out)
{
    int fd = socket(family, SOCK_STREAM, 0);
    struct sockaddr_in6 address = {.sin6_family = (sa_family_t)family};
    socklen_t n = family == AF_INET6 ? sizeof address : sizeof(struct sockaddr_in);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, n) != 0) {
        return -1;
    }
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    *port_out = ntohs(address.sin6_port); /* at the same place in both families */
    return fd;
}

static void the_process_that_listens_is_named(void **state)
{
    (void)state;
    static const int families[] = {AF_INET, AF_INET6};
    char want[64];
    snprintf(want, sizeof want, "process %d (", (int)getpid());
    for (size_t i = 0; i < 2; i++) {
        uint16_t port;
        int fd = bind_any(families[i], &port);
        if (fd < 0) {
            continue; /* a host without IPv6 */
        }
        char got[128];
        assert_false(cmi_port_holder_find(port, got, sizeof got)); /* bound, but not listening */
        assert_int_equal(listen(fd, 1), 0);
        assert_true(cmi_port_holder_find(port, got, sizeof got));
        assert_memory_equal(got, want, strlen(want));
        close(fd);
        assert_false(cmi_port_holder_find(port, got, sizeof got));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_process_that_listens_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
