/* text/answer_markup_internal.h - the parts of DeepSeek's markup that answer_parser.c looks for, in
 * text that may end too early to tell. */
#ifndef CMI_TEXT_ANSWER_MARKUP_INTERNAL_H
#define CMI_TEXT_ANSWER_MARKUP_INTERNAL_H

#include "base/compiler.h"

typedef struct cmi_marker {
    const char *text;
    size_t n;
} cmi_marker;

#define CMI_MARKER(string)                                                                         \
    {                                                                                              \
        (string), sizeof(string) - 1                                                               \
    }

typedef enum cmi_match { CMI_MATCH_NO, CMI_MATCH_YES, CMI_MATCH_PARTIAL } cmi_match;

/* Does text begin with m? Partial: all of text is the beginning of m. */
cmi_match cmi_marker_match(const char *text, size_t n, const cmi_marker *m);

/* Length of the longest end of text that is the beginning, but not all, of m. */
size_t cmi_marker_partial_end(const char *text, size_t n, const cmi_marker *m);

typedef struct cmi_markup_cursor {
    const char *text;
    size_t n;
    size_t at;
} cmi_markup_cursor;

/* These move the cursor only behind what they found. */
cmi_match cmi_markup_take(cmi_markup_cursor *c, const cmi_marker *m);
void cmi_markup_take_spaces(cmi_markup_cursor *c); /* a limited number of spaces and newlines */

typedef struct cmi_call_head {
    size_t name_at, name_bytes, arguments_at; /* in the cursor's text */
    bool fenced;                              /* the arguments stand in a ```json block */
} cmi_call_head;

/* Reads a call from its first marker up to where the arguments begin. Looks at less than 1 KiB. */
cmi_match cmi_markup_take_call_head(cmi_markup_cursor *c, cmi_call_head *head);

#endif
