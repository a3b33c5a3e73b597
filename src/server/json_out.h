/* server/json_out.h - writing JSON straight into a buffer.
 *
 * A stream writes one small object per token, so answers are written and not built as trees.
 * Nothing here can fail except through the buffer's limit, which its owner looks at once. */
#ifndef CMI_SERVER_JSON_OUT_H
#define CMI_SERVER_JSON_OUT_H

#include "base/buf.h"

/* A quoted string. Bytes that are not valid UTF-8 become U+FFFD. */
void cmi_json_write_string(cmi_buf *out, const char *s, size_t n);
void cmi_json_write_cstr(cmi_buf *out, const char *s);

/* What stands between the quotes. A string may be written in several parts when none of them ends
 * inside a character. */
void cmi_json_write_escaped(cmi_buf *out, const char *s, size_t n);

/* As cmi_json_write_string, with null for an empty string. */
void cmi_json_write_string_or_null(cmi_buf *out, const char *s, size_t n);

/* The shortest decimal that reads back as the same float; null when it is not finite. */
void cmi_json_write_float(cmi_buf *out, float x);

#endif
