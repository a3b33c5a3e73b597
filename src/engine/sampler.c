/* engine/sampler.c - see sampler.h.
 *
 * top_k and top_p need the largest probabilities in order, but seldom many: a heap over the
 * vocabulary is built in O(V) and popped until the filter is satisfied, which beats a sort by far.
 */
#include "engine/sampler.h"

#include <math.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "kernels/ref/math.h"

void cmi_sampler_init(cmi_sampler *s, uint32_t vocab_size, const cmi_kernels *kernels)
{
    *s = (cmi_sampler){.vocab_size = vocab_size, .kernels = kernels};
    s->logits = cmi_alloc(vocab_size, sizeof *s->logits);
    s->heap = cmi_alloc(vocab_size, sizeof *s->heap);
    s->kept = cmi_alloc(vocab_size, sizeof *s->kept);
    s->n_output = cmi_alloc(vocab_size, sizeof *s->n_output);
    s->is_penalized = cmi_alloc(vocab_size, sizeof *s->is_penalized);
}

void cmi_sampler_deinit(cmi_sampler *s)
{
    if (s != NULL) {
        cmi_free(s->logits);
        cmi_free(s->heap);
        cmi_free(s->kept);
        cmi_free(s->n_output);
        cmi_free(s->is_penalized);
        *s = (cmi_sampler){0};
    }
}

uint32_t cmi_sampler_arg_max(const float *logits, uint32_t vocab_size)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab_size; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return best;
}

float cmi_sampler_log_sum_exp(const cmi_kernels *kernels, const float *logits, uint32_t vocab_size)
{
    float max;
    float sum;
    kernels->max_sum_exp(logits, vocab_size, &max, &sum);
    return max + cmi_logf(sum);
}

/* a stands before b: larger logit, or the same and a lower id. */
static bool before(const float *logits, uint32_t a, uint32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

void cmi_sampler_top(const float *logits, uint32_t vocab_size, uint32_t n, uint32_t *token_ids_out)
{
    uint32_t found = 0;
    for (uint32_t id = 0; id < vocab_size; id++) {
        if (found == n && !before(logits, id, token_ids_out[n - 1])) {
            continue;
        }
        uint32_t at = found < n ? found++ : n - 1;
        while (at > 0 && before(logits, id, token_ids_out[at - 1])) {
            token_ids_out[at] = token_ids_out[at - 1];
            at--;
        }
        token_ids_out[at] = id;
    }
}

/* ---- penalties
 * ------------------------------------------------------------------------------------ */

/* One token, the first time that it is met in prompt or output. */
static void penalize(cmi_sampler *s, uint32_t id)
{
    const cmi_request *r = s->request;
    if (s->is_penalized[id]) {
        return;
    }
    s->is_penalized[id] = true;
    float z = s->logits[id];
    z = z > 0 ? z / r->repetition_penalty : z * r->repetition_penalty;
    if (s->n_output[id] > 0) {
        z -= (float)s->n_output[id] * r->frequency_penalty;
        z -= r->presence_penalty;
    }
    s->logits[id] = z;
}

static void apply_penalties(cmi_sampler *s, const cmi_sample *sample)
{
    const cmi_request *r = s->request;
    if (r->repetition_penalty == 1.0f && r->frequency_penalty == 0.0f &&
        r->presence_penalty == 0.0f) {
        return;
    }
    const uint32_t *prompt = cmi_request_prompt(r);
    for (uint32_t i = 0; i < sample->n_output; i++) {
        s->n_output[sample->output[i]]++;
    }
    for (uint32_t i = 0; i < r->n_prompt_tokens; i++) {
        penalize(s, prompt[i]);
    }
    for (uint32_t i = 0; i < sample->n_output; i++) {
        penalize(s, sample->output[i]);
    }
    for (uint32_t i = 0; i < r->n_prompt_tokens; i++) {
        s->is_penalized[prompt[i]] = false;
    }
    for (uint32_t i = 0; i < sample->n_output; i++) {
        s->is_penalized[sample->output[i]] = false;
        s->n_output[sample->output[i]] = 0;
    }
}

static void apply_bias(cmi_sampler *s, const uint32_t *banned, uint32_t n_banned)
{
    const cmi_logit_bias *bias = cmi_request_logit_bias(s->request);
    for (uint32_t i = 0; i < s->request->n_logit_bias; i++) {
        s->logits[bias[i].token_id] += bias[i].bias;
    }
    for (uint32_t i = 0; i < n_banned; i++) {
        if (banned[i] < s->vocab_size) {
            s->logits[banned[i]] = -INFINITY;
        }
    }
}

/* The rest is as if the model had no other tokens. */
static void apply_mask(cmi_sampler *s, const uint32_t *allowed)
{
    for (uint32_t begin = 0; allowed != NULL && begin < s->vocab_size; begin += 32) {
        const uint32_t word = allowed[begin / 32], end = CMI_MIN(begin + 32, s->vocab_size);
        for (uint32_t id = begin; word != UINT32_MAX && id < end; id++) {
            s->logits[id] = (word >> id % 32 & 1) != 0 ? s->logits[id] : -INFINITY;
        }
    }
}

/* ---- filters and choice
 * ---------------------------------------------------------------------------- */

static void sift_down(const float *logits, uint32_t *heap, uint32_t n, uint32_t at)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= n) {
            return;
        }
        if (child + 1 < n && before(logits, heap[child + 1], heap[child])) {
            child++;
        }
        if (!before(logits, heap[child], heap[at])) {
            return;
        }
        uint32_t id = heap[at];
        heap[at] = heap[child];
        heap[child] = id;
        at = child;
    }
}

