/* fabric/local/handshake.c - addresses, and what is said until an endpoint is open; see wire.h.
 *
 * Every step is one datagram in and at most one out, and a datagram that is not due ends the
 * connection. A deadline stands behind all of them (sleep.c). */
#include "fabric/local/local_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "os/random.h"

static const char scheme[] = "local:";

/* Both sides' words, the connector's first: what proofs are over. */
typedef struct said {
    cmi_local_hello connector, listener;
} said;

static said what_was_said(const cmi_local_endpoint *ep)
{
    return (said){.connector = ep->hello, .listener = ep->challenge};
}

static bool make_hello(const cmi_local_fabric *f, cmi_local_hello *hello_out)
{
    *hello_out = (cmi_local_hello){.protocol = CMI_FABRIC_PROTOCOL,
                                   .version = f->base.opt.version,
                                   .message_bytes = f->base.opt.message_bytes,
                                   .ring_bytes = f->base.opt.ring_bytes,
                                   .hung_after_ns = f->base.opt.hung_after_ns,
                                   .id = f->id};
    memcpy(hello_out->name, f->name, sizeof f->name);
    return cmi_random_bytes(hello_out->nonce, sizeof hello_out->nonce);
}

static void refuse(cmi_local_fabric *f, cmi_local_endpoint *ep, cmi_status why)
{
    cmi_local_news news = {.kind = LOCAL_REFUSE, .status = why};
    (void)cmi_local_tell(ep, &news, NULL, 0);
    cmi_local_lose(f, ep, why);
}

/* ---- what the other side says of itself ---- */

static void keep_name(cmi_local_endpoint *ep, const char *name)
{
    for (size_t i = 0; i < CMI_FABRIC_MAX_NAME && name[i] != '\0'; i++) {
        ep->peer_name[i] = name[i] > ' ' && name[i] < 0x7F ? name[i] : '?';
    }
}

/* CMI_OK: it can be talked to. */
static cmi_status judge_hello(cmi_local_fabric *f, const cmi_local_endpoint *ep,
                              const cmi_local_hello *hello)
{
    if (hello->protocol != CMI_FABRIC_PROTOCOL || hello->version != f->base.opt.version) {
        cmi_log(CMI_LOG_WARN,
                "fabric %s: \"%s\" is of version %" PRIu32 ".%" PRIu32 ", this is of %d.%" PRIu32,
                f->name, ep->peer_name, hello->protocol, hello->version, CMI_FABRIC_PROTOCOL,
                f->base.opt.version);
        return CMI_ERR_UNSUPPORTED;
    }
    bool is_sane = hello->message_bytes > 0 && hello->message_bytes <= CMI_FABRIC_MAX_MESSAGE &&
                   hello->ring_bytes >= 4 * hello->message_bytes && hello->ring_bytes >= 64 &&
                   (hello->ring_bytes & (hello->ring_bytes - 1)) == 0 &&
                   (hello->hung_after_ns == 0 || hello->hung_after_ns >= CMI_FABRIC_MIN_HUNG_NS);
    return is_sane ? CMI_OK : CMI_ERR_BAD_DATA;
}

/* ---- the common end ---- */

/* Both directions have rings of the smaller size, so that no peer decides how much memory a
 * connection takes here. */
static uint32_t common_ring_bytes(const cmi_local_endpoint *ep)
{
    return CMI_MIN(ep->hello.ring_bytes, ep->challenge.ring_bytes);
}

static void use_rings(cmi_local_endpoint *ep)
{
    uint32_t ring_bytes = common_ring_bytes(ep);
    uint32_t message_bytes = CMI_MIN(ep->hello.message_bytes, ep->challenge.message_bytes);
    ep->peer_hung_ns = ep->is_incoming ? ep->hello.hung_after_ns : ep->challenge.hung_after_ns;
    uint8_t *to_listener = ep->rings_share->bytes;
    uint8_t *to_connector = to_listener + cmi_ring_shared_bytes(ring_bytes);
    cmi_ring_init(&ep->in, ep->is_incoming ? to_listener : to_connector, ring_bytes, message_bytes);
    cmi_ring_init(&ep->out, ep->is_incoming ? to_connector : to_listener, ring_bytes,
                  message_bytes);
}

