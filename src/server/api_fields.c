#include "server/api_fields.h"

#include <string.h>

#include "server/api_internal.h"

typedef enum field_kind { BOOL, INT, NUMBER, POSITIVE, STRING } field_kind;

typedef struct field {
    const char *name;
    field_kind kind;
    int endpoints;
    double min, max;
    size_t value_at, given_at; /* in cmi_api_params */
} field;

#define FIELD_ROW(json, member, type, kind, endpoints, min, max)                                   \
    {(json),                                                                                       \
     (kind),                                                                                       \
     CMI_API_IN_##endpoints,                                                                       \
     (min),                                                                                        \
     (max),                                                                                        \
     offsetof(cmi_api_params, member),                                                             \
     offsetof(cmi_api_params, given.member)},

static const field fields[] = {CMI_API_FIELD_TABLE(FIELD_ROW)};

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

static cmi_status wrong_type(const field *f, const json_t *value, cmi_api_error *err)
{
    static const char *const wanted[] = {"a boolean", "an integer", "a number", "a number",
                                         "a string"};
    return cmi_api_refuse(err, f->name, "%s must be %s, not %s%s.", f->name, wanted[f->kind],
                          type_name(value),
                          f->kind == INT && json_is_real(value) ? " with a fraction" : "");
}

static cmi_status out_of_range(const field *f, cmi_api_error *err)
{
    if (f->kind == POSITIVE) {
        return cmi_api_refuse(err, f->name, "%s must be over 0 and at most %.10g.", f->name,
                              f->max);
    }
    return cmi_api_refuse(err, f->name, "%s must be between %.10g and %.10g.", f->name, f->min,
                          f->max);
}

/* 16.0 is an integer too, as it is for Python's servers. */
static bool read_int(const json_t *value, int64_t *out)
{
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    double x = json_real_value(value);
    if (!json_is_real(value) || floor(x) != x || fabs(x) > 9e15) {
        return false;
    }
    *out = (int64_t)x;
    return true;
}

static cmi_status read_field(const field *f, const json_t *value, cmi_api_params *params,
                             cmi_api_error *err)
{
    void *to = (char *)params + f->value_at;
    if (f->kind == BOOL || f->kind == STRING) {
        bool fits = f->kind == BOOL ? json_is_boolean(value) : json_is_string(value);
        if (fits && f->kind == BOOL) {
            *(bool *)to = json_is_true(value);
        }
        return fits ? CMI_OK : wrong_type(f, value, err);
    }
    if (f->kind == INT) {
        int64_t *i = to;
        if (!read_int(value, i)) {
            return wrong_type(f, value, err);
        }
        return (double)*i < f->min || (double)*i > f->max ? out_of_range(f, err) : CMI_OK;
    }
    if (!json_is_number(value)) {
        return wrong_type(f, value, err);
    }
    double x = json_number_value(value);
    *(double *)to = x;
    bool too_low = f->kind == POSITIVE ? !((float)x > 0.0f) : x < f->min;
    return too_low || x > f->max ? out_of_range(f, err) : CMI_OK;
}

static cmi_status read_stream_options(const json_t *root, cmi_api_params *params,
                                      cmi_api_error *err)
{
    const json_t *options = json_object_get(root, "stream_options");
    if (options == NULL || json_is_null(options)) {
        return CMI_OK;
    }
    if (!json_is_object(options)) {
        return cmi_api_refuse(err, "stream_options", "stream_options must be an object.");
    }
    if (!params->stream) {
        return cmi_api_refuse(err, "stream_options",
                              "stream_options can only be given when stream is true.");
    }
    const struct {
        const char *name;
        bool *to;
    } flags[] = {
        {"include_usage", &params->include_usage},
        {"continuous_usage_stats", &params->continuous_usage},
    };
    for (size_t i = 0; i < CMI_LEN(flags); i++) {
        const json_t *value = json_object_get(options, flags[i].name);
        if (value != NULL && !json_is_null(value) && !json_is_boolean(value)) {
            return cmi_api_refuse(err, "stream_options", "stream_options.%s must be a boolean.",
                                  flags[i].name);
        }
        *flags[i].to = json_is_true(value);
    }
    return CMI_OK;
}

/* What the fields have to do with each other. */
static cmi_status check_together(const cmi_api_params *p, int endpoint, cmi_api_error *err)
{
    if (p->given.best_of && p->best_of != p->n) {
        return cmi_api_refuse(err, "best_of",
                              "best_of must equal n: all choices that are computed are returned.");
    }
    if (p->given.top_logprobs && p->top_logprobs > 0 && !p->logprobs) {
        return cmi_api_refuse(err, "top_logprobs",
                              "top_logprobs can only be given when logprobs is true.");
    }
    if (p->add_generation_prompt && p->continue_final_message) {
        return cmi_api_refuse(err, "continue_final_message",
                              "continue_final_message and add_generation_prompt exclude each "
                              "other: the one goes on with a message, the other begins one.");
    }
    bool zero_ok = endpoint == CMI_API_IN_COMPLETIONS && p->echo;
    if (p->given.max_completion_tokens && p->max_completion_tokens == 0 && !zero_ok) {
        return cmi_api_refuse(err, "max_completion_tokens",
                              "max_completion_tokens must be at least 1.");
    }
    if (p->given.max_tokens && p->max_tokens == 0 && !zero_ok) {
        return cmi_api_refuse(err, "max_tokens",
                              "max_tokens must be at least 1 (0 only with echo).");
    }
    return CMI_OK;
}

cmi_status cmi_api_fields_read(const json_t *root, int endpoint, cmi_api_params *params,
                               cmi_api_error *err)
{
    for (size_t i = 0; i < CMI_LEN(fields); i++) {
        const field *f = &fields[i];
        const json_t *value = json_object_get(root, f->name);
        if ((f->endpoints & endpoint) == 0 || value == NULL || json_is_null(value)) {
            continue;
        }
        cmi_status st = read_field(f, value, params, err);
        if (st != CMI_OK) {
            return st;
        }
        *(bool *)((char *)params + f->given_at) = true;
    }
    if (params->continue_final_message && !params->given.add_generation_prompt) {
        params->add_generation_prompt = false;
    }
    cmi_status st = read_stream_options(root, params, err);
    return st != CMI_OK ? st : check_together(params, endpoint, err);
}

cmi_status cmi_api_fields_refuse(const json_t *root, cmi_api_error *err)
{
    static const struct {
        const char *name;
        const char *why;
    } refused[] = {
        {"guided_grammar", "formats are JSON schemas, regular expressions and choices"},
        {"ebnf", "formats are JSON schemas, regular expressions and choices"},
        {"structural_tag", "formats are JSON schemas, regular expressions and choices"},
        {"suffix", "the model cannot fill in text before a suffix"},
        {"chat_template", "templates are not taken from requests"},
        {"prompt_embeds", "prompts are text or token ids"},
        {"use_beam_search", "answers are sampled"},
    };
    for (size_t i = 0; i < CMI_LEN(refused); i++) {
        const json_t *value = json_object_get(root, refused[i].name);
        if (value != NULL && !json_is_null(value) && !json_is_false(value)) {
            return cmi_api_refuse(err, refused[i].name, "%s is not supported: %s.", refused[i].name,
                                  refused[i].why);
        }
    }
    return CMI_OK;
}
