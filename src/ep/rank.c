#include "ep/rank.h"

#include <assert.h>

#include "base/alloc.h"

enum { SEQUENCE_BITS = 40 }; /* exchanges of a view: for decades; the view's count is above */

static const uint64_t SECOND = 1000000000;

struct cmi_ep_rank {
    cmi_ep_rank_options opt;
    cmi_gang *gang;
    uint32_t self;
    cmi_region_id regions[CMI_EP_MAX_REGIONS];
    uint32_t n_regions;
    cmi_exchange *exchanges[CMI_EP_MAX_STREAMS];
    cmi_stage_exchange *stage; /* in the last region; or NULL */
    cmi_ep_peer *peers;        /* [places] */
    uint64_t dead[CMI_GANG_MAX_RANKS / 64];
    uint32_t n_living;
    uint64_t epoch; /* that is entered; 0: none */
    cmi_ep_call called;
    uint8_t hello[CMI_EP_MAX_HELLO];
    size_t hello_bytes;
};

void cmi_ep_rank_options_default(cmi_ep_rank_options *opt)
{
    *opt = (cmi_ep_rank_options){.min_ranks = 1,
                                 .n_streams = 1,
                                 .silent_ns = 20 * SECOND,
                                 .patience_ns = 600 * SECOND,
                                 .gather_ns = 600 * SECOND};
}

/* ---- making one ---- */

static cmi_status look(void *arg);

static cmi_status make_exchange(cmi_ep_rank *rank, uint32_t stream, cmi_error *err)
{
    const cmi_ep_rank_options *opt = &rank->opt;
    cmi_ep_options ep = {.rank = rank->self,
                         .team = opt->team,
                         .fabric = opt->fabric,
                         .peers = rank->peers,
                         .n_layers = opt->n_layers,
                         .n_experts = opt->n_experts,
                         .rank_of = opt->rank_of,
                         .counts = opt->counts,
                         .patience_ns = opt->patience_ns,
                         .look = look,
                         .look_arg = rank};
    cmi_status st = cmi_ep_layout_make(&ep.layout, &opt->shape, err);
    if (st == CMI_OK) {
        st = cmi_fabric_alloc(opt->fabric, ep.layout.region_bytes, "exchange windows",
                              &rank->regions[stream], err);
    }
    if (st == CMI_OK) {
        ep.region = rank->regions[stream];
        st = cmi_ep_create(&rank->exchanges[stream], &ep, err);
    }
    return st;
}

static cmi_status make_stage(cmi_ep_rank *rank, cmi_error *err)
{
    const cmi_ep_rank_options *opt = &rank->opt;
    const uint32_t idx = opt->n_streams;
    cmi_ep_stage_options stage = {.shape = opt->stage,
                                  .rank = rank->self,
                                  .team = opt->team,
                                  .fabric = opt->fabric,
                                  .peers = rank->peers,
                                  .patience_ns = opt->patience_ns,
                                  .look = look,
                                  .look_arg = rank};
    cmi_status st = cmi_fabric_alloc(
        opt->fabric, cmi_ep_stage_region_bytes(opt->stage.n_ranks, opt->stage_window_bytes),
        "prompt windows", &rank->regions[idx], err);
    if (st == CMI_OK) {
        rank->n_regions++;
        stage.region = rank->regions[idx];
        st = cmi_ep_stage_create(&rank->stage, &stage, err);
    }
    return st;
}

/* What the others are told before they write here. */
static cmi_status write_hello(cmi_ep_rank *rank, cmi_error *err)
{
    cmi_ep_hello hello = {.model = rank->opt.model, .n_regions = rank->n_regions};
    for (uint32_t i = 0; i < hello.n_regions; i++) {
        cmi_status st = cmi_region_get_rkey(rank->opt.fabric, rank->regions[i], &hello.regions[i]);
        if (st != CMI_OK) {
            return cmi_error_set(err, st, "exchange windows have no key: %s", cmi_status_text(st));
        }
    }
    rank->hello_bytes = cmi_ep_write_hello(rank->hello, &hello);
    return CMI_OK;
}

static cmi_status start_gang(cmi_ep_rank *rank, cmi_error *err)
{
    cmi_gang_options opt;
    cmi_gang_options_default(&opt);
    opt.name = rank->opt.name;
    opt.fabric = rank->opt.fabric;
    opt.membership = rank->opt.membership;
    opt.blob = rank->hello;
    opt.blob_bytes = rank->hello_bytes;
    opt.machine.min_ranks = rank->opt.min_ranks;
    opt.machine.silent_ns = rank->opt.silent_ns;
    opt.machine.gather_ns = rank->opt.gather_ns;
    opt.machine.stop_ns = CMI_MAX(opt.machine.stop_ns, rank->opt.silent_ns);
    return cmi_gang_create(&rank->gang, &opt, err);
}

