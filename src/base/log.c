#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static cmi_log_level log_level = CMI_LOG_INFO;

void cmi_log_set_level(cmi_log_level level)
{
    log_level = level;
}

void cmi_log(cmi_log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    if (level > log_level) {
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    char line[2048];
    size_t at = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    at += (size_t)snprintf(line + at, sizeof line - at, ".%03ldZ %-5s ", now.tv_nsec / 1000000,
                           names[level]);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line + at, sizeof line - at - 1, fmt, args);
    va_end(args);
    at += n < 0 ? 0 : CMI_MIN((size_t)n, sizeof line - at - 2);
    line[at++] = '\n';
    fwrite(line, 1, at, stderr);
}
