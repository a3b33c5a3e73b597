/* cli/bench/ep_rank_rows.c - what a rank of the measurement sends, and how it sees that all of it
 * was where it should be. */
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cli/bench/ep_rank_internal.h"
#include "cli/bench/rig.h"

/* Distinct experts, drawn uniformly; and the bytes that they mean. */
static void draw_rows(bench_rank *r)
{
    const cmi_bench_ep_options *opt = r->opt;
    for (uint32_t row = 0; row < opt->n_rows; row++) {
        uint32_t *experts = r->expert_ids + (size_t)row * opt->top_k;
        uint64_t ranks = 0;
        for (uint32_t k = 0, tries = 0; k < opt->top_k; tries++) {
            uint32_t words[4];
            cmi_philox4x32(r->place->rank, row, tries, words);
            experts[k] = words[0] % opt->n_experts;
            bool is_new = true;
            for (uint32_t i = 0; i < k; i++) {
                is_new &= experts[i] != experts[k];
            }
            if (is_new) {
                ranks |= UINT64_C(1) << r->rank_of[experts[k++]];
            }
        }
        r->report.dispatch_bytes += (uint64_t)__builtin_popcountll(ranks) * r->layout.message_bytes;
        r->report.combine_bytes += (uint64_t)opt->top_k * r->layout.shape.result_bytes;
    }
}

void cmi_bench_ep_make_rows(bench_rank *r)
{
    const cmi_bench_ep_options *opt = r->opt;
    const size_t n_arrivals = r->exchange->max_arrivals;
    const size_t result_bytes = r->layout.shape.result_bytes;
    r->values = cmi_alloc((size_t)opt->n_rows, r->layout.message_bytes);
    r->scales = cmi_alloc(opt->n_rows, sizeof *r->scales);
    r->expert_ids = cmi_alloc((size_t)opt->n_rows * opt->top_k, sizeof *r->expert_ids);
    r->arrived = cmi_alloc(n_arrivals, opt->hidden);
    r->arrived_scales = cmi_alloc(n_arrivals, sizeof *r->arrived_scales);
    r->results = cmi_alloc(n_arrivals, result_bytes);
    r->expert_begin = cmi_alloc(opt->n_experts + 1, sizeof *r->expert_begin);
    cmi_bench_fill(r->values, (size_t)opt->n_rows * opt->hidden, r->place->rank);
    cmi_bench_fill(r->results, n_arrivals * result_bytes, r->place->rank);
    for (uint32_t row = 0; row < opt->n_rows; row++) {
        r->scales[row] = (float)(r->place->rank * opt->n_rows + row);
    }
    memset(r->arrived, 0, n_arrivals * opt->hidden);
    draw_rows(r);
}

void cmi_bench_ep_free_rows(bench_rank *r)
{
    cmi_free(r->values);
    cmi_free(r->scales);
    cmi_free(r->expert_ids);
    cmi_free(r->arrived);
    cmi_free(r->arrived_scales);
    cmi_free(r->results);
    cmi_free(r->expert_begin);
}

/* ---- the proof ---- */

/* What an expert makes of a row when rows are to be proved: the row, then the row again with the
 * expert and the scale in it. Nobody can make it but where both are. */
static void make_answer(const bench_rank *r, uint8_t *to, const uint8_t *row, float scale,
                        uint32_t expert)
{
    const size_t n = r->opt->hidden;
    memcpy(to, row, n);
    memcpy(to + n, row, n);
    memcpy(to + n, &scale, sizeof scale);
    for (size_t i = 0; i < sizeof expert; i++) {
        to[n + sizeof scale + i] ^= (uint8_t)(expert >> 8 * i);
    }
}

void cmi_bench_ep_answer_rows(bench_rank *r)
{
    for (uint32_t e = 0; e < r->opt->n_experts; e++) {
        for (uint32_t i = r->expert_begin[e]; i < r->expert_begin[e + 1]; i++) {
            make_answer(r, r->results + i * r->layout.shape.result_bytes,
                        r->arrived + (size_t)i * r->opt->hidden, r->arrived_scales[i], e);
        }
    }
}

bool cmi_bench_ep_are_answers(const bench_rank *r, const uint8_t *back, size_t stride)
{
    const size_t n_bytes = r->layout.shape.result_bytes;
    uint8_t *want = cmi_alloc(1, n_bytes);
    bool are_right = true;
    for (uint32_t pair = 0; pair < r->opt->n_rows * r->opt->top_k; pair++) {
        const uint32_t row = pair / r->opt->top_k;
        make_answer(r, want, r->values + (size_t)row * r->opt->hidden, r->scales[row],
                    r->expert_ids[pair]);
        are_right &= memcmp(want, back + pair * stride, n_bytes) == 0;
    }
    cmi_free(want);
    return are_right;
}
