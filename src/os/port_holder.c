#include "os/port_holder.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* proc(5): one socket a line: "sl local_address rem_address st ... inode", the port in hex behind
 * the address' last colon, state 0A is listening. 0: none. */
static uint64_t listening_inode(const char *table, uint16_t port)
{
    FILE *f = fopen(table, "re");
    if (f == NULL) {
        return 0;
    }
    char line[512];
    uint64_t found = 0;
    while (found == 0 && fgets(line, sizeof line, f) != NULL) {
        unsigned line_port;
        unsigned state;
        uint64_t inode;
        if (sscanf(line,
                   " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*x:%*x %*x:%*x %*x %*u %*u "
                   "%" SCNu64,
                   &line_port, &state, &inode) == 3 &&
            line_port == port && state == 0x0A) {
            found = inode;
        }
    }
    fclose(f);
    return found;
}

static bool process_has_socket(const char *pid, uint64_t inode)
{
    char path[300];
    char want[64];
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    snprintf(want, sizeof want, "socket:[%" PRIu64 "]", inode);
    DIR *fds = opendir(path);
    if (fds == NULL) {
        return false;
    }
    bool found = false;
    const struct dirent *entry;
    while (!found && (entry = readdir(fds)) != NULL) {
        char link[64];
        ssize_t n = readlinkat(dirfd(fds), entry->d_name, link, sizeof link - 1);
        if (n > 0) {
            link[n] = '\0';
            found = strcmp(link, want) == 0;
        }
    }
    closedir(fds);
    return found;
}

static void describe_process(const char *pid, char *out, size_t n_bytes)
{
    char path[300];
    char name[32] = "?";
    snprintf(path, sizeof path, "/proc/%s/comm", pid);
    FILE *f = fopen(path, "re");
    if (f != NULL) {
        if (fgets(name, sizeof name, f) != NULL) {
            name[strcspn(name, "\n")] = '\0';
        }
        fclose(f);
    }
    snprintf(out, n_bytes, "process %s (%s)", pid, name);
}

bool cmi_port_holder_find(uint16_t port, char *out, size_t n_bytes)
{
    uint64_t inode = listening_inode("/proc/net/tcp", port);
    if (inode == 0) {
        inode = listening_inode("/proc/net/tcp6", port);
    }
    DIR *processes = inode == 0 ? NULL : opendir("/proc");
    if (processes == NULL) {
        return false;
    }
    bool found = false;
    const struct dirent *entry;
    while (!found && (entry = readdir(processes)) != NULL) {
        if (strspn(entry->d_name, "0123456789") == strlen(entry->d_name) &&
            process_has_socket(entry->d_name, inode)) {
            describe_process(entry->d_name, out, n_bytes);
            found = true;
        }
    }
    closedir(processes);
    return found;
}
