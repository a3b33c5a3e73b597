/* base/log.h - one line per event on standard error: time, level, text.
 *
 * Any thread; a line is written by one call, so lines do not mix. Not for the inner loop of a step.
 */
#ifndef CMI_BASE_LOG_H
#define CMI_BASE_LOG_H

#include "base/compiler.h"

typedef enum cmi_log_level {
    CMI_LOG_ERROR,
    CMI_LOG_WARN,
    CMI_LOG_INFO,
    CMI_LOG_DEBUG,
} cmi_log_level;

/* Lines above this level are dropped; CMI_LOG_INFO at start. Set before other threads run. */
void cmi_log_set_level(cmi_log_level level);

CMI_PRINTF(2, 3) void cmi_log(cmi_log_level level, const char *fmt, ...);

#endif
