/* grammar/regex_internal.h - regular expressions as part of a rule. */
#ifndef CMI_GRAMMAR_REGEX_INTERNAL_H
#define CMI_GRAMMAR_REGEX_INTERNAL_H

#include "grammar/charset_internal.h"

enum {
    CMI_REGEX_MAX_BYTES = 1 << 14,
    CMI_REGEX_MAX_NESTING = 100,
    CMI_REGEX_MAX_REPEAT = 10000,
};

/* The texts of min .. max characters (max may be CMI_UNBOUNDED) that the whole expression matches,
 * between two states. An error's line begins with `what`. */
void cmi_regex_write(cmi_build *b, const char *what, const char *expression, size_t n_bytes,
                     cmi_spelling spelling, uint32_t min, uint32_t max, uint32_t from, uint32_t to);

#endif
