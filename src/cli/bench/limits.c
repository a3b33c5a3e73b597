#include "cli/bench/limits.h"

#include <stdatomic.h>

#include "kernels/variants.h"

static const double sample_seconds = 3e-3;

const char *cmi_bench_limit_name(cmi_bench_limit_kind kind)
{
    static const char *const names[] = {"int8", "bf16", "f32", "bandwidth"};
    return names[kind];
}

size_t cmi_bench_limit_n_variants(cmi_bench_limit_kind kind)
{
    const size_t n[] = {cmi_peak_i8_n_variants, cmi_peak_bf16_n_variants, cmi_peak_f32_n_variants,
                        cmi_peak_read_n_variants};
    return n[kind];
}

const char *cmi_bench_limit_isa(cmi_bench_limit limit)
{
    switch (limit.kind) {
    case CMI_BENCH_I8:
        return cmi_peak_i8_variants[limit.variant].isa;
    case CMI_BENCH_BF16:
        return cmi_peak_bf16_variants[limit.variant].isa;
    case CMI_BENCH_F32:
        return cmi_peak_f32_variants[limit.variant].isa;
    default:
        return cmi_peak_read_variants[limit.variant].isa;
    }
}

uint32_t cmi_bench_limit_cpu_flags(cmi_bench_limit limit)
{
    switch (limit.kind) {
    case CMI_BENCH_I8:
        return cmi_peak_i8_variants[limit.variant].cpu_flags;
    case CMI_BENCH_BF16:
        return cmi_peak_bf16_variants[limit.variant].cpu_flags;
    case CMI_BENCH_F32:
        return cmi_peak_f32_variants[limit.variant].cpu_flags;
    default:
        return cmi_peak_read_variants[limit.variant].cpu_flags;
    }
}

static uint32_t slow_on(cmi_bench_limit limit)
{
    switch (limit.kind) {
    case CMI_BENCH_I8:
        return cmi_peak_i8_variants[limit.variant].slow_on;
    case CMI_BENCH_BF16:
        return cmi_peak_bf16_variants[limit.variant].slow_on;
    case CMI_BENCH_F32:
        return cmi_peak_f32_variants[limit.variant].slow_on;
    default:
        return cmi_peak_read_variants[limit.variant].slow_on;
    }
}

/* Each feature implies those below it (kernels/kernels.h). */
static uint32_t with_implied(uint32_t cpu_flags)
{
    cpu_flags &= ~(uint32_t)CMI_CPU_TRAITS;
    for (uint32_t shift = 1; shift < 32; shift *= 2) {
        cpu_flags |= cpu_flags >> shift;
    }
    return cpu_flags;
}

cmi_bench_limit cmi_bench_limit_for(cmi_bench_limit_kind kind, uint32_t cpu_flags)
{
    cmi_bench_limit best = {.kind = kind};
    for (size_t v = 0; v < cmi_bench_limit_n_variants(kind); v++) {
        cmi_bench_limit row = {kind, v};
        if ((cmi_bench_limit_cpu_flags(row) & ~with_implied(cpu_flags)) == 0 &&
            (slow_on(row) & cpu_flags) == 0) {
            best = row;
        }
    }
    return kind == CMI_BENCH_BF16 && best.variant == 0
               ? cmi_bench_limit_for(CMI_BENCH_F32, cpu_flags)
               : best;
}

/* ---- samples ---- */

typedef struct sampling {
    cmi_bench_rig *rig;
    cmi_bench_limit limit;
    size_t read_bytes;         /* of each thread at a time */
    _Atomic uint64_t n_done;   /* operations or bytes of all threads */
    _Atomic uint64_t checksum; /* so that reading cannot be left out */
} sampling;

static cmi_peak_fn *peak_fn(cmi_bench_limit limit)
{
    switch (limit.kind) {
    case CMI_BENCH_I8:
        return cmi_peak_i8_variants[limit.variant].fn;
    case CMI_BENCH_BF16:
        return cmi_peak_bf16_variants[limit.variant].fn;
    default:
        return cmi_peak_f32_variants[limit.variant].fn;
    }
}

static void compute_peak(void *arg, uint32_t thread)
{
    (void)thread;
    enum { ROUNDS = 10000 };
    sampling *s = arg;
    cmi_peak_fn *fn = peak_fn(s->limit);
    uint64_t n_done = 0;
    double begin = cmi_bench_seconds();
    do {
        n_done += fn(ROUNDS);
    } while (cmi_bench_seconds() - begin < sample_seconds);
    atomic_fetch_add(&s->n_done, n_done);
}

