/* tests/model/fixture.h - temporary directories and safetensors files made for one test. Every
 * function fails the test by itself. */
#ifndef CMI_TESTS_MODEL_FIXTURE_H
#define CMI_TESTS_MODEL_FIXTURE_H

#include "base/buf.h"
#include "base/dtype.h"

/* A fresh directory, removed with all it holds by temp_dir_remove. */
typedef struct temp_dir {
    char path[64];
} temp_dir;

void temp_dir_make(temp_dir *dir);
void temp_dir_remove(const temp_dir *dir);

/* dir/name; static memory that the fourth call after overwrites. */
const char *temp_path(const temp_dir *dir, const char *name);
void temp_mkdir(const temp_dir *dir, const char *name);
void temp_symlink(const temp_dir *dir, const char *target, const char *name);
void temp_write(const temp_dir *dir, const char *name, const void *bytes, size_t n_bytes);
void temp_write_text(const temp_dir *dir, const char *name, const char *text);

/* A safetensors file in the making. */
typedef struct st_builder {
    cmi_buf header; /* the entries, with a comma between them */
    cmi_buf data;
} st_builder;

void st_begin(st_builder *b);

/* n_rows 0 makes a vector. bytes NULL: zeros. */
void st_add(st_builder *b, const char *name, const char *dtype, uint64_t n_rows, uint64_t n_cols,
            const void *bytes, size_t n_bytes);

/* Writes dir/name and frees the builder. */
void st_write(st_builder *b, const temp_dir *dir, const char *name);

/* The bytes of a file with this header text and n_data zero bytes behind it; the caller's to
 * cmi_buf_deinit. */
cmi_buf st_bytes(const char *header, size_t n_data);

#endif
