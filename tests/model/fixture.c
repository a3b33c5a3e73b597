#include "tests/test.h"

#include "tests/model/fixture.h"

#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_BYTES = 64 << 20 };

void temp_dir_make(temp_dir *dir)
{
    const char *root = getenv("TMPDIR");
    snprintf(dir->path, sizeof dir->path, "%.32s/cmi_model_XXXXXX", root != NULL ? root : "/tmp");
    assert_non_null(mkdtemp(dir->path));
}

static int remove_entry(const char *path, const struct stat *info, int flag, struct FTW *ftw)
{
    (void)info;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void temp_dir_remove(const temp_dir *dir)
{
    assert_int_equal(nftw(dir->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

const char *temp_path(const temp_dir *dir, const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir->path, name);
    return path;
}

void temp_mkdir(const temp_dir *dir, const char *name)
{
    assert_int_equal(mkdir(temp_path(dir, name), 0700), 0);
}

void temp_symlink(const temp_dir *dir, const char *target, const char *name)
{
    assert_int_equal(symlink(target, temp_path(dir, name)), 0);
}

void temp_write(const temp_dir *dir, const char *name, const void *bytes, size_t n_bytes)
{
    FILE *f = fopen(temp_path(dir, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n_bytes, f), n_bytes);
    assert_int_equal(fclose(f), 0);
}

void temp_write_text(const temp_dir *dir, const char *name, const char *text)
{
    temp_write(dir, name, text, strlen(text));
}

void st_begin(st_builder *b)
{
    cmi_buf_init(&b->header, MAX_BYTES);
    cmi_buf_init(&b->data, MAX_BYTES);
}

void st_add(st_builder *b, const char *name, const char *dtype, uint64_t n_rows, uint64_t n_cols,
            const void *bytes, size_t n_bytes)
{
    char rows[32] = "";
    if (n_rows > 0) {
        snprintf(rows, sizeof rows, "%llu, ", (unsigned long long)n_rows);
    }
    bool ok = cmi_buf_printf(&b->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s%llu],",
                             b->header.len == 0 ? "" : ",", name, dtype, rows,
                             (unsigned long long)n_cols);
    ok = ok && cmi_buf_printf(&b->header, "\"data_offsets\":[%zu,%zu]}", b->data.len,
                              b->data.len + n_bytes);
    char *at = cmi_buf_reserve(&b->data, n_bytes);
    assert_true(ok && at != NULL);
    memset(at, 0, n_bytes);
    if (bytes != NULL) {
        memcpy(at, bytes, n_bytes);
    }
    b->data.len += n_bytes;
}

static void append_length(cmi_buf *out, uint64_t n)
{
    for (int i = 0; i < 8; i++) {
        assert_true(cmi_buf_char(out, (char)(n >> 8 * i)));
    }
}

cmi_buf st_bytes(const char *header, size_t n_data)
{
    cmi_buf out;
    cmi_buf_init(&out, MAX_BYTES);
    append_length(&out, strlen(header));
    assert_true(cmi_buf_str(&out, header));
    char *at = cmi_buf_reserve(&out, n_data);
    assert_non_null(at);
    memset(at, 0, n_data);
    out.len += n_data;
    return out;
}

void st_write(st_builder *b, const temp_dir *dir, const char *name)
{
    cmi_buf out;
    cmi_buf_init(&out, MAX_BYTES);
    append_length(&out, b->header.len + 2);
    assert_true(cmi_buf_char(&out, '{'));
    assert_true(cmi_buf_append(&out, cmi_buf_cstr(&b->header), b->header.len));
    assert_true(cmi_buf_char(&out, '}'));
    assert_true(cmi_buf_append(&out, cmi_buf_cstr(&b->data), b->data.len));
    temp_write(dir, name, out.data, out.len);
    cmi_buf_deinit(&out);
    cmi_buf_deinit(&b->header);
    cmi_buf_deinit(&b->data);
}
