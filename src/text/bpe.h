/* text/bpe.h - byte-pair encoding of one piece of text.
 *
 * A piece starts as the tokens of its bytes; of all neighbours that the merge list names, the pair
 * that comes first in the list (the leftmost of equals) becomes one token, until no pair is left.
 * A built cmi_bpe may be used by any number of threads, each with its own scratch. */
#ifndef CMI_TEXT_BPE_H
#define CMI_TEXT_BPE_H

#include "base/ids.h"
#include "base/strmap.h"
#include "text/pair_map.h"

#define CMI_BPE_NO_ID UINT32_MAX

typedef struct cmi_bpe {
    uint32_t byte_ids[256];  /* the token of each byte; CMI_BPE_NO_ID where there is none */
    cmi_pair_map ranks;      /* (left id << 32 | right id) to the place in the merge list */
    uint32_t *merged_ids;    /* [n_merges]: what the pair of that rank becomes */
    cmi_strmap vocabulary;   /* a token's bytes to its id */
    bool whole_pieces_first; /* a piece that is a token needs no merging ("ignore_merges") */
} cmi_bpe;

static inline uint64_t cmi_bpe_pair(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right;
}

void cmi_bpe_deinit(cmi_bpe *bpe); /* NULL or zeroed is fine */

/* Memory that lives over many pieces; zeroed is ready for use. */
typedef struct cmi_bpe_scratch {
    struct cmi_bpe_symbol *symbols; /* [cap] */
    uint64_t *heap;                 /* [2 * cap] */
    size_t cap;
} cmi_bpe_scratch;

void cmi_bpe_scratch_deinit(cmi_bpe_scratch *scratch); /* NULL or zeroed is fine */

/* Appends the ids of piece[n_bytes], n_bytes < 2^32. Bytes without a token give no id. O(n log n).
 * False, and nothing is appended, when there is no memory for 32 * n_bytes of scratch. */
CMI_NODISCARD bool cmi_bpe_encode(const cmi_bpe *bpe, cmi_bpe_scratch *scratch, const char *piece,
                                  size_t n_bytes, cmi_ids *ids_out);

#endif
