#include "os/host_processor.h"

#include <stdio.h>
#include <string.h>

void cmi_host_processor_name(char *name_out, size_t n_bytes)
{
    static const char key[] = "model name";
    char line[256];
    snprintf(name_out, n_bytes, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, key, sizeof key - 1) == 0 && colon != NULL) {
            const char *name = colon + 1 + strspn(colon + 1, " \t");
            snprintf(name_out, n_bytes, "%.*s", (int)strcspn(name, "\n"), name);
            break;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
}
