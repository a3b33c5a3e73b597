/* Least squares in information form: the normal equations A x = b of all steps, each weighted by
 * 1 / predicted^2 and by forget^age, are moved by each step and solved by descent along one
 * coordinate after the other, which keeps x >= 0. Recursive least squares on the inverse of A would
 * be as cheap, but has no such bound, and its numbers run away in directions that nobody observes.
 * Here a small pull towards the last solution holds those. */
#include "policy/step_cost.h"

#include <string.h>

enum {
    N = CMI_STEP_TERMS,
    SWEEPS = 4, /* for each step */
    SETTLE_SWEEPS = 400,
    KNOWN_AFTER = 8, /* steps */
};

/* Terms are made comparable: what they are for a step of usual size is about 1. */
static const double rows_unit = 64, prefill_unit = 256, context_unit = 65536;
static const double prefill_context_unit = 1 << 20;

static const double forget = 0.99;       /* about the last hundred steps count */
static const double pull = 1e-3;         /* towards the last solution, by a step's weight */
static const double error_rate = 0.05;   /* how fast the usual error follows */
static const double outlier_errors = 3;  /* usual errors; beyond, an error counts linearly */
static const double least_error = 0.02;  /* what is never an outlier */
static const double guess_ratio = 0.125; /* a prediction below this share of the time is none */
static const double longest_ns = 1e13;   /* hours */
static const double ratio_max = 1000;    /* of measured to predicted, as it is kept */

static double power(double base, uint32_t n)
{
    double result = 1;
    for (; n > 0; n >>= 1) {
        result *= (n & 1) != 0 ? base : 1;
        base *= base;
    }
    return result;
}

static void make_terms(const cmi_step_rates *rates, const cmi_step_shape *shape, double terms[N])
{
    const uint32_t n_rows = shape->n_decode_rows + shape->n_prefill_rows;
    terms[0] = 1;
    terms[1] = 1 - power(rates->idle_share, n_rows);
    terms[2] = shape->n_decode_rows / rows_unit;
    terms[3] = shape->n_prefill_rows / prefill_unit;
    terms[4] = shape->n_head_rows / rows_unit;
    terms[5] = shape->n_mtp_passes;
    terms[6] = shape->n_mtp_rows / rows_unit;
    terms[7] = (double)shape->decode_context / context_unit;
    terms[8] = (double)shape->prefill_context / prefill_context_unit;
}

static double sum(const double terms[N], const double x[N])
{
    double total = 0;
    for (int i = 0; i < N; i++) {
        total += terms[i] * x[i];
    }
    return total;
}

void cmi_step_cost_init(cmi_step_cost *cost, uint32_t n_experts, uint32_t n_experts_per_tok)
{
    memset(cost, 0, sizeof *cost);
    cost->rates.idle_share =
        n_experts == 0 ? 1 : 1 - (double)CMI_MIN(n_experts_per_tok, n_experts) / n_experts;
    cost->usual_error = 1;
}

double cmi_step_predict_ns(const cmi_step_rates *rates, const cmi_step_shape *shape)
{
    double terms[N];
    make_terms(rates, shape, terms);
    return sum(terms, rates->term_ns);
}

bool cmi_step_cost_is_known(const cmi_step_cost *cost)
{
    return cost->n_observed >= KNOWN_AFTER;
}

/* ---- the rest ----------------------------------------------------------------------------------
 */

/* Of the first steps, which were hardly predicted, none is kept. */
static uint64_t n_kept(const cmi_step_cost *cost)
{
    return cost->n_observed - CMI_MIN(cost->n_observed, (uint64_t)KNOWN_AFTER);
}

static uint32_t n_ratios(const cmi_step_cost *cost)
{
    return (uint32_t)CMI_MIN(n_kept(cost), (uint64_t)CMI_STEP_COST_WINDOW);
}

