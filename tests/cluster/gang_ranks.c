#include "tests/cluster/gang_ranks.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/gang.h"
#include "fabric/fault.h"
#include "os/clock.h"

static const uint64_t MS = 1000000, PATIENCE_NS = UINT64_C(120000000000);
static const uint8_t secret[] = "a secret of the cluster for tests";

typedef struct report {
    pid_t process;
    uint32_t slot;
    cmi_gang_phase phase; /* READY: and has heard from all */
    uint32_t members;
    uint64_t epoch;
} report;

enum { MAX_REPORTS = 512 };

static struct {
    ranks_options opt;
    pid_t processes[RANKS_MAX];
    pid_t parent;
    int pipe[2];
    report reports[MAX_REPORTS];
    uint32_t n_reports;
    uint64_t last_epoch; /* that was waited for */
} all;

/* ---- a rank's process ---- */

#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: rank: %s\n", __FILE__, __LINE__, #condition);                  \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

typedef struct own {
    uint32_t slot;
    cmi_fabric *fabric;
    cmi_membership *membership;
    cmi_gang *gang;
    cmi_region_id region;
    const _Atomic uint64_t *words;             /* [RANKS_MAX]: the last epoch of each slot */
    uint64_t epoch;                            /* of the view that is worked on */
    uint32_t to_send, to_signal, heard, ended; /* masks of its ranks */
    bool has_said;                             /* of it */
    uint32_t said;                             /* phase that was said last */
} own;

static void say(const own *me, cmi_gang_phase phase)
{
    const cmi_gang_view *view = cmi_gang_get_view(me->gang);
    report r = {.process = getpid(), .slot = me->slot, .phase = phase};
    if (phase == CMI_GANG_READY) {
        r.epoch = view->epoch;
        for (uint32_t i = 0; i < view->n_ranks; i++) {
            r.members |= 1u << view->ranks[i].slot;
        }
    }
    NEED(write(all.pipe[1], &r, sizeof r) == sizeof r);
}

/* A text, then the rkey of the words. */
enum { TEXT_BYTES = 32 };

static void make_text(uint32_t slot, char text[TEXT_BYTES])
{
    memset(text, 0, TEXT_BYTES);
    snprintf(text, TEXT_BYTES, "what rank %u has to tell", slot);
}

static size_t make_blob(const own *me, uint8_t blob[TEXT_BYTES + CMI_FABRIC_MAX_RKEY])
{
    cmi_rkey rkey;
    make_text(me->slot, (char *)blob);
    NEED(cmi_region_get_rkey(me->fabric, me->region, &rkey) == CMI_OK);
    memcpy(blob + TEXT_BYTES, rkey.bytes, rkey.n_bytes);
    return TEXT_BYTES + rkey.n_bytes;
}

static void take_view(own *me)
{
    const cmi_gang_view *view = cmi_gang_get_view(me->gang);
    NEED(view->epoch > me->epoch);
    NEED(view->ranks[view->rank].slot == me->slot);
    for (uint32_t i = 0; i < view->n_ranks; i++) {
        char want[TEXT_BYTES];
        make_text(view->ranks[i].slot, want);
        NEED(view->ranks[i].blob_bytes > sizeof want);
        NEED(memcmp(view->ranks[i].blob, want, sizeof want) == 0);
        NEED(i == 0 || view->ranks[i - 1].slot < view->ranks[i].slot);
    }
    me->epoch = view->epoch;
    me->to_send = ((1u << view->n_ranks) - 1) & ~(1u << view->rank);
    me->to_signal = me->to_send;
    me->heard = me->ended = 1u << view->rank;
    me->has_said = false;
}

static void send_frames(own *me)
{
    for (uint32_t i = 0; i < RANKS_MAX; i++) {
        if ((me->to_send >> i & 1) != 0) {
            uint8_t frame[CMI_FRAME_HEAD_BYTES + 4];
            cmi_le_writer w = cmi_frame_begin(frame, sizeof frame);
            cmi_le_put32(&w, me->slot);
            cmi_status st = cmi_gang_send(me->gang, i, CMI_FRAME_EP, frame, &w);
            NEED(st != CMI_ERR_TOO_LARGE && st != CMI_ERR_INVALID);
            me->to_send &= st == CMI_OK ? ~(1u << i) : UINT32_MAX;
        }
    }
}

