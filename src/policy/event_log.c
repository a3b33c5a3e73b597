#include "policy/event_log_internal.h"

#include <assert.h>
#include <string.h>

#include "base/crc32c.h"

/* ---- writing ---- */

size_t cmi_policy_log_bytes_max(const cmi_policy_options *opt)
{
    const size_t n_seqs = opt->scheduler.max_num_seqs, max = CMI_VARINT_BYTES_MAX;
    const size_t n_blocks = opt->scheduler.max_tokens / CMI_CONTENT_BLOCK_TOKENS;
    const size_t n_sealed = opt->scheduler.max_rows / CMI_CONTENT_BLOCK_TOKENS + n_seqs;
    const size_t arrive =
        (1 + cmi_policy_request_fields.n_fields) * max + n_blocks * CMI_CONTENT_KEY_BYTES;
    const size_t plan = (1 + cmi_policy_plan_fields.n_fields) * max + 2 * n_seqs * max +
                        n_seqs * cmi_policy_span_fields.n_fields * max + CMI_BLAKE2B_BYTES;
    const size_t done = (1 + n_seqs * cmi_policy_outcome_fields.n_fields) * max;
    const size_t sealed = (1 + n_sealed * cmi_policy_sealed_fields.n_fields) * max;
    const size_t begin = (1 + cmi_policy_option_fields.n_fields) * max;
    const size_t most = CMI_MAX(CMI_MAX(arrive, plan), CMI_MAX(CMI_MAX(done, sealed), begin));
    /* cmi_put_varint wants room for its longest value */
    return CMI_POLICY_LOG_MAGIC_BYTES + CMI_POLICY_LOG_HEAD_BYTES + 1 + most + max;
}

void cmi_policy_log_init(cmi_policy_log *log, void *out, size_t out_bytes)
{
    *log = (cmi_policy_log){.out = out, .out_bytes = out_bytes};
}

/* A record begins n_before bytes behind the start of out. */
static cmi_bytes_writer begin_record(const cmi_policy_log *log, size_t n_before,
                                     cmi_policy_record_type type)
{
    cmi_bytes_writer w = {log->out + n_before + CMI_POLICY_LOG_HEAD_BYTES,
                          log->out + log->out_bytes};
    const uint8_t byte = (uint8_t)type;
    cmi_put_bytes(&w, &byte, 1);
    return w;
}

static size_t end_record(cmi_policy_log *log, size_t n_before, const cmi_bytes_writer *w)
{
    uint8_t *head = log->out + n_before, *payload = head + CMI_POLICY_LOG_HEAD_BYTES;
    const uint32_t n_bytes = (uint32_t)(w->at - payload);
    log->crc = cmi_crc32c(log->crc, &n_bytes, sizeof n_bytes);
    log->crc = cmi_crc32c(log->crc, payload, n_bytes);
    memcpy(head, &n_bytes, sizeof n_bytes);
    memcpy(head + sizeof n_bytes, &log->crc, sizeof log->crc);
    return n_before + CMI_POLICY_LOG_HEAD_BYTES + n_bytes;
}

size_t cmi_policy_log_begin(cmi_policy_log *log, const cmi_policy_options *opt)
{
    const size_t n_before = CMI_POLICY_LOG_MAGIC_BYTES;
    const uint64_t signature = cmi_policy_fields_signature();
    memcpy(log->out, CMI_POLICY_LOG_MAGIC, n_before);
    cmi_bytes_writer w = begin_record(log, n_before, CMI_POLICY_RECORD_OPTIONS);
    cmi_put_bytes(&w, &signature, sizeof signature);
    cmi_put_fields(&w, &cmi_policy_option_fields, opt);
    return end_record(log, n_before, &w);
}

