/* cli/bench/load_data.h - which requests a load consists of: random ones, lines of a file, or a
 * trace. The text of random and traced requests is made when they are sent (load_prompt.h). */
#ifndef CMI_CLI_BENCH_LOAD_DATA_H
#define CMI_CLI_BENCH_LOAD_DATA_H

#include "base/buf.h"
#include "base/error.h"

enum {
    CMI_LOAD_BLOCK_TOKENS = 512, /* of one id of a Mooncake trace */
    CMI_LOAD_MAX_REQUESTS = 10 << 20,
    CMI_LOAD_MAX_TOKENS = 16 << 20, /* of one request */
    CMI_LOAD_MAX_FILE_BYTES = 1 << 30,
};
#define CMI_LOAD_MAX_TEXT_BYTES ((size_t)4 << 30) /* of the prompts of a file */

typedef struct cmi_load_request {
    uint64_t due_ns; /* since the run's start */
    uint32_t input_tokens, output_tokens;
    uint64_t first_block; /* in data->blocks */
    uint32_t n_blocks;
    bool has_output;   /* the file said how many */
    uint64_t text_at;  /* in data->texts: JSON, a string or a list of messages; */
    uint32_t text_len; /* 0: made from the lengths and blocks */
    bool text_is_chat; /* a list of messages */
} cmi_load_request;

typedef struct cmi_load_data {
    cmi_load_request *requests;
    size_t n, cap;
    uint64_t *blocks; /* ids of the blocks of all requests */
    size_t n_blocks, block_cap;
    cmi_buf texts;  /* the JSON of all prompts of a file */
    bool has_times; /* due_ns comes from the file */
} cmi_load_data;

void cmi_load_data_deinit(cmi_load_data *data); /* zeroed is fine */

/* A new request, zeroed; NULL when there are too many. Valid until the next call. */
cmi_load_request *cmi_load_data_add(cmi_load_data *data);

typedef struct cmi_load_random_sizes {
    size_t n;
    uint32_t prefix_tokens; /* that all have in common, before input_tokens of their own */
    uint32_t input_tokens, output_tokens;
    double range_ratio; /* lengths are uniform in length * (1 - ratio) .. length * (1 + ratio) */
} cmi_load_random_sizes;
void cmi_load_data_random(cmi_load_data *data, const cmi_load_random_sizes *sizes, uint64_t seed);

/* Each reads the n bytes of a file, which err calls `path`, and adds a request for each line, at
 * most max_requests (0: all). Times of traces count from the first line.
 * CMI_ERR_BAD_DATA: with the line's number. */
CMI_NODISCARD cmi_status cmi_load_data_mooncake(cmi_load_data *data, const char *text, size_t n,
                                                size_t max_requests, const char *path,
                                                cmi_error *err);
CMI_NODISCARD cmi_status cmi_load_data_azure(cmi_load_data *data, const char *text, size_t n,
                                             size_t max_requests, const char *path, cmi_error *err);
/* {"prompt": "..", "output_tokens": 9} or {"messages": [..]} */
CMI_NODISCARD cmi_status cmi_load_data_custom(cmi_load_data *data, const char *text, size_t n,
                                              size_t max_requests, const char *path,
                                              cmi_error *err);

/* Repeats the requests in their order until there are n. */
void cmi_load_data_repeat(cmi_load_data *data, size_t n);

/* Keeps prompt and output together within max_tokens (>= 2): an output has at most half of it, the
 * prompt what is left. */
void cmi_load_data_clip(cmi_load_data *data, uint32_t max_tokens);

/* Nanoseconds since 1970 of "2023-11-16 18:17:03.9799600", with 'T' or a time zone too. False: it
 * is none. */
bool cmi_load_time_parse(const char *text, size_t n, uint64_t *ns_out);

#endif
