/* grammar/number_range.c - numbers between bounds, digit by digit.
 *
 * A prefix of digits is compared with the same digits of both bounds: as long as it equals a
 * bound's, the bound holds the next digit back ("tight"); then no longer. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/json_internal.h"

enum {
    INT_DIGITS = CMI_JSON_MAX_INT_DIGITS,
    FRACTION = CMI_JSON_MAX_FRACTION_DIGITS,
    ALL_DIGITS = INT_DIGITS + FRACTION,
    NONE = 0,
    TIGHT_MIN = 1,
    TIGHT_MAX = 2,
};

/* ---- Bounds ---- */

static uint8_t digit_at(const cmi_decimal *d, int i)
{
    return i < INT_DIGITS ? d->int_digits[i] : d->fraction[i - INT_DIGITS];
}

static bool is_zero_from(const cmi_decimal *d, int i)
{
    for (; i < ALL_DIGITS; i++) {
        if (digit_at(d, i) != 0) {
            return false;
        }
    }
    return true;
}

/* Places the digits of "123", "1.25" or "1.5e-05" (a sign is gone already). */
static bool place_digits(cmi_decimal *d, const char *text, bool *is_huge)
{
    const char *exponent = strchr(text, 'e');
    int point = exponent != NULL ? (int)strtol(exponent + 1, NULL, 10) : 0;
    const char *c = text;
    for (; *c >= '0' && *c <= '9'; c++) {
        point++;
    }
    int at = INT_DIGITS - point; /* of the first digit */
    for (c = text; *c != '\0' && *c != 'e'; c++) {
        if (*c == '.') {
            continue;
        }
        uint8_t digit = (uint8_t)(*c - '0');
        if (digit != 0 && (at < 0 || at >= ALL_DIGITS)) {
            *is_huge = at < 0;
            return false;
        }
        if (digit != 0 && at < INT_DIGITS) {
            d->int_digits[at] = digit;
        } else if (digit != 0) {
            d->fraction[at - INT_DIGITS] = digit;
        }
        at++;
    }
    return true;
}

bool cmi_decimal_from_json(cmi_decimal *decimal_out, const json_t *number, bool *is_huge_out)
{
    char text[64];
    if (json_is_integer(number)) {
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(number));
    } else { /* the shortest digits that are this double: 0.1 means 0.1 */
        double value = json_real_value(number);
        int digits = 15;
        do {
            snprintf(text, sizeof text, "%.*g", digits, value);
        } while (++digits <= 17 && strtod(text, NULL) != value);
    }
    *decimal_out = (cmi_decimal){.is_set = true, .is_negative = text[0] == '-'};
    bool ok = place_digits(decimal_out, text + (text[0] == '-'), is_huge_out);
    if (is_zero_from(decimal_out, 0)) {
        decimal_out->is_negative = ok ? false : decimal_out->is_negative;
    }
    return ok;
}

static int compare_magnitudes(const cmi_decimal *a, const cmi_decimal *b)
{
    for (int i = 0; i < ALL_DIGITS; i++) {
        int order = digit_at(a, i) - digit_at(b, i);
        if (order != 0) {
            return order;
        }
    }
    return 0;
}

int cmi_decimal_compare(const cmi_decimal *a, const cmi_decimal *b)
{
    if (a->is_negative != b->is_negative) {
        return a->is_negative ? -1 : 1;
    }
    return a->is_negative ? compare_magnitudes(b, a) : compare_magnitudes(a, b);
}

/* ---- Digits between two magnitudes ---- */

typedef struct range {
    cmi_build *b;
    const cmi_decimal *min, *max; /* max may be unset, min is not */
    bool integer;
    uint32_t to;
    uint32_t states[ALL_DIGITS + 1][4]; /* by digits read and what is tight; 0: not made */
} range;

static bool may_end(const range *r, int i, unsigned tight)
{
    bool above = (tight & TIGHT_MIN) == 0 || (is_zero_from(r->min, i) && !r->min->is_exclusive);
    bool below = (tight & TIGHT_MAX) == 0 || !is_zero_from(r->max, i) || !r->max->is_exclusive;
    return above && below;
}

