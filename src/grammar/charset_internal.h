/* grammar/charset_internal.h - sets of characters, and the bytes that spell them. */
#ifndef CMI_GRAMMAR_CHARSET_INTERNAL_H
#define CMI_GRAMMAR_CHARSET_INTERNAL_H

#include "grammar/build_internal.h"

typedef struct cmi_char_range {
    uint32_t lo, hi;
} cmi_char_range;

/* Ascending ranges that do not touch, once normalized. A zeroed set is empty. */
typedef struct cmi_charset {
    cmi_char_range *ranges;
    uint32_t n, cap;
} cmi_charset;

typedef enum cmi_spelling {
    CMI_SPELL_UTF8, /* as it is */
    CMI_SPELL_JSON, /* inside a JSON string, in one way: escaped only where it must be */
} cmi_spelling;

void cmi_charset_deinit(cmi_charset *set);
void cmi_charset_add(cmi_charset *set, uint32_t lo, uint32_t hi);
void cmi_charset_normalize(cmi_charset *set);
void cmi_charset_negate(cmi_charset *set); /* of a normalized set; surrogates are in neither */

/* One character of a normalized set. U+0000 has no spelling in JSON here. */
void cmi_charset_write(cmi_build *b, const cmi_charset *set, cmi_spelling spelling, uint32_t from,
                       uint32_t to);

/* The bytes of text inside quotes, each character in its one spelling. */
void cmi_json_text_write(cmi_build *b, const char *text, size_t n_bytes, uint32_t from,
                         uint32_t to);

/* One character of any JSON string: as it is, or by any escape that JSON has. */
void cmi_json_char_write(cmi_build *b, uint32_t from, uint32_t to);

#endif