/* Reads on in the thread's part of the pool, or the beginning of that part again and again. */
static void read_memory(void *arg, uint32_t thread)
{
    enum { PIECE_BYTES = 16 << 20, LOOK_BYTES = 1 << 20 /* between looks at the clock */ };
    sampling *s = arg;
    const size_t part_bytes = s->rig->pool_bytes / s->rig->n_threads;
    const uint8_t *part = s->rig->pool + thread * part_bytes;
    const bool in_cache = s->read_bytes > 0;
    const size_t n_bytes = in_cache ? s->read_bytes : PIECE_BYTES;
    size_t at = in_cache ? 0 : s->rig->read_at[thread];
    uint64_t n_done = 0, sum = 0;
    const uint32_t n_repeats = in_cache ? 1 + LOOK_BYTES / (uint32_t)n_bytes : 1;
    double begin = cmi_bench_seconds();
    do {
        for (uint32_t i = 0; i < n_repeats; i++) {
            sum += cmi_peak_read_variants[s->limit.variant].fn(part + at, n_bytes);
        }
        n_done += n_repeats * n_bytes;
        at = in_cache ? 0 : (at + n_bytes) % part_bytes;
    } while (cmi_bench_seconds() - begin < sample_seconds);
    s->rig->read_at[thread] = at;
    atomic_fetch_add(&s->checksum, sum);
    atomic_fetch_add(&s->n_done, n_done);
}

double cmi_bench_limit_sample(cmi_bench_rig *rig, cmi_bench_limit limit, uint32_t n_threads,
                              size_t read_bytes)
{
    sampling s = {.rig = rig, .limit = limit};
    cmi_bench_fn *fn = compute_peak;
    if (limit.kind == CMI_BENCH_READ) {
        s.read_bytes = CMI_ROUND_UP(read_bytes, (size_t)CMI_PEAK_READ_BYTES);
        s.read_bytes = s.read_bytes > CMI_BENCH_POOL_STEP ? 0 : s.read_bytes;
        fn = read_memory;
    }
    double seconds = cmi_bench_together(rig, n_threads, fn, &s);
    return (double)atomic_load(&s.n_done) / seconds;
}

/* ---- signals ---- */

enum { ROUND_TRIPS_MAX = 4096, ROUND_TRIPS_A_LOOK = 16 };
static const uint32_t stop_signal = UINT32_MAX;

typedef struct ping_pong {
    struct {
        _Atomic uint32_t count CMI_ALIGNED(CMI_CACHE_LINE);
    } signals[2]; /* [i]: what thread i has sent */
    double seconds;
    uint32_t n_round_trips;
} ping_pong;

static void wait_for(ping_pong *p, uint32_t thread, uint32_t count)
{
    while (atomic_load_explicit(&p->signals[thread].count, memory_order_acquire) < count) {
    }
}

static void send(ping_pong *p, uint32_t thread, uint32_t count)
{
    atomic_store_explicit(&p->signals[thread].count, count, memory_order_release);
}

/* Sends, waits for the answer, and looks at the clock only now and then. On a machine so busy that
 * the threads take turns it gives up early. */
static void ask(ping_pong *p)
{
    double begin = cmi_bench_seconds();
    do {
        for (uint32_t i = 0; i < ROUND_TRIPS_A_LOOK; i++) {
            send(p, 0, ++p->n_round_trips);
            wait_for(p, 1, p->n_round_trips);
        }
        p->seconds = cmi_bench_seconds() - begin;
    } while (p->seconds < sample_seconds && p->n_round_trips < ROUND_TRIPS_MAX);
    send(p, 0, stop_signal);
}

static void answer(ping_pong *p)
{
    for (uint32_t i = 1;; i++) {
        wait_for(p, 0, i);
        if (atomic_load_explicit(&p->signals[0].count, memory_order_relaxed) == stop_signal) {
            return;
        }
        send(p, 1, i);
    }
}

static void exchange(void *arg, uint32_t thread)
{
    if (thread == 0) {
        ask(arg);
    } else {
        answer(arg);
    }
}

double cmi_bench_signal_sample(cmi_bench_rig *rig)
{
    ping_pong p = {0};
    (void)cmi_bench_together(rig, 2, exchange, &p);
    return p.seconds / p.n_round_trips / 2;
}
