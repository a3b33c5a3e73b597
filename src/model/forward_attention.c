/* Attention over paged latent KV, in two forms.
 *
 * Both see a sequence's keys in blocks of CMI_ATTN_BLOCK, each with a maximum of its own, and merge
 * blocks in ascending order (kernels/attention.h), so a row's bits depend on its position and the
 * KV alone. Decode rows are absorbed, prefill rows expanded; the bits of the two forms differ. */
#include "model/forward_internal.h"

void cmi_stage_attention(cmi_forward *f)
{
    if (f->n_decode_rows > 0) {
        cmi_attend_decode_rows(f);
    }
    const cmi_prefill_heads heads = {.n = f->opt.config->num_attention_heads,
                                     .max_rows = f->opt.max_rows,
                                     .q_op = f->s.attn.q_op,
                                     .o = f->s.o,
                                     .m = f->s.attn.head_m,
                                     .l = f->s.attn.head_l};
    for (uint32_t i = 0; i < f->n_local_spans; i++) {
        if (f->batch->spans[i].is_prefill) {
            cmi_attend_prefill_span(f, &f->batch->spans[i], &heads);
        }
    }
    if (f->is_staged) {
        f->status = cmi_staged_attend(f);
    }
}

void cmi_attention_divide(float *o, float l, uint32_t n)
{
    float factor = 1.0f / l;
    for (uint32_t i = 0; i < n; i++) {
        o[i] = o[i] * factor + 0.0f;
    }
}
