/* base/strmap.h - byte strings to 32-bit values: open addressing, no removal.
 *
 * Keys are borrowed: their owner outlives the map. After the last cmi_strmap_put any number of
 * threads may look keys up. */
#ifndef CMI_BASE_STRMAP_H
#define CMI_BASE_STRMAP_H

#include "base/compiler.h"

typedef struct cmi_strmap_slot {
    const char *key; /* NULL: free */
    uint32_t key_bytes;
    uint32_t value;
} cmi_strmap_slot;

typedef struct cmi_strmap {
    cmi_strmap_slot *slots;
    size_t n_slots; /* a power of two, or 0 */
    size_t n_keys;
} cmi_strmap;

void cmi_strmap_init(cmi_strmap *map, size_t n_expected);
void cmi_strmap_deinit(cmi_strmap *map); /* NULL or zeroed is fine */

/* Adds a key; false, and no change, when it is there already. key_bytes < 2^32. */
bool cmi_strmap_put(cmi_strmap *map, const char *key, size_t key_bytes, uint32_t value);

/* False when the key is not there; *value is then untouched. value may be NULL. */
bool cmi_strmap_get(const cmi_strmap *map, const char *key, size_t key_bytes, uint32_t *value);

/* A 64-bit hash of n bytes; equal on every machine. Not for keys that must resist an attacker. */
uint64_t cmi_hash_bytes(const void *bytes, size_t n);

#endif