/* The header and the bell of the peer; takes the bell's descriptor out of the datagram. */
static cmi_status use_peer(cmi_local_endpoint *ep, const cmi_local_news *news,
                           cmi_local_datagram *datagram)
{
    cmi_status st = cmi_share_open(&ep->peer_share, &news->enter.header, datagram->fds[0],
                                   sizeof(cmi_local_header));
    if (st != CMI_OK) {
        return st;
    }
    ep->peer_header = (cmi_local_header *)(void *)ep->peer_share->bytes;
    ep->peer_bell_fd = datagram->fds[1];
    datagram->fds[1] = -1;
    return CMI_OK;
}

/* ---- the connector ---- */

static void hear_challenge(cmi_local_fabric *f, cmi_local_endpoint *ep, const cmi_local_news *news)
{
    ep->challenge = news->hello.hello;
    keep_name(ep, ep->challenge.name);
    cmi_status st = judge_hello(f, ep, &ep->challenge);
    said all = what_was_said(ep);
    if (st == CMI_OK &&
        !cmi_proof_holds(news->hello.proof, f->key, CMI_PROOF_LISTENER, &all, sizeof all)) {
        st = CMI_ERR_DENIED;
    }
    if (st != CMI_OK) {
        refuse(f, ep, st);
        return;
    }
    ep->peer = ep->challenge.id;
    cmi_local_news proof = {.kind = LOCAL_PROOF, .enter.header = f->header_share->token};
    cmi_proof_make(proof.enter.proof, f->key, CMI_PROOF_CONNECTOR, &all, sizeof all);
    int fds[] = {f->header_share->fd, f->watch.bell_fd};
    ep->state = ENDPOINT_PROVED;
    if (cmi_local_tell(ep, &proof, fds, CMI_LEN(fds)) != CMI_OK) {
        cmi_local_lose(f, ep, CMI_ERR_PEER);
    }
}

static void hear_welcome(cmi_local_fabric *f, cmi_local_endpoint *ep, const cmi_local_news *news,
                         cmi_local_datagram *datagram)
{
    cmi_status st = datagram->n_fds == 3 ? use_peer(ep, news, datagram) : CMI_ERR_BAD_DATA;
    if (st == CMI_OK) {
        st = cmi_share_open(&ep->rings_share, &news->enter.rings, datagram->fds[2],
                            2 * cmi_ring_shared_bytes(common_ring_bytes(ep)));
    }
    if (st != CMI_OK) {
        cmi_local_lose(f, ep, st);
        return;
    }
    use_rings(ep);
    cmi_local_opened(f, ep);
}

/* ---- the listener ---- */

static void hear_hello(cmi_local_fabric *f, cmi_local_endpoint *ep, const cmi_local_news *news)
{
    ep->hello = news->hello.hello;
    keep_name(ep, ep->hello.name);
    cmi_status st = judge_hello(f, ep, &ep->hello);
    if (st == CMI_OK && !make_hello(f, &ep->challenge)) {
        st = CMI_ERR_IO;
    }
    if (st != CMI_OK) {
        refuse(f, ep, st);
        return;
    }
    cmi_local_news answer = {.kind = LOCAL_CHALLENGE, .hello.hello = ep->challenge};
    said all = what_was_said(ep);
    cmi_proof_make(answer.hello.proof, f->key, CMI_PROOF_LISTENER, &all, sizeof all);
    ep->state = ENDPOINT_ASKED;
    if (cmi_local_tell(ep, &answer, NULL, 0) != CMI_OK) {
        cmi_local_lose(f, ep, CMI_ERR_PEER);
    }
}

