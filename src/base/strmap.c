#include "base/strmap.h"

#include <string.h>

#include "base/alloc.h"

uint64_t cmi_hash_bytes(const void *bytes, size_t n)
{
    /* FNV-1a, then a finalizer that spreads the low bits, which pick the slot. */
    const unsigned char *p = bytes;
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x100000001B3u;
    }
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

void cmi_strmap_init(cmi_strmap *map, size_t n_expected)
{
    *map = (cmi_strmap){.n_slots = 16};
    while (map->n_slots / 2 < n_expected) {
        map->n_slots *= 2;
    }
    map->slots = cmi_alloc(map->n_slots, sizeof *map->slots);
}

void cmi_strmap_deinit(cmi_strmap *map)
{
    if (map != NULL) {
        cmi_free(map->slots);
        *map = (cmi_strmap){0};
    }
}

/* The slot that holds the key, or the free one where it would go. */
static cmi_strmap_slot *find_slot(const cmi_strmap *map, const char *key, size_t key_bytes)
{
    size_t at = cmi_hash_bytes(key, key_bytes) & (map->n_slots - 1);
    for (;;) {
        cmi_strmap_slot *slot = &map->slots[at];
        if (slot->key == NULL ||
            (slot->key_bytes == key_bytes && memcmp(slot->key, key, key_bytes) == 0)) {
            return slot;
        }
        at = (at + 1) & (map->n_slots - 1);
    }
}

static void grow(cmi_strmap *map)
{
    cmi_strmap bigger;
    cmi_strmap_init(&bigger, map->n_slots);
    for (size_t i = 0; i < map->n_slots; i++) {
        if (map->slots[i].key != NULL) {
            *find_slot(&bigger, map->slots[i].key, map->slots[i].key_bytes) = map->slots[i];
        }
    }
    bigger.n_keys = map->n_keys;
    cmi_free(map->slots);
    *map = bigger;
}

bool cmi_strmap_put(cmi_strmap *map, const char *key, size_t key_bytes, uint32_t value)
{
    if ((map->n_keys + 1) * 2 > map->n_slots) {
        grow(map);
    }
    cmi_strmap_slot *slot = find_slot(map, key, key_bytes);
    if (slot->key != NULL) {
        return false;
    }
    *slot = (cmi_strmap_slot){key, (uint32_t)key_bytes, value};
    map->n_keys++;
    return true;
}

bool cmi_strmap_get(const cmi_strmap *map, const char *key, size_t key_bytes, uint32_t *value)
{
    if (map->n_slots == 0) {
        return false;
    }
    const cmi_strmap_slot *slot = find_slot(map, key, key_bytes);
    if (slot->key == NULL) {
        return false;
    }
    if (value != NULL) {
        *value = slot->value;
    }
    return true;
}
