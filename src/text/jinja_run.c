/* text/jinja_run.c - the limits of a render, and the way in. */
#include "text/jinja_run.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja_exec.h"

enum { BYTES_PER_STEP = 16 };

bool cmi_jinja_fail(cmi_jinja_run *r, cmi_status st, const char *fmt, ...)
{
    char text[sizeof r->error.text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    cmi_error_set(&r->error, st, "line %u: %s", r->line, text);
    return false;
}

bool cmi_jinja_misfit(cmi_jinja_run *r, const char *fmt, ...)
{
    char text[sizeof r->error.text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return cmi_jinja_fail(r, CMI_ERR_BAD_DATA, "%s", text);
}

void *cmi_jinja_alloc(cmi_jinja_run *r, size_t n, size_t size)
{
    size_t n_bytes;
    void *p =
        __builtin_mul_overflow(n, size, &n_bytes) ? NULL : cmi_arena_alloc(&r->arena, n_bytes);
    if (p == NULL) {
        cmi_jinja_fail(r, CMI_ERR_TOO_LARGE, "the values of this template take more than %zu bytes",
                       r->arena.max);
    }
    return p;
}

bool cmi_jinja_charge(cmi_jinja_run *r, size_t n_bytes)
{
    uint64_t steps = n_bytes / BYTES_PER_STEP + 1;
    if (steps > r->steps_left) {
        r->steps_left = 0;
        return cmi_jinja_fail(r, CMI_ERR_TIMEOUT, "the template did not end within %llu steps",
                              (unsigned long long)r->options->max_steps);
    }
    r->steps_left -= steps;
    return true;
}

bool cmi_jinja_descend(cmi_jinja_run *r)
{
    if (r->depth == CMI_JINJA_RUN_DEPTH_MAX) {
        return cmi_jinja_fail(r, CMI_ERR_TOO_LARGE,
                              "calls or values are nested deeper than %d levels",
                              CMI_JINJA_RUN_DEPTH_MAX);
    }
    r->depth++;
    return true;
}

void cmi_jinja_ascend(cmi_jinja_run *r)
{
    r->depth--;
}

/* Variables hide the global functions of the same name. Those that the template does not mention
 * are not even looked at. */
static bool bind_root(cmi_jinja_run *r, const cmi_jinja_var *vars, size_t n_vars)
{
    r->root = cmi_jinja_alloc(r, r->jinja->n_names, sizeof *r->root);
    if (r->root == NULL) {
        return false;
    }
    uint32_t id;
    const cmi_jinja_builtin *function;
    for (size_t i = 0; (function = cmi_jinja_global(i)) != NULL; i++) {
        if (cmi_strmap_get(&r->jinja->name_ids, function->name, strlen(function->name), &id)) {
            r->root[id] = (cmi_jinja_value){.kind = CMI_JINJA_FUNCTION, .function = function};
        }
    }
    for (size_t i = 0; i < n_vars; i++) {
        if (cmi_strmap_get(&r->jinja->name_ids, vars[i].name, strlen(vars[i].name), &id) &&
            !cmi_jinja_from_json(r, vars[i].value, &r->root[id])) {
            return false;
        }
    }
    return true;
}

cmi_status cmi_jinja_render(const cmi_jinja *jinja, const cmi_jinja_var *vars, size_t n_vars,
                            const cmi_jinja_options *options, cmi_buf *out, cmi_error *err)
{
    size_t n_before = out->len;
    cmi_jinja_run r = {.jinja = jinja,
                       .options = options,
                       .out = out,
                       .line = 1,
                       .steps_left = options->max_steps};
    cmi_arena_init(&r.arena, options->max_value_bytes);
    bool ok = bind_root(&r, vars, n_vars) && cmi_jinja_exec(&r, &jinja->body) != CMI_JINJA_FAILED;
    cmi_arena_deinit(&r.arena);
    if (ok) {
        return CMI_OK;
    }
    cmi_buf_truncate(out, n_before);
    return cmi_error_set(err, r.error.status, "%s", r.error.text);
}