static cmi_status welcome(cmi_local_fabric *f, cmi_local_endpoint *ep, const cmi_local_news *news,
                          cmi_local_datagram *datagram)
{
    cmi_status st = use_peer(ep, news, datagram);
    if (st != CMI_OK) {
        return st;
    }
    st = cmi_share_create(&ep->rings_share, 2 * cmi_ring_shared_bytes(common_ring_bytes(ep)),
                          "message rings", NULL);
    if (st != CMI_OK) {
        return st;
    }
    use_rings(ep);
    ep->peer = ep->hello.id;
    cmi_local_news answer = {
        .kind = LOCAL_WELCOME,
        .enter = {.header = f->header_share->token, .rings = ep->rings_share->token}};
    int fds[] = {f->header_share->fd, f->watch.bell_fd, ep->rings_share->fd};
    return cmi_local_tell(ep, &answer, fds, CMI_LEN(fds));
}

static void hear_proof(cmi_local_fabric *f, cmi_local_endpoint *ep, const cmi_local_news *news,
                       cmi_local_datagram *datagram)
{
    said all = what_was_said(ep);
    if (!cmi_proof_holds(news->enter.proof, f->key, CMI_PROOF_CONNECTOR, &all, sizeof all)) {
        refuse(f, ep, CMI_ERR_DENIED);
        return;
    }
    cmi_status st = datagram->n_fds == 2 ? welcome(f, ep, news, datagram) : CMI_ERR_BAD_DATA;
    if (st != CMI_OK) {
        refuse(f, ep, st);
        return;
    }
    cmi_local_opened(f, ep);
}

void cmi_local_hear_handshake(cmi_local_fabric *f, cmi_local_endpoint *ep,
                              const cmi_local_news *news, cmi_local_datagram *datagram)
{
    if (news->kind == LOCAL_HELLO && ep->state == ENDPOINT_GREETS) {
        hear_hello(f, ep, news);
    } else if (news->kind == LOCAL_CHALLENGE && ep->state == ENDPOINT_HELLO) {
        hear_challenge(f, ep, news);
    } else if (news->kind == LOCAL_PROOF && ep->state == ENDPOINT_ASKED) {
        hear_proof(f, ep, news, datagram);
    } else if (news->kind == LOCAL_WELCOME && ep->state == ENDPOINT_PROVED) {
        hear_welcome(f, ep, news, datagram);
    } else if (news->kind == LOCAL_REFUSE) {
        cmi_status why = (cmi_status)news->status;
        bool is_known =
            why == CMI_ERR_DENIED || why == CMI_ERR_UNSUPPORTED || why == CMI_ERR_NO_CAPACITY;
        cmi_local_lose(f, ep, is_known ? why : CMI_ERR_PEER);
    } else {
        cmi_local_lose(f, ep, CMI_ERR_BAD_DATA);
    }
    for (uint32_t i = 0; i < datagram->n_fds; i++) {
        if (datagram->fds[i] >= 0) {
            close(datagram->fds[i]);
        }
    }
    datagram->n_fds = 0;
}

/* ---- addresses ---- */

static const char *skip_scheme(const char *address)
{
    size_t n = sizeof scheme - 1;
    bool is_ours =
        strncmp(address, scheme, n) == 0 && strlen(address + n) <= CMI_LOCAL_SOCKET_MAX_NAME;
    return is_ours ? address + n : NULL;
}

cmi_status cmi_local_listen(cmi_fabric *fabric, const char *address, cmi_error *err)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    const char *name = skip_scheme(address);
    char fresh[CMI_LOCAL_NAME_BYTES];
    if (name == NULL || f->listen_fd >= 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "\"%.128s\": %s", address,
                             name == NULL ? "not local:NAME" : "this fabric listens already");
    }
    if (name[0] == '\0') {
        snprintf(fresh, sizeof fresh, "cminfer-%016" PRIx64, cmi_random_seed());
        name = fresh;
    }
    cmi_status st = cmi_local_socket_listen(&f->listen_fd, name, err);
    if (st != CMI_OK) {
        f->listen_fd = -1;
        return st;
    }
    uint64_t key = cmi_local_watch_key(f, NULL, CMI_LOCAL_WATCH_LISTENER);
    st = cmi_watch_add(&f->watch, f->listen_fd, key);
    if (st != CMI_OK) {
        close(f->listen_fd);
        f->listen_fd = -1;
        return cmi_error_set(err, st, "fabric %s: cannot watch its listener", f->name);
    }
    snprintf(f->address, sizeof f->address, "%s%s", scheme, name);
    return CMI_OK;
}

