#include "server/http_deadline.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/alloc.h"
#include "os/clock.h"

#define NS_PER_S UINT64_C(1000000000)
#define LOOK_EVERY_NS (NS_PER_S / 4)
#define NO_DEADLINE UINT64_MAX

struct cmi_deadline {
    cmi_deadline_table *table;
    _Atomic uint64_t
        at_ns; /* monotonic; relaxed: a look that comes too early is followed by more */
    int fd;    /* under the table's lock: open while it is not -1 */
};

struct cmi_deadline_table {
    cmi_deadline_options opt;
    cmi_deadline *slots; /* [n_max] */
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock; /* over what follows and the slots' fd */
    pthread_cond_t work;  /* the first connection, or stop */
    uint32_t *free_idx;   /* a stack */
    uint32_t n_free;
    bool stop;
};

static void end_if_late(cmi_deadline_table *table, cmi_deadline *slot, uint64_t now_ns)
{
    if (atomic_load_explicit(&slot->at_ns, memory_order_relaxed) > now_ns) {
        return;
    }
    /* Again under the lock, which keeps the descriptor from being closed and used anew. */
    pthread_mutex_lock(&table->lock);
    if (slot->fd >= 0 && atomic_load_explicit(&slot->at_ns, memory_order_relaxed) <= now_ns) {
        (void)shutdown(slot->fd, SHUT_RDWR);
        atomic_store_explicit(&slot->at_ns, NO_DEADLINE, memory_order_relaxed);
        atomic_fetch_add_explicit(table->opt.n_ended, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&table->lock);
}

/* Waits for the next look; false: stop. */
static bool wait_for_look(cmi_deadline_table *table)
{
    pthread_mutex_lock(&table->lock);
    while (table->n_free == table->opt.n_max && !table->stop) {
        pthread_cond_wait(&table->work, &table->lock);
    }
    uint64_t until_ns = cmi_clock_monotonic_ns() + LOOK_EVERY_NS;
    struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S),
                             .tv_nsec = (long)(until_ns % NS_PER_S)};
    int rc = 0;
    while (!table->stop && rc == 0) {
        rc = pthread_cond_timedwait(&table->work, &table->lock, &until);
    }
    bool stop = table->stop;
    pthread_mutex_unlock(&table->lock);
    return !stop;
}

static void *look(void *arg)
{
    cmi_deadline_table *table = arg;
    while (wait_for_look(table)) {
        uint64_t now_ns = cmi_clock_monotonic_ns();
        for (uint32_t i = 0; i < table->opt.n_max; i++) {
            end_if_late(table, &table->slots[i], now_ns);
        }
    }
    return NULL;
}

cmi_status cmi_deadline_table_create(cmi_deadline_table **table_out,
                                     const cmi_deadline_options *opt, cmi_error *err)
{
    cmi_deadline_table *table = cmi_alloc(1, sizeof *table);
    table->opt = *opt;
    table->slots = cmi_alloc(opt->n_max, sizeof *table->slots);
    table->free_idx = cmi_alloc(opt->n_max, sizeof *table->free_idx);
    for (uint32_t i = 0; i < opt->n_max; i++) {
        table->slots[i].table = table;
        table->slots[i].fd = -1;
        atomic_init(&table->slots[i].at_ns, NO_DEADLINE);
        table->free_idx[i] = opt->n_max - 1 - i; /* the lowest on top */
    }
    table->n_free = opt->n_max;
    pthread_mutex_init(&table->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&table->work, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&table->thread, NULL, look, table);
    table->has_thread = rc == 0;
    if (rc != 0) {
        cmi_deadline_table_destroy(table);
        return cmi_error_set(err, CMI_ERR_IO, "the server cannot start a thread: %s", strerror(rc));
    }
    *table_out = table;
    return CMI_OK;
}

void cmi_deadline_table_destroy(cmi_deadline_table *table)
{
    if (table == NULL) {
        return;
    }
    if (table->has_thread) {
        pthread_mutex_lock(&table->lock);
        table->stop = true;
        pthread_cond_signal(&table->work);
        pthread_mutex_unlock(&table->lock);
        pthread_join(table->thread, NULL);
    }
    assert(table->n_free == table->opt.n_max);
    pthread_cond_destroy(&table->work);
    pthread_mutex_destroy(&table->lock);
    cmi_free(table->slots);
    cmi_free(table->free_idx);
    cmi_free(table);
}

static cmi_deadline *slot_take(cmi_deadline_table *table, int fd)
{
    cmi_deadline *slot = NULL;
    pthread_mutex_lock(&table->lock);
    if (table->n_free > 0) {
        slot = &table->slots[table->free_idx[--table->n_free]];
        slot->fd = fd;
        pthread_cond_signal(&table->work);
    }
    pthread_mutex_unlock(&table->lock);
    return slot;
}

static void slot_give_back(cmi_deadline_table *table, cmi_deadline *slot)
{
    pthread_mutex_lock(&table->lock);
    slot->fd = -1;
    atomic_store_explicit(&slot->at_ns, NO_DEADLINE, memory_order_relaxed);
    table->free_idx[table->n_free++] = (uint32_t)(slot - table->slots);
    pthread_mutex_unlock(&table->lock);
}

void cmi_deadline_on_connection(void *cls, struct MHD_Connection *connection, void **context,
                                enum MHD_ConnectionNotificationCode code)
{
    cmi_deadline_table *table = cls;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*context != NULL) {
            slot_give_back(table, *context);
            *context = NULL;
        }
        return;
    }
    int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    *context = slot_take(table, fd);
    if (*context == NULL) { /* libmicrohttpd admits fewer; were it not so, nobody may be endless */
        (void)shutdown(fd, SHUT_RDWR);
        return;
    }
    cmi_deadline_set_idle(*context);
}

cmi_deadline *cmi_deadline_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info == NULL ? NULL : info->socket_context;
}

static uint64_t transfer_ns(const cmi_deadline *deadline, uint64_t n_bytes)
{
    return n_bytes * (NS_PER_S / deadline->table->opt.bytes_per_s);
}

static void set(cmi_deadline *deadline, uint64_t at_ns)
{
    if (deadline != NULL) {
        atomic_store_explicit(&deadline->at_ns, at_ns, memory_order_relaxed);
    }
}

void cmi_deadline_set_idle(cmi_deadline *deadline)
{
    if (deadline != NULL) {
        set(deadline, cmi_clock_monotonic_ns() + deadline->table->opt.idle_ns);
    }
}

void cmi_deadline_set_transfer(cmi_deadline *deadline, uint64_t n_bytes)
{
    if (deadline != NULL) {
        set(deadline, cmi_clock_monotonic_ns() + deadline->table->opt.slow_ns +
                          transfer_ns(deadline, n_bytes));
    }
}

void cmi_deadline_extend(cmi_deadline *deadline, uint64_t n_bytes)
{
    if (deadline != NULL) {
        uint64_t at_ns = atomic_load_explicit(&deadline->at_ns, memory_order_relaxed);
        if (at_ns != NO_DEADLINE) {
            set(deadline, at_ns + transfer_ns(deadline, n_bytes));
        }
    }
}

void cmi_deadline_clear(cmi_deadline *deadline)
{
    set(deadline, NO_DEADLINE);
}
