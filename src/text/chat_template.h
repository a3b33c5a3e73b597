/* text/chat_template.h - a model's chat template: messages to the text of a prompt.
 *
 * It comes from the model's directory as Hugging Face transformers reads it: chat_template.jinja,
 * or `chat_template` in tokenizer_config.json, which is one template or a list of named ones. Of a
 * list "default" is used, and "tool_use" when there are tools. A loaded template never changes: any
 * number of threads may render it at the same time. */
#ifndef CMI_TEXT_CHAT_TEMPLATE_H
#define CMI_TEXT_CHAT_TEMPLATE_H

#include <jansson.h>

#include "base/buf.h"
#include "base/error.h"

typedef struct cmi_chat_template cmi_chat_template;

/* Reads the template and the special tokens of a model directory. A model without a template is no
 * error here: every render then fails with CMI_ERR_NOT_FOUND.
 * CMI_ERR_BAD_DATA, CMI_ERR_TOO_LARGE, CMI_ERR_IO: a file is there and cannot be used. */
CMI_NODISCARD cmi_status cmi_chat_template_load(cmi_chat_template **template_out, const char *dir,
                                                cmi_error *err);

/* The same with a template of the user's choice: `choice` is the path of a file or, when it
 * contains
 * "{{" or "{%", the template itself. The special tokens still come from dir.
 * CMI_ERR_NOT_FOUND: there is no such file. */
CMI_NODISCARD cmi_status cmi_chat_template_load_choice(cmi_chat_template **template_out,
                                                       const char *dir, const char *choice,
                                                       cmi_error *err);
void cmi_chat_template_destroy(cmi_chat_template *t); /* NULL is fine */

/* False for a model that has none. */
bool cmi_chat_template_exists(const cmi_chat_template *t);

typedef struct cmi_chat_template_input {
    const json_t *messages; /* objects with a role; content is what the template expects */
    const json_t *tools;    /* NULL: none */
    const json_t *kwargs;   /* an object of further variables (chat_template_kwargs), or NULL */
    bool add_generation_prompt;
    int64_t now_unix_s; /* for templates that show the date */
} cmi_chat_template_input;

/* Appends the prompt to out, whose limit is the limit of the prompt; after an error out is as
 * before. The variables are those of transformers' apply_chat_template: messages, tools, documents
 * (none), add_generation_prompt, the special tokens by name (bos_token ...), and kwargs, which hide
 * tokens of the same name.
 *
 * CMI_ERR_INVALID: the template refuses the messages, and the line is its own words to the client;
 * or kwargs names a variable that is taken. CMI_ERR_BAD_DATA: the template and these messages do
 * not fit together. CMI_ERR_NOT_FOUND: the model has no template. CMI_ERR_TIMEOUT,
 * CMI_ERR_TOO_LARGE: over the limits of text/jinja.h or of out. */
CMI_NODISCARD cmi_status cmi_chat_template_render(const cmi_chat_template *t,
                                                  const cmi_chat_template_input *input,
                                                  cmi_buf *out, cmi_error *err);

#endif
