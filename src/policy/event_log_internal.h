/* policy/event_log_internal.h - the fields of events and how they are written, for event_fields.c,
 * event_log.c and event_replay.c. */
#ifndef CMI_POLICY_EVENT_LOG_INTERNAL_H
#define CMI_POLICY_EVENT_LOG_INTERNAL_H

#include "base/blake2b.h"
#include "policy/event_log.h"

#define CMI_POLICY_LOG_MAGIC "CMIEVLOG"

enum {
    CMI_POLICY_LOG_VERSION = 1, /* of all but the fields, which have a signature */
    CMI_POLICY_LOG_MAGIC_BYTES = 8,
    CMI_POLICY_LOG_HEAD_BYTES = 8, /* of a record: its length and CRC */
    CMI_VARINT_BYTES_MAX = 10,
};

typedef enum cmi_policy_record_type {
    CMI_POLICY_RECORD_OPTIONS = 1,
    CMI_POLICY_RECORD_ARRIVE,
    CMI_POLICY_RECORD_FINISH,
    CMI_POLICY_RECORD_PLAN,
    CMI_POLICY_RECORD_DONE,
    CMI_POLICY_RECORD_SEALED,
    CMI_POLICY_RECORD_END,
    CMI_POLICY_RECORD_CUT,
    CMI_POLICY_RECORD_RECEIVED,
    CMI_POLICY_RECORD_LEAVE,
    CMI_POLICY_RECORD_DRAINED,
    CMI_POLICY_RECORD_OBSERVED,
    CMI_POLICY_RECORD_SETTLED,
    CMI_POLICY_RECORD_MTP,
    CMI_POLICY_RECORD_FLUSHED,
} cmi_policy_record_type;

/* ---- fields ---- */

typedef enum cmi_field_kind {
    CMI_FIELD_U32,
    CMI_FIELD_I32,
    CMI_FIELD_U64,
    CMI_FIELD_BOOL,
} cmi_field_kind;

typedef struct cmi_field {
    const char *name;
    uint32_t offset; /* in its struct */
    cmi_field_kind kind;
} cmi_field;

typedef struct cmi_field_table {
    const char *name; /* "span", ... */
    const cmi_field *fields;
    uint32_t n_fields;
} cmi_field_table;

extern const cmi_field_table cmi_policy_option_fields;  /* of cmi_policy_options */
extern const cmi_field_table cmi_policy_request_fields; /* of cmi_scheduler_request, not its keys */
extern const cmi_field_table cmi_policy_plan_fields;    /* of cmi_scheduler_plan, not its arrays */
extern const cmi_field_table cmi_policy_span_fields;    /* of cmi_scheduler_span, not its pages */
extern const cmi_field_table cmi_policy_shape_fields;   /* of cmi_step_shape */
extern const cmi_field_table cmi_policy_outcome_fields; /* of cmi_scheduler_outcome */
extern const cmi_field_table cmi_policy_sealed_fields;  /* of cmi_scheduler_sealed */

/* Of the version and all tables: names, kinds and order. */
uint64_t cmi_policy_fields_signature(void);

/* The first field in which two structs of a table differ, with its values; NULL. Negative values
 * are sign-extended. */
const cmi_field *cmi_fields_differ(const cmi_field_table *table, const void *a, const void *b,
                                   uint64_t *a_out, uint64_t *b_out);

/* ---- bytes ---- */

/* Writing past the end is our own bug and asserted. */
typedef struct cmi_bytes_writer {
    uint8_t *at, *end;
} cmi_bytes_writer;

void cmi_put_bytes(cmi_bytes_writer *w, const void *bytes, size_t n);
void cmi_put_varint(cmi_bytes_writer *w, uint64_t value);
void cmi_put_fields(cmi_bytes_writer *w, const cmi_field_table *table, const void *from);

/* Reading past the end, or a value that its field does not hold, gives zeros and sets is_bad. */
typedef struct cmi_bytes_reader {
    const uint8_t *at, *end;
    bool is_bad;
} cmi_bytes_reader;

/* n bytes where they lie; NULL: there are fewer. */
const uint8_t *cmi_get_bytes(cmi_bytes_reader *r, size_t n);
uint64_t cmi_get_varint(cmi_bytes_reader *r);
uint32_t cmi_get_varint32(cmi_bytes_reader *r);
void cmi_get_fields(cmi_bytes_reader *r, const cmi_field_table *table, void *to);

/* Nothing was bad, and nothing is left. */
bool cmi_bytes_reader_is_done(const cmi_bytes_reader *r);

/* ---- records ---- */

/* Where a log is read; zeroed but for bytes at the start. */
typedef struct cmi_policy_log_reader {
    const uint8_t *bytes;
    size_t n_bytes;
    size_t at; /* of the next record */
    uint32_t crc;
} cmi_policy_log_reader;

/* The next record's type and fields. CMI_ERR_NOT_FOUND: no complete one is left. CMI_ERR_BAD_DATA:
 * its checksum is wrong. */
CMI_NODISCARD cmi_status cmi_policy_log_next(cmi_policy_log_reader *log,
                                             cmi_policy_record_type *type_out,
                                             cmi_bytes_reader *fields_out);

/* What stands for the pages of a plan's spans. */
void cmi_policy_pages_digest(const cmi_scheduler_plan *plan, uint8_t digest_out[CMI_BLAKE2B_BYTES]);

#endif
