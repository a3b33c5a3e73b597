#include "os/open_files.h"

#include <sys/resource.h>

uint64_t cmi_open_files_raise(uint64_t n)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 1024;
    }
    if (limit.rlim_cur < n) {
        struct rlimit wanted = {.rlim_cur = CMI_MIN(n, limit.rlim_max), .rlim_max = limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &wanted) == 0) {
            limit = wanted;
        }
    }
    return limit.rlim_cur;
}
