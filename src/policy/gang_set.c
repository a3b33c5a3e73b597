#include "policy/gang_internal.h"

enum { SLOT_BITS = 10, TAG_BITS = 22 };

_Static_assert(1 << SLOT_BITS == CMI_GANG_MAX_RANKS, "an epoch holds every slot");

uint32_t cmi_gang_set_count(const cmi_gang_set *set)
{
    uint32_t n = 0;
    for (size_t i = 0; i < CMI_LEN(set->words); i++) {
        for (uint64_t word = set->words[i]; word != 0; word &= word - 1) {
            n++;
        }
    }
    return n;
}

bool cmi_gang_set_holds(const cmi_gang_set *set, const cmi_gang_set *part)
{
    return cmi_gang_words_hold(set, part, CMI_LEN(set->words));
}

bool cmi_gang_set_equal(const cmi_gang_set *a, const cmi_gang_set *b)
{
    return cmi_gang_set_holds(a, b) && cmi_gang_set_holds(b, a);
}

uint64_t cmi_gang_epoch_make(uint32_t count, uint32_t slot, uint64_t generation)
{
    const uint64_t tag = generation & ((UINT64_C(1) << TAG_BITS) - 1);
    return (uint64_t)count << 32 | (uint64_t)slot << TAG_BITS | tag;
}

uint32_t cmi_gang_epoch_count(uint64_t epoch)
{
    return (uint32_t)(epoch >> 32);
}

uint32_t cmi_gang_epoch_slot(uint64_t epoch)
{
    return (uint32_t)epoch >> TAG_BITS;
}

/* The finalizer of splitmix64: each bit of the input moves half of the output's. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

uint64_t cmi_gang_digest(const cmi_gang_machine *m, const cmi_gang_set *members)
{
    uint64_t digest = 0;
    for (uint32_t i = 0; i < m->opt.n_slots; i++) {
        if (cmi_gang_set_has(members, i)) {
            digest += mix(mix(m->peers[i].generation) + i + 1);
        }
    }
    return digest;
}