/* The word of this slot in each rank's memory becomes the epoch. */
static void signal_ranks(own *me)
{
    const cmi_gang_view *view = cmi_gang_get_view(me->gang);
    for (uint32_t i = 0; i < view->n_ranks; i++) {
        const cmi_gang_rank *rank = &view->ranks[i];
        if ((me->to_signal >> i & 1) == 0) {
            continue;
        }
        cmi_rkey rkey = {.n_bytes = (uint16_t)(rank->blob_bytes - TEXT_BYTES)};
        cmi_remote word = {.offset = me->slot * sizeof(uint64_t)};
        cmi_op op = {.tag = me->epoch << 8 | i};
        memcpy(rkey.bytes, (const uint8_t *)rank->blob + TEXT_BYTES, rkey.n_bytes);
        if (cmi_endpoint_open_rkey(me->fabric, rank->endpoint, &rkey, &word.id) == CMI_OK &&
            cmi_endpoint_signal(me->fabric, rank->endpoint, word, CMI_SIGNAL_MAX, me->epoch, &op) ==
                CMI_OK) {
            me->to_signal &= ~(1u << i);
        } /* else there is no room, or the rank is lost, which the gang says */
    }
}

static void hear_end(own *me, const cmi_fabric_event *done)
{
    if (done->tag >> 8 == (me->epoch << 8) >> 8 && done->status == CMI_OK) {
        me->ended |= 1u << (done->tag & 0xFF);
    }
}

static bool has_all_words(const own *me, const cmi_gang_view *view)
{
    for (uint32_t i = 0; i < view->n_ranks; i++) {
        if (i != view->rank && cmi_word_load(&me->words[view->ranks[i].slot]) < me->epoch) {
            return false;
        }
    }
    return true;
}

static void hear_frame(own *me, const cmi_gang_event *event)
{
    const cmi_gang_view *view = cmi_gang_get_view(me->gang);
    if (me->epoch != view->epoch) {
        take_view(me); /* the frame came right behind the news */
    }
    cmi_le_reader r = cmi_frame_reader(&event->frame);
    NEED(event->frame.epoch == view->epoch && event->frame.type == CMI_FRAME_EP);
    NEED(cmi_le_get32(&r) == view->ranks[event->rank].slot);
    NEED(cmi_frame_is_read(&event->frame, &r));
    me->heard |= 1u << event->rank;
}

static void act(own *me)
{
    const cmi_gang_view *view = cmi_gang_get_view(me->gang);
    if (view->epoch != me->epoch) {
        take_view(me);
    }
    send_frames(me);
    signal_ranks(me);
    const uint32_t everybody = (1u << view->n_ranks) - 1;
    if (!me->has_said && me->to_send == 0 && me->heard == everybody && me->ended == everybody &&
        has_all_words(me, view)) {
        say(me, CMI_GANG_READY);
        me->has_said = true;
    }
}

static void follow_phase(own *me)
{
    const cmi_gang_phase phase = cmi_gang_get_phase(me->gang);
    const bool is_news = me->said != phase;
    me->said = phase;
    if (phase == CMI_GANG_READY) {
        act(me);
    } else if (phase == CMI_GANG_STOPPING) {
        cmi_gang_stopped(me->gang);
    } else if (phase != CMI_GANG_FORMING && is_news) {
        say(me, phase);
    }
    if (phase == CMI_GANG_LEFT_OUT) {
        uint8_t blob[TEXT_BYTES + CMI_FABRIC_MAX_RKEY];
        cmi_error err;
        NEED(cmi_gang_rejoin(me->gang, blob, make_blob(me, blob), &err) == CMI_OK);
    }
}

static void make_gang(own *me)
{
    cmi_fabric_options fabric;
    cmi_gang_options opt;
    cmi_member members[RANKS_MAX] = {{{0}}};
    cmi_error err = {0};
    char name[32];
    uint8_t blob[TEXT_BYTES + CMI_FABRIC_MAX_RKEY];
    snprintf(name, sizeof name, "rank-%u", me->slot);
    for (uint32_t i = 0; i < all.opt.n; i++) {
        if (i == 0 || !all.opt.meet_at_zero) {
            snprintf(members[i].address, sizeof members[i].address, "local:cmi-%s-%d-%u",
                     all.opt.name, (int)all.parent, i);
        }
    }
    cmi_fabric_options_default(&fabric);
    fabric.name = name;
    fabric.secret = secret;
    fabric.secret_bytes = sizeof secret;
    fabric.version = 1;
    const char *address = members[me->slot].address;
    NEED(cmi_fabric_create_local(&me->fabric, &fabric, &err) == CMI_OK);
    if (all.opt.has_faults) {
        const cmi_fault_options faults = {
            .seed = me->slot + 1, .n_ops = 16, .refuse_ppm = 200000, .corrupt_ppm = 5000};
        cmi_fabric *inner = me->fabric;
        NEED(cmi_fabric_wrap_faults(&me->fabric, inner, &faults, &err) == CMI_OK);
    }
    cmi_status st;
    do { /* a killed one's socket may be there for a moment */
        st = cmi_fabric_listen(me->fabric, address[0] != '\0' ? address : "local:", &err);
    } while (st == CMI_ERR_CLOSED);
    NEED(st == CMI_OK);
    NEED(cmi_membership_create_static(&me->membership, members, all.opt.n, me->slot, &err) ==
         CMI_OK);
    cmi_gang_options_default(&opt);
    opt.name = all.opt.name;
    opt.fabric = me->fabric;
    opt.membership = me->membership;
    opt.blob = blob;
    NEED(cmi_fabric_alloc(me->fabric, RANKS_MAX * sizeof(uint64_t), "words", &me->region, &err) ==
         CMI_OK);
    me->words = cmi_region_memory(me->fabric, me->region);
    opt.blob_bytes = make_blob(me, blob);
    opt.machine.min_ranks = all.opt.min_ranks;
    opt.machine.silent_ns = all.opt.silent_ms * MS;
    if (cmi_gang_create(&me->gang, &opt, &err) != CMI_OK) {
        fprintf(stderr, "%s\n", err.text);
        _exit(1);
    }
}

