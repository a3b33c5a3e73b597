#include "cli/bench/ep_process.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/strmap.h"
#include "cli/bench/ep_rank.h"
#include "cluster/gang.h"
#include "ep/rank_wire.h"

enum { RING_BYTES = 1 << 18 };

static const uint64_t SECOND = 1000000000;

typedef struct joining {
    const cmi_bench_ep_process *process;
    const cmi_bench_ep_options *opt;
    cmi_fabric *fabric;
    cmi_membership *membership;
    cmi_gang *gang;
    cmi_region_id region;
    uint64_t come; /* offset in the region of a word that counts ranks which have joined */
    cmi_ep_peer peers[CMI_BENCH_EP_MAX_RANKS];
    uint64_t until_ns;
} joining;

/* ---- what a rank brings along ---- */

static cmi_status open_fabric(joining *j, cmi_error *err)
{
    const cmi_bench_ep_process *process = j->process;
    char name[16];
    cmi_fabric_options opt;
    snprintf(name, sizeof name, "rank %u", process->rank);
    cmi_fabric_options_default(&opt);
    opt.name = name;
    opt.secret = (const uint8_t *)process->secret;
    opt.secret_bytes = strlen(process->secret);
    opt.version = CMI_FRAME_MAJOR;
    opt.n_endpoints = 2 * process->n_ranks + 8;
    opt.n_remotes = opt.n_regions * opt.n_endpoints;
    opt.message_bytes = CMI_GANG_MAX_FRAME;
    opt.ring_bytes = RING_BYTES;
    opt.handshake_ns = process->join_s * SECOND;
    cmi_status st = cmi_fabric_create(&j->fabric, j->opt->fabric, &opt, err);
    st = st == CMI_OK ? cmi_bench_ep_wrap(j->opt, process->rank, &j->fabric, err) : st;
    st = st == CMI_OK ? cmi_fabric_listen(j->fabric, process->listen_at, err) : st;
    j->until_ns = st == CMI_OK ? cmi_fabric_after_ns(j->fabric, process->join_s * SECOND) : 0;
    return st;
}

static cmi_status list_members(joining *j, cmi_error *err)
{
    cmi_member members[CMI_BENCH_EP_MAX_RANKS];
    const uint32_t self = j->process->rank;
    memcpy(members, j->process->members, sizeof members);
    if (members[self].address[0] == '\0') {
        snprintf(members[self].address, sizeof members[self].address, "%s",
                 cmi_fabric_address(j->fabric));
    }
    return cmi_membership_create_static(&j->membership, members, j->process->n_ranks, self, err);
}

/* Of all that ranks must have in common to understand each other. */
static uint64_t hash_options(const cmi_bench_ep_options *opt)
{
    char text[160];
    const int n = snprintf(text, sizeof text, "rows %u hidden %u top-k %u experts %u rounds %u",
                           opt->n_rows, opt->hidden, opt->top_k, opt->n_experts, opt->n_rounds);
    return cmi_hash_bytes(text, (size_t)n);
}

static cmi_status make_gang(joining *j, cmi_error *err)
{
    uint8_t blob[CMI_EP_MAX_HELLO];
    cmi_ep_hello hello = {.model = hash_options(j->opt), .n_regions = 1};
    cmi_gang_options opt;
    size_t n_bytes = 0;
    cmi_status st = cmi_bench_ep_region_bytes(&n_bytes, j->process->n_ranks, j->opt, err);
    j->come = CMI_ROUND_UP(n_bytes, (size_t)CMI_CACHE_LINE);
    if (st == CMI_OK) {
        st = cmi_fabric_alloc(j->fabric, j->come + CMI_CACHE_LINE, "exchange windows", &j->region,
                              err);
    }
    if (st != CMI_OK) {
        return st;
    }
    st = cmi_region_get_rkey(j->fabric, j->region, &hello.regions[0]);
    if (st != CMI_OK) {
        return cmi_error_set(err, st, "exchange windows have no key: %s", cmi_status_text(st));
    }
    cmi_gang_options_default(&opt);
    opt.name = "bench ep";
    opt.fabric = j->fabric;
    opt.membership = j->membership;
    opt.blob = blob;
    opt.blob_bytes = cmi_ep_write_hello(blob, &hello);
    opt.redial_ns = SECOND / 4; /* each attempt is a line of the log where secrets differ */
    opt.machine.min_ranks = j->process->n_ranks;
    opt.machine.gather_ns = j->process->join_s * SECOND;
    opt.machine.silent_ns = 3600 * SECOND; /* nobody polls while rows are exchanged, whose waits
                                            * have deadlines of their own */
    return cmi_gang_create(&j->gang, &opt, err);
}

/* ---- meeting the others ---- */

