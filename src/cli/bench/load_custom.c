/* cli/bench/load_custom.c - prompts of the user's own. */
#include <string.h>

#include "cli/bench/load_data.h"
#include "cli/bench/load_lines.h"

/* Words, as an estimate of the tokens of a prompt that nobody has counted. */
static uint32_t count_words(const char *text)
{
    uint32_t n = 0;
    for (const char *at = text + strspn(text, " \n"); *at != '\0'; n++) {
        at += strcspn(at, " \n");
        at += strspn(at, " \n");
    }
    return n;
}

/* False: no room. */
static bool add_text(cmi_load_data *data, cmi_load_request *request, const json_t *prompt)
{
    enum { FLAGS = JSON_COMPACT | JSON_ENCODE_ANY };
    size_t n = json_dumpb(prompt, NULL, 0, FLAGS);
    char *to = n < UINT32_MAX ? cmi_buf_reserve(&data->texts, n) : NULL;
    if (to == NULL) {
        return false;
    }
    n = json_dumpb(prompt, to, n, FLAGS);
    request->text_at = data->texts.len;
    request->text_len = (uint32_t)n;
    request->text_is_chat = json_is_array(prompt);
    data->texts.len += n;
    data->texts.data[data->texts.len] = '\0';
    request->input_tokens = CMI_MAX(1u, count_words(data->texts.data + request->text_at));
    return true;
}

static const char *take_custom(cmi_load_data *data, const json_t *json)
{
    const json_t *prompt = json_object_get(json, "prompt");
    const json_t *messages = json_object_get(json, "messages");
    const json_t *output = json_object_get(json, "output_tokens");
    if (!json_is_string(prompt) && !json_is_array(messages)) {
        return "expected {\"prompt\": \"..\"} or {\"messages\": [..]}";
    }
    if (output != NULL && !cmi_load_is_length(output)) {
        return "output_tokens must be a number of tokens";
    }
    cmi_load_request *request = cmi_load_data_add(data);
    if (request == NULL || !add_text(data, request, json_is_string(prompt) ? prompt : messages)) {
        return "too much for one run";
    }
    request->has_output = output != NULL;
    request->output_tokens = CMI_MAX(1u, (uint32_t)json_integer_value(output));
    return NULL;
}

cmi_status cmi_load_data_custom(cmi_load_data *data, const char *text, size_t n,
                                size_t max_requests, const char *path, cmi_error *err)
{
    cmi_load_lines lines = {.at = text, .end = text + n, .path = path};
    cmi_buf_init(&data->texts, CMI_LOAD_MAX_TEXT_BYTES);
    while ((max_requests == 0 || data->n < max_requests) && cmi_load_lines_next(&lines)) {
        json_t *json = json_loadb(lines.line, lines.n, 0, NULL);
        const char *wrong = json_is_object(json) ? take_custom(data, json) : "not a JSON object";
        json_decref(json);
        if (wrong != NULL) {
            return cmi_load_lines_bad(&lines, wrong, err);
        }
    }
    return cmi_load_lines_end(&lines, data->n, err);
}
