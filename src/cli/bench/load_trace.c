/* cli/bench/load_trace.c - Mooncake and Azure traces. */
#include <jansson.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/bench/load_data.h"
#include "cli/bench/load_lines.h"

/* Times come in order in traces as they are published; one that goes back is sent at once. */
static uint64_t time_since(uint64_t *first_ns, bool is_first, uint64_t ns)
{
    *first_ns = is_first ? ns : *first_ns;
    return ns > *first_ns ? ns - *first_ns : 0;
}

static bool add_blocks(cmi_load_data *data, cmi_load_request *request, const json_t *ids)
{
    size_t n_wanted = CMI_DIV_UP((size_t)request->input_tokens, (size_t)CMI_LOAD_BLOCK_TOKENS);
    size_t n = CMI_MIN(json_array_size(ids), n_wanted);
    if (data->n_blocks + n > data->block_cap) {
        data->block_cap = data->block_cap * 2 + n + 1024;
        data->blocks = cmi_realloc(data->blocks, data->block_cap, sizeof *data->blocks);
    }
    request->first_block = data->n_blocks;
    request->n_blocks = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0) {
            return false;
        }
        data->blocks[data->n_blocks++] = (uint64_t)json_integer_value(id);
    }
    return true;
}

/* A line's fields, or what is wrong with them. */
static const char *take_mooncake(cmi_load_data *data, const json_t *json, uint64_t *first_ns)
{
    const json_t *time = json_object_get(json, "timestamp");
    const json_t *input = json_object_get(json, "input_length");
    const json_t *output = json_object_get(json, "output_length");
    const json_t *ids = json_object_get(json, "hash_ids");
    double ms = json_number_value(time);
    if (!json_is_number(time) || !(ms >= 0 && ms < 1e13)) {
        return "timestamp must be a number of milliseconds";
    }
    if (!cmi_load_is_length(input) || !cmi_load_is_length(output)) {
        return "input_length and output_length must be numbers of tokens";
    }
    cmi_load_request *request = cmi_load_data_add(data);
    if (request == NULL) {
        return "too many requests";
    }
    request->due_ns = time_since(first_ns, data->n == 1, (uint64_t)(ms * 1e6));
    request->input_tokens = CMI_MAX(1u, (uint32_t)json_integer_value(input));
    request->output_tokens = CMI_MAX(1u, (uint32_t)json_integer_value(output));
    request->has_output = true;
    return ids == NULL || add_blocks(data, request, ids) ? NULL : "hash_ids must be whole numbers";
}

cmi_status cmi_load_data_mooncake(cmi_load_data *data, const char *text, size_t n,
                                  size_t max_requests, const char *path, cmi_error *err)
{
    cmi_load_lines walk = {.at = text, .end = text + n, .path = path};
    uint64_t first_ns = 0;
    data->has_times = true;
    while ((max_requests == 0 || data->n < max_requests) && cmi_load_lines_next(&walk)) {
        json_t *json = json_loadb(walk.line, walk.n, 0, NULL);
        const char *wrong =
            json_is_object(json) ? take_mooncake(data, json, &first_ns) : "not a JSON object";
        json_decref(json);
        if (wrong != NULL) {
            return cmi_load_lines_bad(&walk, wrong, err);
        }
    }
    return cmi_load_lines_end(&walk, data->n, err);
}

/* n decimal digits at *at, which moves on; false when there are fewer. */
static bool take_digits(const char **at, const char *end, int n, uint32_t *value_out)
{
    uint32_t value = 0;
    for (int i = 0; i < n; i++, (*at)++) {
        if (*at >= end || **at < '0' || **at > '9') {
            return false;
        }
        value = value * 10 + (uint32_t)(**at - '0');
    }
    *value_out = value;
    return true;
}

static bool take_char(const char **at, const char *end, const char *any_of)
{
    bool found = *at < end && **at != '\0' && strchr(any_of, **at) != NULL;
    *at += found ? 1 : 0;
    return found;
}

/* Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March. */
static uint64_t days_of(uint32_t year, uint32_t month, uint32_t day)
{
    uint32_t y = month > 2 ? year : year - 1;
    uint32_t months_since_march = (month + 9) % 12;
    uint64_t in_year = (153 * months_since_march + 2) / 5 + day - 1;
    uint64_t from_year_0 = (uint64_t)y * 365 + y / 4 - y / 100 + y / 400 + in_year;
    return from_year_0 - 719468;
}

bool cmi_load_time_parse(const char *text, size_t n, uint64_t *ns_out)
{
    const char *at = text;
    const char *end = text + n;
    uint32_t year, month, day, hour, minute, second, digit;
    if (!take_digits(&at, end, 4, &year) || !take_char(&at, end, "-") ||
        !take_digits(&at, end, 2, &month) || !take_char(&at, end, "-") ||
        !take_digits(&at, end, 2, &day) || !take_char(&at, end, " T") ||
        !take_digits(&at, end, 2, &hour) || !take_char(&at, end, ":") ||
        !take_digits(&at, end, 2, &minute) || !take_char(&at, end, ":") ||
        !take_digits(&at, end, 2, &second)) {
        return false;
    }
    uint64_t ns = 0;
    if (take_char(&at, end, ".")) {
        for (uint64_t unit = 100000000; take_digits(&at, end, 1, &digit); unit /= 10) {
            ns += digit * unit;
        }
    }
    bool is_zone = at == end || take_char(&at, end, "Z+-"); /* times differ by no zone in a file */
    if (!is_zone || year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
        minute > 59 || second > 60) {
        return false;
    }
    uint64_t seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    *ns_out = seconds * UINT64_C(1000000000) + ns;
    return true;
}

/* The whole field is a number of tokens. */
static bool take_tokens(const char **at, const char *end, uint32_t *tokens_out)
{
    uint32_t digit;
    uint64_t value = 0;
    const char *start = *at;
    while (take_digits(at, end, 1, &digit)) {
        value = value * 10 + digit;
        if (value > CMI_LOAD_MAX_TOKENS) {
            return false;
        }
    }
    *tokens_out = CMI_MAX(1u, (uint32_t)value);
    return *at > start;
}

static bool take_azure(cmi_load_request *request, const char *line, size_t n, uint64_t *ns_out)
{
    const char *end = line + n;
    const char *comma = memchr(line, ',', n);
    if (comma == NULL || !cmi_load_time_parse(line, (size_t)(comma - line), ns_out)) {
        return false;
    }
    const char *at = comma + 1;
    return take_tokens(&at, end, &request->input_tokens) && take_char(&at, end, ",") &&
           take_tokens(&at, end, &request->output_tokens) && at == end;
}

cmi_status cmi_load_data_azure(cmi_load_data *data, const char *text, size_t n, size_t max_requests,
                               const char *path, cmi_error *err)
{
    static const char head[] = "TIMESTAMP,ContextTokens,GeneratedTokens";
    cmi_load_lines walk = {.at = text, .end = text + n, .path = path};
    uint64_t first_ns = 0;
    uint64_t ns = 0;
    data->has_times = true;
    while ((max_requests == 0 || data->n < max_requests) && cmi_load_lines_next(&walk)) {
        if (data->n == 0 && walk.n == sizeof head - 1 && memcmp(walk.line, head, walk.n) == 0) {
            continue;
        }
        cmi_load_request *request = cmi_load_data_add(data);
        if (request == NULL || !take_azure(request, walk.line, walk.n, &ns)) {
            const char *wrong = request == NULL
                                    ? "too many requests"
                                    : "expected TIMESTAMP,ContextTokens,GeneratedTokens";
            return cmi_load_lines_bad(&walk, wrong, err);
        }
        request->due_ns = time_since(&first_ns, data->n == 1, ns);
        request->has_output = true;
    }
    return cmi_load_lines_end(&walk, data->n, err);
}
