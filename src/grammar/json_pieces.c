/* grammar/json_pieces.c - see json_internal.h. */
#include <stdio.h>
#include <string.h>

#include "grammar/json_internal.h"

/* ---- Space ---- */

static void write_space_rule(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    (void)rule;
    cmi_nfa_byte(b, from, to, ' ');
    uint32_t line = cmi_nfa_state(b), tab = line, space = line;
    cmi_nfa_byte(b, from, line, '\n');
    cmi_nfa_empty(b, line, to);
    for (int i = 0; i < CMI_JSON_MAX_SPACES; i++) {
        uint32_t next = cmi_nfa_state(b);
        cmi_nfa_byte(b, space, next, ' ');
        cmi_nfa_empty(b, next, to);
        space = next;
    }
    for (int i = 0; i < CMI_JSON_MAX_TABS; i++) {
        uint32_t next = cmi_nfa_state(b);
        cmi_nfa_byte(b, tab, next, '\t');
        cmi_nfa_empty(b, next, to);
        tab = next;
    }
}

void cmi_json_space_write(cmi_build *b, uint32_t from, uint32_t to)
{
    cmi_nfa_call(b, from, to, cmi_build_rule(b, "space", &(cmi_rule){.write = write_space_rule}));
    cmi_nfa_empty(b, from, to);
}

void cmi_json_colon_write(cmi_build *b, uint32_t from, uint32_t to)
{
    uint32_t colon = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, colon, ':');
    cmi_nfa_byte(b, colon, to, ' ');
    cmi_nfa_empty(b, colon, to);
}

/* ---- Strings ---- */

static void write_string_rule(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    uint32_t body = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, body, '"');
    cmi_json_char_write(b, body, body);
    cmi_nfa_byte(b, body, to, '"');
    if (b->status == CMI_OK && (rule->min > 0 || rule->max != CMI_UNBOUNDED)) {
        b->nfa.counters[body] = cmi_build_counter(b, rule->min, rule->max, '"');
    }
}

void cmi_json_string_write(cmi_build *b, uint32_t min, uint32_t max, uint32_t from, uint32_t to)
{
    char key[64];
    snprintf(key, sizeof key, "string %u %u", min, max);
    cmi_rule rule = {.write = write_string_rule, .min = min, .max = max};
    cmi_nfa_call(b, from, to, cmi_build_rule(b, key, &rule));
}

/* ---- Numbers ---- */

/* min .. max digits. */
static void write_digits(cmi_build *b, int min, int max, uint32_t from, uint32_t to)
{
    for (int i = 0; i < max; i++) {
        uint32_t next = cmi_nfa_state(b);
        if (i >= min) {
            cmi_nfa_empty(b, from, to);
        }
        cmi_nfa_bytes(b, from, next, '0', '9');
        from = next;
    }
    cmi_nfa_empty(b, from, to);
}

static void write_integer(cmi_build *b, uint32_t from, uint32_t to)
{
    uint32_t positive = cmi_nfa_state(b), rest = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, positive, '-');
    cmi_nfa_empty(b, from, positive);
    cmi_nfa_byte(b, positive, to, '0');
    cmi_nfa_bytes(b, positive, rest, '1', '9');
    write_digits(b, 0, CMI_JSON_MAX_INT_DIGITS - 1, rest, to);
}

static void write_integer_rule(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    (void)rule;
    write_integer(b, from, to);
}

static void write_number_rule(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    (void)rule;
    uint32_t whole = cmi_nfa_state(b), point = cmi_nfa_state(b), fraction = cmi_nfa_state(b);
    uint32_t exponent = cmi_nfa_state(b), sign = cmi_nfa_state(b);
    write_integer(b, from, whole);
    cmi_nfa_byte(b, whole, point, '.');
    write_digits(b, 1, CMI_JSON_MAX_FRACTION_DIGITS, point, fraction);
    cmi_nfa_empty(b, whole, fraction);
    cmi_nfa_empty(b, fraction, to);
    cmi_nfa_byte(b, fraction, exponent, 'e');
    cmi_nfa_byte(b, fraction, exponent, 'E');
    cmi_nfa_byte(b, exponent, sign, '+');
    cmi_nfa_byte(b, exponent, sign, '-');
    cmi_nfa_empty(b, exponent, sign);
    write_digits(b, 1, CMI_JSON_MAX_EXPONENT_DIGITS, sign, to);
}

void cmi_json_integer_write(cmi_build *b, uint32_t from, uint32_t to)
{
    cmi_rule rule = {.write = write_integer_rule};
    cmi_nfa_call(b, from, to, cmi_build_rule(b, "integer", &rule));
}

void cmi_json_number_write(cmi_build *b, uint32_t from, uint32_t to)
{
    cmi_rule rule = {.write = write_number_rule};
    cmi_nfa_call(b, from, to, cmi_build_rule(b, "number", &rule));
}

/* ---- Any value ---- */

/* open, members separated by commas, close. A member is a value, behind a name if so wanted. */
static void write_members(cmi_build *b, const char *brackets, bool named, uint32_t from,
                          uint32_t to)
{
    uint32_t open = cmi_nfa_state(b), first = cmi_nfa_state(b), member = cmi_nfa_state(b);
    uint32_t value = cmi_nfa_state(b), after = cmi_nfa_state(b), comma = cmi_nfa_state(b);
    uint32_t last = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, open, brackets[0]);
    cmi_json_space_write(b, open, first);
    cmi_nfa_byte(b, first, to, brackets[1]);
    cmi_nfa_empty(b, first, member);
    if (named) {
        uint32_t colon = cmi_nfa_state(b);
        cmi_json_string_write(b, 0, CMI_UNBOUNDED, member, colon);
        cmi_json_colon_write(b, colon, value);
    } else {
        cmi_nfa_empty(b, member, value);
    }
    cmi_json_value_write(b, value, after);
    cmi_nfa_byte(b, after, comma, ',');
    cmi_json_space_write(b, comma, member);
    cmi_json_space_write(b, after, last);
    cmi_nfa_byte(b, last, to, brackets[1]);
}

static void write_object_rule(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    (void)rule;
    write_members(b, "{}", true, from, to);
}

static void write_value_rule(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    (void)rule;
    write_members(b, "{}", true, from, to);
    write_members(b, "[]", false, from, to);
    cmi_json_string_write(b, 0, CMI_UNBOUNDED, from, to);
    cmi_json_number_write(b, from, to);
    cmi_nfa_literal(b, from, to, "true", 4);
    cmi_nfa_literal(b, from, to, "false", 5);
    cmi_nfa_literal(b, from, to, "null", 4);
}

void cmi_json_value_write(cmi_build *b, uint32_t from, uint32_t to)
{
    cmi_nfa_call(b, from, to, cmi_build_rule(b, "value", &(cmi_rule){.write = write_value_rule}));
}

void cmi_json_object_write(cmi_build *b, uint32_t from, uint32_t to)
{
    cmi_rule rule = {.write = write_object_rule};
    cmi_nfa_call(b, from, to, cmi_build_rule(b, "object", &rule));
}
