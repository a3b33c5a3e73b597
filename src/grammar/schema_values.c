/* grammar/schema_values.c - enum and const, strings and numbers. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "grammar/regex_internal.h"
#include "grammar/schema_internal.h"

/* ---- enum and const ---- */

static unsigned type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_NULL:
        return CMI_TYPE_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return CMI_TYPE_BOOLEAN;
    case JSON_INTEGER:
        return CMI_TYPE_INTEGER | CMI_TYPE_NUMBER;
    case JSON_REAL:
        return CMI_TYPE_NUMBER |
               (floor(json_real_value(value)) == json_real_value(value) ? CMI_TYPE_INTEGER : 0u);
    case JSON_STRING:
        return CMI_TYPE_STRING;
    case JSON_ARRAY:
        return CMI_TYPE_ARRAY;
    default:
        return CMI_TYPE_OBJECT;
    }
}

static void check_enum_alone(cmi_build *b, const json_t *schema)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, name, value)
    {
        if (strcmp(name, "enum") != 0 && strcmp(name, "const") != 0 && strcmp(name, "type") != 0 &&
            strcmp(name, "nullable") != 0 && !cmi_schema_is_annotation(name)) {
            cmi_schema_fail(b, CMI_ERR_UNSUPPORTED, "\"%.60s\" beside enum or const", name);
        }
    }
}

static void write_value(cmi_build *b, const json_t *value, unsigned types, uint32_t from,
                        uint32_t to)
{
    if ((type_of(value) & types) != 0) {
        char *text = cmi_schema_dump(b, value);
        cmi_nfa_literal(b, from, to, text, strlen(text));
        cmi_free(text);
    }
}

void cmi_schema_enum_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    const json_t *values = cmi_schema_array(b, schema, "enum");
    const json_t *constant = json_object_get(schema, "const");
    unsigned types =
        json_object_get(schema, "type") == NULL ? CMI_TYPE_ANY : cmi_schema_types(b, schema);
    check_enum_alone(b, schema);
    if (json_object_get(schema, "enum") == NULL) {
        write_value(b, constant, types, from, to);
    }
    for (size_t i = 0; b->status == CMI_OK && i < json_array_size(values); i++) {
        const json_t *value = json_array_get(values, i);
        if (constant == NULL || json_equal(constant, value)) {
            write_value(b, value, types, from, to);
        }
    }
}

/* ---- Strings ---- */

#define MONTH_31 "(0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])"
#define MONTH_30 "(0[469]|11)-(0[1-9]|[12]\\d|30)"
#define FEBRUARY "02-(0[1-9]|1\\d|2[0-8])"
#define LEAP_YEAR                                                                                  \
    "(\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)" /* 0000 is one */
#define DATE "(\\d{4}-(" MONTH_31 "|" MONTH_30 "|" FEBRUARY ")|" LEAP_YEAR "-02-29)"
#define TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define BYTE "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define DURATION_TIME "T(\\d{1,9}H(\\d{1,9}M(\\d{1,9}S)?)?|\\d{1,9}M(\\d{1,9}S)?|\\d{1,9}S)"
#define DURATION_DATE "(\\d{1,9}Y(\\d{1,9}M(\\d{1,9}D)?)?|\\d{1,9}M(\\d{1,9}D)?|\\d{1,9}D)"

/* RFC 3339, 4122, 5321 (names without quotes), 1123, 2673. */
static const struct {
    const char *name, *expression;
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration", "P(" DURATION_DATE "(" DURATION_TIME ")?|" DURATION_TIME "|\\d{1,9}W)"},
    {"uuid", "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"},
    {"email", "[\\w!#$%&'*+/=?^`{|}~-]+(\\.[\\w!#$%&'*+/=?^`{|}~-]+)*@" LABEL "(\\." LABEL ")+"},
    {"hostname", LABEL "(\\." LABEL ")*"},
    {"ipv4", BYTE "(\\." BYTE "){3}"},
};

