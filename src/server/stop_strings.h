/* server/stop_strings.h - finding stop strings in text that arrives piece by piece.
 *
 * The set is read-only after init and shared by all choices of a request; a matcher belongs to one
 * choice. The stop string that is complete first wins, of those that end at the same byte the
 * longest: so the result does not depend on how the text was cut into pieces. Each byte costs one
 * automaton step per stop string, however the text and the strings repeat themselves. */
#ifndef CMI_SERVER_STOP_STRINGS_H
#define CMI_SERVER_STOP_STRINGS_H

#include "base/buf.h"

enum { CMI_MAX_STOP_STRINGS = 16, CMI_MAX_STOP_STRING_BYTES = 4096 };

typedef struct cmi_stop_string {
    char *text;
    size_t n_bytes;
    uint32_t
        *border; /* [n_bytes]: the longest proper border of text[0 .. i] (Knuth-Morris-Pratt) */
} cmi_stop_string;

typedef struct cmi_stop_set {
    cmi_stop_string strings[CMI_MAX_STOP_STRINGS];
    uint32_t n;
} cmi_stop_set;

/* Adds a copy of a stop string of 1 .. CMI_MAX_STOP_STRING_BYTES bytes. False: it is empty, too
 * long, or the set is full. A zeroed set is empty. */
CMI_NODISCARD bool cmi_stop_set_add(cmi_stop_set *set, const char *text, size_t n_bytes);
void cmi_stop_set_deinit(cmi_stop_set *set); /* NULL or zeroed is fine */

typedef struct cmi_stop_matcher {
    const cmi_stop_set *set;
    uint32_t matched[CMI_MAX_STOP_STRINGS]; /* bytes of each string that the text ends with */
    cmi_buf held;                           /* the end of the text that may begin a stop string */
} cmi_stop_matcher;

void cmi_stop_matcher_init(cmi_stop_matcher *matcher, const cmi_stop_set *set);
void cmi_stop_matcher_deinit(cmi_stop_matcher *matcher); /* NULL or zeroed is fine */

/* Takes more text and appends to out what can no longer be part of a stop string. When a stop
 * string is complete: returns its number, and out got the text before it, and the stop string too
 * if keep; nothing may be fed after that. Otherwise -1. */
CMI_NODISCARD int cmi_stop_matcher_feed(cmi_stop_matcher *matcher, const char *text, size_t n_bytes,
                                        bool keep, cmi_buf *out);

/* The text is over, or what it held may not begin a stop string: appends what was held back. */
void cmi_stop_matcher_flush(cmi_stop_matcher *matcher, cmi_buf *out);

#endif