/* The weight of a token beside the largest one's 1: exp((z - max) / T). */
static float weight_of(const cmi_sampler *s, uint32_t id, float max)
{
    return cmi_expf_ref((s->logits[id] - max) / s->request->temperature);
}

static void build_heap(cmi_sampler *s)
{
    for (uint32_t i = 0; i < s->vocab_size; i++) {
        s->heap[i] = i;
    }
    for (uint32_t i = s->vocab_size / 2; i-- > 0;) {
        sift_down(s->logits, s->heap, s->vocab_size, i);
    }
}

/* Takes the largest of the n tokens left in the heap. */
static uint32_t pop(cmi_sampler *s, uint32_t n)
{
    uint32_t id = s->heap[0];
    s->heap[0] = s->heap[n - 1];
    sift_down(s->logits, s->heap, n - 1, 0);
    return id;
}

/* The top_k largest tokens in descending order, then as many of them as make up top_p of their
 * weight; returns how many are kept. Without top_k no more are popped than top_p wants. */
static uint32_t keep_largest(cmi_sampler *s, float max)
{
    const cmi_request *r = s->request;
    bool by_rank = r->top_k > 0;
    uint32_t n_max = by_rank ? CMI_MIN(r->top_k, s->vocab_size) : s->vocab_size;
    double total = 0;
    build_heap(s);
    for (uint32_t i = 0; i < n_max; i++) {
        uint32_t id = by_rank ? pop(s, s->vocab_size - i) : i;
        s->kept[i] = id;
        total += r->top_p < 1.0f ? (double)weight_of(s, id, max) : 0;
    }
    if (r->top_p == 1.0f) {
        return n_max;
    }
    uint32_t n_kept = 0;
    double sum = 0;
    while (n_kept < n_max && sum < (double)r->top_p * total) {
        s->kept[n_kept] = by_rank ? s->kept[n_kept] : pop(s, s->vocab_size - n_kept);
        sum += (double)weight_of(s, s->kept[n_kept], max);
        n_kept++;
    }
    return n_kept;
}

/* Drops tokens whose weight is under min_p of the largest; order is kept. */
static uint32_t keep_likely(cmi_sampler *s, uint32_t n_kept, float max)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_kept; i++) {
        if (weight_of(s, s->kept[i], max) >= s->request->min_p) {
            s->kept[n++] = s->kept[i];
        }
    }
    return n;
}

static uint32_t choose(const cmi_sampler *s, uint32_t n_kept, float max, float uniform)
{
    double total = 0;
    for (uint32_t i = 0; i < n_kept; i++) {
        total += (double)weight_of(s, s->kept[i], max);
    }
    double target = (double)uniform * total;
    double sum = 0;
    uint32_t last = s->kept[0];
    for (uint32_t i = 0; i < n_kept; i++) {
        float weight = weight_of(s, s->kept[i], max);
        sum += (double)weight;
        if (weight > 0) {
            last = s->kept[i];
        }
        if (sum > target) {
            break;
        }
    }
    return last;
}

uint32_t cmi_sampler_sample(cmi_sampler *s, const cmi_sample *sample)
{
    const cmi_request *r = sample->request;
    s->request = r;
    memcpy(s->logits, sample->logits, s->vocab_size * sizeof *s->logits);
    apply_penalties(s, sample);
    apply_bias(s, sample->banned, sample->n_banned);
    apply_mask(s, sample->allowed);
    uint32_t best = cmi_sampler_arg_max(s->logits, s->vocab_size);
    if (r->temperature == 0.0f) {
        return best;
    }
    float max = s->logits[best];
    uint32_t n_kept = s->vocab_size;
    if (r->top_k > 0 || r->top_p < 1.0f) {
        n_kept = keep_largest(s, max);
    } else {
        for (uint32_t i = 0; i < n_kept; i++) {
            s->kept[i] = i;
        }
    }
    if (r->min_p > 0) {
        n_kept = keep_likely(s, n_kept, max);
    }
    return choose(s, n_kept, max, cmi_philox_uniform(r->seed, sample->position, 0));
}
