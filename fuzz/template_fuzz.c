/* Any bytes as a chat template, rendered over a fixed conversation; and, when they contain a record
 * separator (0x1E), what stands before it over the JSON that stands behind it. The result is text,
 * or an error line and nothing else. */
#include <assert.h>
#include <jansson.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum {
    SEPARATOR = 0x1E,
    STEPS_MAX = 200000, /* a hundredth of the default, to try more inputs in a second */
    VALUE_BYTES_MAX = 8 << 20,
    OUTPUT_BYTES_MAX = 1 << 20,
};

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"},"
    "{\"role\": \"user\", \"content\": \"H\\u00e9llo \\ud83d\\ude00\\n\"},"
    "{\"role\": \"assistant\", \"content\": null, \"reasoning_content\": \"\", \"tool_calls\":"
    "[{\"id\": \"1\", \"type\": \"function\", \"function\": {\"name\": \"f\","
    "\"arguments\": \"{\\\"a\\\": 1}\"}}]},"
    "{\"role\": \"tool\", \"content\": \"<think>a\\u0000b</think> x\"}],"
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\":"
    "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": [\"integer\", null, 1.5]}}}}}],"
    "\"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"thinking\": false, \"n\": 3}";

static void check_render(const cmi_jinja *jinja, json_t *object)
{
    enum { VARS_MAX = 64 };
    cmi_jinja_var vars[VARS_MAX];
    size_t n_vars = 0;
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (n_vars < VARS_MAX) {
            vars[n_vars++] = (cmi_jinja_var){.name = key, .value = value};
        }
    }
    cmi_jinja_options options = {.max_steps = STEPS_MAX, .max_value_bytes = VALUE_BYTES_MAX};
    cmi_buf out;
    cmi_error err = {0};
    cmi_buf_init(&out, OUTPUT_BYTES_MAX);
    cmi_buf_str(&out, "before");
    cmi_status st = cmi_jinja_render(jinja, vars, n_vars, &options, &out, &err);
    assert(memcmp(out.data, "before", 6) == 0);
    assert(cmi_utf8_valid_prefix(out.data, out.len) == out.len);
    assert(st == CMI_OK || out.len == 6);
    assert(st == CMI_OK || st == CMI_ERR_INVALID || strncmp(err.text, "line ", 5) == 0);
    cmi_buf_deinit(&out);
}

static void try_template(const char *source, size_t n_bytes, const char *json, size_t n_json_bytes)
{
    cmi_jinja *jinja = NULL;
    cmi_error err = {0};
    cmi_status st = cmi_jinja_parse(&jinja, source, n_bytes, &err);
    if (st != CMI_OK) {
        assert(jinja == NULL && err.text[0] != '\0' && strchr(err.text, '\n') == NULL);
        assert(st == CMI_ERR_BAD_DATA || st == CMI_ERR_TOO_LARGE);
        return;
    }
    json_t *object = json_loadb(json, n_json_bytes, JSON_ALLOW_NUL, NULL);
    if (json_is_object(object)) {
        check_render(jinja, object);
    }
    json_decref(object);
    cmi_jinja_destroy(jinja);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const char *bytes = (const char *)data;
    const char *separator = n_bytes == 0 ? NULL : memchr(bytes, SEPARATOR, n_bytes);
    try_template(bytes, n_bytes, conversation, sizeof conversation - 1);
    if (separator != NULL) {
        size_t n_source = (size_t)(separator - bytes);
        try_template(bytes, n_source, separator + 1, n_bytes - n_source - 1);
    }
    return 0;
}