cmi_status cmi_ep_rank_create(cmi_ep_rank **rank_out, const cmi_ep_rank_options *opt,
                              cmi_error *err)
{
    const uint32_t n_places = cmi_membership_count(opt->membership);
    if (opt->n_streams < 1 || opt->n_streams > CMI_EP_MAX_STREAMS ||
        opt->shape.n_ranks != n_places ||
        (opt->stage.n_ranks != 0 && opt->stage.n_ranks != n_places)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "a rank with %u streams among %u of %u",
                             opt->n_streams, opt->shape.n_ranks, n_places);
    }
    cmi_ep_rank *rank = cmi_alloc(1, sizeof *rank);
    cmi_status st = CMI_OK;
    rank->opt = *opt;
    rank->self = cmi_membership_self(opt->membership);
    rank->peers = cmi_alloc(n_places, sizeof *rank->peers);
    for (uint32_t i = 0; i < n_places; i++) {
        rank->peers[i].is_away = i != rank->self;
    }
    for (uint32_t i = 0; st == CMI_OK && i < opt->n_streams; i++) {
        st = make_exchange(rank, i, err);
    }
    rank->n_regions = opt->n_streams;
    if (st == CMI_OK && opt->stage.n_ranks > 0) {
        st = make_stage(rank, err);
    }
    st = st == CMI_OK ? write_hello(rank, err) : st;
    st = st == CMI_OK ? start_gang(rank, err) : st;
    if (st != CMI_OK) {
        cmi_ep_rank_destroy(rank);
        return st;
    }
    *rank_out = rank;
    return CMI_OK;
}

void cmi_ep_rank_destroy(cmi_ep_rank *rank)
{
    if (rank == NULL) {
        return;
    }
    cmi_gang_destroy(rank->gang);
    for (uint32_t i = 0; i < CMI_EP_MAX_STREAMS; i++) {
        cmi_ep_destroy(rank->exchanges[i]);
    }
    cmi_ep_stage_destroy(rank->stage);
    for (uint32_t i = 0; i < CMI_EP_MAX_REGIONS; i++) {
        cmi_fabric_deregister(rank->opt.fabric, rank->regions[i]);
    }
    cmi_free(rank->peers);
    cmi_free(rank);
}

cmi_exchange *cmi_ep_rank_exchange(cmi_ep_rank *rank, uint32_t stream)
{
    assert(stream < rank->opt.n_streams);
    return rank->exchanges[stream];
}

cmi_stage_exchange *cmi_ep_rank_stage(cmi_ep_rank *rank)
{
    return rank->stage;
}

/* ---- getting on ---- */

/* Also in the middle of a pass, where a link that ends has memory to give back. */
static void hear(cmi_ep_rank *rank)
{
    const bool was_forbidden = cmi_alloc_forbid(false);
    cmi_gang_event event;
    while (cmi_gang_poll(rank->gang, &event)) {
        cmi_ep_call call;
        if (event.kind == CMI_GANG_FRAME && event.frame.type == CMI_EP_FRAME_CALL &&
            cmi_ep_read_call(&event.frame, &call) && call.sequence > rank->called.sequence) {
            rank->called = call; /* an older one may come later, from another rank */
        } else if (event.kind == CMI_GANG_FRAME && event.frame.type != CMI_EP_FRAME_CALL &&
                   rank->opt.on_frame != NULL) {
            const uint32_t place = cmi_gang_get_view(rank->gang)->ranks[event.rank].slot;
            rank->opt.on_frame(rank->opt.on_frame_arg, place, &event.frame);
        }
    }
    (void)cmi_alloc_forbid(was_forbidden);
}

static bool is_in_view(const cmi_ep_rank *rank)
{
    return rank->epoch != 0 && cmi_gang_get_phase(rank->gang) == CMI_GANG_READY &&
           cmi_gang_get_view(rank->gang)->epoch == rank->epoch;
}

static cmi_status look(void *arg)
{
    cmi_ep_rank *rank = arg;
    hear(rank);
    return is_in_view(rank) ? CMI_OK : CMI_ERR_PEER;
}

/* What this rank has put is there, or its peer is lost. */
static void flush_all(cmi_ep_rank *rank)
{
    const cmi_gang_view *view = cmi_gang_get_view(rank->gang);
    const uint64_t until_ns = cmi_fabric_after_ns(rank->opt.fabric, SECOND);
    for (uint32_t i = 0; i < view->n_ranks; i++) {
        if (i != view->rank) {
            cmi_status st =
                cmi_endpoint_flush_wait(rank->opt.fabric, view->ranks[i].endpoint, until_ns);
            (void)st; /* a lost one is the gang's business */
        }
    }
}

