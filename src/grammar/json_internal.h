/* grammar/json_internal.h - pieces of JSON that any schema uses.
 *
 * Each is written between two states, by a call of a shared rule where that is smaller. */
#ifndef CMI_GRAMMAR_JSON_INTERNAL_H
#define CMI_GRAMMAR_JSON_INTERNAL_H

#include "grammar/charset_internal.h"

enum {
    CMI_JSON_MAX_INT_DIGITS = 18, /* every such integer fits into 64 bits */
    CMI_JSON_MAX_FRACTION_DIGITS = 20,
    CMI_JSON_MAX_EXPONENT_DIGITS = 2, /* no such number overflows a double */
    CMI_JSON_MAX_SPACES = 64,
    CMI_JSON_MAX_TABS = 16,
};

/* A string of min .. max characters (max may be CMI_UNBOUNDED), quotes included. */
void cmi_json_string_write(cmi_build *b, uint32_t min, uint32_t max, uint32_t from, uint32_t to);

void cmi_json_integer_write(cmi_build *b, uint32_t from, uint32_t to);
void cmi_json_number_write(cmi_build *b, uint32_t from, uint32_t to);
void cmi_json_value_write(cmi_build *b, uint32_t from, uint32_t to);
void cmi_json_object_write(cmi_build *b, uint32_t from, uint32_t to);

/* Nothing, one space, or a newline and an indentation. */
void cmi_json_space_write(cmi_build *b, uint32_t from, uint32_t to);

/* A colon, and nothing or one space. */
void cmi_json_colon_write(cmi_build *b, uint32_t from, uint32_t to);

/* ---- number_range.c ---- */

/* A bound of a number, as decimal digits. */
typedef struct cmi_decimal {
    bool is_set;
    bool is_exclusive;
    bool is_negative;
    uint8_t int_digits[CMI_JSON_MAX_INT_DIGITS]; /* right-aligned */
    uint8_t fraction[CMI_JSON_MAX_FRACTION_DIGITS];
} cmi_decimal;

/* Numbers between two bounds, without an exponent; integers only, if so wanted. */
void cmi_number_range_write(cmi_build *b, const cmi_decimal *min, const cmi_decimal *max,
                            bool integer, uint32_t from, uint32_t to);

/* The bound that a JSON number is. False when it has more digits than numbers here; then
 * *is_huge_out says that no number here is as far from zero, else it lies too near to one. */
bool cmi_decimal_from_json(cmi_decimal *decimal_out, const json_t *number, bool *is_huge_out);

/* Less than 0, 0, or more, as a compares to b. */
int cmi_decimal_compare(const cmi_decimal *a, const cmi_decimal *b);

#endif
