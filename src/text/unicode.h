/* text/unicode.h - the few properties of code points that text functions ask for.
 *
 * They answer as Python's str methods do (Unicode 14), with one exception: a code point that is not
 * assigned yet counts as printable, since which ones those are changes every year. Any thread. */
#ifndef CMI_TEXT_UNICODE_H
#define CMI_TEXT_UNICODE_H

#include "base/compiler.h"

bool cmi_unicode_is_space(uint32_t cp);
bool cmi_unicode_is_printable(uint32_t cp);

typedef enum cmi_unicode_case {
    CMI_UNICODE_UPPER,
    CMI_UNICODE_LOWER,
    CMI_UNICODE_TITLE,
} cmi_unicode_case;

/* What cp becomes: 1 to 3 code points, the number of which is returned; cp itself when it has no
 * such form. The one rule that depends on neighbours (a final capital sigma) is left out. */
size_t cmi_unicode_map_case(uint32_t cp, cmi_unicode_case to, uint32_t out[3]);

/* A letter that exists in more than one case. */
bool cmi_unicode_is_cased(uint32_t cp);

#endif