size_t cmi_policy_log_arrive(cmi_policy_log *log, uint32_t slot,
                             const cmi_scheduler_request *request)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_ARRIVE);
    cmi_put_varint(&w, slot);
    cmi_put_fields(&w, &cmi_policy_request_fields, request);
    cmi_put_bytes(&w, request->keys, (size_t)request->n_keys * CMI_CONTENT_KEY_BYTES);
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_finish(cmi_policy_log *log, uint64_t now_ns, uint32_t slot)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_FINISH);
    cmi_put_varint(&w, now_ns);
    cmi_put_varint(&w, slot);
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_observed(cmi_policy_log *log, const cmi_step_shape *shape,
                               uint64_t duration_ns)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_OBSERVED);
    cmi_put_fields(&w, &cmi_policy_shape_fields, shape);
    cmi_put_varint(&w, duration_ns);
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_settled(cmi_policy_log *log)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_SETTLED);
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_flushed(cmi_policy_log *log, uint64_t now_ns)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_FLUSHED);
    cmi_put_varint(&w, now_ns);
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_mtp(cmi_policy_log *log, uint32_t n_passes, uint32_t n_rows,
                          uint32_t n_head_rows)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_MTP);
    cmi_put_varint(&w, n_passes);
    cmi_put_varint(&w, n_rows);
    cmi_put_varint(&w, n_head_rows);
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_received(cmi_policy_log *log, uint64_t now_ns, uint32_t slot, uint32_t n_new,
                               uint32_t n_drafts)
{
    const cmi_scheduler_outcome outcome = {.n_new = n_new, .n_drafts = n_drafts};
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_RECEIVED);
    cmi_put_varint(&w, now_ns);
    cmi_put_varint(&w, slot);
    cmi_put_fields(&w, &cmi_policy_outcome_fields, &outcome);
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_leave(cmi_policy_log *log, uint32_t slot)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_LEAVE);
    cmi_put_varint(&w, slot);
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_drained(cmi_policy_log *log, uint64_t now_ns, uint32_t slot)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_DRAINED);
    cmi_put_varint(&w, now_ns);
    cmi_put_varint(&w, slot);
    return end_record(log, 0, &w);
}

/* Numbers alone would be most of a log: 16 KB for 64 sequences of 2,000 tokens. */
void cmi_policy_pages_digest(const cmi_scheduler_plan *plan, uint8_t digest_out[CMI_BLAKE2B_BYTES])
{
    cmi_blake2b h;
    cmi_blake2b_init(&h, NULL, 0);
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        const cmi_scheduler_span *span = &plan->spans[i];
        cmi_blake2b_update(&h, span->pages, span->n_pages * sizeof *span->pages);
    }
    cmi_blake2b_final(&h, digest_out);
}

size_t cmi_policy_log_plan(cmi_policy_log *log, uint64_t now_ns, const cmi_scheduler_plan *plan)
{
    uint8_t digest[CMI_BLAKE2B_BYTES];
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_PLAN);
    cmi_put_varint(&w, now_ns);
    cmi_put_fields(&w, &cmi_policy_plan_fields, plan);
    for (uint32_t i = 0; i < plan->n_preempted; i++) {
        cmi_put_varint(&w, plan->preempted[i]);
    }
    for (uint32_t i = 0; i < plan->n_admitted; i++) {
        cmi_put_varint(&w, plan->admitted[i]);
    }
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        cmi_put_fields(&w, &cmi_policy_span_fields, &plan->spans[i]);
    }
    cmi_policy_pages_digest(plan, digest);
    cmi_put_bytes(&w, digest, sizeof digest);
    log->n_steps += plan->n_spans > 0 ? 1 : 0;
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_done(cmi_policy_log *log, uint64_t now_ns, const cmi_scheduler_plan *plan,
                           const cmi_scheduler_outcome *outcomes)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_DONE);
    cmi_put_varint(&w, now_ns);
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        if (plan->spans[i].samples) {
            cmi_put_fields(&w, &cmi_policy_outcome_fields, &outcomes[i]);
        }
    }
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_sealed(cmi_policy_log *log, const cmi_scheduler_sealed *sealed,
                             uint32_t n_sealed)
{
    cmi_bytes_writer w = begin_record(log, 0, CMI_POLICY_RECORD_SEALED);
    cmi_put_varint(&w, n_sealed);
    for (uint32_t i = 0; i < n_sealed; i++) {
        cmi_put_fields(&w, &cmi_policy_sealed_fields, &sealed[i]);
    }
    return end_record(log, 0, &w);
}

size_t cmi_policy_log_end(cmi_policy_log *log, bool is_cut)
{
    cmi_bytes_writer w =
        begin_record(log, 0, is_cut ? CMI_POLICY_RECORD_CUT : CMI_POLICY_RECORD_END);
    cmi_put_varint(&w, log->n_steps);
    return end_record(log, 0, &w);
}

/* ---- reading ---- */

cmi_status cmi_policy_log_next(cmi_policy_log_reader *log, cmi_policy_record_type *type_out,
                               cmi_bytes_reader *fields_out)
{
    const uint8_t *head = log->bytes + log->at;
    const size_t n_left = log->n_bytes - log->at;
    uint32_t n_bytes, crc;
    if (n_left < CMI_POLICY_LOG_HEAD_BYTES) {
        return CMI_ERR_NOT_FOUND;
    }
    memcpy(&n_bytes, head, sizeof n_bytes);
    memcpy(&crc, head + sizeof n_bytes, sizeof crc);
    if (n_bytes > n_left - CMI_POLICY_LOG_HEAD_BYTES) {
        return CMI_ERR_NOT_FOUND;
    }
    const uint8_t *payload = head + CMI_POLICY_LOG_HEAD_BYTES;
    log->crc = cmi_crc32c(log->crc, &n_bytes, sizeof n_bytes);
    log->crc = cmi_crc32c(log->crc, payload, n_bytes);
    if (n_bytes == 0 || crc != log->crc) {
        return CMI_ERR_BAD_DATA;
    }
    log->at += CMI_POLICY_LOG_HEAD_BYTES + n_bytes;
    *type_out = payload[0];
    *fields_out = (cmi_bytes_reader){.at = payload + 1, .end = payload + n_bytes};
    return CMI_OK;
}

