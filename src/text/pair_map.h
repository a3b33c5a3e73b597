/* text/pair_map.h - 64-bit keys to 32-bit values: open addressing, no removal.
 *
 * For keys that pack two small numbers. The keys come from files, so a file may be built to make
 * them collide: an insertion that would look at more than CMI_PAIR_MAP_MAX_PROBES slots fails, and
 * so a lookup is never long. After the last insertion any number of threads may look keys up. */
#ifndef CMI_TEXT_PAIR_MAP_H
#define CMI_TEXT_PAIR_MAP_H

#include "base/compiler.h"

/* DeepSeek-V3 has 127,741 merges; the longest lookup of one takes 23. */
enum { CMI_PAIR_MAP_MAX_PROBES = 1024 };

#define CMI_PAIR_MAP_NO_KEY UINT64_MAX

typedef struct cmi_pair_map_slot {
    uint64_t key; /* CMI_PAIR_MAP_NO_KEY: free */
    uint32_t value;
} cmi_pair_map_slot;

typedef struct cmi_pair_map {
    cmi_pair_map_slot *slots; /* 2^(64 - shift) of them */
    unsigned shift;
    size_t n_keys, max_keys;
} cmi_pair_map;

/* Room for max_keys; false when there is no memory for it. */
CMI_NODISCARD bool cmi_pair_map_init(cmi_pair_map *map, size_t max_keys);
void cmi_pair_map_deinit(cmi_pair_map *map); /* NULL or zeroed is fine */

/* Adds a key (not CMI_PAIR_MAP_NO_KEY) or changes its value. False, and no change, when the keys
 * collide too much. More than max_keys keys is a bug of the caller (asserted). */
CMI_NODISCARD bool cmi_pair_map_put(cmi_pair_map *map, uint64_t key, uint32_t value);

static inline size_t cmi_pair_map_home(const cmi_pair_map *map, uint64_t key)
{
    return (size_t)(key * 0x9E3779B97F4A7C15u >> map->shift);
}

/* The value, or absent when the key is not there. */
static inline uint32_t cmi_pair_map_get(const cmi_pair_map *map, uint64_t key, uint32_t absent)
{
    size_t mask = ((size_t)1 << (64 - map->shift)) - 1;
    for (size_t at = cmi_pair_map_home(map, key);; at = (at + 1) & mask) {
        const cmi_pair_map_slot *slot = &map->slots[at];
        if (slot->key == key) {
            return slot->value;
        }
        if (slot->key == CMI_PAIR_MAP_NO_KEY) {
            return absent;
        }
    }
}

#endif