/* The expression that pattern or format stand for; NULL for none, or after a failure. */
static const char *find_expression(cmi_build *b, const json_t *schema)
{
    const json_t *pattern = json_object_get(schema, "pattern");
    const json_t *format = json_object_get(schema, "format");
    if ((pattern != NULL && !json_is_string(pattern)) ||
        (format != NULL && !json_is_string(format))) {
        cmi_schema_fail(b, CMI_ERR_BAD_DATA, "\"pattern\" and \"format\" must be strings");
        return NULL;
    }
    if (pattern != NULL && format != NULL) {
        cmi_schema_fail(b, CMI_ERR_UNSUPPORTED, "\"pattern\" and \"format\" at once");
        return NULL;
    }
    if (format == NULL) {
        return json_string_value(pattern);
    }
    for (size_t i = 0; i < CMI_LEN(formats); i++) {
        if (strcmp(formats[i].name, json_string_value(format)) == 0) {
            return formats[i].expression;
        }
    }
    cmi_schema_fail(b, CMI_ERR_UNSUPPORTED, "\"format\": \"%.60s\" is not supported",
                    json_string_value(format));
    return NULL;
}

void cmi_schema_string_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    uint32_t min = cmi_schema_count(b, schema, "minLength", 0);
    uint32_t max = cmi_schema_count(b, schema, "maxLength", CMI_UNBOUNDED);
    const char *expression = find_expression(b, schema);
    if (b->status != CMI_OK || min > max) {
        return;
    }
    if (expression == NULL) {
        cmi_json_string_write(b, min, max, from, to);
        return;
    }
    char what[CMI_BUILD_PATH_BYTES + 32];
    snprintf(what, sizeof what, "schema at %s/%s", b->path,
             json_object_get(schema, "pattern") != NULL ? "pattern" : "format");
    uint32_t open = cmi_nfa_state(b), close = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, open, '"');
    cmi_regex_write(b, what, expression, strlen(expression), CMI_SPELL_JSON, min, max, open, close);
    cmi_nfa_byte(b, close, to, '"');
}

/* ---- Numbers ---- */

/* Replaces *bound when the keyword's is tighter; `up` for a least number. */
static void tighten(cmi_build *b, const json_t *value, const char *keyword, bool exclusive, bool up,
                    cmi_decimal *bound, bool *nothing_fits)
{
    cmi_decimal found;
    bool is_huge = false;
    if (!json_is_number(value)) {
        cmi_schema_fail(b, CMI_ERR_BAD_DATA, "\"%s\" must be a number", keyword);
        return;
    }
    if (!cmi_decimal_from_json(&found, value, &is_huge)) {
        if (!is_huge) {
            cmi_schema_fail(b, CMI_ERR_UNSUPPORTED, "\"%s\" has over %d digits behind the point",
                            keyword, CMI_JSON_MAX_FRACTION_DIGITS);
        }
        *nothing_fits = *nothing_fits || found.is_negative != up;
        return;
    }
    found.is_exclusive = exclusive;
    int order = bound->is_set ? cmi_decimal_compare(&found, bound) : 0;
    if (!bound->is_set || (up ? order > 0 : order < 0) || (order == 0 && exclusive)) {
        *bound = found;
    }
}

/* exclusive* is a number of its own, or, in old schemas, says what the other one means. */
static void read_bound(cmi_build *b, const json_t *schema, bool up, cmi_decimal *bound,
                       bool *nothing_fits)
{
    const char *keyword = up ? "minimum" : "maximum";
    const char *exclusive_keyword = up ? "exclusiveMinimum" : "exclusiveMaximum";
    const json_t *value = json_object_get(schema, keyword);
    const json_t *exclusive = json_object_get(schema, exclusive_keyword);
    if (value != NULL) {
        tighten(b, value, keyword, json_is_true(exclusive), up, bound, nothing_fits);
    }
    if (exclusive != NULL && !json_is_boolean(exclusive)) {
        tighten(b, exclusive, exclusive_keyword, true, up, bound, nothing_fits);
    }
}

void cmi_schema_number_write(cmi_build *b, const json_t *schema, bool integer, uint32_t from,
                             uint32_t to)
{
    cmi_decimal min = {0}, max = {0};
    bool nothing_fits = false;
    const json_t *multiple = json_object_get(schema, "multipleOf");
    if (multiple != NULL && json_number_value(multiple) != 1) {
        cmi_schema_fail(b, CMI_ERR_UNSUPPORTED, "\"multipleOf\" is not supported but for 1");
    }
    integer = integer || multiple != NULL;
    read_bound(b, schema, true, &min, &nothing_fits);
    read_bound(b, schema, false, &max, &nothing_fits);
    if (b->status != CMI_OK || nothing_fits) {
        return;
    }
    if (min.is_set || max.is_set) {
        cmi_number_range_write(b, &min, &max, integer, from, to);
    } else if (integer) {
        cmi_json_integer_write(b, from, to);
    } else {
        cmi_json_number_write(b, from, to);
    }
}
