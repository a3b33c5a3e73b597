/* os/host_processor.h - what the processor is called. */
#ifndef CMI_OS_HOST_PROCESSOR_H
#define CMI_OS_HOST_PROCESSOR_H

#include "base/compiler.h"

/* The kernel's name for the processor's model, cut to n_bytes - 1; "unknown" where it has none. */
void cmi_host_processor_name(char *name_out, size_t n_bytes);

#endif