/* The first of the n that is not less than x. */
static uint32_t lower_bound(const float *sorted, uint32_t n, float x)
{
    uint32_t begin = 0;
    while (n > 0) {
        uint32_t half = n / 2;
        if (sorted[begin + half] < x) {
            begin += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return begin;
}

/* Before the step is counted. */
static void keep_ratio(cmi_step_cost *cost, float ratio)
{
    const uint32_t at = n_kept(cost) % CMI_STEP_COST_WINDOW;
    uint32_t n = n_ratios(cost);
    float *sorted = cost->sorted;
    if (n == CMI_STEP_COST_WINDOW) {
        uint32_t out = lower_bound(sorted, n, cost->ratios[at]);
        n--;
        memmove(sorted + out, sorted + out + 1, (n - out) * sizeof *sorted);
    }
    uint32_t in = lower_bound(sorted, n, ratio);
    memmove(sorted + in + 1, sorted + in, (n - in) * sizeof *sorted);
    sorted[in] = ratio;
    cost->ratios[at] = ratio;
}

double cmi_step_cost_factor(const cmi_step_cost *cost, double share)
{
    const uint32_t n = n_ratios(cost);
    uint32_t n_covered = (uint32_t)(share * n);
    n_covered += n_covered < share * n ? 1 : 0;
    return n == 0 ? 1 : (double)cost->sorted[CMI_MAX(CMI_MIN(n_covered, n), 1u) - 1];
}

double cmi_step_cost_mean_factor(const cmi_step_cost *cost)
{
    const uint32_t n = n_ratios(cost);
    double total = 0;
    for (uint32_t i = 0; i < n; i++) {
        total += (double)cost->sorted[i];
    }
    return n == 0 ? 1 : total / n;
}

/* ---- the fit -----------------------------------------------------------------------------------
 */

/* The pull is the strength of one step of this weight. */
static void descend(cmi_step_cost *cost, double weight, int n_sweeps)
{
    double *x = cost->rates.term_ns, from[N];
    memcpy(from, x, sizeof from);
    for (int sweep = 0; sweep < n_sweeps; sweep++) {
        for (int i = 0; i < N; i++) {
            double others = sum(cost->a[i], x) - cost->a[i][i] * x[i];
            double strength = pull * weight;
            double best = (cost->b[i] + strength * from[i] - others) / (cost->a[i][i] + strength);
            x[i] = best > 0 ? CMI_MIN(best, longest_ns) : 0;
        }
    }
}

/* The weight of a step whose relative error is this: less for one that is far from the usual. */
static double weigh_error(cmi_step_cost *cost, double error)
{
    const double size = error < 0 ? -error : error;
    const double limit = outlier_errors * CMI_MAX(cost->usual_error, least_error);
    cost->usual_error += error_rate * (CMI_MIN(size, limit) - cost->usual_error);
    return size > limit ? limit / size : 1;
}

void cmi_step_cost_observe(cmi_step_cost *cost, const cmi_step_shape *shape, uint64_t duration_ns)
{
    if (duration_ns == 0) {
        return;
    }
    double terms[N];
    make_terms(&cost->rates, shape, terms);
    const double measured = CMI_MIN((double)duration_ns, longest_ns);
    const double predicted = sum(terms, cost->rates.term_ns);
    const double base = CMI_MAX(predicted, guess_ratio * measured);
    const double weight = weigh_error(cost, (measured - base) / base) / (base * base);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N; k++) {
            cost->a[i][k] = forget * cost->a[i][k] + weight * terms[i] * terms[k];
        }
        cost->b[i] = forget * cost->b[i] + weight * terms[i] * measured;
    }
    if (cmi_step_cost_is_known(cost)) {
        double ratio = predicted > 0 ? measured / predicted : ratio_max;
        keep_ratio(cost, (float)CMI_MIN(ratio, ratio_max));
    }
    cost->n_observed++;
    descend(cost, weight, SWEEPS);
}

void cmi_step_cost_settle(cmi_step_cost *cost)
{
    const double typical = cost->rates.term_ns[0] + cost->rates.term_ns[1] + 1;
    for (int i = 0; i < SETTLE_SWEEPS / SWEEPS; i++) {
        descend(cost, 1 / (typical * typical), SWEEPS);
    }
}
