/* fabric/ucx/handshake.c - addresses, and what is said until an endpoint is open; see wire.h.
 *
 * Not UCX's own listener: it would make an endpoint for whoever comes before anything is proved,
 * and tells its failures late. Here a stranger has cost a few bytes on a socket, and a refusal has
 * a reason. Every step is one frame in and at most one out; one that is not due ends the
 * connection, and a deadline stands behind all of them (sleep.c). */
#include "fabric/ucx/ucx_internal.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "os/random.h"
#include "os/tcp_socket.h"

/* What proofs are over: both sides' words, the connector's first, and the entrance of him who
 * proves, zeros in the listener's first proof. */
typedef struct said {
    cmi_ucx_hello connector, listener;
    cmi_ucx_entrance entrance;
} said;

static void gather(said *all, const cmi_ucx_link *link, const cmi_ucx_entrance *entrance)
{
    memset(all, 0, sizeof *all);
    all->connector = link->hello;
    all->listener = link->challenge;
    if (entrance != NULL) {
        memcpy(&all->entrance, entrance, offsetof(cmi_ucx_entrance, worker) + entrance->n_worker);
    }
}

static void prove(uint8_t proof_out[CMI_PROOF_BYTES], const cmi_ucx_link *link, cmi_proof_role role,
                  const cmi_ucx_entrance *entrance)
{
    said all;
    gather(&all, link, entrance);
    cmi_proof_make(proof_out, link->fabric->key, role, &all, sizeof all);
}

static bool is_proved(const uint8_t proof[CMI_PROOF_BYTES], const cmi_ucx_link *link,
                      cmi_proof_role role, const cmi_ucx_entrance *entrance)
{
    said all;
    gather(&all, link, entrance);
    return cmi_proof_holds(proof, link->fabric->key, role, &all, sizeof all);
}

static bool make_hello(const cmi_ucx_fabric *f, cmi_ucx_hello *hello_out)
{
    *hello_out = (cmi_ucx_hello){.protocol = CMI_FABRIC_PROTOCOL,
                                 .version = f->base.opt.version,
                                 .message_bytes = f->base.opt.message_bytes,
                                 .ring_bytes = f->base.opt.ring_bytes,
                                 .hung_after_ns = f->base.opt.hung_after_ns,
                                 .id = f->id};
    memcpy(hello_out->name, f->name, sizeof f->name);
    return cmi_random_bytes(hello_out->nonce, sizeof hello_out->nonce);
}

static bool make_entrance(cmi_ucx_link *link, cmi_ucx_entrance *entrance_out)
{
    const cmi_ucx_fabric *f = link->fabric;
    if (!cmi_random_bytes(&link->cookie, sizeof link->cookie)) {
        return false;
    }
    entrance_out->cookie = link->cookie;
    entrance_out->link = cmi_ucx_link_idx(f, link);
    entrance_out->n_worker = (uint32_t)f->n_worker_address;
    memcpy(entrance_out->worker, f->worker_address, f->n_worker_address);
    return true;
}

static void refuse(cmi_ucx_link *link, cmi_status why)
{
    cmi_ucx_news news = {.kind = UCX_REFUSE, .status = why};
    (void)cmi_ucx_tell(link, &news);
    cmi_ucx_lose(link, why);
}

/* ---- what the other side says of itself ---- */

static void keep_name(cmi_ucx_link *link, const char *name)
{
    for (size_t i = 0; i < CMI_FABRIC_MAX_NAME && name[i] != '\0'; i++) {
        link->peer_name[i] = name[i] > ' ' && name[i] < 0x7F ? name[i] : '?';
    }
}

/* CMI_OK: it can be talked to. */
static cmi_status judge_hello(const cmi_ucx_link *link, const cmi_ucx_hello *hello)
{
    const cmi_ucx_fabric *f = link->fabric;
    if (hello->protocol != CMI_FABRIC_PROTOCOL || hello->version != f->base.opt.version) {
        cmi_log(CMI_LOG_WARN,
                "fabric %s: \"%s\" is of version %" PRIu32 ".%" PRIu32 ", this is of %d.%" PRIu32,
                f->name, link->peer_name, hello->protocol, hello->version, CMI_FABRIC_PROTOCOL,
                f->base.opt.version);
        return CMI_ERR_UNSUPPORTED;
    }
    bool is_sane = hello->message_bytes > 0 && hello->message_bytes <= CMI_FABRIC_MAX_MESSAGE &&
                   hello->ring_bytes >= 4 * hello->message_bytes && hello->ring_bytes >= 64 &&
                   (hello->ring_bytes & (hello->ring_bytes - 1)) == 0 &&
                   (hello->hung_after_ns == 0 || hello->hung_after_ns >= CMI_FABRIC_MIN_HUNG_NS);
    return is_sane ? CMI_OK : CMI_ERR_BAD_DATA;
}

