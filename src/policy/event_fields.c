#include "policy/event_log_internal.h"

#include <assert.h>
#include <string.h>

#include "base/strmap.h"

/* ---- the tables: one line a field ----
 *
 * A field that is added to one of these structs gets its line here, and is then recorded, restored
 * and compared. */

#define HAS_BYTES(type, member, n) (0 * sizeof(char[sizeof(((type *)0)->member) == (n) ? 1 : -1]))
#define FIELD(type, member, kind, n)                                                               \
    {                                                                                              \
#member, (uint32_t)(offsetof(type, member) + HAS_BYTES(type, member, n)), kind             \
    }
#define U32(type, member) FIELD(type, member, CMI_FIELD_U32, 4) /* enums, too */
#define I32(type, member) FIELD(type, member, CMI_FIELD_I32, 4)
#define U64(type, member) FIELD(type, member, CMI_FIELD_U64, 8)
#define F64(type, member) FIELD(type, member, CMI_FIELD_U64, 8) /* its bits */
#define BOOL(type, member) FIELD(type, member, CMI_FIELD_BOOL, 1)
#define TABLE(name, text, ...)                                                                     \
    static const cmi_field name##_rows[] = {__VA_ARGS__};                                          \
    const cmi_field_table name = {text, name##_rows, CMI_LEN(name##_rows)};

/* A line a field. */
/* clang-format off */
#define O cmi_policy_options
TABLE(cmi_policy_option_fields, "options",
      U32(O, pool.n_pages),
      U32(O, pool.n_checksums),
      U64(O, pool.lease_max_ns),
      U32(O, cache.n_blocks),
      U32(O, scheduler.role),
      U32(O, scheduler.n_slots),
      U32(O, scheduler.max_num_seqs),
      U32(O, scheduler.max_rows),
      U32(O, scheduler.max_decode_rows),
      U32(O, scheduler.max_prefill_rows),
      U32(O, scheduler.max_span_rows),
      U32(O, scheduler.max_drafts),
      U32(O, scheduler.max_tokens),
      U32(O, scheduler.n_experts),
      U32(O, scheduler.n_experts_per_tok),
      F64(O, scheduler.cover))

#define R cmi_scheduler_request
TABLE(cmi_policy_request_fields, "request",
      U32(R, n_prompt),
      U32(R, n_total),
      U32(R, n_generated),
      I32(R, priority),
      U64(R, tenant),
      U64(R, tpot_ns),
      U32(R, n_keys),
      U64(R, space_tag),
      BOOL(R, skips_cache),
      U32(R, skip_reason))

#define P cmi_scheduler_plan
TABLE(cmi_policy_plan_fields, "plan",
      U32(P, n_preempted),
      U32(P, n_admitted),
      U32(P, n_spans),
      U32(P, n_rows),
      U32(P, n_decode_rows),
      F64(P, predicted_ns))

#define T cmi_step_shape
TABLE(cmi_policy_shape_fields, "shape of a step",
      U32(T, n_decode_rows),
      U32(T, n_prefill_rows),
      U32(T, n_head_rows),
      U32(T, n_mtp_passes),
      U32(T, n_mtp_rows),
      U64(T, decode_context),
      U64(T, prefill_context))

#define S cmi_scheduler_span
TABLE(cmi_policy_span_fields, "span",
      U32(S, slot),
      U32(S, position),
      U32(S, n_rows),
      U32(S, n_drafts),
      U32(S, n_pages),
      BOOL(S, is_prefill),
      BOOL(S, samples))

#define C cmi_scheduler_outcome
TABLE(cmi_policy_outcome_fields, "outcome",
      U32(C, n_new),
      U32(C, n_drafts))

#define B cmi_scheduler_sealed
TABLE(cmi_policy_sealed_fields, "sealed block",
      U32(B, slot),
      U32(B, block_idx),
      U32(B, cache_idx),
      BOOL(B, is_duplicate))
/* clang-format on */

static const cmi_field_table *const all_tables[] = {
    &cmi_policy_option_fields, &cmi_policy_shape_fields, &cmi_policy_request_fields,
    &cmi_policy_plan_fields,   &cmi_policy_span_fields,  &cmi_policy_outcome_fields,
    &cmi_policy_sealed_fields};

/* ---- what follows from them ---- */

static uint64_t mix(uint64_t hash, const char *text, uint64_t number)
{
    const uint64_t words[3] = {hash, cmi_hash_bytes(text, strlen(text)), number};
    return cmi_hash_bytes(words, sizeof words);
}

uint64_t cmi_policy_fields_signature(void)
{
    uint64_t hash = CMI_POLICY_LOG_VERSION;
    for (size_t t = 0; t < CMI_LEN(all_tables); t++) {
        hash = mix(hash, all_tables[t]->name, all_tables[t]->n_fields);
        for (uint32_t i = 0; i < all_tables[t]->n_fields; i++) {
            hash = mix(hash, all_tables[t]->fields[i].name, all_tables[t]->fields[i].kind);
        }
    }
    return hash;
}

static uint64_t load(const cmi_field *field, const void *from)
{
    const uint8_t *at = (const uint8_t *)from + field->offset;
    uint32_t word;
    uint64_t value;
    switch (field->kind) {
    case CMI_FIELD_U32:
        memcpy(&word, at, sizeof word);
        return word;
    case CMI_FIELD_I32:
        memcpy(&word, at, sizeof word);
        return (uint64_t)(int64_t)(int32_t)word;
    case CMI_FIELD_U64:
        memcpy(&value, at, sizeof value);
        return value;
    case CMI_FIELD_BOOL:
        return *at;
    }
    return 0;
}

/* False: the field does not hold this value. */
static bool store(const cmi_field *field, void *to, uint64_t value)
{
    uint8_t *at = (uint8_t *)to + field->offset;
    const uint32_t word = (uint32_t)value;
    const bool is_true = value != 0;
    switch (field->kind) {
    case CMI_FIELD_U32:
        memcpy(at, &word, sizeof word);
        return value <= UINT32_MAX;
    case CMI_FIELD_I32:
        memcpy(at, &word, sizeof word);
        return (uint64_t)(int64_t)(int32_t)word == value;
    case CMI_FIELD_U64:
        memcpy(at, &value, sizeof value);
        return true;
    case CMI_FIELD_BOOL:
        memcpy(at, &is_true, sizeof is_true);
        return value <= 1;
    }
    return false;
}

const cmi_field *cmi_fields_differ(const cmi_field_table *table, const void *a, const void *b,
                                   uint64_t *a_out, uint64_t *b_out)
{
    for (uint32_t i = 0; i < table->n_fields; i++) {
        *a_out = load(&table->fields[i], a);
        *b_out = load(&table->fields[i], b);
        if (*a_out != *b_out) {
            return &table->fields[i];
        }
    }
    return NULL;
}

/* ---- bytes ---- */

void cmi_put_bytes(cmi_bytes_writer *w, const void *bytes, size_t n)
{
    assert(n <= (size_t)(w->end - w->at));
    if (n > 0) {
        memcpy(w->at, bytes, n);
        w->at += n;
    }
}

void cmi_put_varint(cmi_bytes_writer *w, uint64_t value)
{
    assert(w->end - w->at >= CMI_VARINT_BYTES_MAX);
    for (; value >= 0x80; value >>= 7) {
        *w->at++ = (uint8_t)(value | 0x80);
    }
    *w->at++ = (uint8_t)value;
}

static uint64_t to_zigzag(uint64_t value)
{
    return value << 1 ^ (0 - (value >> 63));
}

static uint64_t from_zigzag(uint64_t value)
{
    return value >> 1 ^ (0 - (value & 1));
}

void cmi_put_fields(cmi_bytes_writer *w, const cmi_field_table *table, const void *from)
{
    for (uint32_t i = 0; i < table->n_fields; i++) {
        uint64_t value = load(&table->fields[i], from);
        cmi_put_varint(w, table->fields[i].kind == CMI_FIELD_I32 ? to_zigzag(value) : value);
    }
}

const uint8_t *cmi_get_bytes(cmi_bytes_reader *r, size_t n)
{
    if (r->is_bad || n > (size_t)(r->end - r->at)) {
        r->is_bad = true;
        return NULL;
    }
    const uint8_t *bytes = r->at;
    r->at += n;
    return bytes;
}

uint64_t cmi_get_varint(cmi_bytes_reader *r)
{
    uint64_t value = 0;
    for (uint32_t shift = 0; shift < 64; shift += 7) {
        const uint8_t *byte = cmi_get_bytes(r, 1);
        if (byte == NULL) {
            return 0;
        }
        value |= (uint64_t)(*byte & 0x7f) << shift;
        if (*byte < 0x80) {
            r->is_bad = shift == 63 && *byte > 1;
            return r->is_bad ? 0 : value;
        }
    }
    r->is_bad = true;
    return 0;
}

uint32_t cmi_get_varint32(cmi_bytes_reader *r)
{
    uint64_t value = cmi_get_varint(r);
    r->is_bad |= value > UINT32_MAX;
    return r->is_bad ? 0 : (uint32_t)value;
}

void cmi_get_fields(cmi_bytes_reader *r, const cmi_field_table *table, void *to)
{
    for (uint32_t i = 0; i < table->n_fields; i++) {
        uint64_t value = cmi_get_varint(r);
        value = table->fields[i].kind == CMI_FIELD_I32 ? from_zigzag(value) : value;
        r->is_bad |= !store(&table->fields[i], to, value);
    }
}

bool cmi_bytes_reader_is_done(const cmi_bytes_reader *r)
{
    return !r->is_bad && r->at == r->end;
}
