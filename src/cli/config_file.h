/* cli/config_file.h - a flat YAML file of options: `key: value`, or a list of values.
 *
 * Text in memory to calls, nothing else. Any thread. */
#ifndef CMI_CLI_CONFIG_FILE_H
#define CMI_CLI_CONFIG_FILE_H

#include "base/error.h"

/* One value of a key; each value of a list comes in a call of its own, an empty list in none.
 * value: NULL for null. Both are valid during the call only. line counts from 1. What it returns
 * other than CMI_OK ends the parse. */
typedef cmi_status cmi_config_fn(void *arg, const char *key, const char *value, size_t line,
                                 cmi_error *err);

/* CMI_ERR_BAD_DATA: no YAML, not flat, a key twice, an alias, or a NUL in a key or value; err says
 * the line. */
CMI_NODISCARD cmi_status cmi_config_parse(const char *text, size_t n_bytes, cmi_config_fn *fn,
                                          void *arg, cmi_error *err);

#endif
