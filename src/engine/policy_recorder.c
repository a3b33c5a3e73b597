/* engine/policy_recorder.c - see policy_recorder.h.
 *
 * The ring has one producer, the engine's thread, and one consumer, the recorder's. The consumer
 * looks every few milliseconds: to wake it would be a system call in a step. */
#include "engine/policy_recorder.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "os/file_writer.h"

enum { LOOK_EVERY_MS = 5 };

struct cmi_policy_recorder {
    cmi_policy_log log; /* the engine's thread's, until it has ended or is_cut is seen */
    uint8_t *ring;      /* [ring_bytes] */
    size_t ring_bytes;
    cmi_file_writer file;
    char *path; /* of the file */
    pthread_t thread;
    int stop_fd; /* eventfd: readable when no more comes */
    /* Bytes since the start. The producer's release of n_put goes with the consumer's acquire, and
     * the other way round for n_taken. */
    _Atomic uint64_t n_put, n_taken;
    atomic_bool is_cut;    /* by the producer, behind its last n_put: release, acquire */
    atomic_bool is_broken; /* by the consumer, read by the producer: relaxed */
};

/* ---- the engine's side ---- */

/* Keeps the record that the log has just written; before is the log as it was. */
static void put(cmi_policy_recorder *r, const cmi_policy_log *before, size_t n_bytes)
{
    const uint64_t n_put = atomic_load_explicit(&r->n_put, memory_order_relaxed);
    const uint64_t n_taken = atomic_load_explicit(&r->n_taken, memory_order_acquire);
    if (n_bytes > r->ring_bytes - (size_t)(n_put - n_taken)) {
        r->log = *before;
        atomic_store_explicit(&r->is_cut, true, memory_order_release);
        return;
    }
    const size_t at = (size_t)(n_put % r->ring_bytes);
    const size_t n_first = CMI_MIN(n_bytes, r->ring_bytes - at);
    memcpy(r->ring + at, r->log.out, n_first);
    memcpy(r->ring, r->log.out + n_first, n_bytes - n_first);
    atomic_store_explicit(&r->n_put, n_put + n_bytes, memory_order_release);
}

static bool is_recording(const cmi_policy_recorder *r)
{
    return r != NULL && !atomic_load_explicit(&r->is_cut, memory_order_relaxed) &&
           !atomic_load_explicit(&r->is_broken, memory_order_relaxed);
}

void cmi_policy_recorder_arrive(cmi_policy_recorder *r, uint32_t slot,
                                const cmi_scheduler_request *request)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_arrive(&r->log, slot, request));
    }
}

void cmi_policy_recorder_finish(cmi_policy_recorder *r, uint64_t now_ns, uint32_t slot)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_finish(&r->log, now_ns, slot));
    }
}

void cmi_policy_recorder_observed(cmi_policy_recorder *r, const cmi_step_shape *shape,
                                  uint64_t duration_ns)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_observed(&r->log, shape, duration_ns));
    }
}

void cmi_policy_recorder_settled(cmi_policy_recorder *r)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_settled(&r->log));
    }
}

void cmi_policy_recorder_flushed(cmi_policy_recorder *r, uint64_t now_ns)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_flushed(&r->log, now_ns));
    }
}

void cmi_policy_recorder_mtp(cmi_policy_recorder *r, uint32_t n_passes, uint32_t n_rows,
                             uint32_t n_head_rows)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_mtp(&r->log, n_passes, n_rows, n_head_rows));
    }
}

void cmi_policy_recorder_received(cmi_policy_recorder *r, uint64_t now_ns, uint32_t slot,
                                  uint32_t n_new, uint32_t n_drafts)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_received(&r->log, now_ns, slot, n_new, n_drafts));
    }
}

void cmi_policy_recorder_leave(cmi_policy_recorder *r, uint32_t slot)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_leave(&r->log, slot));
    }
}

void cmi_policy_recorder_drained(cmi_policy_recorder *r, uint64_t now_ns, uint32_t slot)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_drained(&r->log, now_ns, slot));
    }
}

void cmi_policy_recorder_plan(cmi_policy_recorder *r, uint64_t now_ns,
                              const cmi_scheduler_plan *plan)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_plan(&r->log, now_ns, plan));
    }
}

void cmi_policy_recorder_done(cmi_policy_recorder *r, uint64_t now_ns,
                              const cmi_scheduler_plan *plan, const cmi_scheduler_outcome *outcomes)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_done(&r->log, now_ns, plan, outcomes));
    }
}

void cmi_policy_recorder_sealed(cmi_policy_recorder *r, const cmi_scheduler_sealed *sealed,
                                uint32_t n_sealed)
{
    if (is_recording(r)) {
        const cmi_policy_log before = r->log;
        put(r, &before, cmi_policy_log_sealed(&r->log, sealed, n_sealed));
    }
}

/* ---- the recorder's thread ---- */

