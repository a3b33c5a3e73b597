#include "tests/test.h"

#include <math.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "engine/sampler.h"

enum { VOCAB = 8 };

static const uint32_t prompt[] = {5};

typedef struct fixture {
    cmi_kernels kernels;
    cmi_sampler sampler;
    cmi_request *request;
    uint32_t output[4];
    uint32_t n_output;
} fixture;

static void begin(fixture *f, const cmi_request *head, const cmi_logit_bias *bias, uint32_t n_bias)
{
    cmi_kernels_select(&f->kernels, cmi_cpu_flags());
    cmi_sampler_init(&f->sampler, VOCAB, &f->kernels);
    f->request = cmi_request_create(head, prompt, 1, NULL, 0, bias, n_bias);
    f->n_output = 0;
}

static void end(fixture *f)
{
    cmi_free(f->request);
    cmi_sampler_deinit(&f->sampler);
}

static const float logits[VOCAB] = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f, 0.0f, 2.5f, -2.0f};

static uint32_t sample(fixture *f, uint64_t position, const uint32_t *banned, uint32_t n_banned)
{
    cmi_sample what = {.request = f->request,
                       .logits = logits,
                       .position = position,
                       .output = f->output,
                       .n_output = f->n_output,
                       .banned = banned,
                       .n_banned = n_banned};
    return cmi_sampler_sample(&f->sampler, &what);
}

static void greedy_takes_the_largest_and_the_lower_of_two(void **state)
{
    (void)state;
    fixture f;
    cmi_request head = cmi_request_defaults();
    head.temperature = 0;
    begin(&f, &head, NULL, 0);
    assert_int_equal(sample(&f, 0, NULL, 0), 1);
    static const uint32_t banned[] = {1, 3};
    assert_int_equal(sample(&f, 0, banned, 2), 6);
    end(&f);
}

/* How often each token comes out over many positions. */
static void count_samples(const cmi_request *head, const cmi_logit_bias *bias, uint32_t n_bias,
                          uint32_t n, uint32_t counts[VOCAB])
{
    fixture f;
    begin(&f, head, bias, n_bias);
    memset(counts, 0, VOCAB * sizeof *counts);
    for (uint32_t position = 0; position < n; position++) {
        counts[sample(&f, position, NULL, 0)]++;
    }
    end(&f);
}

static void frequencies_follow_the_softmax(void **state)
{
    (void)state;
    enum { N = 40000 };
    static const float temperatures[] = {0.5f, 1.0f, 2.0f};
    for (size_t t = 0; t < CMI_LEN(temperatures); t++) {
        uint32_t counts[VOCAB];
        cmi_request head = cmi_request_defaults();
        head.temperature = temperatures[t];
        head.seed = 11 + t;
        count_samples(&head, NULL, 0, N, counts);
        double total = 0;
        for (uint32_t i = 0; i < VOCAB; i++) {
            total += exp((double)(logits[i] / temperatures[t]));
        }
        for (uint32_t i = 0; i < VOCAB; i++) {
            double p = exp((double)(logits[i] / temperatures[t])) / total;
            /* five standard deviations of a binomial count, and one for small counts */
            assert_true(fabs(counts[i] - N * p) < 5 * sqrt(N * p * (1 - p)) + 1);
        }
    }
}

static void filters_keep_what_they_say(void **state)
{
    (void)state;
    uint32_t counts[VOCAB];
    cmi_request head = cmi_request_defaults();
    head.top_k = 3;
    count_samples(&head, NULL, 0, 4000, counts);
    assert_true(counts[1] > 0 && counts[3] > 0 && counts[6] > 0);
    assert_int_equal(counts[1] + counts[3] + counts[6], 4000);
    head = cmi_request_defaults();
    head.top_p = 0.5f; /* tokens 1 and 3 have 0.30 each */
    count_samples(&head, NULL, 0, 4000, counts);
    assert_int_equal(counts[1] + counts[3], 4000);
    head = cmi_request_defaults();
    head.top_k = 3; /* of these three the first has 1 / (1 + 1 + e^-0.5) = 0.384 */
    head.top_p = 0.38f;
    count_samples(&head, NULL, 0, 4000, counts);
    assert_int_equal(counts[1], 4000);
    head = cmi_request_defaults();
    head.min_p = 0.5f; /* e^-0.5 = 0.61 is over it, e^-1 = 0.37 is not */
    count_samples(&head, NULL, 0, 4000, counts);
    assert_int_equal(counts[1] + counts[3] + counts[6], 4000);
}

static void penalties_and_bias_move_the_choice(void **state)
{
    (void)state;
    fixture f;
    cmi_request head = cmi_request_defaults();
    head.temperature = 0;
    head.frequency_penalty = 0.4f;
    begin(&f, &head, NULL, 0);
    f.output[f.n_output++] = 1;
    assert_int_equal(sample(&f, 0, NULL, 0), 3);
    f.output[f.n_output++] = 3;
    f.output[f.n_output++] = 3;
    assert_int_equal(sample(&f, 0, NULL, 0), 1);
    end(&f);
    head = cmi_request_defaults();
    head.temperature = 0;
    head.repetition_penalty = 2;
    begin(&f, &head, NULL, 0);
    f.output[f.n_output++] = 1;
    f.output[f.n_output++] = 3;
    assert_int_equal(sample(&f, 0, NULL, 0), 6);
    end(&f);
    static const cmi_logit_bias bias[] = {{7, 100}, {1, -100}};
    head = cmi_request_defaults();
    begin(&f, &head, bias, 2);
    assert_int_equal(sample(&f, 3, NULL, 0), 7);
    end(&f);
}

static void the_token_is_a_function_of_seed_and_position(void **state)
{
    (void)state;
    fixture a;
    fixture b;
    uint32_t n_different = 0;
    cmi_request head = cmi_request_defaults();
    head.seed = 42;
    begin(&a, &head, NULL, 0);
    begin(&b, &head, NULL, 0);
    for (uint32_t position = 0; position < 100; position++) {
        /* asked in another order, after other questions */
        uint32_t first = sample(&a, position, NULL, 0);
        sample(&b, 1000 + position, NULL, 0);
        assert_int_equal(first, sample(&b, position, NULL, 0));
        n_different += first != 1;
    }
    assert_true(n_different > 20);
    end(&a);
    end(&b);
}

static void top_lists_are_sorted_with_ties_by_id(void **state)
{
    (void)state;
    uint32_t ids[VOCAB];
    static const uint32_t want[VOCAB] = {1, 3, 6, 2, 0, 5, 4, 7};
    for (uint32_t n = 1; n <= VOCAB; n++) {
        cmi_sampler_top(logits, VOCAB, n, ids);
        assert_memory_equal(ids, want, n * sizeof *ids);
    }
}

static void log_sum_exp_is_right(void **state)
{
    (void)state;
    cmi_kernels kernels;
    cmi_kernels_select(&kernels, cmi_cpu_flags());
    double sum = 0;
    for (uint32_t i = 0; i < VOCAB; i++) {
        sum += exp((double)logits[i]);
    }
    assert_true(fabs((double)cmi_sampler_log_sum_exp(&kernels, logits, VOCAB) - log(sum)) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_lower_of_two),
        cmocka_unit_test(frequencies_follow_the_softmax),
        cmocka_unit_test(filters_keep_what_they_say),
        cmocka_unit_test(penalties_and_bias_move_the_choice),
        cmocka_unit_test(the_token_is_a_function_of_seed_and_position),
        cmocka_unit_test(top_lists_are_sorted_with_ties_by_id),
        cmocka_unit_test(log_sum_exp_is_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
