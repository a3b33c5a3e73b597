#include "policy/step_budget.h"

static const double no_limit_ns = 1e300;
static const double tokens_rate = 0.125; /* how fast tokens_per_step follows */
static const double lead_share = 0.25, lead_max = 0.5, lag_max = 0.25;

uint64_t cmi_pace_aim_ns(uint64_t target_ns)
{
    enum { SPARE_SHARE = 20 };
    return target_ns - target_ns / SPARE_SHARE;
}

static double tokens_per_step(const cmi_pace *pace)
{
    return pace->tokens_per_step < 1 ? 1 : pace->tokens_per_step;
}

void cmi_pace_count(cmi_pace *pace, uint64_t now_ns, uint32_t n_new)
{
    if (pace->n_tokens == 0) {
        pace->first_ns = now_ns;
    }
    pace->tokens_per_step = tokens_per_step(pace) + tokens_rate * (n_new - tokens_per_step(pace));
    pace->n_tokens += n_new;
    pace->last_ns = now_ns;
}

double cmi_pace_allowance_ns(const cmi_pace *pace, uint64_t now_ns)
{
    const double target = (double)pace->target_ns;
    const double since_last = (double)now_ns - (double)pace->last_ns;
    const double taken = (double)(pace->last_ns - pace->first_ns);
    double lead = lead_share * (target * (pace->n_tokens - 1) - taken);
    lead = CMI_MAX(CMI_MIN(lead, lead_max * target), -lag_max * target);
    return target * tokens_per_step(pace) + lead - since_last;
}

cmi_step_budget cmi_step_budget_begin(const cmi_step_rates *rates, double factor)
{
    return (cmi_step_budget){
        .rates = rates, .factor = factor, .step_ns = no_limit_ns, .steady_ns = no_limit_ns};
}

static void add_steady(cmi_step_shape *shape, double *limit_ns, const cmi_pace *pace,
                       uint32_t n_known)
{
    shape->n_decode_rows++;
    shape->n_head_rows++;
    shape->decode_context += n_known;
    if (pace->target_ns > 0) {
        *limit_ns = CMI_MIN(*limit_ns, (double)pace->target_ns * tokens_per_step(pace));
    }
}

void cmi_step_budget_add(cmi_step_budget *budget, const cmi_pace *pace, uint64_t now_ns,
                         uint32_t n_known, bool decodes)
{
    add_steady(&budget->steady, &budget->steady_ns, pace, n_known);
    if (decodes && pace->target_ns > 0) {
        budget->step_ns = CMI_MIN(budget->step_ns, cmi_pace_allowance_ns(pace, now_ns));
    }
}

static bool fits(const cmi_step_budget *budget, const cmi_step_shape *shape, double limit_ns)
{
    return budget->factor * cmi_step_predict_ns(budget->rates, shape) <= limit_ns;
}

bool cmi_step_budget_has_seat(const cmi_step_budget *budget, const cmi_pace *pace, uint32_t n_known)
{
    cmi_step_shape shape = budget->steady;
    double limit_ns = budget->steady_ns;
    add_steady(&shape, &limit_ns, pace, n_known);
    return budget->rates == NULL || limit_ns == no_limit_ns || fits(budget, &shape, limit_ns);
}

void cmi_step_shape_add_prefill(cmi_step_shape *shape, uint32_t position, uint32_t n_rows,
                                bool with_mtp)
{
    const uint64_t n = n_rows;
    shape->n_prefill_rows += n_rows;
    shape->prefill_context += n * position + n * (n + 1) / 2;
    shape->n_mtp_rows += with_mtp ? n_rows : 0;
}

uint32_t cmi_step_budget_prefill_rows(const cmi_step_budget *budget, const cmi_step_shape *shape,
                                      uint32_t position, uint32_t n_max, bool with_mtp)
{
    if (budget->rates == NULL || budget->step_ns == no_limit_ns) {
        return n_max;
    }
    uint32_t fitting = 0, n_left = n_max; /* more rows never take less time */
    while (n_left > 0) {
        uint32_t step = n_left - n_left / 2;
        cmi_step_shape with = *shape;
        cmi_step_shape_add_prefill(&with, position, fitting + step, with_mtp);
        if (fits(budget, &with, budget->step_ns)) {
            fitting += step;
            n_left -= step;
        } else {
            n_left = step - 1;
        }
    }
    return fitting;
}