static void note_who_lives(cmi_ep_rank *rank)
{
    const cmi_gang_view *view = cmi_gang_get_view(rank->gang);
    rank->n_living = view->n_ranks;
    memset(rank->dead, 0xFF, sizeof rank->dead);
    for (uint32_t i = 0; i < view->n_ranks; i++) {
        const uint32_t place = view->ranks[i].slot;
        rank->dead[place / 64] &= ~(UINT64_C(1) << place % 64);
    }
}

cmi_ep_rank_state cmi_ep_rank_poll(cmi_ep_rank *rank)
{
    cmi_error err = {0};
    cmi_status st;
    hear(rank);
    switch (cmi_gang_get_phase(rank->gang)) {
    case CMI_GANG_READY:
        if (is_in_view(rank)) {
            return CMI_EP_RANK_READY;
        }
        note_who_lives(rank);
        return CMI_EP_RANK_NEW_VIEW;
    case CMI_GANG_STOPPING:
        flush_all(rank);
        rank->epoch = 0;
        cmi_gang_stopped(rank->gang);
        return CMI_EP_RANK_WAITING;
    case CMI_GANG_LEFT_OUT:
        rank->epoch = 0;
        st = cmi_gang_rejoin(rank->gang, rank->hello, rank->hello_bytes, &err);
        assert(st == CMI_OK);
        return CMI_EP_RANK_WAITING;
    case CMI_GANG_SUPERSEDED:
        return CMI_EP_RANK_SUPERSEDED;
    default:
        return CMI_EP_RANK_WAITING;
    }
}

const uint64_t *cmi_ep_rank_dead(const cmi_ep_rank *rank)
{
    return rank->dead;
}

uint32_t cmi_ep_rank_n_living(const cmi_ep_rank *rank)
{
    return rank->n_living;
}

void cmi_ep_rank_sleep(cmi_ep_rank *rank, uint64_t deadline_ns)
{
    uint32_t pass;
    if (!is_in_view(rank) || !cmi_ep_rank_is_called(rank, &pass)) {
        cmi_gang_sleep(rank->gang, deadline_ns);
    }
}

void cmi_ep_rank_wake(cmi_ep_rank *rank)
{
    cmi_fabric_wake(rank->opt.fabric);
}

void cmi_ep_rank_get_counters(const cmi_ep_rank *rank, cmi_gang_counters *counters_out)
{
    cmi_gang_get_counters(rank->gang, counters_out);
}

void cmi_ep_rank_get_work(const cmi_ep_rank *rank, cmi_ep_counters *counters_out)
{
    *counters_out = (cmi_ep_counters){0};
    for (uint32_t i = 0; i < rank->opt.n_streams; i++) {
        cmi_ep_counters of_stream;
        cmi_ep_get_counters(rank->exchanges[i], &of_stream);
        counters_out->n_pairs += of_stream.n_pairs;
        counters_out->waited_ns += of_stream.waited_ns;
    }
}

/* ---- a view ---- */

/* A region is announced by another way than its key. */
static cmi_status open_region(cmi_ep_rank *rank, const cmi_gang_rank *peer, const cmi_rkey *rkey,
                              cmi_remote_id *region_out)
{
    const uint64_t until_ns = cmi_fabric_after_ns(rank->opt.fabric, rank->opt.silent_ns);
    cmi_status st;
    do {
        st = cmi_endpoint_open_rkey(rank->opt.fabric, peer->endpoint, rkey, region_out);
        hear(rank);
    } while (st == CMI_ERR_NO_CAPACITY && cmi_gang_get_phase(rank->gang) == CMI_GANG_READY &&
             cmi_fabric_now_ns(rank->opt.fabric) < until_ns);
    return st;
}

static cmi_status find_peers(cmi_ep_rank *rank, uint32_t region_idx, cmi_error *err)
{
    const cmi_gang_view *view = cmi_gang_get_view(rank->gang);
    for (uint32_t i = 0; i < rank->opt.shape.n_ranks; i++) {
        rank->peers[i] = (cmi_ep_peer){.is_away = i != rank->self};
    }
    for (uint32_t i = 0; i < view->n_ranks; i++) {
        const cmi_gang_rank *of = &view->ranks[i];
        cmi_ep_peer *peer = &rank->peers[of->slot];
        cmi_ep_hello hello;
        if (!cmi_ep_read_hello(of->blob, of->blob_bytes, &hello) ||
            hello.model != rank->opt.model || hello.n_regions != rank->n_regions) {
            return cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                                 "rank %u of %s has another model, or options that do not go "
                                 "together with this rank's",
                                 of->slot, rank->opt.name);
        }
        if (i != view->rank) {
            peer->is_away = false;
            peer->endpoint = of->endpoint;
            cmi_status st = open_region(rank, of, &hello.regions[region_idx], &peer->region);
            if (st != CMI_OK) {
                return cmi_error_set(err, st, "rank %u of %s cannot be reached: %s", of->slot,
                                     rank->opt.name, cmi_status_text(st));
            }
        }
    }
    return CMI_OK;
}

