/* Any bytes as a launcher's environment, a line a variable, and as a list of hosts: an error that
 * says why, or numbers in range and names that are names. */
#include "cluster/launch.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { MAX_VARIABLES = 64, MAX_HOSTS = 16 };

static void read_environment(char *text)
{
    const char *env[MAX_VARIABLES + 1] = {NULL};
    for (size_t n = 0; n < MAX_VARIABLES; n++) {
        env[n] = text;
        text = strchr(text, '\n');
        if (text == NULL) {
            break;
        }
        *text++ = '\0';
    }
    cmi_launch launch;
    cmi_error err = {0};
    cmi_status st = cmi_launch_read(&launch, env, &err);
    if (st == CMI_OK) {
        assert(launch.rank < launch.n_ranks && launch.n_ranks <= CMI_MEMBERSHIP_MAX);
        assert(launch.port <= UINT16_MAX && strlen(launch.host) <= CMI_LAUNCH_MAX_HOST);
        assert(launch.local_rank <= CMI_MEMBERSHIP_MAX || launch.local_rank == CMI_LAUNCH_UNKNOWN);
    } else {
        assert((st == CMI_ERR_NOT_FOUND || st == CMI_ERR_INVALID) && err.status == st);
    }
}

static void read_hosts(const char *text)
{
    cmi_member members[MAX_HOSTS];
    cmi_error err = {0};
    uint32_t n = 0;
    if (cmi_launch_read_hosts(members, MAX_HOSTS, &n, text, "net:", &err) == CMI_OK) {
        assert(n >= 1 && n <= MAX_HOSTS);
        for (uint32_t i = 0; i < n; i++) {
            const char *address = members[i].address;
            assert(strncmp(address, "net:", 4) == 0 || strncmp(address, "local:", 6) == 0);
            assert(strchr(address, ',') == NULL);
        }
    } else {
        assert(err.status == CMI_ERR_INVALID && err.text[0] != '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    char *text = cmi_strndup((const char *)data, n_bytes);
    char host[CMI_LAUNCH_MAX_HOST + 1];
    if (cmi_launch_first_host(text, host)) {
        assert(host[0] != '\0' && strlen(host) <= CMI_LAUNCH_MAX_HOST);
        assert(strpbrk(host, "[], ") == NULL);
    }
    read_hosts(text);
    read_environment(text);
    cmi_free(text);
    return 0;
}
