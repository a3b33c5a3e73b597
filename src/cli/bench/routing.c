#include "cli/bench/routing.h"

#include <string.h>

#include "base/rng.h"
#include "model/gate.h"

static const uint64_t routing_seed = 0x726F7574696E67;
static const char *const names[] = {"gate", "uniform", "zipf"};

bool cmi_bench_routing_parse(const char *name, cmi_bench_routing *routing_out)
{
    for (size_t i = 0; i < CMI_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *routing_out = (cmi_bench_routing)i;
            return true;
        }
    }
    return false;
}

const char *cmi_bench_routing_name(cmi_bench_routing routing)
{
    return names[routing];
}

/* The expert at u in [0, 1) of the cumulative shares. */
static uint32_t expert_at(const double *cumulative, uint32_t n, double u)
{
    uint32_t low = 0, high = n - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (u * cumulative[n - 1] < cumulative[middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

uint32_t cmi_bench_route(cmi_bench_routing routing, const cmi_model_config *config, uint64_t row,
                         uint32_t n_rows, uint32_t *expert_ids_out)
{
    const uint32_t n = config->n_routed_experts, k = config->num_experts_per_tok;
    double cumulative[CMI_GATE_MAX_EXPERTS];
    uint64_t last_row[CMI_GATE_MAX_EXPERTS] = {0}; /* that took it, from 1 on */
    uint32_t n_used = 0;
    for (uint32_t e = 0; e < n; e++) {
        double share = routing == CMI_BENCH_ROUTING_ZIPF ? 1.0 / (e + 1) : 1.0;
        cumulative[e] = share + (e > 0 ? cumulative[e - 1] : 0);
    }
    for (uint32_t i = 0; i < n_rows; i++) {
        uint64_t draw = 0;
        for (uint32_t rank = 0; rank < k;) {
            double u = (double)cmi_philox_uniform(routing_seed, row + i, draw++);
            uint32_t e = expert_at(cumulative, n, u);
            if (last_row[e] == i + 1) {
                continue; /* this row has it */
            }
            n_used += last_row[e] == 0 ? 1 : 0;
            last_row[e] = i + 1;
            expert_ids_out[i * k + rank++] = e;
        }
    }
    return n_used;
}
