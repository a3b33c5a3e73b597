#include "engine/engine_internal.h"
#include "engine/disaggregation.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "os/random.h"

typedef struct prefill_side {
    cmi_kv_sender *sender;
    cmi_instance *instance;
    cmi_engine *engine;
} prefill_side;

struct cmi_disaggregation {
    cmi_handover_options handover;

    cmi_kv_receiver *receiver;
    cmi_instance *instance;
    cmi_engine *engine;
    prefill_side prefills[CMI_HANDOVER_MAX_PEERS];
    uint32_t n_prefills;
};

cmi_status cmi_disaggregation_create(cmi_disaggregation **d_out, uint64_t patience_ns,
                                     cmi_error *err)
{
    cmi_disaggregation *d = cmi_alloc(1, sizeof *d);
    d->handover.name = "decode";
    d->handover.patience_ns = patience_ns;
    cmi_status st = cmi_random_bytes(d->handover.secret, sizeof d->handover.secret)
                        ? cmi_kv_receiver_create(&d->receiver, &d->handover, err)
                        : cmi_error_set(err, CMI_ERR_IO, "the kernel has no randomness");
    if (st != CMI_OK) {
        cmi_free(d);
        return st;
    }
    *d_out = d;
    return CMI_OK;
}

void cmi_disaggregation_set_faults(cmi_disaggregation *d, const struct cmi_fault_options *faults)
{
    d->handover.faults = faults;
}

void cmi_disaggregation_decode_options(cmi_disaggregation *d, cmi_instance_options *options)
{
    options->kv_memory = cmi_kv_receiver_memory;
    options->kv_memory_arg = d->receiver;
}

void cmi_disaggregation_set_decode(cmi_disaggregation *d, cmi_instance *decode)
{
    d->instance = decode;
}

static void close_prefill(prefill_side *p)
{
    cmi_engine_stop(p->engine);
    cmi_instance_close(p->instance);
    cmi_kv_sender_destroy(p->sender);
    *p = (prefill_side){0};
}

static cmi_status open_prefill(cmi_disaggregation *d, prefill_side *p,
                               const cmi_instance_options *options,
                               const cmi_engine_options *engine_options, cmi_error *err)
{
    cmi_handover_options handover = d->handover;
    cmi_instance_options instance = *options;
    cmi_engine_options engine = *engine_options;
    handover.name = "prefill";
    instance.weights_of = d->instance;
    instance.max_model_len = d->instance->max_model_len;
    cmi_status st = cmi_kv_sender_create(&p->sender, &handover, err);
    if (st == CMI_OK) {
        st = cmi_instance_open(&p->instance, &instance, err);
    }
    if (st == CMI_OK) {
        engine.sender = p->sender;
        engine.probe_ms = 0; /* it has no targets of its own */
        engine.drafts_by_cost = false;
        st = cmi_engine_start(&p->engine, p->instance, &engine, err);
    }
    if (st == CMI_OK) {
        st = cmi_kv_receiver_add_peer(d->receiver, cmi_kv_sender_address(p->sender), err);
    }
    return st;
}

cmi_status cmi_disaggregation_add_prefill(cmi_disaggregation *d,
                                          const cmi_instance_options *options,
                                          const cmi_engine_options *engine, cmi_error *err)
{
    assert(d->instance != NULL && d->engine == NULL);
    if (d->n_prefills == CMI_HANDOVER_MAX_PEERS) {
        return cmi_error_set(err, CMI_ERR_NO_CAPACITY, "more than %d prefill instances",
                             CMI_HANDOVER_MAX_PEERS);
    }
    prefill_side *p = &d->prefills[d->n_prefills];
    cmi_status st = open_prefill(d, p, options, engine, err);
    if (st != CMI_OK) {
        close_prefill(p);
        return cmi_error_prefix(err, "prefill instance");
    }
    d->n_prefills++;
    return CMI_OK;
}

/* Requests and pages are the decode side's, which has them all. */
static void add_stats(void *arg, cmi_engine_stats *stats)
{
    cmi_disaggregation *d = arg;
    for (uint32_t i = 0; i < d->n_prefills; i++) {
        cmi_engine_stats prefill;
        if (d->prefills[i].engine != NULL) {
            cmi_engine_stats_get(d->prefills[i].engine, &prefill);
            stats->n_prompt_tokens += prefill.n_prompt_tokens;
            stats->n_steps += prefill.n_steps;
            stats->n_step_tokens += prefill.n_step_tokens;
            cmi_engine_prefix_add(stats, &prefill);
        }
    }
}

static void flush_others(void *arg)
{
    cmi_disaggregation *d = arg;
    for (uint32_t i = 0; i < d->n_prefills; i++) {
        if (d->prefills[i].engine != NULL) {
            cmi_engine_flush_prefix_cache(d->prefills[i].engine);
        }
    }
}

cmi_status cmi_disaggregation_start(cmi_disaggregation *d, const cmi_engine_options *engine_options,
                                    cmi_engine **engine_out, cmi_error *err)
{
    cmi_engine_options engine = *engine_options;
    engine.receiver = d->receiver;
    engine.add_stats = add_stats;
    engine.add_stats_arg = d;
    engine.flush_others = flush_others;
    cmi_status st = cmi_engine_start(&d->engine, d->instance, &engine, err);
    if (st == CMI_OK) {
        *engine_out = d->engine;
    }
    return st;
}

void cmi_disaggregation_stop_prefill(cmi_disaggregation *d, uint32_t idx)
{
    assert(idx < d->n_prefills);
    close_prefill(&d->prefills[idx]);
}

void cmi_disaggregation_handover_stats(cmi_disaggregation *d, cmi_handover_stats *stats_out)
{
    cmi_kv_receiver_stats(d->receiver, stats_out);
}

/* The decode side first: prefill instances compute with its instance's weights. */
void cmi_disaggregation_destroy(cmi_disaggregation *d)
{
    if (d == NULL) {
        return;
    }
    cmi_engine_stop(d->engine);
    for (uint32_t i = 0; i < d->n_prefills; i++) {
        close_prefill(&d->prefills[i]);
    }
    cmi_instance_close(d->instance);
    cmi_kv_receiver_destroy(d->receiver);
    cmi_free(d);
}
