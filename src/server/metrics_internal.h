/* server/metrics_internal.h - what the writers of one family of metrics share. */
#ifndef CMI_SERVER_METRICS_INTERNAL_H
#define CMI_SERVER_METRICS_INTERNAL_H

#include "server/metrics.h"

void cmi_metrics_write_head(const char *name, const char *type, const char *help, cmi_buf *out);

/* `name suffix{`, and the labels that the name's family (vllm:, sglang:, cminfer:) has everywhere.
 * More labels, then "} value\n", are the caller's. */
void cmi_metrics_write_labels(const cmi_metrics *m, const char *name, const char *suffix,
                              cmi_buf *out);

/* A metric of one sample, with its head. */
void cmi_metrics_write_value(const cmi_metrics *m, const char *name, const char *type,
                             const char *help, double value, cmi_buf *out);

/* A histogram under another name than vLLM's; NULL: under that. */
void cmi_metrics_write_histogram(const cmi_metrics *m, cmi_histogram_id id, const char *name,
                                 cmi_buf *out);

uint64_t cmi_metrics_n_finished(const cmi_metrics *m, cmi_finish_reason reason);

/* metrics_sglang.c, metrics_own.c: everything under their names. info and stats may be NULL. */
void cmi_metrics_write_sglang(const cmi_metrics *m, const cmi_engine_info *info,
                              const cmi_engine_stats *stats, cmi_buf *out);
void cmi_metrics_write_own(const cmi_metrics *m, const cmi_engine_info *info,
                           const cmi_engine_stats *stats, cmi_buf *out);

#endif
