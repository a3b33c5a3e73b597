#include "engine/engine_calls.h"

static const cmi_engine_calls *of(const cmi_engine *engine)
{
    return ((const cmi_engine_base *)(const void *)engine)->calls;
}

void cmi_engine_stop(cmi_engine *engine)
{
    if (engine != NULL) {
        of(engine)->stop(engine);
    }
}

bool cmi_engine_has_room(cmi_engine *engine, const cmi_admission_request *request,
                         cmi_admission_verdict *verdict_out)
{
    return of(engine)->has_room(engine, request, verdict_out);
}

cmi_status cmi_engine_offer(cmi_engine *engine, const cmi_request *request,
                            cmi_admission_verdict *verdict_out, cmi_error *err)
{
    return of(engine)->offer(engine, request, verdict_out, err);
}

cmi_status cmi_engine_submit(cmi_engine *engine, const cmi_request *request, cmi_error *err)
{
    return cmi_engine_offer(engine, request, NULL, err);
}

void cmi_engine_cancel(cmi_engine *engine, uint64_t request_id)
{
    of(engine)->cancel(engine, request_id);
}

void cmi_engine_flush_prefix_cache(cmi_engine *engine)
{
    of(engine)->flush_prefix_cache(engine);
}

size_t cmi_engine_poll(cmi_engine *engine, cmi_event *events_out, size_t n_max)
{
    return of(engine)->poll(engine, events_out, n_max);
}

int cmi_engine_event_fd(const cmi_engine *engine)
{
    return of(engine)->event_fd(engine);
}

void cmi_engine_info_get(const cmi_engine *engine, cmi_engine_info *info_out)
{
    of(engine)->info_get(engine, info_out);
}

void cmi_engine_stats_get(cmi_engine *engine, cmi_engine_stats *stats_out)
{
    of(engine)->stats_get(engine, stats_out);
}

uint32_t cmi_engine_ranks_get(cmi_engine *engine, cmi_engine_rank *ranks_out, uint32_t n_max)
{
    return of(engine)->ranks_get(engine, ranks_out, n_max);
}