/* Watches the socket, and the process behind it where that is another: its sockets may outlive it
 * in a child. */
static cmi_status watch_peer(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    uint64_t key = cmi_local_watch_key(f, ep, CMI_LOCAL_WATCH_SOCKET);
    if (cmi_watch_add(&f->watch, ep->fd, key) != CMI_OK) {
        return CMI_ERR_IO;
    }
    int64_t process = cmi_local_socket_peer_process(ep->fd);
    if (process == 0 || process == getpid()) {
        return CMI_OK;
    }
    ep->process_fd = cmi_watch_open_process(process);
    if (ep->process_fd >= 0) {
        key = cmi_local_watch_key(f, ep, CMI_LOCAL_WATCH_PROCESS);
        return cmi_watch_add(&f->watch, ep->process_fd, key);
    }
    return CMI_OK;
}

void cmi_local_dial(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    cmi_status st = cmi_local_socket_connect(&ep->fd, ep->address);
    if (st == CMI_ERR_NO_CAPACITY) {
        return; /* tried again until the deadline */
    }
    if (st == CMI_OK) {
        st = watch_peer(f, ep);
    }
    if (st == CMI_OK && !make_hello(f, &ep->hello)) {
        st = CMI_ERR_IO;
    }
    if (st == CMI_OK) {
        cmi_local_news hello = {.kind = LOCAL_HELLO, .hello.hello = ep->hello};
        ep->state = ENDPOINT_HELLO;
        st = cmi_local_tell(ep, &hello, NULL, 0);
    }
    if (st != CMI_OK) {
        cmi_local_lose(f, ep, st);
    }
}

cmi_status cmi_local_connect(cmi_fabric *fabric, const char *address, uint64_t deadline_ns,
                             cmi_endpoint_id *endpoint_out)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    const char *name = skip_scheme(address);
    if (name == NULL || name[0] == '\0') {
        return CMI_ERR_INVALID;
    }
    cmi_local_endpoint *ep = cmi_local_take_endpoint(f);
    if (ep == NULL) {
        return CMI_ERR_NO_CAPACITY;
    }
    ep->state = ENDPOINT_DIALS;
    ep->deadline_ns = deadline_ns;
    memcpy(ep->address, name, strlen(name) + 1);
    *endpoint_out = cmi_local_endpoint_id(f, ep);
    cmi_local_dial(f, ep);
    return CMI_OK;
}

/* There is nobody to put up a connection that came: it is told so, and not kept waiting. */
static void turn_away(int fd)
{
    cmi_local_endpoint nobody = {.fd = fd};
    cmi_local_news news = {.kind = LOCAL_REFUSE, .status = CMI_ERR_NO_CAPACITY};
    (void)cmi_local_tell(&nobody, &news, NULL, 0);
    close(fd);
}

void cmi_local_accept(cmi_local_fabric *f)
{
    int fd;
    while (cmi_local_socket_accept(&fd, f->listen_fd) == CMI_OK) {
        cmi_local_endpoint *ep = cmi_local_take_endpoint(f);
        if (ep == NULL) {
            turn_away(fd);
            continue;
        }
        ep->fd = fd;
        ep->is_incoming = true;
        ep->state = ENDPOINT_GREETS;
        ep->deadline_ns = cmi_fabric_after_ns(&f->base, f->base.opt.handshake_ns);
        if (watch_peer(f, ep) != CMI_OK) {
            cmi_local_lose(f, ep, CMI_ERR_IO);
        }
    }
}
