/* os/file_writer.h - a file that is written from its beginning to its end.
 *
 * Errors name the path and the system's reason. Thread: one for each writer. */
#ifndef CMI_OS_FILE_WRITER_H
#define CMI_OS_FILE_WRITER_H

#include "base/error.h"

typedef struct cmi_file_writer {
    int fd;
    const char *path; /* the caller's, for errors */
    uint64_t n_bytes; /* written so far */
} cmi_file_writer;

/* Makes the file, or empties it; a pipe waits for its reader. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_file_writer_open(cmi_file_writer *w, const char *path, cmi_error *err);

/* All n bytes, or CMI_ERR_IO: some of them may be there then. */
CMI_NODISCARD cmi_status cmi_file_writer_append(cmi_file_writer *w, const void *bytes, size_t n,
                                                cmi_error *err);

/* CMI_ERR_IO: what was written last may be lost. */
CMI_NODISCARD cmi_status cmi_file_writer_close(cmi_file_writer *w, cmi_error *err);

#endif