static cmi_status refuse(cmi_policy_log_info *info, cmi_status st, const char *why)
{
    info->why = why;
    return st;
}

static cmi_status read_options(cmi_policy_log_reader *log, cmi_policy_log_info *info)
{
    cmi_policy_record_type type;
    cmi_bytes_reader fields;
    if (cmi_policy_log_next(log, &type, &fields) != CMI_OK || type != CMI_POLICY_RECORD_OPTIONS) {
        return refuse(info, CMI_ERR_BAD_DATA, "the first record is damaged");
    }
    const uint64_t own = cmi_policy_fields_signature();
    const uint8_t *signature = cmi_get_bytes(&fields, sizeof own);
    if (signature == NULL || memcmp(signature, &own, sizeof own) != 0) {
        return refuse(info, CMI_ERR_UNSUPPORTED, "a version with other fields wrote it");
    }
    cmi_get_fields(&fields, &cmi_policy_option_fields, &info->options);
    return cmi_bytes_reader_is_done(&fields)
               ? CMI_OK
               : refuse(info, CMI_ERR_BAD_DATA, "the options are damaged");
}

/* Counts what a replay needs to know beforehand; whether the fields make sense it sees itself. */
static void count(cmi_policy_log_info *info, cmi_policy_record_type type, cmi_bytes_reader *fields)
{
    cmi_scheduler_request request = {0};
    cmi_scheduler_plan plan = {0};
    info->n_records++;
    if (type == CMI_POLICY_RECORD_ARRIVE) {
        (void)cmi_get_varint(fields);
        cmi_get_fields(fields, &cmi_policy_request_fields, &request);
        info->n_keys += (size_t)(fields->end - fields->at) / CMI_CONTENT_KEY_BYTES;
    } else if (type == CMI_POLICY_RECORD_PLAN) {
        (void)cmi_get_varint(fields);
        cmi_get_fields(fields, &cmi_policy_plan_fields, &plan);
        info->n_steps += plan.n_spans > 0 ? 1 : 0;
    } else if (type == CMI_POLICY_RECORD_END) {
        info->ending = CMI_POLICY_LOG_WHOLE;
    } else if (type == CMI_POLICY_RECORD_CUT) {
        info->ending = CMI_POLICY_LOG_CUT;
    }
}

cmi_status cmi_policy_log_check(const void *bytes, size_t n_bytes, cmi_policy_log_info *info_out)
{
    cmi_policy_log_info info = {.ending = CMI_POLICY_LOG_BROKEN};
    cmi_policy_log_reader log = {
        .bytes = bytes, .n_bytes = n_bytes, .at = CMI_POLICY_LOG_MAGIC_BYTES};
    cmi_status st = CMI_OK;
    if (n_bytes < CMI_POLICY_LOG_MAGIC_BYTES ||
        memcmp(bytes, CMI_POLICY_LOG_MAGIC, CMI_POLICY_LOG_MAGIC_BYTES) != 0) {
        st = refuse(&info, CMI_ERR_BAD_DATA, "it is no event log");
    } else {
        info.offset = log.at;
        st = read_options(&log, &info);
    }
    while (st == CMI_OK) {
        cmi_policy_record_type type;
        cmi_bytes_reader fields;
        info.offset = log.at;
        st = cmi_policy_log_next(&log, &type, &fields);
        if (st == CMI_OK && info.ending != CMI_POLICY_LOG_BROKEN) {
            st = refuse(&info, CMI_ERR_BAD_DATA, "something stands behind its end");
        } else if (st == CMI_OK) {
            count(&info, type, &fields);
        } else if (st == CMI_ERR_BAD_DATA) {
            info.why = "the checksum is wrong";
        }
    }
    if (st == CMI_ERR_NOT_FOUND && info.ending != CMI_POLICY_LOG_BROKEN && log.at != n_bytes) {
        st = refuse(&info, CMI_ERR_BAD_DATA, "something stands behind its end");
    }
    *info_out = info;
    return st == CMI_ERR_NOT_FOUND ? CMI_OK : st;
}
