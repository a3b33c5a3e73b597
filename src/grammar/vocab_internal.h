/* grammar/vocab_internal.h - how a vocabulary lies in memory; for the mask's walk. */
#ifndef CMI_GRAMMAR_VOCAB_INTERNAL_H
#define CMI_GRAMMAR_VOCAB_INTERNAL_H

#include "grammar/vocab.h"

#define CMI_TRIE_NO_TOKEN UINT32_MAX
#define CMI_TRIE_SHARED (UINT32_C(1) << 31) /* added to a token: others have the same bytes */

/* A byte behind those of the node's ancestors. Nodes stand in preorder: children follow their
 * parent, and what follows the subtree of a node is found by skipping. */
typedef struct cmi_trie_node {
    uint32_t skip;  /* index behind the subtree */
    uint32_t token; /* an id whose bytes end here, or CMI_TRIE_NO_TOKEN; see CMI_TRIE_SHARED */
    uint16_t depth; /* 1 for a token's first byte */
    uint8_t byte;
} cmi_trie_node;

typedef struct cmi_trie {
    cmi_trie_node *nodes;
    uint32_t n_nodes;
} cmi_trie;

/* A token is plain when it is whole characters that stand for themselves inside a JSON string: no
 * control character, quote or backslash. Where a grammar takes any plain character, the allowed
 * plain tokens depend on their length alone, and only the odd ones must be tried. */
enum { CMI_PLAIN_MAX_CHARS = 64 };

/* A marker is spelled by bytes that no UTF-8 has, so that text never reaches it. */
enum { CMI_MARKER_BYTE = 0xFF, CMI_MARKER_BYTES = 5 };

static inline void cmi_marker_spell(uint32_t id, uint8_t bytes[CMI_MARKER_BYTES])
{
    bytes[0] = CMI_MARKER_BYTE;
    for (int i = 1; i < CMI_MARKER_BYTES; i++) {
        bytes[i] = (uint8_t)(id >> (CMI_MARKER_BYTES - 1 - i) * 6 & 63);
    }
}

struct cmi_vocab {
    uint32_t n_ids;
    uint32_t n_words;
    uint32_t n_end_ids;
    uint32_t *end_ids;
    uint32_t *same_bytes;  /* [n_ids] the next id with the same bytes, or CMI_TRIE_NO_TOKEN */
    const uint8_t **bytes; /* [n_ids] into text; NULL: never allowed */
    uint16_t *n_bytes;     /* [n_ids] */
    uint8_t *text;
    cmi_trie all;
    cmi_trie odd;    /* tokens that are not plain, or have more than CMI_PLAIN_MAX_CHARS */
    uint32_t *plain; /* [CMI_PLAIN_MAX_CHARS + 1][n_words]: plain tokens of at most k characters */
};

static inline const uint32_t *cmi_vocab_plain(const cmi_vocab *v, uint32_t n_chars)
{
    return v->plain + (size_t)CMI_MIN(n_chars, (uint32_t)CMI_PLAIN_MAX_CHARS) * v->n_words;
}

#endif
