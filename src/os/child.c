#include "os/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"

extern char **environ;

static bool has_name_of(const char *variable, const char *line)
{
    const size_t n = strcspn(line, "=");
    return strncmp(variable, line, n) == 0 && variable[n] == '=';
}

/* environ with the lines of env; the strings stay where they are. */
static char **join_environments(const char *const *env)
{
    size_t n = 0, n_env = 0;
    while (environ[n] != NULL) {
        n++;
    }
    while (env[n_env] != NULL) {
        n_env++;
    }
    char **joined = cmi_alloc(n + n_env + 1, sizeof *joined);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        bool is_replaced = false;
        for (size_t k = 0; k < n_env; k++) {
            is_replaced |= has_name_of(environ[i], env[k]);
        }
        if (!is_replaced) {
            joined[at++] = environ[i];
        }
    }
    for (size_t k = 0; k < n_env; k++) {
        joined[at++] = (char *)(uintptr_t)env[k];
    }
    return joined;
}

cmi_status cmi_child_start(cmi_child *child_out, char *const *argv, const char *const *env,
                           cmi_error *err)
{
    posix_spawn_file_actions_t files;
    char **environment = join_environments(env);
    pid_t pid = 0;
    posix_spawn_file_actions_init(&files);
    int rc = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    rc = rc == 0 ? posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO) : rc;
    rc = rc == 0 ? posix_spawn(&pid, "/proc/self/exe", &files, NULL, argv, environment) : rc;
    posix_spawn_file_actions_destroy(&files);
    cmi_free(environment);
    if (rc != 0) {
        return cmi_error_set(err, CMI_ERR_IO, "cannot start another process: %s", strerror(rc));
    }
    *child_out = (cmi_child){.pid = pid, .fd = (int)syscall(SYS_pidfd_open, pid, 0)};
    return CMI_OK;
}

bool cmi_child_die_with_parent(int parent_pid)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == parent_pid;
}

static bool reap(cmi_child *child, int flags, int *how_out)
{
    int status = 0;
    pid_t pid;
    do {
        pid = waitpid(child->pid, &status, flags);
    } while (pid < 0 && errno == EINTR);
    if (pid == 0) {
        return false;
    }
    *how_out = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (child->fd >= 0) {
        close(child->fd);
    }
    child->pid = 0;
    return true;
}

int cmi_child_fd(const cmi_child *child)
{
    return child->pid > 0 ? child->fd : -1;
}

bool cmi_child_has_ended(cmi_child *child, int *how_out)
{
    return child->pid > 0 && reap(child, WNOHANG, how_out);
}

void cmi_child_ask_to_end(const cmi_child *child)
{
    if (child->pid > 0) {
        kill(child->pid, SIGTERM);
    }
}

void cmi_child_end(cmi_child *child, uint64_t patience_ns)
{
    int how;
    if (child->pid <= 0) {
        return;
    }
    struct pollfd ended = {.fd = child->fd, .events = POLLIN};
    cmi_child_ask_to_end(child);
    if (child->fd < 0 || poll(&ended, 1, (int)(patience_ns / 1000000)) != 1) {
        kill(child->pid, SIGKILL);
    }
    (void)reap(child, 0, &how);
}

int cmi_child_own_pid(void)
{
    return getpid();
}
