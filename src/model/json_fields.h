/* model/json_fields.h - reading checked fields of a JSON object.
 *
 * A reader remembers the first error and does nothing after it, so that a long row of fields is
 * read line by line and the status looked at once. A field that is absent or null leaves *value as
 * it was, which is the default; a required one is an error. */
#ifndef CMI_MODEL_JSON_FIELDS_H
#define CMI_MODEL_JSON_FIELDS_H

#include <jansson.h>

#include "base/error.h"

typedef struct cmi_json_fields {
    const json_t *object;
    const char *file;  /* for error lines */
    const char *scope; /* "" or "rope_scaling.", for error lines */
    cmi_error *err;
    cmi_status status; /* the first error */
} cmi_json_fields;

typedef enum cmi_json_need { CMI_JSON_OPTIONAL, CMI_JSON_REQUIRED } cmi_json_need;

/* Parses text as one JSON object; *root_out is the caller's to json_decref. */
CMI_NODISCARD cmi_status cmi_json_parse_object(json_t **root_out, const char *text, size_t n_bytes,
                                               const char *file, cmi_error *err);

/* The value, or NULL when absent or null. */
const json_t *cmi_json_get(const cmi_json_fields *f, const char *key);

void cmi_json_u32(cmi_json_fields *f, const char *key, cmi_json_need need, uint32_t min,
                  uint32_t max, uint32_t *value);

/* Accepts integers too. NaN and infinities cannot be written in JSON. */
void cmi_json_double(cmi_json_fields *f, const char *key, cmi_json_need need, double min,
                     double max, double *value);
void cmi_json_bool(cmi_json_fields *f, const char *key, bool *value);

/* *value borrows from the object. */
void cmi_json_string(cmi_json_fields *f, const char *key, const char **value);

/* Sets the first error: "file: scope+key: line". */
CMI_PRINTF(4, 5)
void cmi_json_fail(cmi_json_fields *f, cmi_status st, const char *key, const char *fmt, ...);

#endif
