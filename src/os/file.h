/* os/file.h - reading files whole or mapped. Symbolic links are followed (Hugging Face caches need
 * it).
 *
 * Errors name the path and the system's reason. Any thread. */
#ifndef CMI_OS_FILE_H
#define CMI_OS_FILE_H

#include "base/buf.h"
#include "base/error.h"

/* Reads a regular file into out (initialized here; the caller deinits it also after an error).
 * CMI_ERR_NOT_FOUND: no such file. CMI_ERR_TOO_LARGE: more than max_bytes. CMI_ERR_IO: the rest. */
CMI_NODISCARD cmi_status cmi_file_read(cmi_buf *out, const char *path, size_t max_bytes,
                                       cmi_error *err);

/* Tells a file's content from another's, short of reading it: two maps with the same bytes of this
 * (there is no padding) are of one file that nobody has written in between. */
typedef struct cmi_file_id {
    uint64_t device, inode;
    uint64_t n_bytes;
    uint64_t modified_s, modified_ns;
} cmi_file_id;

/* A file mapped read-only. Pages come in on first touch; another process that truncates the file
 * while it is mapped kills readers with SIGBUS, as with every mapped file (but see
 * cmi_file_map_fetch). */
typedef struct cmi_file_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t n_bytes;
    cmi_file_id id;
} cmi_file_map;

CMI_NODISCARD cmi_status cmi_file_map_open(cmi_file_map *map_out, const char *path, cmi_error *err);
void cmi_file_map_close(cmi_file_map *map); /* NULL or zeroed is fine */

/* Brings bytes [offset, offset+n) into memory, so that touching them neither waits nor kills,
 * unless somebody truncates the file right then. CMI_ERR_IO: the device cannot read them, or the
 * file no longer has them. Needs Linux 5.14; does nothing before that. */
CMI_NODISCARD cmi_status cmi_file_map_fetch(const cmi_file_map *map, size_t offset, size_t n,
                                            cmi_error *err);

/* Says that bytes [offset, offset+n) will not be read again soon, so that the page cache may drop
 * them. */
void cmi_file_map_release(const cmi_file_map *map, size_t offset, size_t n);

bool cmi_file_exists(const char *path);

#endif
