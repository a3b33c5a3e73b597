#include "cli/open_apart.h"

#include "base/log.h"
#include "os/affinity.h"

/* Which processors are whose. Threads inherit what the one that starts them may use. */
typedef struct split {
    cmi_affinity all, prefill, decode;
    bool is_bound;
} split;

static split split_processors(uint32_t n_prefill, uint32_t n_decode)
{
    split s = {0};
    s.is_bound = cmi_affinity_get(&s.all) && n_prefill + n_decode <= cmi_affinity_count(&s.all);
    s.prefill = cmi_affinity_part(&s.all, 0, n_prefill);
    s.decode = cmi_affinity_part(&s.all, n_prefill, n_decode);
    return s;
}

static void go_to(const split *s, const cmi_affinity *processors)
{
    if (s->is_bound) {
        (void)cmi_affinity_set(processors);
    }
}

static cmi_status open_decode(cmi_chat *chat, cmi_buf *dir_out, const cmi_model_options *opt,
                              const cmi_engine_options *engine, cmi_error *err)
{
    cmi_instance_options options = cmi_cli_sized_options(opt, false);
    cmi_disaggregation_decode_options(chat->apart, &options);
    cmi_status st = cmi_cli_open_instance(&chat->instance, dir_out, &options, opt, err);
    if (st == CMI_OK) {
        cmi_disaggregation_set_decode(chat->apart, chat->instance, engine);
    }
    return st;
}

static cmi_status open_prefill(cmi_chat *chat, const cmi_buf *dir, const cmi_model_options *opt,
                               cmi_error *err)
{
    cmi_instance_options options = cmi_cli_sized_options(opt, false);
    options.model_dir = cmi_buf_cstr(dir);
    cmi_status st = cmi_cli_instance_options(&options, opt, err);
    return st == CMI_OK ? cmi_disaggregation_add_prefill(chat->apart, &options, err) : st;
}

cmi_status cmi_cli_open_apart(cmi_chat *chat, cmi_buf *dir_out, const cmi_model_options *opt,
                              const cmi_engine_options *engine, cmi_error *err)
{
    const uint32_t n_threads = opt->n_threads > 0 ? opt->n_threads : cmi_host_processors();
    cmi_model_options decode = *opt, prefill = *opt;
    prefill.n_threads = opt->n_prefill_threads;
    decode.n_threads = n_threads > prefill.n_threads ? n_threads - prefill.n_threads : 1;
    const split s = split_processors(prefill.n_threads, decode.n_threads);
    cmi_buf_init(dir_out, 4096);
    cmi_status st = cmi_disaggregation_create(&chat->apart, 0, err);
    if (st != CMI_OK) {
        return st;
    }
    go_to(&s, &s.decode);
    st = open_decode(chat, dir_out, &decode, engine, err);
    if (st == CMI_OK) {
        go_to(&s, &s.prefill);
        st = open_prefill(chat, dir_out, &prefill, err);
    }
    if (st == CMI_OK) {
        go_to(&s, &s.decode);
        st = cmi_disaggregation_start(chat->apart, &chat->engine, err);
    }
    go_to(&s, &s.all);
    if (st == CMI_OK) {
        cmi_log(CMI_LOG_INFO, "prefill and decode are apart: %u and %u threads%s",
                prefill.n_threads, decode.n_threads,
                s.is_bound ? ", each on its own processors" : "");
    }
    return st;
}
