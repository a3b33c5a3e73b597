/* os/open_files.h - how many descriptors this process may have. */
#ifndef CMI_OS_OPEN_FILES_H
#define CMI_OS_OPEN_FILES_H

#include "base/compiler.h"

/* Raises the soft limit to n if it is lower and the hard limit allows, and returns the limit that
 * then holds. The usual soft limit of 1024 is for programs that use select. */
uint64_t cmi_open_files_raise(uint64_t n);

#endif
