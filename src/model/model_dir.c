#include "model/model_dir.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "os/file.h"

enum {
    MAX_REF_BYTES = 256,
    MAX_REPO_ID_BYTES = 200, /* Hugging Face's own limit is 96 */
};

static bool has_file(const char *dir, const char *name)
{
    cmi_buf path;
    cmi_buf_init(&path, PATH_MAX);
    bool found = cmi_buf_printf(&path, "%s/%s", dir, name) && cmi_file_exists(cmi_buf_cstr(&path));
    cmi_buf_deinit(&path);
    return found;
}

/* The whole of "org/name": two parts that could be Hugging Face's, and so not "..", "a//b" or an
 * absolute path. */
static bool is_repo_id(const char *model)
{
    int n_slashes = 0;
    for (const char *p = model; *p != '\0'; p++) {
        bool first = p == model || p[-1] == '/';
        if (*p == '/') {
            n_slashes++;
        } else if (!isalnum((unsigned char)*p) && (first || strchr("._-", *p) == NULL)) {
            return false;
        }
        if (*p == '/' && (first || p[1] == '\0')) {
            return false;
        }
    }
    return n_slashes == 1 && strlen(model) <= MAX_REPO_ID_BYTES;
}

/* A snapshot's name, as a ref file gives it: a plain name, with perhaps a newline behind it. */
static bool trim_snapshot_name(cmi_buf *name)
{
    while (name->len > 0 && isspace((unsigned char)name->data[name->len - 1])) {
        name->data[--name->len] = '\0';
    }
    const char *text = cmi_buf_cstr(name);
    return name->len > 0 && text[0] != '.' && strchr(text, '/') == NULL &&
           strlen(text) == name->len;
}

/* Appends the path of the snapshot that root's refs/main names. */
static cmi_status resolve_cache(cmi_buf *dir_out, const char *root, cmi_error *err)
{
    cmi_buf path;
    cmi_buf name;
    cmi_buf_init(&path, PATH_MAX);
    cmi_buf_printf(&path, "%s/refs/main", root);
    cmi_status st = cmi_file_read(&name, cmi_buf_cstr(&path), MAX_REF_BYTES, err);
    if (st == CMI_ERR_NOT_FOUND) {
        st = cmi_error_set(err, CMI_ERR_NOT_FOUND,
                           "%s: no such file, so no snapshot is the main one: name the directory "
                           "of a snapshot instead",
                           cmi_buf_cstr(&path));
    } else if (st == CMI_OK && !trim_snapshot_name(&name)) {
        st = cmi_error_set(err, CMI_ERR_BAD_DATA, "%s: does not hold the name of a snapshot",
                           cmi_buf_cstr(&path));
    }
    if (st == CMI_OK) {
        cmi_buf_printf(dir_out, "%s/snapshots/%s", root, cmi_buf_cstr(&name));
        if (!has_file(cmi_buf_cstr(dir_out), "config.json")) {
            st = cmi_error_set(err, CMI_ERR_NOT_FOUND,
                               "%s: has no config.json: the download is not complete",
                               cmi_buf_cstr(dir_out));
        }
    }
    cmi_buf_deinit(&name);
    cmi_buf_deinit(&path);
    return st;
}

static bool is_set(const char *value)
{
    return value != NULL && value[0] != '\0';
}

/* The folder of all models of the Hugging Face cache; false when env does not say. */
static bool append_hub(cmi_buf *path, const cmi_model_dir_env *env)
{
    if (is_set(env->hf_hub_cache)) {
        return cmi_buf_str(path, env->hf_hub_cache);
    }
    if (is_set(env->hf_home)) {
        return cmi_buf_printf(path, "%s/hub", env->hf_home);
    }
    if (is_set(env->xdg_cache_home)) {
        return cmi_buf_printf(path, "%s/huggingface/hub", env->xdg_cache_home);
    }
    return is_set(env->home) && cmi_buf_printf(path, "%s/.cache/huggingface/hub", env->home);
}

static cmi_status resolve_repo_id(cmi_buf *dir_out, const char *model, const cmi_model_dir_env *env,
                                  cmi_error *err)
{
    cmi_buf root;
    cmi_buf_init(&root, PATH_MAX);
    int org_bytes = (int)strcspn(model, "/");
    bool fits = append_hub(&root, env) &&
                cmi_buf_printf(&root, "/models--%.*s--%s", org_bytes, model, model + org_bytes + 1);
    cmi_status st;
    if (!fits) {
        st = cmi_error_set(err, CMI_ERR_NOT_FOUND,
                           "%s: not a directory, and neither HF_HOME nor HOME says where the "
                           "Hugging Face cache is",
                           model);
    } else if (!cmi_file_exists(cmi_buf_cstr(&root))) {
        st = cmi_error_set(err, CMI_ERR_NOT_FOUND,
                           "%s: not a directory, and not in the Hugging Face cache (%s): download "
                           "it with `hf download %s`, or name the directory that holds it",
                           model, cmi_buf_cstr(&root), model);
    } else {
        st = resolve_cache(dir_out, cmi_buf_cstr(&root), err);
    }
    cmi_buf_deinit(&root);
    return st;
}

cmi_status cmi_model_dir_resolve(cmi_buf *dir_out, const char *model, const cmi_model_dir_env *env,
                                 cmi_error *err)
{
    cmi_buf_init(dir_out, PATH_MAX);
    if (has_file(model, "config.json")) {
        cmi_buf_str(dir_out, model); /* fits: it was part of a path that exists */
        return CMI_OK;
    }
    if (has_file(model, "refs") && has_file(model, "snapshots")) {
        return resolve_cache(dir_out, model, err);
    }
    if (cmi_file_exists(model)) {
        return cmi_error_set(err, CMI_ERR_NOT_FOUND,
                             "%s: has no config.json: name a directory as Hugging Face makes it",
                             model);
    }
    if (is_repo_id(model)) {
        return resolve_repo_id(dir_out, model, env, err);
    }
    return cmi_error_set(
        err, CMI_ERR_NOT_FOUND,
        "%.300s: no such directory: name one that holds config.json, or a model of "
        "the Hugging Face cache as org/name",
        model);
}
