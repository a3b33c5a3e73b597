#include "cli/open_apart.h"

#include "base/log.h"
#include "os/affinity.h"

/* Which processors are whose. Threads inherit what the one that starts them may use. */
typedef struct split {
    cmi_affinity all, prefill, decode;
    uint32_t n_prefill, n_decode;
    bool is_bound;
} split;

/* opt's threads: decode has at least one. */
static split split_processors(const cmi_model_options *opt)
{
    const uint32_t n_threads = opt->n_threads > 0 ? opt->n_threads : cmi_host_processors();
    split s = {.n_prefill = opt->n_prefill_threads, .n_decode = 1};
    if (n_threads > s.n_prefill) {
        s.n_decode = n_threads - s.n_prefill;
    }
    s.is_bound = cmi_affinity_get(&s.all) && s.n_prefill + s.n_decode <= cmi_affinity_count(&s.all);
    s.prefill = cmi_affinity_part(&s.all, 0, s.n_prefill);
    s.decode = cmi_affinity_part(&s.all, s.n_prefill, s.n_decode);
    return s;
}

static void go_to(const split *s, const cmi_affinity *processors)
{
    if (s->is_bound) {
        (void)cmi_affinity_set(processors);
    }
}

cmi_status cmi_cli_open_apart(cmi_chat *chat, cmi_buf *dir_out, const cmi_model_options *opt,
                              cmi_error *err)
{
    const split s = split_processors(opt);
    cmi_model_options decode = *opt;
    decode.n_threads = s.n_decode;
    cmi_buf_init(dir_out, 4096);
    cmi_status st = cmi_disaggregation_create(&chat->apart, 0, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_instance_options options = cmi_cli_sized_options(&decode, false);
    cmi_disaggregation_decode_options(chat->apart, &options);
    go_to(&s, &s.decode);
    st = cmi_cli_open_instance(&chat->instance, dir_out, &options, &decode, err);
    go_to(&s, &s.all);
    if (st == CMI_OK) {
        cmi_disaggregation_set_decode(chat->apart, chat->instance);
    }
    return st;
}

static cmi_status open_prefill(cmi_chat *chat, const cmi_buf *dir, const cmi_model_options *opt,
                               const cmi_engine_options *engine, cmi_error *err)
{
    cmi_instance_options options = cmi_cli_sized_options(opt, false);
    options.model_dir = cmi_buf_cstr(dir);
    cmi_status st = cmi_cli_instance_options(&options, opt, err);
    return st == CMI_OK ? cmi_disaggregation_add_prefill(chat->apart, &options, engine, err) : st;
}

cmi_status cmi_cli_start_apart(cmi_chat *chat, const cmi_buf *dir, const cmi_model_options *opt,
                               const cmi_engine_options *engine, cmi_error *err)
{
    const split s = split_processors(opt);
    cmi_model_options prefill = *opt;
    prefill.n_threads = s.n_prefill;

    go_to(&s, &s.prefill);
    cmi_status st = open_prefill(chat, dir, &prefill, engine, err);
    if (st == CMI_OK) {
        go_to(&s, &s.decode);
        st = cmi_disaggregation_start(chat->apart, engine, &chat->engine, err);
    }
    go_to(&s, &s.all);
    if (st == CMI_OK) {
        cmi_log(CMI_LOG_INFO, "prefill and decode are apart: %u and %u threads%s", s.n_prefill,
                s.n_decode, s.is_bound ? ", each on its own processors" : "");
    }
    return st;
}
