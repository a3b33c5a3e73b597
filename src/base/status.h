/* base/status.h - one status type for the whole project.
 *
 * Errors are negative and grouped by what is hurt, so that the code says what to tear down:
 * the request, the peer, or the host. CMI_ERR_NO_CAPACITY always means "nothing changed; try again
 * after progress". Functions that read what users wrote also fill a cmi_error (base/error.h) with
 * one line for people. */
#ifndef CMI_BASE_STATUS_H
#define CMI_BASE_STATUS_H

#include "base/compiler.h"

#define CMI_STATUS_TABLE(X)                                                                        \
    X(CMI_OK, 0, "ok")                                                                             \
    X(CMI_IN_PROGRESS, 1, "in progress")                                                           \
    /* hurt: this request or this call */                                                          \
    X(CMI_ERR_INVALID, -1, "invalid argument")                                                     \
    X(CMI_ERR_BAD_DATA, -2, "malformed data")                                                      \
    X(CMI_ERR_UNSUPPORTED, -3, "not supported")                                                    \
    X(CMI_ERR_NOT_FOUND, -4, "not found")                                                          \
    X(CMI_ERR_TOO_LARGE, -5, "over a stated limit")                                                \
    X(CMI_ERR_NO_CAPACITY, -6, "no capacity")                                                      \
    X(CMI_ERR_CANCELLED, -7, "cancelled")                                                          \
    X(CMI_ERR_TIMEOUT, -8, "deadline passed")                                                      \
    /* hurt: the other side of a channel */                                                        \
    X(CMI_ERR_CLOSED, -20, "closed by the other side")                                             \
    X(CMI_ERR_PEER, -21, "the other side is gone")                                                 \
    X(CMI_ERR_DENIED, -22, "refused by the other side")                                            \
    /* hurt: this process or host */                                                               \
    X(CMI_ERR_IO, -40, "input/output error")                                                       \
    X(CMI_ERR_NO_MEMORY, -41, "out of memory")

typedef enum cmi_status {
#define CMI_STATUS_ENUM(name, code, text) name = (code),
    CMI_STATUS_TABLE(CMI_STATUS_ENUM)
#undef CMI_STATUS_ENUM
} cmi_status;

/* A static text for st; "unknown status" for a value outside the table. Any thread. */
const char *cmi_status_text(cmi_status st);

#endif