static cmi_status enter(cmi_ucx_link *link, const cmi_ucx_entrance *entrance)
{
    link->peer = link->is_incoming ? link->hello.id : link->challenge.id;
    link->peer_hung_ns =
        link->is_incoming ? link->hello.hung_after_ns : link->challenge.hung_after_ns;
    cmi_ucx_make_rings(link);
    return cmi_ucx_wire(link, entrance);
}

/* ---- the connector ---- */

static void hear_challenge(cmi_ucx_link *link, const cmi_ucx_news *news)
{
    link->challenge = news->hello.hello;
    keep_name(link, link->challenge.name);
    cmi_status st = judge_hello(link, &link->challenge);
    if (st == CMI_OK && !is_proved(news->hello.proof, link, CMI_PROOF_LISTENER, NULL)) {
        st = CMI_ERR_DENIED;
    }
    cmi_ucx_news proof = {.kind = UCX_PROOF};
    if (st == CMI_OK && !make_entrance(link, &proof.enter.entrance)) {
        st = CMI_ERR_IO;
    }
    if (st != CMI_OK) {
        refuse(link, st);
        return;
    }
    prove(proof.enter.proof, link, CMI_PROOF_CONNECTOR, &proof.enter.entrance);
    link->state = LINK_PROVED;
    if (cmi_ucx_tell(link, &proof) != CMI_OK) {
        cmi_ucx_lose(link, CMI_ERR_PEER);
    }
}

static void hear_welcome(cmi_ucx_link *link, const cmi_ucx_news *news)
{
    const cmi_ucx_entrance *entrance = &news->enter.entrance;
    cmi_status st = CMI_ERR_DENIED;
    if (is_proved(news->enter.proof, link, CMI_PROOF_LISTENER, entrance)) {
        st = enter(link, entrance);
    }
    if (st != CMI_OK) {
        cmi_ucx_lose(link, st);
    }
}

/* ---- the listener ---- */

static void hear_hello(cmi_ucx_link *link, const cmi_ucx_news *news)
{
    link->hello = news->hello.hello;
    keep_name(link, link->hello.name);
    cmi_status st = judge_hello(link, &link->hello);
    if (st == CMI_OK && !make_hello(link->fabric, &link->challenge)) {
        st = CMI_ERR_IO;
    }
    if (st != CMI_OK) {
        refuse(link, st);
        return;
    }
    cmi_ucx_news answer = {.kind = UCX_CHALLENGE, .hello.hello = link->challenge};
    prove(answer.hello.proof, link, CMI_PROOF_LISTENER, NULL);
    link->state = LINK_ASKED;
    if (cmi_ucx_tell(link, &answer) != CMI_OK) {
        cmi_ucx_lose(link, CMI_ERR_PEER);
    }
}

static void hear_proof(cmi_ucx_link *link, const cmi_ucx_news *news)
{
    const cmi_ucx_entrance *entrance = &news->enter.entrance;
    if (!is_proved(news->enter.proof, link, CMI_PROOF_CONNECTOR, entrance)) {
        refuse(link, CMI_ERR_DENIED);
        return;
    }
    cmi_ucx_news answer = {.kind = UCX_WELCOME};
    cmi_status st = make_entrance(link, &answer.enter.entrance) ? CMI_OK : CMI_ERR_IO;
    if (st == CMI_OK) {
        prove(answer.enter.proof, link, CMI_PROOF_LISTENER, &answer.enter.entrance);
        st = cmi_ucx_tell(link, &answer);
    }
    if (st == CMI_OK) {
        st = enter(link, entrance);
    }
    if (st != CMI_OK) {
        cmi_ucx_lose(link, st);
    }
}

static cmi_status why_refused(const cmi_ucx_news *news)
{
    static const cmi_status known[] = {CMI_ERR_DENIED, CMI_ERR_UNSUPPORTED, CMI_ERR_NO_CAPACITY};
    for (size_t i = 0; i < CMI_LEN(known); i++) {
        if (news->status == (int64_t)known[i]) {
            return known[i];
        }
    }
    return CMI_ERR_PEER;
}

void cmi_ucx_hear_handshake(cmi_ucx_link *link, const cmi_ucx_news *news)
{
    if (news->kind == UCX_HELLO && link->state == LINK_GREETS) {
        hear_hello(link, news);
    } else if (news->kind == UCX_CHALLENGE && link->state == LINK_HELLO) {
        hear_challenge(link, news);
    } else if (news->kind == UCX_PROOF && link->state == LINK_ASKED) {
        hear_proof(link, news);
    } else if (news->kind == UCX_WELCOME && link->state == LINK_PROVED) {
        hear_welcome(link, news);
    } else if (news->kind == UCX_REFUSE) {
        cmi_ucx_lose(link, why_refused(news));
    } else {
        cmi_ucx_lose(link, CMI_ERR_BAD_DATA);
    }
}

/* ---- addresses ---- */

