/* cli/progress.h - a progress bar on standard error, if that is a terminal. */
#ifndef CMI_CLI_PROGRESS_H
#define CMI_CLI_PROGRESS_H

#include "base/compiler.h"

typedef struct cmi_progress {
    const char *what;
    uint64_t started_ns;
    uint64_t drawn_ns; /* when it was drawn last; 0: never */
    bool is_terminal;
} cmi_progress;

void cmi_progress_start(cmi_progress *progress, const char *what);

/* arg is a cmi_progress; draws at most ten times a second. Bytes done and in all. */
void cmi_progress_bytes(void *arg, uint64_t done, uint64_t total);

/* The same for counted things. */
void cmi_progress_count(cmi_progress *progress, uint64_t done, uint64_t total);

/* Takes the bar away. */
void cmi_progress_end(cmi_progress *progress);

#endif