static cmi_status say_who_is_missing(const joining *j, cmi_error *err)
{
    char missing[80] = "";
    size_t n = 0;
    for (uint32_t i = 0; i < j->process->n_ranks; i++) {
        const cmi_member *member = cmi_membership_get(j->membership, i, NULL);
        if (i != j->process->rank && member->generation == 0 && n + 12 < sizeof missing) {
            n += (size_t)snprintf(missing + n, sizeof missing - n, "%s%u", n > 0 ? ", " : "", i);
        }
    }
    if (n == 0) {
        return cmi_error_set(err, CMI_ERR_TIMEOUT,
                             "rank %u: all ranks were heard of, but not all reached each other "
                             "within %u s",
                             j->process->rank, j->process->join_s);
    }
    return cmi_error_set(err, CMI_ERR_TIMEOUT,
                         "rank %u of %u has waited %u s for rank %s: are the list of hosts and the "
                         "secret the same everywhere?",
                         j->process->rank, j->process->n_ranks, j->process->join_s, missing);
}

/* Polls, and sleeps a little. */
static cmi_status tend_gang(joining *j, cmi_error *err)
{
    cmi_gang_event event;
    while (cmi_gang_poll(j->gang, &event)) {
    }
    if (cmi_gang_get_phase(j->gang) == CMI_GANG_SUPERSEDED) {
        return cmi_error_set(err, CMI_ERR_CLOSED, "another process was started as rank %u",
                             j->process->rank);
    }
    if (cmi_fabric_now_ns(j->fabric) >= j->until_ns) {
        return say_who_is_missing(j, err);
    }
    cmi_gang_sleep(j->gang, CMI_MIN(j->until_ns, cmi_fabric_after_ns(j->fabric, SECOND / 100)));
    return CMI_OK;
}

static cmi_status find_peer(joining *j, const cmi_gang_rank *of, cmi_error *err)
{
    cmi_ep_peer *peer = &j->peers[of->slot];
    cmi_ep_hello hello;
    if (!cmi_ep_read_hello(of->blob, of->blob_bytes, &hello) || hello.n_regions != 1 ||
        hello.model != hash_options(j->opt)) {
        return cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                             "rank %u has other options than rank %u: rows, hidden, experts, top-k "
                             "and rounds must be the same",
                             of->slot, j->process->rank);
    }
    peer->endpoint = of->endpoint;
    cmi_status st;
    /* a region is announced by another way than its key */
    while ((st = cmi_endpoint_open_rkey(j->fabric, of->endpoint, &hello.regions[0],
                                        &peer->region)) == CMI_ERR_NO_CAPACITY) {
        cmi_status tended = tend_gang(j, err);
        if (tended != CMI_OK) {
            return tended;
        }
    }
    const cmi_remote word = {peer->region, j->come};
    while (st == CMI_OK && (st = cmi_endpoint_signal(j->fabric, of->endpoint, word, CMI_SIGNAL_ADD,
                                                     1, NULL)) == CMI_ERR_NO_CAPACITY) {
        (void)cmi_fabric_progress(j->fabric);
    }
    return st == CMI_OK ? st
                        : cmi_error_set(err, st, "rank %u cannot be reached: %s", of->slot,
                                        cmi_status_text(st));
}

/* From then on nobody needs this rank's gang. */
static cmi_status await_all(joining *j, cmi_error *err)
{
    uint8_t *region = cmi_region_memory(j->fabric, j->region);
    const _Atomic uint64_t *word = (const _Atomic uint64_t *)(void *)(region + j->come);
    cmi_status st = CMI_OK;
    while (st == CMI_OK && cmi_word_load(word) < j->process->n_ranks - 1) {
        st = tend_gang(j, err);
        if (st == CMI_OK && cmi_gang_get_phase(j->gang) != CMI_GANG_READY) {
            st = cmi_error_set(err, CMI_ERR_PEER, "a rank was lost while others joined");
        }
    }
    return st;
}

static cmi_status join(joining *j, cmi_error *err)
{
    cmi_status st = open_fabric(j, err);
    st = st == CMI_OK ? list_members(j, err) : st;
    st = st == CMI_OK ? make_gang(j, err) : st;
    while (st == CMI_OK && cmi_gang_get_phase(j->gang) != CMI_GANG_READY) {
        st = tend_gang(j, err);
    }
    for (uint32_t i = 0; st == CMI_OK && i < j->process->n_ranks; i++) {
        const cmi_gang_rank *of = &cmi_gang_get_view(j->gang)->ranks[i];
        st = i != j->process->rank ? find_peer(j, of, err) : CMI_OK;
    }
    return st == CMI_OK ? await_all(j, err) : st;
}

cmi_status cmi_bench_ep_process_run(cmi_bench_ep_result *result_out,
                                    const cmi_bench_ep_process *process,
                                    const cmi_bench_ep_options *opt, cmi_error *err)
{
    joining *j = cmi_alloc(1, sizeof *j);
    j->process = process;
    j->opt = opt;
    cmi_status st = join(j, err);
    if (st == CMI_OK) {
        const cmi_bench_ep_place place = {.rank = process->rank,
                                          .n_ranks = process->n_ranks,
                                          .fabric = j->fabric,
                                          .region = j->region,
                                          .peers = j->peers};
        st = cmi_bench_ep_rank_run(&place, opt, result_out, err);
    }
    cmi_gang_destroy(j->gang);
    cmi_fabric_destroy(j->fabric);
    cmi_membership_destroy(j->membership);
    cmi_free(j);
    return st;
}
