#include "policy/admission.h"

static const double ns_per_ms = 1e6;

/* Rows a step that a prompt gets at least, in the mean (policy/scheduler.c). */
static const double least_rows = 1;

cmi_admission_verdict cmi_admission_check_queue(const cmi_admission_queue *queue, uint64_t n_tokens)
{
    cmi_admission_verdict verdict = {.reason = CMI_ADMISSION_OK};
    if (queue->n_requests >= queue->max_requests) {
        verdict.reason = CMI_ADMISSION_QUEUED_REQUESTS;
    } else if (queue->max_tokens > 0 && queue->n_requests > 0 &&
               (queue->n_tokens >= queue->max_tokens ||
                n_tokens > queue->max_tokens - queue->n_tokens)) {
        verdict.reason = CMI_ADMISSION_QUEUED_TOKENS;
    }
    if (verdict.reason != CMI_ADMISSION_OK) {
        verdict.retry_after_ms = CMI_ADMISSION_RETRY_MS;
    }
    return verdict;
}

/* ---- predictions -------------------------------------------------------------------------------
 */

static double predict(const cmi_admission_load *load, const cmi_step_shape *shape)
{
    return load->factor * cmi_step_predict_ns(&load->rates, shape);
}

/* A step in which n sequences like those that run decode; like the newcomer, if nobody runs. */
static cmi_step_shape steady_step(const cmi_admission_load *load,
                                  const cmi_admission_request *request, uint32_t n)
{
    const uint64_t n_running = load->n_running;
    const uint64_t context =
        n_running > 0 ? load->steady.decode_context / n_running : request->n_prompt;
    return (cmi_step_shape){.n_decode_rows = n, .n_head_rows = n, .decode_context = n * context};
}

/* As many as can decode together within limit_ns, 0 .. max_running. */
static uint32_t count_seats(const cmi_admission_load *load, const cmi_admission_request *request,
                            double limit_ns)
{
    uint32_t fitting = 0, n_left = load->max_running;
    while (n_left > 0) {
        uint32_t step = n_left - n_left / 2;
        cmi_step_shape shape = steady_step(load, request, fitting + step);
        if (predict(load, &shape) <= limit_ns) {
            fitting += step;
            n_left -= step;
        } else {
            n_left = step - 1;
        }
    }
    return fitting;
}

typedef struct forecast {
    double limit_ns;      /* of a step, by all targets */
    uint32_t n_seats;     /* >= 1 */
    double seat_ns;       /* until one more is free, when all are taken */
    double rows, rows_ns; /* of prompts in a step, and its duration */
} forecast;

/* Sequences end one after the other, each after as many steps as an answer has tokens. */
static double time_of_a_seat(const cmi_admission_load *load, const cmi_admission_request *request,
                             uint32_t n_seats)
{
    const uint32_t n = CMI_MAX(CMI_MIN(load->n_running, n_seats), 1u);
    cmi_step_shape shape = steady_step(load, request, n);
    double n_tokens = load->mean_output > 0 ? load->mean_output : request->max_tokens;
    return n_tokens / CMI_MAX(load->tokens_per_step, 1.0) * predict(load, &shape) / n;
}

static void forecast_rows(const cmi_admission_load *load, forecast *f)
{
    const bool is_alone = load->n_running == 0;
    uint32_t fitting = 0, n_left = is_alone ? load->max_rows : load->max_prefill_rows;
    cmi_step_shape with = load->steady;
    const double limit_ns = is_alone ? CMI_ADMISSION_NO_LIMIT : f->limit_ns;
    while (n_left > 0) {
        uint32_t step = n_left - n_left / 2;
        with.n_prefill_rows = fitting + step;
        if (predict(load, &with) <= limit_ns) {
            fitting += step;
            n_left -= step;
        } else {
            n_left = step - 1;
        }
    }
    with.n_prefill_rows = fitting;
    f->rows = CMI_MAX((double)fitting, least_rows);
    f->rows_ns = predict(load, &with);
}

static double prefill_ns(const forecast *f, double n_tokens)
{
    double n_steps = n_tokens / f->rows; /* the last one may be shared */
    return CMI_MAX(n_steps, 1.0) * f->rows_ns;
}

/* Until the first token, from now on. */
static double predict_ttft(const cmi_admission_load *load, const cmi_admission_queue *queue,
                           const cmi_admission_request *request, const forecast *f)
{
    const double share = load->computed_share;
    const uint64_t n_before = (uint64_t)load->n_running + queue->n_requests;
    double seat_ns = n_before >= f->n_seats ? (double)(n_before + 1 - f->n_seats) * f->seat_ns : 0;
    double n_ahead = (double)load->n_prefill_tokens + share * (double)queue->n_tokens;
    double ahead_ns = n_ahead > 0 ? prefill_ns(f, n_ahead) : 0;
    return CMI_MAX(seat_ns, ahead_ns) + prefill_ns(f, share * (double)request->n_prompt);
}

