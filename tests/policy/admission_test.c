/* Who is refused, and for how long. */
#include "tests/test.h"

#include "policy/admission.h"

static void a_full_queue_refuses(void **state)
{
    (void)state;
    cmi_admission_queue q = {.max_requests = 2};
    assert_int_equal(cmi_admission_check_queue(&q, 1).reason, CMI_ADMISSION_OK);
    q.n_requests = 1;
    q.n_tokens = UINT64_MAX;
    assert_int_equal(cmi_admission_check_queue(&q, UINT64_MAX).reason, CMI_ADMISSION_OK);
    q.n_requests = 2;
    cmi_admission_verdict v = cmi_admission_check_queue(&q, 1);
    assert_int_equal(v.reason, CMI_ADMISSION_QUEUED_REQUESTS);
    assert_true(v.retry_after_ms > 0);
}

static void tokens_are_a_bound_of_their_own(void **state)
{
    (void)state;
    cmi_admission_queue q = {.max_requests = 9, .max_tokens = 100};
    assert_int_equal(cmi_admission_check_queue(&q, 1000).reason, CMI_ADMISSION_OK); /* alone */
    q.n_requests = 1;
    q.n_tokens = 60;
    assert_int_equal(cmi_admission_check_queue(&q, 40).reason, CMI_ADMISSION_OK);
    assert_int_equal(cmi_admission_check_queue(&q, 41).reason, CMI_ADMISSION_QUEUED_TOKENS);
    assert_int_equal(cmi_admission_check_queue(&q, UINT64_MAX).reason, CMI_ADMISSION_QUEUED_TOKENS);
    q.n_tokens = 1000; /* the one that came alone */
    assert_int_equal(cmi_admission_check_queue(&q, 0).reason, CMI_ADMISSION_QUEUED_TOKENS);
    q.n_requests = 9;
    assert_int_equal(cmi_admission_check_queue(&q, 0).reason, CMI_ADMISSION_QUEUED_REQUESTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_queue_refuses),
        cmocka_unit_test(tokens_are_a_bound_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
