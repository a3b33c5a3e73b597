#include "model/checkpoint.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"

static cmi_status join(char out[PATH_MAX], const char *dir, const char *name, cmi_error *err)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    if (n < 0 || n >= PATH_MAX) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "%s: path is longer than %d bytes", dir,
                             PATH_MAX);
    }
    return CMI_OK;
}

static int compare_tensors(const void *left, const void *right)
{
    const cmi_checkpoint_tensor *a = left;
    const cmi_checkpoint_tensor *b = right;
    return strcmp(a->tensor->name, b->tensor->name);
}

static cmi_status open_single(cmi_checkpoint *c, const char *path, cmi_error *err)
{
    c->files = cmi_alloc(1, sizeof *c->files);
    cmi_status st = cmi_safetensors_open(&c->files[0], path, err);
    if (st != CMI_OK) {
        return st;
    }
    const cmi_safetensors *file = &c->files[0];
    c->n_files = 1;
    c->n_tensors = file->n_tensors;
    c->tensors = cmi_alloc(c->n_tensors, sizeof *c->tensors);
    for (uint32_t i = 0; i < c->n_tensors; i++) {
        c->tensors[i] = (cmi_checkpoint_tensor){file, file->by_name[i]};
    }
    return CMI_OK;
}

/* ---- The index and its shards ---- */

/* A weight_map while it is read: the names of its shards, distinct and ordered. shards[i] is
 * files[i] of the checkpoint. The strings belong to the JSON. */
typedef struct weight_map {
    const json_t *entries;
    const char *path; /* of the index */
    const char **shards;
    size_t n_shards;
} weight_map;

static int compare_strings(const void *left, const void *right)
{
    const char *const *a = left;
    const char *const *b = right;
    return strcmp(*a, *b);
}

/* A file of this directory, by its plain name: an index must not lead anywhere else. (Symbolic
 * links are fine; the Hugging Face cache is made of them.) */
static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

static cmi_status list_shards(weight_map *map, cmi_error *err)
{
    map->shards = cmi_alloc(json_object_size(map->entries), sizeof *map->shards);
    size_t n = 0;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map->entries, name, value)
    {
        const char *shard = json_string_value(value);
        if (shard == NULL || !is_plain_name(shard)) {
            return cmi_error_set(err, CMI_ERR_BAD_DATA,
                                 "%s: weight_map: the entry of tensor %.160s is not the plain name "
                                 "of a file in the same directory",
                                 map->path, name);
        }
        map->shards[n++] = shard;
    }
    qsort(map->shards, n, sizeof *map->shards, compare_strings);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(map->shards[i], map->shards[i - 1]) != 0) {
            map->shards[map->n_shards++] = map->shards[i];
        }
    }
    if (map->n_shards > CMI_CHECKPOINT_MAX_SHARDS) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "%s: weight_map: %zu files, more than %d",
                             map->path, map->n_shards, CMI_CHECKPOINT_MAX_SHARDS);
    }
    return CMI_OK;
}

static cmi_status open_shards(cmi_checkpoint *c, const weight_map *map, cmi_error *err)
{
    c->files = cmi_alloc(map->n_shards, sizeof *c->files);
    for (size_t i = 0; i < map->n_shards; i++) {
        char path[PATH_MAX];
        cmi_status st = join(path, c->dir, map->shards[i], err);
        if (st == CMI_OK) {
            st = cmi_safetensors_open(&c->files[i], path, err);
        }
        if (st == CMI_ERR_NOT_FOUND) {
            return cmi_error_prefix(err, "%s: weight_map names a file that is not there",
                                    map->path);
        }
        if (st != CMI_OK) {
            return st;
        }
        c->n_files++;
    }
    return CMI_OK;
}