cmi_status cmi_ep_rank_enter(cmi_ep_rank *rank, cmi_error *err)
{
    hear(rank);
    if (cmi_gang_get_phase(rank->gang) != CMI_GANG_READY) {
        return cmi_error_set(err, CMI_ERR_PEER, "the view is over");
    }
    const uint64_t epoch = cmi_gang_get_view(rank->gang)->epoch;
    const uint64_t sequence = (uint64_t)cmi_gang_epoch_count(epoch) << SEQUENCE_BITS;
    for (uint32_t i = 0; i < rank->n_regions; i++) {
        cmi_status st = find_peers(rank, i, err);
        if (st != CMI_OK) {
            return st;
        }
        if (i < rank->opt.n_streams) {
            cmi_ep_restart(rank->exchanges[i], rank->peers, sequence);
        } else {
            cmi_ep_stage_restart(rank->stage, rank->peers, sequence);
        }
    }
    if (cmi_gang_get_phase(rank->gang) != CMI_GANG_READY) {
        return cmi_error_set(err, CMI_ERR_PEER, "the view is over");
    }
    rank->epoch = epoch;
    return CMI_OK;
}

/* ---- calls ---- */

/* Writes a payload. */
typedef void write_fn(cmi_le_writer *w, const void *what);

static cmi_status tell_one(cmi_ep_rank *rank, uint32_t i, uint16_t type, write_fn *write,
                           const void *what)
{
    uint8_t frame[CMI_EP_MAX_FRAME];
    cmi_status st = CMI_ERR_NO_CAPACITY;
    while (st == CMI_ERR_NO_CAPACITY && is_in_view(rank)) {
        cmi_le_writer w = cmi_frame_begin(frame, sizeof frame);
        write(&w, what);
        st = cmi_gang_send(rank->gang, i, type, frame, &w);
        hear(rank);
    }
    return is_in_view(rank) ? st : CMI_ERR_PEER;
}

static cmi_status tell_all(cmi_ep_rank *rank, uint16_t type, write_fn *write, const void *what)
{
    cmi_status st = is_in_view(rank) ? CMI_OK : CMI_ERR_PEER;
    for (uint32_t i = 0; st == CMI_OK && i < cmi_gang_get_view(rank->gang)->n_ranks; i++) {
        if (i != cmi_gang_get_view(rank->gang)->rank) {
            st = tell_one(rank, i, type, write, what);
        }
    }
    return st;
}

static void write_call(cmi_le_writer *w, const void *what)
{
    cmi_ep_write_call(w, what);
}

cmi_status cmi_ep_rank_call(cmi_ep_rank *rank, uint32_t pass)
{
    const cmi_ep_call call = {cmi_ep_next_sequence(rank->exchanges[0]), pass};
    return tell_all(rank, CMI_EP_FRAME_CALL, write_call, &call);
}

typedef struct counts_to_tell {
    cmi_ep_counts head;
    const uint32_t *counts;
} counts_to_tell;

static void write_counts(cmi_le_writer *w, const void *what)
{
    const counts_to_tell *c = what;
    cmi_ep_write_counts(w, &c->head, c->counts);
}

cmi_status cmi_ep_rank_tell_counts(cmi_ep_rank *rank, uint32_t layer, uint32_t first,
                                   const uint32_t *counts, uint32_t n, bool is_busy)
{
    const counts_to_tell what = {{.layer = layer, .first = first, .n = n, .is_busy = is_busy},
                                 counts};
    return tell_all(rank, CMI_EP_FRAME_COUNTS, write_counts, &what);
}

static void write_round(cmi_le_writer *w, const void *what)
{
    cmi_ep_write_round(w, what);
}

cmi_status cmi_ep_rank_tell_round(cmi_ep_rank *rank, const cmi_ep_round *round)
{
    return tell_all(rank, CMI_EP_FRAME_ROUND, write_round, round);
}

cmi_status cmi_ep_rank_await_frames(cmi_ep_rank *rank)
{
    hear(rank);
    if (is_in_view(rank)) {
        cmi_gang_sleep(rank->gang, cmi_fabric_after_ns(rank->opt.fabric, SECOND / 1000));
        hear(rank);
    }
    return is_in_view(rank) ? CMI_OK : CMI_ERR_PEER;
}

bool cmi_ep_rank_is_called(const cmi_ep_rank *rank, uint32_t *pass_out)
{
    *pass_out = rank->called.pass;
    return rank->called.sequence == cmi_ep_next_sequence(rank->exchanges[0]);
}
