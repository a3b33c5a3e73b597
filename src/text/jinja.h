/* text/jinja.h - the part of Jinja that chat templates use, run in a sandbox.
 *
 * It reads and renders as Hugging Face transformers does: Jinja2 3.1 with trim_blocks and
 * lstrip_blocks, the loopcontrols extension, an ignored `generation` tag, `tojson` as plain
 * json.dumps, and lists and dicts that a template cannot change. What differs on purpose:
 *   - integers have 64 bits; going over is an error,
 *   - names are ASCII,
 *   - `safe` and `escape` give plain text, since nothing is escaped automatically,
 *   - a generator, method or function cannot be printed (Python would print its address),
 *   - include, import, extends, block, with, autoescape and recursive loops are not there.
 *
 * A parsed template never changes: any number of threads may render it at the same time. */
#ifndef CMI_TEXT_JINJA_H
#define CMI_TEXT_JINJA_H

#include <jansson.h>

#include "base/buf.h"
#include "base/error.h"

typedef struct cmi_jinja cmi_jinja;

enum {
    CMI_JINJA_SOURCE_BYTES_MAX = 2 << 20,
    CMI_JINJA_NAMES_MAX = 10000,     /* different variables */
    CMI_JINJA_TREE_HEIGHT_MAX = 300, /* of nested blocks and operators in the source */
};

typedef struct cmi_jinja_options {
    uint64_t max_steps;     /* evaluated nodes, and bytes that text functions look at, 16 a step */
    size_t max_value_bytes; /* everything one render makes, dead or alive, output apart */
    int64_t now_unix_s;     /* what strftime_now shows, in local time */
} cmi_jinja_options;

/* About a second, and what some thousand long messages need several times over. */
#define CMI_JINJA_OPTIONS_DEFAULT                                                                  \
    {                                                                                              \
        .max_steps = 20000000, .max_value_bytes = 64 << 20                                         \
    }

typedef struct cmi_jinja_var {
    const char *name;
    const json_t *value; /* NULL reads as none */
} cmi_jinja_var;

/* Reads a template (UTF-8, n bytes, not kept). CMI_ERR_BAD_DATA: it is not one; the line says where
 * ("line 3: ..."). CMI_ERR_TOO_LARGE: it is longer or nested deeper than the limits above. */
CMI_NODISCARD cmi_status cmi_jinja_parse(cmi_jinja **jinja_out, const char *source, size_t n,
                                         cmi_error *err);
void cmi_jinja_destroy(cmi_jinja *jinja); /* NULL is fine */

/* Appends the rendered text to out, whose own limit is the limit of the output; after an error out
 * is as before. The values are read during the call only and must not change meanwhile.
 *
 * CMI_ERR_INVALID: the template called raise_exception; the line is its message and nothing else.
 * CMI_ERR_BAD_DATA: the template and the values do not fit ("line 3: 'dict object' has no ...").
 * CMI_ERR_TIMEOUT: over max_steps. CMI_ERR_TOO_LARGE: over max_value_bytes, the limit of out, or
 * nested too deeply. */
CMI_NODISCARD cmi_status cmi_jinja_render(const cmi_jinja *jinja, const cmi_jinja_var *vars,
                                          size_t n_vars, const cmi_jinja_options *options,
                                          cmi_buf *out, cmi_error *err);

#endif
