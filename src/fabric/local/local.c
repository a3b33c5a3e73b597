/* fabric/local/local.c - making and ending a local fabric; see local_internal.h. */
#include "fabric/local/local_internal.h"

#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "os/random.h"

static const char *get_address(const cmi_fabric *fabric)
{
    return cmi_local_of(fabric)->address;
}

static void destroy(cmi_fabric *fabric)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    for (uint32_t i = 0; i < f->n_endpoints_used; i++) {
        cmi_local_close(fabric, cmi_local_endpoint_id(f, &f->endpoints[i]));
    }
    for (uint32_t i = 0; f->regions != NULL && i < f->base.opt.n_regions; i++) {
        cmi_local_deregister(fabric, (cmi_region_id){.idx = i, .gen = f->regions[i].gen});
    }
    if (f->listen_fd >= 0) {
        close(f->listen_fd);
    }
    cmi_watch_deinit(&f->watch);
    cmi_share_release(f->header_share);
    cmi_proof_forget_key(f->key);
    cmi_free(f->regions);
    cmi_free(f->remotes);
    cmi_free(f->endpoints);
    cmi_free(f->ops);
    cmi_free(f);
}

static const cmi_fabric_backend backend = {
    .destroy = destroy,
    .alloc = cmi_local_alloc,
    .register_memory = cmi_local_register,
    .deregister = cmi_local_deregister,
    .region_memory = cmi_local_region_memory,
    .remote_memory = cmi_local_remote_memory,
    .get_rkey = cmi_local_get_rkey,
    .listen = cmi_local_listen,
    .address = get_address,
    .connect = cmi_local_connect,
    .close = cmi_local_close,
    .drop = cmi_local_drop,
    .get_info = cmi_local_get_info,
    .open_rkey = cmi_local_open_rkey,
    .check = cmi_local_check,
    .begin = cmi_local_begin,
    .take_failure = cmi_local_take_failure,
    .is_settled = cmi_local_is_settled,
    .send = cmi_local_send,
    .receive = cmi_local_receive,
    .progress = cmi_local_progress,
    .poll = cmi_local_poll,
    .sleep = cmi_local_sleep,
    .is_busy = cmi_local_is_busy,
    .wake = cmi_local_wake,
};

/* Every entry free, in a list from the first to the last. */
static void make_tables(cmi_local_fabric *f)
{
    const cmi_fabric_options *opt = &f->base.opt;
    f->regions = cmi_alloc(opt->n_regions, sizeof *f->regions);
    f->remotes = cmi_alloc(opt->n_remotes, sizeof *f->remotes);
    f->endpoints = cmi_alloc(opt->n_endpoints, sizeof *f->endpoints);
    f->ops = cmi_alloc(opt->n_ops, sizeof *f->ops);
    for (uint32_t i = 0; i < opt->n_regions; i++) {
        f->regions[i].gen = 1;
    }
    for (uint32_t i = 0; i < opt->n_remotes; i++) {
        f->remotes[i] = (cmi_local_remote){.gen = 1, .endpoint = CMI_LOCAL_NONE};
    }
    for (uint32_t i = 0; i < opt->n_endpoints; i++) {
        uint32_t next = i + 1 < opt->n_endpoints ? i + 1 : CMI_LOCAL_NONE;
        f->endpoints[i] = (cmi_local_endpoint){.gen = 1, .next = next};
    }
    for (uint32_t i = 0; i < opt->n_ops; i++) {
        uint32_t next = i + 1 < opt->n_ops ? i + 1 : CMI_LOCAL_NONE;
        f->ops[i] = (cmi_local_op){.gen = 1, .next = next};
    }
}

static cmi_status make_parts(cmi_local_fabric *f, cmi_error *err)
{
    if (!cmi_random_bytes(&f->id, sizeof f->id)) {
        return cmi_error_set(err, CMI_ERR_IO, "fabric: the kernel has no randomness");
    }
    cmi_status st = cmi_watch_init(&f->watch, err);
    if (st == CMI_OK) {
        st = cmi_share_create(&f->header_share, sizeof *f->header, "a fabric's header", err);
    }
    if (st == CMI_OK) {
        f->header = (cmi_local_header *)(void *)f->header_share->bytes;
        make_tables(f);
    }
    return st;
}

cmi_status cmi_fabric_create_local(cmi_fabric **fabric_out, const cmi_fabric_options *opt,
                                   cmi_error *err)
{
    cmi_local_fabric *f = cmi_alloc(1, sizeof *f);
    f->listen_fd = -1;
    f->free_endpoint = f->free_op = 0;
    f->first_done = f->last_done = CMI_LOCAL_NONE;
    f->first_event_endpoint = f->last_event_endpoint = CMI_LOCAL_NONE;
    cmi_status st = cmi_fabric_init(&f->base, &backend, opt, err);
    if (st != CMI_OK) {
        cmi_free(f);
        return st;
    }
    memcpy(f->name, opt->name, strlen(opt->name));
    cmi_proof_make_key(f->key, opt->secret, opt->secret_bytes);
    st = make_parts(f, err);
    if (st != CMI_OK) {
        destroy(&f->base);
        return st;
    }
    *fabric_out = &f->base;
    return CMI_OK;
}
