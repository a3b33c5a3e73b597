#include <stdlib.h>

#include "cli/bench/bench.h"

cmi_status cmi_bench_list_parse(cmi_bench_list *list_out, const char *name, const char *text,
                                uint32_t min, uint32_t max, cmi_error *err)
{
    cmi_bench_list list = {0};
    for (const char *at = text;; at++) {
        char *end;
        unsigned long value = strtoul(at, &end, 10);
        if (end == at || *at == '-' || (*end != ',' && *end != '\0') || value < min ||
            value > max || list.n == CMI_BENCH_MAX_LIST) {
            return cmi_error_set(err, CMI_ERR_INVALID,
                                 "--%s takes at most %d numbers from %u to %u with commas, not "
                                 "\"%s\"",
                                 name, CMI_BENCH_MAX_LIST, min, max, text);
        }
        list.values[list.n++] = (uint32_t)value;
        if (*end == '\0') {
            *list_out = list;
            return CMI_OK;
        }
        at = end;
    }
}