cmi_status cmi_ucx_listen(cmi_fabric *fabric, const char *address, cmi_error *err)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    char host[CMI_FABRIC_MAX_ADDRESS + 1];
    uint16_t port;
    bool is_address = cmi_ucx_address_read(address, host, &port);
    if (!is_address || f->listen_fd >= 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "\"%.128s\": %s", address,
                             !is_address ? "not ucx:HOST:PORT" : "this fabric listens already");
    }
    bool has_colons = strchr(host, ':') != NULL;
    cmi_status st = cmi_tcp_listen(&f->listen_fd, host, &port, err);
    if (st != CMI_OK) {
        f->listen_fd = -1;
        return st;
    }
    if (cmi_watch_add(&f->watch, f->listen_fd, cmi_ucx_watch_key(NULL, CMI_UCX_WATCH_LISTENER)) !=
        CMI_OK) {
        close(f->listen_fd);
        f->listen_fd = -1;
        return cmi_error_set(err, CMI_ERR_IO, "fabric %s: cannot watch its listener", f->name);
    }
    snprintf(f->address, sizeof f->address, has_colons ? "ucx:[%s]:%u" : "ucx:%s:%u", host, port);
    return CMI_OK;
}

static cmi_status watch(cmi_ucx_link *link)
{
    uint64_t key = cmi_ucx_watch_key(link, CMI_UCX_WATCH_LINK);
    return cmi_watch_add(&link->fabric->watch, link->fd, key);
}

void cmi_ucx_finish_dial(cmi_ucx_link *link)
{
    cmi_status st = cmi_tcp_finish_connect(link->fd);
    if (st == CMI_IN_PROGRESS) {
        return;
    }
    if (st == CMI_OK) {
        st = watch(link);
    }
    if (st == CMI_OK && !make_hello(link->fabric, &link->hello)) {
        st = CMI_ERR_IO;
    }
    if (st == CMI_OK) {
        cmi_ucx_news hello = {.kind = UCX_HELLO, .hello.hello = link->hello};
        link->state = LINK_HELLO;
        st = cmi_ucx_tell(link, &hello);
    }
    if (st != CMI_OK) {
        cmi_ucx_lose(link, st);
    }
}

cmi_status cmi_ucx_connect(cmi_fabric *fabric, const char *address, uint64_t deadline_ns,
                           cmi_endpoint_id *endpoint_out)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    char host[CMI_FABRIC_MAX_ADDRESS + 1];
    uint16_t port;
    if (!cmi_ucx_address_read(address, host, &port) || port == 0) {
        return CMI_ERR_INVALID;
    }
    cmi_ucx_link *link = cmi_ucx_take_link(f);
    if (link == NULL) {
        return CMI_ERR_NO_CAPACITY;
    }
    link->state = LINK_DIALS;
    link->deadline_ns = deadline_ns;
    *endpoint_out = link->id;
    cmi_status st = cmi_tcp_connect(&link->fd, host, port);
    if (st != CMI_OK) {
        link->fd = -1;
        cmi_ucx_lose(link, st);
        return CMI_OK;
    }
    cmi_ucx_finish_dial(link);
    return CMI_OK;
}

/* There is nobody to put up a connection that came: it is told so, and not kept waiting. It is
 * closed later, since closing it before its HELLO is read would take the answer back. */
static void turn_away(cmi_ucx_fabric *f, int fd)
{
    cmi_ucx_news news = {.kind = UCX_REFUSE, .status = CMI_ERR_NO_CAPACITY};
    uint8_t frame[CMI_UCX_MAX_FRAME];
    size_t n;
    int *place = &f->turned_away[f->n_turned_away++ % CMI_UCX_N_TURNED_AWAY];
    size_t n_frame = cmi_ucx_frame_write(frame, &news);
    cmi_status st = cmi_tcp_send(fd, frame, n_frame, &n);
    (void)st; /* whoever does not hear it sees the connection end */
    cmi_tcp_end_sending(fd);
    if (*place >= 0) {
        close(*place);
    }
    *place = fd;
}

void cmi_ucx_accept(cmi_ucx_fabric *f)
{
    int fd;
    /* where all links are ending, whoever comes waits in the kernel for the first that has */
    while ((f->free_link != CMI_UCX_NONE || f->free_endpoint == CMI_UCX_NONE) &&
           cmi_tcp_accept(&fd, f->listen_fd) == CMI_OK) {
        cmi_ucx_link *link = cmi_ucx_take_link(f);
        if (link == NULL) {
            turn_away(f, fd);
            continue;
        }
        link->fd = fd;
        link->is_incoming = true;
        link->state = LINK_GREETS;
        link->deadline_ns = cmi_fabric_after_ns(&f->base, f->base.opt.handshake_ns);
        if (watch(link) != CMI_OK) {
            cmi_ucx_lose(link, CMI_ERR_IO);
        }
    }
}
