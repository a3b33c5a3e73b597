/* text/jinja_text.h - what text can do, as rows for the tables of methods and filters.
 *
 * Each works on call->self, which is a text: the filters of the same name turn it into one first.
 */
#ifndef CMI_TEXT_JINJA_TEXT_H
#define CMI_TEXT_JINJA_TEXT_H

#include "text/jinja_run.h"
#include "text/unicode.h"

/* jinja_text_case.c */
cmi_jinja_fn cmi_jinja_text_upper, cmi_jinja_text_lower, cmi_jinja_text_capitalize;
cmi_jinja_fn cmi_jinja_text_title;       /* the method: a word begins behind any uncased letter */
cmi_jinja_fn cmi_jinja_text_title_words; /* the filter: a word begins behind - ( { [ < or a space */
cmi_jinja_fn cmi_jinja_text_islower, cmi_jinja_text_isupper;
CMI_NODISCARD bool cmi_jinja_map_case(cmi_jinja_run *r, const cmi_jinja_str *s, cmi_unicode_case to,
                                      cmi_jinja_value *out);

/* jinja_text_split.c */
cmi_jinja_fn cmi_jinja_text_strip, cmi_jinja_text_lstrip, cmi_jinja_text_rstrip; /* chars */
cmi_jinja_fn cmi_jinja_text_split, cmi_jinja_text_rsplit;                        /* sep, maxsplit */
cmi_jinja_fn cmi_jinja_text_partition, cmi_jinja_text_rpartition;                /* sep */
cmi_jinja_fn cmi_jinja_text_splitlines;                                          /* keepends */
/* The lines of s without their ends, as texts. */
CMI_NODISCARD bool cmi_jinja_lines(cmi_jinja_run *r, const cmi_jinja_str *s, bool keep_ends,
                                   cmi_jinja_seq *out);

/* jinja_text_find.c */
cmi_jinja_fn cmi_jinja_text_find, cmi_jinja_text_rfind, cmi_jinja_text_index; /* sub, start, end */
cmi_jinja_fn cmi_jinja_text_rindex, cmi_jinja_text_count;                     /* the same */
cmi_jinja_fn cmi_jinja_text_startswith, cmi_jinja_text_endswith; /* prefix, start, end */
cmi_jinja_fn cmi_jinja_text_replace;                             /* old, new, count */
cmi_jinja_fn cmi_jinja_text_removeprefix, cmi_jinja_text_removesuffix;
cmi_jinja_fn cmi_jinja_text_join; /* iterable */
cmi_jinja_fn cmi_jinja_text_isdigit, cmi_jinja_text_isspace;
/* Where `part` first stands in the n bytes at p, at or behind byte `from`; n + 1 when nowhere. */
size_t cmi_jinja_find_bytes(const char *p, size_t n, size_t from, const cmi_jinja_str *part);
/* The last place likewise, before byte `to`. */
CMI_NODISCARD bool cmi_jinja_rfind_bytes(cmi_jinja_run *r, const char *p, size_t to,
                                         const cmi_jinja_str *part, size_t *at_out);

#endif