static void run_rank(uint32_t slot)
{
    own me = {.slot = slot};
    make_gang(&me);
    for (;;) {
        cmi_gang_event event;
        while (cmi_gang_poll(me.gang, &event)) {
            if (event.kind == CMI_GANG_FRAME) {
                hear_frame(&me, &event);
            } else {
                hear_end(&me, &event.done);
            }
        }
        follow_phase(&me);
        cmi_gang_sleep(me.gang, cmi_fabric_after_ns(me.fabric, (me.has_said ? 1000 : 1) * MS));
    }
}

/* ---- the test's side ---- */

void ranks_begin(const ranks_options *opt)
{
    memset(&all, 0, sizeof all);
    all.opt = *opt;
    all.parent = getpid();
    assert_int_equal(pipe(all.pipe), 0);
}

pid_t ranks_start(uint32_t slot)
{
    fflush(NULL);
    pid_t process = fork();
    assert_true(process >= 0);
    if (process == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_rank(slot);
    }
    all.processes[slot] = process;
    return process;
}

void ranks_signal(uint32_t slot, int signal)
{
    assert_int_equal(kill(all.processes[slot], signal), 0);
}

void ranks_kill(uint32_t slot)
{
    int status;
    ranks_signal(slot, SIGKILL);
    assert_int_equal(waitpid(all.processes[slot], &status, 0), all.processes[slot]);
    assert_true(WIFSIGNALED(status)); /* it had not ended by itself */
    all.processes[slot] = 0;
}

/* Of what was said an epoch has one view. */
static void keep(const report *r)
{
    assert_true(all.n_reports < MAX_REPORTS);
    for (uint32_t i = 0; i < all.n_reports && r->phase == CMI_GANG_READY; i++) {
        if (all.reports[i].epoch == r->epoch) {
            assert_int_equal(all.reports[i].members, r->members);
        }
    }
    all.reports[all.n_reports++] = *r;
}

static void read_report(uint64_t until_ns, const char *waits_for)
{
    struct pollfd fd = {.fd = all.pipe[0], .events = POLLIN};
    report r;
    while (poll(&fd, 1, 1000) <= 0) {
        if (cmi_clock_monotonic_ns() >= until_ns) {
            for (uint32_t i = 0; i < all.n_reports; i++) {
                print_message("rank %u (%d): phase %d, members %x, epoch %llx\n",
                              all.reports[i].slot, (int)all.reports[i].process,
                              all.reports[i].phase, all.reports[i].members,
                              (unsigned long long)all.reports[i].epoch);
            }
            fail_msg("waited for %s", waits_for);
        }
    }
    assert_int_equal(read(all.pipe[0], &r, sizeof r), sizeof r);
    keep(&r);
}

static uint32_t who_said(uint64_t epoch)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < all.n_reports; i++) {
        if (all.reports[i].phase == CMI_GANG_READY && all.reports[i].epoch == epoch) {
            mask |= 1u << all.reports[i].slot;
        }
    }
    return mask;
}

uint64_t ranks_wait_view(uint32_t mask)
{
    const uint64_t until_ns = cmi_clock_monotonic_ns() + PATIENCE_NS;
    for (;;) {
        for (uint32_t i = 0; i < all.n_reports; i++) {
            const report *r = &all.reports[i];
            if (r->phase == CMI_GANG_READY && r->members == mask && r->epoch > all.last_epoch &&
                who_said(r->epoch) == mask) {
                return all.last_epoch = r->epoch;
            }
        }
        read_report(until_ns, "a view");
    }
}

void ranks_wait_phase(pid_t process, cmi_gang_phase phase)
{
    const uint64_t until_ns = cmi_clock_monotonic_ns() + PATIENCE_NS;
    for (;;) {
        for (uint32_t i = 0; i < all.n_reports; i++) {
            if (all.reports[i].process == process && all.reports[i].phase == phase) {
                return;
            }
        }
        read_report(until_ns, "a phase");
    }
}

void ranks_end(void)
{
    for (uint32_t slot = 0; slot < RANKS_MAX; slot++) {
        if (all.processes[slot] != 0) {
            ranks_kill(slot);
        }
    }
    close(all.pipe[0]);
    close(all.pipe[1]);
}