static cmi_status find_tensors(cmi_checkpoint *c, const weight_map *map, cmi_error *err)
{
    c->tensors = cmi_alloc(json_object_size(map->entries), sizeof *c->tensors);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map->entries, name, value)
    {
        const char *shard = json_string_value(value);
        const char **found =
            bsearch(&shard, map->shards, map->n_shards, sizeof *map->shards, compare_strings);
        const cmi_safetensors *file = &c->files[found - map->shards];
        const cmi_tensor *tensor = cmi_safetensors_find(file, name);
        if (tensor == NULL) {
            return cmi_error_set(err, CMI_ERR_BAD_DATA,
                                 "%s: weight_map: tensor %.160s is not in %.80s, where the index "
                                 "says it is",
                                 map->path, name, shard);
        }
        c->tensors[c->n_tensors++] = (cmi_checkpoint_tensor){file, tensor};
    }
    qsort(c->tensors, c->n_tensors, sizeof *c->tensors, compare_tensors);
    return CMI_OK;
}

static cmi_status open_map(cmi_checkpoint *c, weight_map *map, cmi_error *err)
{
    if (!json_is_object(map->entries)) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "%s: weight_map is missing or not an object",
                             map->path);
    }
    cmi_status st = list_shards(map, err);
    if (st == CMI_OK) {
        st = open_shards(c, map, err);
    }
    if (st == CMI_OK) {
        st = find_tensors(c, map, err);
    }
    cmi_free(map->shards);
    return st;
}

static cmi_status open_indexed(cmi_checkpoint *c, const char *path, cmi_error *err)
{
    cmi_buf text;
    json_error_t why;
    cmi_status st = cmi_file_read(&text, path, CMI_CHECKPOINT_MAX_INDEX_BYTES, err);
    if (st == CMI_OK) {
        json_t *root = json_loadb(cmi_buf_cstr(&text), text.len, JSON_REJECT_DUPLICATES, &why);
        if (root == NULL) {
            st = cmi_error_set(err, CMI_ERR_BAD_DATA, "%s:%d: %s", path, why.line, why.text);
        } else {
            weight_map map = {.entries = json_object_get(root, "weight_map"), .path = path};
            st = open_map(c, &map, err);
        }
        json_decref(root);
    }
    cmi_buf_deinit(&text);
    return st;
}

/* ---- Interface ---- */

cmi_status cmi_checkpoint_open(cmi_checkpoint *checkpoint_out, const char *dir, cmi_error *err)
{
    char single[PATH_MAX];
    char index[PATH_MAX];
    cmi_status st = join(single, dir, SINGLE_FILE, err);
    if (st == CMI_OK) {
        st = join(index, dir, INDEX_FILE, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    cmi_checkpoint c = {.dir = cmi_strndup(dir, strlen(dir))};
    if (cmi_file_exists(single)) {
        st = open_single(&c, single, err);
    } else if (cmi_file_exists(index)) {
        st = open_indexed(&c, index, err);
    } else {
        st = cmi_error_set(err, CMI_ERR_NOT_FOUND,
                           "%s: no " SINGLE_FILE " and no " INDEX_FILE
                           ": only safetensors checkpoints are read",
                           dir);
    }
    if (st != CMI_OK) {
        cmi_checkpoint_close(&c);
        return st;
    }
    *checkpoint_out = c;
    return CMI_OK;
}

void cmi_checkpoint_close(cmi_checkpoint *checkpoint)
{
    if (checkpoint == NULL) {
        return;
    }
    cmi_free(checkpoint->tensors);
    for (uint32_t i = 0; i < checkpoint->n_files; i++) {
        cmi_safetensors_close(&checkpoint->files[i]);
    }
    cmi_free(checkpoint->files);
    cmi_free(checkpoint->dir);
    *checkpoint = (cmi_checkpoint){0};
}

const cmi_checkpoint_tensor *cmi_checkpoint_find(const cmi_checkpoint *checkpoint, const char *name)
{
    const cmi_tensor wanted = {.name = name};
    const cmi_checkpoint_tensor key = {.tensor = &wanted};
    return bsearch(&key, checkpoint->tensors, checkpoint->n_tensors, sizeof key, compare_tensors);
}
