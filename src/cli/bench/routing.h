/* cli/bench/routing.h - which experts the rows of a measured step go to. */
#ifndef CMI_CLI_BENCH_ROUTING_H
#define CMI_CLI_BENCH_ROUTING_H

#include "model/config.h"

typedef enum cmi_bench_routing {
    CMI_BENCH_ROUTING_GATE,    /* as the model's gate says */
    CMI_BENCH_ROUTING_UNIFORM, /* every expert as likely */
    CMI_BENCH_ROUTING_ZIPF,    /* expert e in proportion to 1/(e + 1) */
} cmi_bench_routing;

/* "gate", "uniform", "zipf"; false for another name. */
bool cmi_bench_routing_parse(const char *name, cmi_bench_routing *routing_out);
const char *cmi_bench_routing_name(cmi_bench_routing routing);

/* Draws num_experts_per_tok distinct experts for each of n_rows rows, the first of which has the
 * number row, for ROUTING_UNIFORM and ROUTING_ZIPF. Returns how many experts got any. */
uint32_t cmi_bench_route(cmi_bench_routing routing, const cmi_model_config *config, uint64_t row,
                         uint32_t n_rows, uint32_t *expert_ids_out);

#endif
