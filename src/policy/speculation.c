#include "policy/speculation.h"

enum {
    PATIENCE = 8,       /* idle steps that the layer keeps up, whatever it costs */
    COUNTED_TESTS = 128 /* then half of them are forgotten */
};

static const double prior_tests = 8;      /* that the prior is worth */
static const double gain_to_begin = 1.03; /* SPECULATION_GAIN */
static const double gain_to_go_on = 1;
static const double upkeep_share = 0.02; /* of a step, that the layer may cost for later */

void cmi_acceptance_count(cmi_acceptance *a, uint32_t n_tried, uint32_t n_right)
{
    a->n_tested += n_right < n_tried ? n_right + 1 : n_right;
    a->n_right += n_right;
    if (a->n_tested > COUNTED_TESTS) {
        a->n_tested /= 2;
        a->n_right /= 2;
    }
}

double cmi_acceptance_rate(const cmi_acceptance *a, double prior)
{
    double rate = (a->n_right + prior_tests * prior) / (a->n_tested + prior_tests);
    return CMI_MAX(CMI_MIN(rate, 0.999), 0.001);
}

/* A step's rows and what comes of them. */
typedef struct trial {
    cmi_step_shape shape;
    double n_tokens;
} trial;

/* Drafts of each sequence whose chance to hold is at least least_chance, n_passes at most. */
static trial try_drafts(const cmi_step_shape *steady, cmi_speculation_seq *seqs, uint32_t n,
                        uint32_t n_passes, double least_chance, uint32_t max_rows)
{
    trial t = {.shape = *steady, .n_tokens = steady->n_decode_rows};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t most = CMI_MIN(CMI_MIN(seqs[i].max_drafts, n_passes), max_rows);
        double chance = seqs[i].acceptance;
        seqs[i].n_drafts = 0;
        t.shape.n_mtp_rows += seqs[i].max_drafts > 0 ? 1 : 0; /* to keep up */
        while (seqs[i].n_drafts < most && chance >= least_chance) {
            t.n_tokens += chance;
            chance *= seqs[i].acceptance;
            seqs[i].n_drafts++;
        }
        const uint32_t n_drafts = seqs[i].n_drafts;
        max_rows -= n_drafts;
        t.shape.n_decode_rows += n_drafts;
        t.shape.n_head_rows += 2 * n_drafts; /* verified, and drafted */
        t.shape.n_mtp_rows += n_drafts > 0 ? n_drafts - 1 : 0;
        t.shape.n_mtp_passes = CMI_MAX(t.shape.n_mtp_passes, n_drafts);
    }
    return t;
}

/* The chance at which a draft brings as much as its rows cost, where a token costs token_ns. */
static double least_chance(const cmi_step_rates *rates, const cmi_step_shape *steady,
                           double step_ns, double token_ns)
{
    cmi_step_shape more = *steady;
    more.n_decode_rows++;
    more.n_head_rows += 2;
    more.n_mtp_rows++;
    return (cmi_step_predict_ns(rates, &more) - step_ns) / token_ns;
}

static bool is_upkeep_cheap(const cmi_step_rates *rates, const cmi_step_shape *steady,
                            const cmi_speculation_seq *seqs, uint32_t n, double step_ns)
{
    cmi_step_shape with = *steady;
    for (uint32_t i = 0; i < n; i++) {
        with.n_mtp_rows += seqs[i].max_drafts > 0 ? 1 : 0;
    }
    with.n_mtp_passes = with.n_mtp_rows > 0 ? 1 : 0;
    return cmi_step_predict_ns(rates, &with) <= (1 + upkeep_share) * step_ns;
}

bool cmi_speculation_decide(cmi_speculation *spec, const cmi_step_rates *rates,
                            const cmi_step_shape *steady, cmi_speculation_seq *seqs, uint32_t n,
                            uint32_t max_rows)
{
    const double step_ns = cmi_step_predict_ns(rates, steady);
    const double token_ns = step_ns / CMI_MAX(steady->n_decode_rows, 1u);
    const double least = token_ns > 0 ? least_chance(rates, steady, step_ns, token_ns) : 1;
    double best_ns = token_ns / (spec->is_on ? gain_to_go_on : gain_to_begin);
    uint32_t n_passes = 0;
    for (uint32_t k = 1; k <= CMI_SPECULATION_MAX_DRAFTS; k++) {
        trial t = try_drafts(steady, seqs, n, k, least, max_rows);
        double ns = cmi_step_predict_ns(rates, &t.shape) / t.n_tokens;
        if (t.shape.n_mtp_passes == k && ns < best_ns) {
            best_ns = ns;
            n_passes = k;
        }
    }
    (void)try_drafts(steady, seqs, n, n_passes, least, max_rows);
    spec->is_on = n_passes > 0;
    spec->n_idle = spec->is_on ? 0 : CMI_MIN(spec->n_idle + 1, UINT32_MAX - 1);
    return spec->is_on || spec->n_idle < PATIENCE ||
           is_upkeep_cheap(rates, steady, seqs, n, step_ns);
}