/* False when the digit is beyond a bound; else what is tight behind it. */
static bool step_digit(const range *r, int i, unsigned tight, uint8_t digit, unsigned *tight_out)
{
    *tight_out = NONE;
    if ((tight & TIGHT_MIN) != 0) {
        if (digit < digit_at(r->min, i)) {
            return false;
        }
        *tight_out |= digit == digit_at(r->min, i) ? TIGHT_MIN : NONE;
    }
    if ((tight & TIGHT_MAX) != 0) {
        if (digit > digit_at(r->max, i)) {
            return false;
        }
        *tight_out |= digit == digit_at(r->max, i) ? TIGHT_MAX : NONE;
    }
    return true;
}

/* The state with i digits read, its edges made. Once for each pair, so at most 4 a digit. */
static uint32_t digits_state(range *r, int i, unsigned tight)
{
    if (r->states[i][tight] != 0 || !cmi_build_work(r->b, 1)) {
        return r->states[i][tight];
    }
    uint32_t state = r->states[i][tight] = cmi_nfa_state(r->b);
    if (i != INT_DIGITS || !r->integer) {
        for (uint8_t digit = 0; i < ALL_DIGITS && digit < 10; digit++) {
            unsigned next;
            uint32_t from = state;
            if (!step_digit(r, i, tight, digit, &next)) {
                continue;
            }
            if (i == INT_DIGITS) {
                from = cmi_nfa_state(r->b);
                cmi_nfa_byte(r->b, state, from, '.');
            }
            cmi_nfa_byte(r->b, from, digits_state(r, i + 1, next), (char)('0' + digit));
        }
    }
    if (i >= INT_DIGITS && may_end(r, i, tight)) {
        cmi_nfa_empty(r->b, state, r->to);
    }
    return state;
}

/* Integer parts of n digits: the bounds' digits before them are all zero or all beyond. */
static void write_length(range *r, int n, uint32_t from)
{
    int first = INT_DIGITS - n;
    unsigned tight = TIGHT_MIN | (r->max->is_set ? TIGHT_MAX : NONE);
    for (int i = 0; i < first; i++) { /* as if zeros stood there */
        unsigned next;
        if (!step_digit(r, i, tight, 0, &next)) {
            return;
        }
        tight = next;
    }
    for (uint8_t digit = n > 1; digit < 10; digit++) {
        unsigned next;
        if (step_digit(r, first, tight, digit, &next)) {
            cmi_nfa_byte(r->b, from, digits_state(r, first + 1, next), (char)('0' + digit));
        }
    }
}

static void write_magnitudes(cmi_build *b, const cmi_decimal *min, const cmi_decimal *max,
                             bool integer, uint32_t from, uint32_t to)
{
    range r = {.b = b, .min = min, .max = max, .integer = integer, .to = to};
    for (int n = 1; n <= INT_DIGITS && b->status == CMI_OK; n++) {
        write_length(&r, n, from);
    }
}

void cmi_number_range_write(cmi_build *b, const cmi_decimal *min, const cmi_decimal *max,
                            bool integer, uint32_t from, uint32_t to)
{
    const cmi_decimal zero = {.is_set = true}, above_zero = {.is_set = true, .is_exclusive = true};
    const cmi_decimal none = {0};
    if (!max->is_set || !max->is_negative) {
        bool from_zero = !min->is_set || min->is_negative;
        write_magnitudes(b, from_zero ? &zero : min, max, integer, from, to);
    }
    if (!min->is_set || min->is_negative) { /* -0 is left out: 0 says it */
        bool up_to_zero = !max->is_set || !max->is_negative;
        uint32_t minus = cmi_nfa_state(b);
        cmi_nfa_byte(b, from, minus, '-');
        write_magnitudes(b, up_to_zero ? &above_zero : max, min->is_set ? min : &none, integer,
                         minus, to);
    }
}
