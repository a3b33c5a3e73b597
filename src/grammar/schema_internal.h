/* grammar/schema_internal.h - JSON Schema, a keyword group a file.
 *
 * A schema is written in place where alternatives or allOf combine it with others, so that the DFA
 * sees them side by side; below properties and items it is a rule of its own, one for all places
 * with the same schema, which is what makes recursion finite. */
#ifndef CMI_GRAMMAR_SCHEMA_INTERNAL_H
#define CMI_GRAMMAR_SCHEMA_INTERNAL_H

#include "grammar/json_internal.h"

enum {
    CMI_SCHEMA_MAX_INLINED = 32, /* $ref, allOf and anyOf inside each other, without a value */
    /* Longer counts are not kept; a longest one from here on is as good as none. */
    CMI_SCHEMA_MAX_COUNT = (1 << 24) - 2,
    CMI_SCHEMA_MAX_NAME_BYTES = 1000,
    CMI_SCHEMA_MAX_TUPLE = 1000, /* items behind prefixItems that maxItems counts */
};

/* The text of the root schema as the grammar's rule. */
void cmi_schema_root_write(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to);

/* A rule of its own for a text of the schema, whose references point into it. The schema must be
 * part of b->source; b->path says where it stands. */
void cmi_schema_call_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to);

/* A value that fits the schema, here. */
void cmi_schema_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to);

/* The same as a part of another value: by a call, unless it is small. */
void cmi_schema_part_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to);

/* Fails with a line that begins with where the schema stands. */
CMI_PRINTF(3, 4) void cmi_schema_fail(cmi_build *b, cmi_status st, const char *fmt, ...);

/* Goes down by a keyword and, unless it is NULL, a name; what to give cmi_schema_leave. */
size_t cmi_schema_enter(cmi_build *b, const char *keyword, const char *name);
void cmi_schema_leave(cmi_build *b, size_t mark);

/* A count; fallback where there is no such keyword. A largest one that is huge is CMI_UNBOUNDED. */
uint32_t cmi_schema_count(cmi_build *b, const json_t *schema, const char *keyword,
                          uint32_t fallback);

/* An array keyword's value; NULL, perhaps after a failure, when there is none. */
const json_t *cmi_schema_array(cmi_build *b, const json_t *schema, const char *keyword);

/* A value as compact JSON, which the caller frees. */
CMI_NODISCARD char *cmi_schema_dump(cmi_build *b, const json_t *value);

/* The rule of this kind, schema, min and max. */
uint32_t cmi_schema_rule(cmi_build *b, const char *kind, const cmi_rule *rule);

/* ---- schema_keywords.c ---- */

bool cmi_schema_is_annotation(const char *keyword);

/* Fails on keywords that change the meaning and are not supported. */
void cmi_schema_check_keywords(cmi_build *b, const json_t *schema);

/* Bits of the types that the schema allows, by type, nullable and what other keywords imply. */
enum {
    CMI_TYPE_NULL = 1,
    CMI_TYPE_BOOLEAN = 2,
    CMI_TYPE_INTEGER = 4,
    CMI_TYPE_NUMBER = 8,
    CMI_TYPE_STRING = 16,
    CMI_TYPE_ARRAY = 32,
    CMI_TYPE_OBJECT = 64,
    CMI_TYPE_ANY = CMI_TYPE_NULL | CMI_TYPE_BOOLEAN | CMI_TYPE_NUMBER | CMI_TYPE_STRING |
                   CMI_TYPE_ARRAY | CMI_TYPE_OBJECT,
};
unsigned cmi_schema_types(cmi_build *b, const json_t *schema);

/* The name of one type. */
const char *cmi_schema_type_name(unsigned type);

/* ---- schema_merge.c ---- */

/* What `$ref` names; NULL after a failure. */
const json_t *cmi_schema_resolve(cmi_build *b, const char *reference);

/* A schema that both schemas allow what it allows: true, false or an object, which b keeps; NULL
 * after a failure. Properties in the order of a. */
const json_t *cmi_schema_merge(cmi_build *b, const json_t *a, const json_t *c);

/* The schema without a keyword and without annotations, kept by b. */
const json_t *cmi_schema_without(cmi_build *b, const json_t *schema, const char *keyword);

/* ---- By type ---- */

void cmi_schema_enum_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to);
void cmi_schema_object_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to);
void cmi_schema_array_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to);
void cmi_schema_string_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to);
void cmi_schema_number_write(cmi_build *b, const json_t *schema, bool integer, uint32_t from,
                             uint32_t to);

/* A quoted name that is none of the schema's properties. */
void cmi_schema_other_name_write(cmi_build *b, const json_t *properties, uint32_t from,
                                 uint32_t to);

#endif
