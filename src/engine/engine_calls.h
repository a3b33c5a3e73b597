/* engine/engine_calls.h - what stands behind the calls of engine/engine.h: an engine of this
 * process, or others' behind a router (engine/router.h). */
#ifndef CMI_ENGINE_ENGINE_CALLS_H
#define CMI_ENGINE_ENGINE_CALLS_H

#include "engine/engine.h"

/* As in engine.h. */
typedef struct cmi_engine_calls {
    void (*stop)(cmi_engine *engine);
    bool (*has_room)(cmi_engine *engine, const cmi_admission_request *request,
                     cmi_admission_verdict *verdict_out);
    cmi_status (*offer)(cmi_engine *engine, const cmi_request *request,
                        cmi_admission_verdict *verdict_out, cmi_error *err);
    void (*cancel)(cmi_engine *engine, uint64_t request_id);
    void (*flush_prefix_cache)(cmi_engine *engine);
    size_t (*poll)(cmi_engine *engine, cmi_event *events_out, size_t n_max);
    int (*event_fd)(const cmi_engine *engine);
    void (*info_get)(const cmi_engine *engine, cmi_engine_info *info_out);
    void (*stats_get)(cmi_engine *engine, cmi_engine_stats *stats_out);
    uint32_t (*ranks_get)(cmi_engine *engine, cmi_engine_rank *ranks_out, uint32_t n_max);
} cmi_engine_calls;

/* What every engine begins with. */
typedef struct cmi_engine_base {
    const cmi_engine_calls *calls;
} cmi_engine_base;

/* ---- what both kinds do alike ---- */

/* CMI_ERR_NO_CAPACITY with a line for people. */
cmi_status cmi_engine_say_refused(const cmi_admission_queue *queue,
                                  const cmi_admission_request *request,
                                  const cmi_admission_verdict *verdict, cmi_error *err);

/* Every token that the request names is one of the model's. */
CMI_NODISCARD cmi_status cmi_engine_check_tokens(uint32_t vocab_size, const cmi_request *request,
                                                 cmi_error *err);

/* All counters, but no gauge and no refusal. */
void cmi_engine_stats_add(cmi_engine_stats *total, const cmi_engine_stats *one);

/* Fills in prefix_losses. */
void cmi_engine_prefix_names(cmi_engine_info *info);

#endif
