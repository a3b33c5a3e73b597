#include "cluster/launch.h"

#include <stdio.h>
#include <string.h>

/* ---- environment ---- */

static const char *find(const char *const *env, const char *name)
{
    const size_t n = name != NULL ? strlen(name) : 0;
    for (; n > 0 && *env != NULL; env++) {
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=') {
            return *env + n + 1;
        }
    }
    return NULL;
}

/* A whole number without a sign, at most max. */
static bool read_number(const char *text, size_t n_bytes, uint32_t max, uint32_t *value_out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(text[i] - '0');
        if (value > max) {
            return false;
        }
    }
    *value_out = (uint32_t)value;
    return n_bytes > 0;
}

static cmi_status read_variable(const char *const *env, const char *name, uint32_t max,
                                uint32_t *value_out, cmi_error *err)
{
    const char *text = find(env, name);
    if (text == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    if (!read_number(text, strlen(text), max, value_out)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s is \"%.40s\": not a number up to %u", name,
                             text, max);
    }
    return CMI_OK;
}

typedef struct source {
    const char *launcher, *rank, *n_ranks, *local_rank;
} source;

static const source sources[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
    {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"},
};

static cmi_status read_source(cmi_launch *launch, const source *from, const char *const *env,
                              cmi_error *err)
{
    launch->launcher = from->launcher;
    launch->local_rank = CMI_LAUNCH_UNKNOWN;
    cmi_status st = read_variable(env, from->rank, CMI_MEMBERSHIP_MAX, &launch->rank, err);
    if (st == CMI_OK) {
        st = read_variable(env, from->n_ranks, CMI_MEMBERSHIP_MAX, &launch->n_ranks, err);
    }
    if (st == CMI_OK && launch->rank >= launch->n_ranks) {
        st = cmi_error_set(err, CMI_ERR_INVALID, "%s is %u of %s, which is %u", from->rank,
                           launch->rank, from->n_ranks, launch->n_ranks);
    }
    if (st == CMI_OK && read_variable(env, from->local_rank, CMI_MEMBERSHIP_MAX,
                                      &launch->local_rank, err) == CMI_ERR_INVALID) {
        st = CMI_ERR_INVALID;
    }
    return st;
}

static cmi_status read_meeting_point(cmi_launch *launch, const char *const *env, cmi_error *err)
{
    const char *host = find(env, "MASTER_ADDR");
    if (host != NULL && host[0] != '\0') {
        if (strlen(host) > CMI_LAUNCH_MAX_HOST) {
            return cmi_error_set(err, CMI_ERR_INVALID, "MASTER_ADDR is too long");
        }
        memcpy(launch->host, host, strlen(host) + 1);
    }
    const char *list = find(env, "SLURM_STEP_NODELIST");
    list = list != NULL ? list : find(env, "SLURM_JOB_NODELIST");
    if (launch->host[0] == '\0' && list != NULL && !cmi_launch_first_host(list, launch->host)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "cannot read Slurm's list of nodes \"%.60s\"",
                             list);
    }
    cmi_status st = read_variable(env, "MASTER_PORT", UINT16_MAX, &launch->port, err);
    return st == CMI_ERR_NOT_FOUND ? CMI_OK : st;
}

cmi_status cmi_launch_read(cmi_launch *launch_out, const char *const *env, cmi_error *err)
{
    for (size_t i = 0; i < CMI_LEN(sources); i++) {
        cmi_launch launch = {0};
        cmi_status st = read_source(&launch, &sources[i], env, err);
        if (st == CMI_OK) {
            st = read_meeting_point(&launch, env, err);
        }
        if (st == CMI_OK) {
            *launch_out = launch;
        }
        if (st != CMI_ERR_NOT_FOUND) {
            return st;
        }
    }
    return cmi_error_set(err, CMI_ERR_NOT_FOUND,
                         "no launcher has set a rank and a number of ranks: start with srun, "
                         "mpirun or torchrun");
}

/* ---- Slurm's lists ---- */

typedef struct host_writer {
    char *host;
    size_t n;
} host_writer;

static bool put_char(host_writer *w, char c)
{
    const bool is_good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                         (c >= 'A' && c <= 'Z') || c == '-' || c == '.' || c == '_';
    if (!is_good || w->n == CMI_LAUNCH_MAX_HOST) {
        return false;
    }
    w->host[w->n++] = c;
    return true;
}

/* The first number of "[03-05,9]"; at stands behind the bracket, then behind the closing one. */
static bool put_first_number(host_writer *w, const char **at)
{
    const size_t n_digits = strspn(*at, "0123456789");
    const char *close = strchr(*at, ']');
    if (n_digits == 0 || close == NULL || strspn(*at, "0123456789-,") != (size_t)(close - *at)) {
        return false;
    }
    for (size_t i = 0; i < n_digits; i++) {
        if (!put_char(w, (*at)[i])) {
            return false;
        }
    }
    *at = close + 1;
    return true;
}

bool cmi_launch_first_host(const char *list, char host_out[CMI_LAUNCH_MAX_HOST + 1])
{
    char host[CMI_LAUNCH_MAX_HOST + 1];
    host_writer w = {host, 0};
    for (const char *at = list; *at != '\0' && *at != ',';) {
        if (*at == '[') {
            at++;
            if (!put_first_number(&w, &at)) {
                return false;
            }
        } else if (!put_char(&w, *at++)) {
            return false;
        }
    }
    if (w.n == 0) {
        return false;
    }
    memcpy(host_out, host, w.n);
    host_out[w.n] = '\0';
    return true;
}

/* ---- --ep-hosts ---- */

/* text[n]: "host:port", "[v6]:port" or "local:name". */
static bool is_address(const char *text, size_t n, bool *is_local_out)
{
    static const char local[] = "local:";
    const size_t n_local = sizeof local - 1;
    *is_local_out = n > n_local && memcmp(text, local, n_local) == 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    if (*is_local_out) {
        return true;
    }
    const char *colon = memrchr(text, ':', n);
    uint32_t port = 0;
    if (colon == NULL || colon == text ||
        !read_number(colon + 1, n - (size_t)(colon + 1 - text), UINT16_MAX, &port) || port == 0) {
        return false;
    }
    const size_t n_host = (size_t)(colon - text);
    const bool is_v6 = text[0] == '[' && text[n_host - 1] == ']' && n_host > 2;
    return is_v6 || (memchr(text, ':', n_host) == NULL && text[0] != '[');
}

cmi_status cmi_launch_read_hosts(cmi_member *members_out, uint32_t max, uint32_t *n_out,
                                 const char *text, const char *scheme, cmi_error *err)
{
    uint32_t n = 0;
    for (const char *at = text;; at += strcspn(at, ",") + 1) {
        const size_t n_bytes = strcspn(at, ",");
        bool is_local;
        if (!is_address(at, n_bytes, &is_local) ||
            n_bytes + strlen(scheme) > CMI_MEMBER_MAX_ADDRESS) {
            return cmi_error_set(err, CMI_ERR_INVALID,
                                 "host %u of the list: \"%.*s\" is not host:port", n,
                                 (int)CMI_MIN(n_bytes, (size_t)60), at);
        }
        if (n == max) {
            return cmi_error_set(err, CMI_ERR_INVALID, "more than %u hosts in the list", max);
        }
        members_out[n] = (cmi_member){.role = CMI_MEMBER_RANK};
        snprintf(members_out[n].address, sizeof members_out[n].address, "%s%.*s",
                 is_local ? "" : scheme, (int)n_bytes, at);
        n++;
        if (at[n_bytes] == '\0') {
            *n_out = n;
            return CMI_OK;
        }
    }
}
