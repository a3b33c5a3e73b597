/* os/clock.h - time. Integers in nanoseconds; code below engine/ takes time as an argument instead.
 */
#ifndef CMI_OS_CLOCK_H
#define CMI_OS_CLOCK_H

#include "base/compiler.h"

uint64_t cmi_clock_monotonic_ns(void);
uint64_t cmi_clock_unix_ns(void); /* since 1970-01-01T00:00Z */

#endif
