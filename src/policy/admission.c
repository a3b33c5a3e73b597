#include "policy/admission.h"

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