static cmi_status drain(cmi_policy_recorder *r, cmi_error *err)
{
    uint64_t n_taken = atomic_load_explicit(&r->n_taken, memory_order_relaxed);
    const uint64_t n_put = atomic_load_explicit(&r->n_put, memory_order_acquire);
    while (n_taken < n_put) {
        const size_t at = (size_t)(n_taken % r->ring_bytes);
        const size_t n = CMI_MIN((size_t)(n_put - n_taken), r->ring_bytes - at);
        cmi_status st = cmi_file_writer_append(&r->file, r->ring + at, n, err);
        if (st != CMI_OK) {
            return st;
        }
        n_taken += n;
        atomic_store_explicit(&r->n_taken, n_taken, memory_order_release);
    }
    return CMI_OK;
}

static cmi_status write_end(cmi_policy_recorder *r, bool is_cut, cmi_error *err)
{
    cmi_status st = drain(r, err);
    size_t n = cmi_policy_log_end(&r->log, is_cut);
    if (st == CMI_OK) {
        st = cmi_file_writer_append(&r->file, r->log.out, n, err);
    }
    return st;
}

static void report(const cmi_policy_recorder *r, cmi_status st, bool is_cut, const cmi_error *err)
{
    if (st != CMI_OK) {
        cmi_log(CMI_LOG_WARN, "events are no longer recorded: %s", err->text);
    } else if (is_cut) {
        cmi_log(CMI_LOG_WARN,
                "events are no longer recorded, %s is written too slowly: %" PRIu64
                " steps are there",
                r->file.path, r->log.n_steps);
    } else {
        cmi_log(CMI_LOG_INFO, "recorded %" PRIu64 " steps in %s, %" PRIu64 " bytes", r->log.n_steps,
                r->file.path, r->file.n_bytes);
    }
}

static void *recorder_main(void *arg)
{
    cmi_policy_recorder *r = arg;
    struct pollfd stop = {.fd = r->stop_fd, .events = POLLIN};
    bool is_stopped = false, is_cut = false;
    cmi_error err = {0};
    cmi_status st = CMI_OK;
    while (st == CMI_OK && !is_stopped && !is_cut) {
        is_stopped = poll(&stop, 1, LOOK_EVERY_MS) > 0;
        is_cut = atomic_load_explicit(&r->is_cut, memory_order_acquire);
        st = is_stopped || is_cut ? write_end(r, is_cut, &err) : drain(r, &err);
    }
    if (st != CMI_OK) {
        atomic_store_explicit(&r->is_broken, true, memory_order_relaxed);
    }
    cmi_error close_err = {0};
    cmi_status closed = cmi_file_writer_close(&r->file, &close_err);
    report(r, st != CMI_OK ? st : closed, is_cut, st != CMI_OK ? &err : &close_err);
    return NULL;
}

/* ---- life ---- */

static void destroy(cmi_policy_recorder *r)
{
    if (r->stop_fd >= 0) {
        close(r->stop_fd);
    }
    cmi_free(r->log.out);
    cmi_free(r->ring);
    cmi_free(r->path);
    cmi_free(r);
}

static cmi_status start_thread(cmi_policy_recorder *r, cmi_error *err)
{
    r->stop_fd = eventfd(0, EFD_CLOEXEC);
    int rc = r->stop_fd < 0 ? errno : pthread_create(&r->thread, NULL, recorder_main, r);
    return rc == 0 ? CMI_OK
                   : cmi_error_set(err, CMI_ERR_IO, "cannot start the recorder: %s", strerror(rc));
}

cmi_status cmi_policy_recorder_start(cmi_policy_recorder **recorder_out, const char *path,
                                     const cmi_policy_options *opt, size_t ring_bytes,
                                     cmi_error *err)
{
    const size_t n_record = cmi_policy_log_bytes_max(opt);
    cmi_policy_recorder *r = cmi_alloc(1, sizeof *r);
    r->stop_fd = -1;
    r->ring_bytes =
        CMI_MAX(ring_bytes > 0 ? ring_bytes : (size_t)CMI_POLICY_RECORDER_RING_BYTES, n_record);
    r->ring = cmi_alloc(1, r->ring_bytes);
    cmi_policy_log_init(&r->log, cmi_alloc(1, n_record), n_record);
    r->path = cmi_alloc(1, strlen(path) + 1);
    memcpy(r->path, path, strlen(path));
    cmi_status st = cmi_file_writer_open(&r->file, r->path, err);
    if (st != CMI_OK) {
        destroy(r);
        return st;
    }
    const cmi_policy_log before = r->log;
    put(r, &before, cmi_policy_log_begin(&r->log, opt));
    st = start_thread(r, err);
    if (st != CMI_OK) {
        cmi_error unused = {0};
        (void)!cmi_file_writer_close(&r->file, &unused);
        destroy(r);
        return st;
    }
    *recorder_out = r;
    return CMI_OK;
}

void cmi_policy_recorder_stop(cmi_policy_recorder *r)
{
    if (r != NULL) {
        const uint64_t one = 1;
        ssize_t n = write(r->stop_fd, &one, sizeof one);
        (void)n;
        pthread_join(r->thread, NULL);
        destroy(r);
    }
}
