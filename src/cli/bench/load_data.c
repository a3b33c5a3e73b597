#include "cli/bench/load_data.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/bench/load_random.h"

void cmi_load_data_deinit(cmi_load_data *data)
{
    cmi_free(data->requests);
    cmi_free(data->blocks);
    cmi_buf_deinit(&data->texts);
    *data = (cmi_load_data){0};
}

cmi_load_request *cmi_load_data_add(cmi_load_data *data)
{
    if (data->n == CMI_LOAD_MAX_REQUESTS) {
        return NULL;
    }
    if (data->n == data->cap) {
        data->cap = data->cap > 0 ? data->cap * 2 : 256;
        data->requests = cmi_realloc(data->requests, data->cap, sizeof *data->requests);
    }
    cmi_load_request *request = &data->requests[data->n++];
    *request = (cmi_load_request){0};
    return request;
}

/* Uniform in the whole numbers of length * (1 - ratio) .. length * (1 + ratio), at least min. */
static uint32_t draw_length(cmi_load_random *random, uint32_t length, double ratio, uint32_t min)
{
    double low = floor(length * (1 - ratio));
    double high = ceil(length * (1 + ratio));
    uint32_t from = CMI_MAX(min, (uint32_t)low);
    uint32_t to = CMI_MAX(from, (uint32_t)CMI_MIN(high, (double)CMI_LOAD_MAX_TOKENS));
    return from + cmi_load_random_below(random, to - from + 1);
}

void cmi_load_data_random(cmi_load_data *data, const cmi_load_random_sizes *sizes, uint64_t seed)
{
    cmi_load_random random;
    cmi_load_random_init(&random, seed, CMI_LOAD_STREAM_LENGTHS, 0);
    for (size_t i = 0; i < sizes->n; i++) {
        cmi_load_request *request = cmi_load_data_add(data);
        if (request == NULL) {
            return;
        }
        uint32_t own = draw_length(&random, sizes->input_tokens, sizes->range_ratio,
                                   sizes->prefix_tokens > 0 ? 0 : 1);
        request->input_tokens = sizes->prefix_tokens + own;
        request->output_tokens = draw_length(&random, sizes->output_tokens, sizes->range_ratio, 1);
    }
}

void cmi_load_data_repeat(cmi_load_data *data, size_t n)
{
    size_t n_given = data->n;
    for (size_t i = 0; data->n < n && n_given > 0; i++) {
        cmi_load_request *request = cmi_load_data_add(data);
        if (request == NULL) {
            return;
        }
        *request = data->requests[i % n_given];
    }
}

void cmi_load_data_clip(cmi_load_data *data, uint32_t max_tokens)
{
    for (size_t i = 0; i < data->n; i++) {
        cmi_load_request *request = &data->requests[i];
        if ((uint64_t)request->input_tokens + request->output_tokens > max_tokens) {
            request->output_tokens = CMI_MIN(request->output_tokens, max_tokens / 2);
            request->input_tokens =
                CMI_MIN(request->input_tokens, max_tokens - request->output_tokens);
        }
    }
}
