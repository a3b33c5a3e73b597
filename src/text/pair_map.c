#include "text/pair_map.h"

#include <assert.h>

#include "base/alloc.h"

bool cmi_pair_map_init(cmi_pair_map *map, size_t max_keys)
{
    unsigned bits = 4;
    while ((size_t)1 << bits < max_keys * 2) {
        bits++;
    }
    *map = (cmi_pair_map){.shift = 64 - bits, .max_keys = max_keys};
    size_t n_slots = (size_t)1 << bits;
    map->slots = cmi_try_alloc(n_slots, sizeof *map->slots);
    if (map->slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < n_slots; i++) {
        map->slots[i].key = CMI_PAIR_MAP_NO_KEY;
    }
    return true;
}

void cmi_pair_map_deinit(cmi_pair_map *map)
{
    if (map != NULL) {
        cmi_free(map->slots);
        *map = (cmi_pair_map){0};
    }
}

bool cmi_pair_map_put(cmi_pair_map *map, uint64_t key, uint32_t value)
{
    size_t mask = ((size_t)1 << (64 - map->shift)) - 1;
    size_t at = cmi_pair_map_home(map, key);
    for (int probe = 0; probe < CMI_PAIR_MAP_MAX_PROBES; probe++, at = (at + 1) & mask) {
        cmi_pair_map_slot *slot = &map->slots[at];
        if (slot->key == CMI_PAIR_MAP_NO_KEY) {
            assert(map->n_keys < map->max_keys);
            map->n_keys++;
            *slot = (cmi_pair_map_slot){key, value};
            return true;
        }
        if (slot->key == key) {
            slot->value = value;
            return true;
        }
    }
    return false;
}
