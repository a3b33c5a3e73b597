#include "tests/test.h"

#include "tests/model/forward_rig.h"

#include "base/alloc.h"

static void open_model(rig *r, const random_model *model, const rig_options *opt)
{
    cmi_error err = {0};
    const char *dir = model->dir.path;
    cmi_weights_options weights = {.dtype = opt->dtype, .int8_head = true, .with_mtp = true};
    if (cmi_model_config_load(&r->config, &r->generation, dir, &err) != CMI_OK ||
        cmi_team_create(&r->team, opt->n_threads, &err) != CMI_OK) {
        fail_msg("%s: %s", model->spec.name, err.text);
    }
    weights.team = r->team;
    if (cmi_weights_load(&r->weights, &r->config, dir, &weights, &err) != CMI_OK) {
        fail_msg("%s: %s", model->spec.name, err.text);
    }
}

static cmi_dtype kv_dtype(const rig_options *opt)
{
    cmi_dtype dtype = opt->dtype == CMI_DTYPE_F32 ? CMI_DTYPE_F32 : CMI_DTYPE_BF16;
    return opt->int8_kv ? CMI_DTYPE_I8 : dtype;
}

void rig_open(rig *r, const random_model *model, const rig_options *opt)
{
    cmi_error err = {0};
    *r = (rig){0};
    open_model(r, model, opt);
    cmi_kernels_select(&r->kernels, cmi_cpu_flags() & cmi_isa_cpu_flags(opt->isa));
    r->layout = cmi_kv_layout_make(&r->config, kv_dtype(opt), r->weights->mtp != NULL);
    size_t kv_bytes = RIG_MAX_SEQUENCES * RIG_PAGES * r->layout.page_bytes;
    r->kv = cmi_alloc_aligned(kv_bytes, CMI_CACHE_LINE);
    memset(r->kv, 0xFF, kv_bytes);
    for (uint32_t s = 0; s < RIG_MAX_SEQUENCES; s++) {
        for (uint32_t page = 0; page < RIG_PAGES; page++) {
            r->page_ids[s][page] = (RIG_PAGES - 1 - page) * RIG_MAX_SEQUENCES + s;
        }
    }
    cmi_forward_options forward = {.config = &r->config,
                                   .weights = r->weights,
                                   .kernels = &r->kernels,
                                   .team = r->team,
                                   .kv_layout = r->layout,
                                   .kv_base = r->kv,
                                   .max_rows = opt->max_rows,
                                   .max_decode_rows = CMI_MIN(opt->max_rows, 4u),
                                   .max_positions = RANDOM_MODEL_POSITIONS};
    if (cmi_forward_create(&r->forward, &forward, &err) != CMI_OK) {
        fail_msg("%s: %s", model->spec.name, err.text);
    }
}

void rig_close(rig *r)
{
    cmi_forward_destroy(r->forward);
    cmi_free(r->kv);
    cmi_weights_destroy(r->weights);
    cmi_team_destroy(r->team);
}

cmi_batch_span rig_span(const rig *r, uint32_t sequence, uint32_t row_idx, uint32_t n_rows,
                        uint32_t position, bool is_prefill)
{
    assert_true(position + n_rows <= RIG_PAGES * CMI_KV_PAGE_TOKENS);
    return (cmi_batch_span){.page_ids = r->page_ids[sequence],
                            .row_idx = row_idx,
                            .n_rows = n_rows,
                            .position = position,
                            .is_prefill = is_prefill};
}

void rig_pass(rig *r, uint32_t sequence, const uint32_t *tokens, uint32_t n, uint32_t position,
              bool is_prefill, const float *mtp_hidden, float *hidden_out)
{
    cmi_batch_span span = rig_span(r, sequence, 0, n, position, is_prefill);
    cmi_batch batch = {
        .token_ids = tokens, .spans = &span, .n_rows = n, .n_spans = 1, .mtp_hidden = mtp_hidden};
    cmi_forward_run(r->forward, &batch);
    memcpy(hidden_out, cmi_forward_hidden(r->forward),
           (size_t)n * r->config.hidden_size * sizeof(float));
}

void rig_run(rig *r, const rig_plan *plan, float *hidden_out, float *mtp_out)
{
    size_t width = r->config.hidden_size;
    for (uint32_t at = 0; at < plan->n;) {
        bool is_prefill = at < plan->n_prompt;
        uint32_t n = is_prefill ? CMI_MIN(plan->chunk, plan->n_prompt - at)
                                : CMI_MIN(CMI_MAX(plan->decode_rows, 1u), plan->n - at);
        rig_pass(r, 0, plan->tokens + at, n, at, is_prefill, NULL, hidden_out + at * width);
        /* The MTP layer's row of a position needs the hidden state before it, so position 0 has
         * none. */
        uint32_t skip = at == 0 ? 1 : 0;
        if (mtp_out != NULL && n > skip) {
            rig_pass(r, 0, plan->tokens + at + skip, n - skip, at + skip, is_prefill,
                     hidden_out + (at + skip - 1) * width, mtp_out + (at + skip) * width);
        }
        at += n;
    }
}
