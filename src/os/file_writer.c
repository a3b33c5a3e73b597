#include "os/file_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static cmi_status fail(const cmi_file_writer *w, cmi_error *err)
{
    return cmi_error_set(err, CMI_ERR_IO, "%s: %s", w->path, strerror(errno));
}

cmi_status cmi_file_writer_open(cmi_file_writer *w, const char *path, cmi_error *err)
{
    *w = (cmi_file_writer){.path = path};
    w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return w->fd < 0 ? fail(w, err) : CMI_OK;
}

cmi_status cmi_file_writer_append(cmi_file_writer *w, const void *bytes, size_t n, cmi_error *err)
{
    for (size_t at = 0; at < n;) {
        ssize_t done = write(w->fd, (const uint8_t *)bytes + at, n - at);
        if (done < 0 && errno != EINTR) {
            return fail(w, err);
        }
        at += done > 0 ? (size_t)done : 0;
        w->n_bytes += done > 0 ? (uint64_t)done : 0;
    }
    return CMI_OK;
}

cmi_status cmi_file_writer_close(cmi_file_writer *w, cmi_error *err)
{
    int rc = close(w->fd);
    w->fd = -1;
    return rc != 0 ? fail(w, err) : CMI_OK;
}