/* ---- the decision ------------------------------------------------------------------------------
 */

static cmi_admission_verdict refuse(cmi_admission_reason reason, double retry_ns,
                                    double predicted_ns)
{
    double ms = retry_ns / ns_per_ms + 1;
    return (cmi_admission_verdict){
        .reason = reason,
        .retry_after_ms = (uint32_t)CMI_MIN(CMI_MAX(ms, 1.0), (double)CMI_ADMISSION_RETRY_MAX_MS),
        .predicted_ns = (uint64_t)CMI_MIN(predicted_ns, 1e18)};
}

/* Whether it could keep its own target at all, and has a seat. */
static cmi_admission_verdict check_tpot(const cmi_admission_load *load,
                                        const cmi_admission_queue *queue,
                                        const cmi_admission_request *request, const forecast *f)
{
    const double tokens_per_step = CMI_MAX(load->tokens_per_step, 1.0);
    const uint64_t n_before = (uint64_t)load->n_running + queue->n_requests;
    cmi_step_shape alone = steady_step(load, request, 1);
    alone.decode_context = request->n_prompt;
    double tpot_ns = predict(load, &alone) / tokens_per_step;
    if (tpot_ns > (double)request->tpot_ns) {
        return refuse(CMI_ADMISSION_TPOT, CMI_ADMISSION_RETRY_MAX_MS * ns_per_ms, tpot_ns);
    }
    if (request->ttft_ns == 0 && n_before >= f->n_seats && f->n_seats < load->max_running) {
        cmi_step_shape all = steady_step(load, request, (uint32_t)CMI_MIN(n_before + 1, 1u << 20));
        return refuse(CMI_ADMISSION_TPOT, (double)(n_before + 1 - f->n_seats) * f->seat_ns,
                      predict(load, &all) / tokens_per_step);
    }
    return (cmi_admission_verdict){.reason = CMI_ADMISSION_OK};
}

cmi_admission_verdict cmi_admission_decide(const cmi_admission_load *load,
                                           const cmi_admission_queue *queue,
                                           const cmi_admission_request *request)
{
    cmi_admission_verdict verdict = cmi_admission_check_queue(queue, request->n_prompt);
    const bool has_targets = request->ttft_ns > 0 || request->tpot_ns > 0;
    if (!load->is_known || (verdict.reason == CMI_ADMISSION_OK && !has_targets)) {
        return verdict;
    }
    forecast f = {.limit_ns = load->limit_ns};
    if (request->tpot_ns > 0) {
        double own_ns = (double)request->tpot_ns * CMI_MAX(load->tokens_per_step, 1.0);
        f.limit_ns = CMI_MIN(f.limit_ns, own_ns);
    }
    f.n_seats = f.limit_ns < CMI_ADMISSION_NO_LIMIT ? count_seats(load, request, f.limit_ns)
                                                    : load->max_running;
    f.n_seats = CMI_MAX(f.n_seats, 1u);
    f.seat_ns = time_of_a_seat(load, request, f.n_seats);
    forecast_rows(load, &f);
    if (verdict.reason != CMI_ADMISSION_OK) { /* one place is free when one more runs */
        double mean_prompt = (double)queue->n_tokens / CMI_MAX(queue->n_requests, 1u);
        double prompt_ns = prefill_ns(&f, load->computed_share * mean_prompt);
        return refuse(verdict.reason,
                      load->n_running >= f.n_seats ? CMI_MAX(f.seat_ns, prompt_ns) : prompt_ns, 0);
    }
    if (request->tpot_ns > 0) {
        verdict = check_tpot(load, queue, request, &f);
    }
    if (verdict.reason == CMI_ADMISSION_OK && request->ttft_ns > 0) {
        double ttft_ns = (double)request->age_ns + predict_ttft(load, queue, request, &f);
        if (ttft_ns > (double)request->ttft_ns) {
            verdict = refuse(CMI_ADMISSION_TTFT, ttft_ns - (double)request->ttft_ns, ttft_ns);
        }
    }
    return verdict;
}

cmi_expiry cmi_admission_expiry(uint64_t arrived_ns, uint64_t timeout_ns, uint64_t ttft_ns,
                                bool has_begun)
{
    const uint64_t most_ns = UINT64_MAX - arrived_ns;
    uint64_t patience_ns = has_begun || ttft_ns == 0 ? most_ns : CMI_MIN(2 * ttft_ns, most_ns);
    uint64_t limit_ns = timeout_ns == 0 ? most_ns : CMI_MIN(timeout_ns, most_ns);
    return (cmi_expiry){.at_ns = arrived_ns + CMI_MIN(patience_ns, limit_ns),
                        .is_timeout = limit_ns <= patience_ns};
}
