/* text/tokenizer_internal.h - what the files of the tokenizer share. tokenizer_load.c builds a
 * tokenizer, tokenizer_split.c and tokenizer_added.c take text apart, tokenizer.c drives them. */
#ifndef CMI_TEXT_TOKENIZER_INTERNAL_H
#define CMI_TEXT_TOKENIZER_INTERNAL_H

#include <jansson.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/buf.h"
#include "text/bpe.h"
#include "text/tokenizer.h"

enum {
    CMI_TOKENIZER_MAX_SPLITS = 32,
    CMI_TOKENIZER_MAX_PATTERN_BYTES = 32 << 10,
    /* A text position may have to be compared with the longest added token, so its length is part
     * of the cost of a byte. Real ones are under 100 bytes. */
    CMI_TOKENIZER_MAX_ADDED_BYTES = 512,
};

typedef struct cmi_token {
    const char *bytes; /* NULL: this id is no token */
    uint32_t n_bytes;
    bool special;
    bool added;
} cmi_token;

/* ---- added tokens ------------------------------------------------------------------------- */

typedef struct cmi_added_token {
    const char *content;
    uint32_t n_bytes; /* 1 .. CMI_TOKENIZER_MAX_ADDED_BYTES */
    uint32_t id;
    bool special;
    bool normalized;     /* searched for after those that are not, in what these leave */
    bool single_word;    /* counts only where no word character touches it */
    bool lstrip, rstrip; /* takes the white space before, behind it along */
} cmi_added_token;

/* A trie over the contents of some added tokens. */
typedef struct cmi_added_set {
    cmi_pair_map edges;      /* node << 8 | byte to node; node 0 is the root */
    uint32_t *token_of_node; /* index of the added token that ends there, or UINT32_MAX */
    uint32_t n_nodes;
    bool first_bytes[256];
} cmi_added_set;

void cmi_added_set_deinit(cmi_added_set *set); /* NULL or zeroed is fine */

/* The leftmost, then longest, token at or behind `from`. False when there is none. */
bool cmi_added_set_search(const cmi_added_set *set, const char *text, size_t n_bytes, size_t from,
                          size_t *begin_out, size_t *end_out, uint32_t *token_out);

/* The token that is all of these bytes, or UINT32_MAX. */
uint32_t cmi_added_set_find(const cmi_added_set *set, const char *bytes, size_t n_bytes);

/* ---- patterns ----------------------------------------------------------------------------- */

typedef struct cmi_pattern {
    pcre2_code *code;    /* NULL: no pattern */
    pcre2_code *guarded; /* matches the same, and calls the callout of the match context on its way:
                            slower, but it can be stopped */
} cmi_pattern;

/* Compiles a pattern in the syntax of tokenizer.json, which is Oniguruma's Ruby syntax. What means
 * something else in PCRE2 is rewritten, what is not known to mean the same is refused
 * (CMI_ERR_UNSUPPORTED). field names the pattern in the error line. */
CMI_NODISCARD cmi_status cmi_pattern_init(cmi_pattern *p, const char *pattern, size_t n_bytes,
                                          const char *field, cmi_error *err);

/* Compiles a pattern that stands for itself, character by character. */
CMI_NODISCARD cmi_status cmi_pattern_init_literal(cmi_pattern *p, const char *text, size_t n_bytes,
                                                  const char *field, cmi_error *err);

void cmi_pattern_deinit(cmi_pattern *p); /* NULL or zeroed is fine */

/* ---- splitting ---------------------------------------------------------------------------- */

typedef enum cmi_split_behavior {
    CMI_SPLIT_ISOLATED,
    CMI_SPLIT_REMOVED,
    CMI_SPLIT_MERGED_WITH_PREVIOUS,
    CMI_SPLIT_MERGED_WITH_NEXT,
    CMI_SPLIT_CONTIGUOUS,
} cmi_split_behavior;

/* One step of the pre-tokenizer. It cuts each part that the steps before it made. */
typedef struct cmi_split {
    cmi_pattern pattern; /* none: cuts nothing */
    bool prefix_space;   /* a part that does not begin with a space gets one first */
    bool invert;         /* what the pattern does not match counts as matched */
    cmi_split_behavior behavior;
    char field[96]; /* where it stands in tokenizer.json, for error lines */
} cmi_split;

/* ---- the whole ---------------------------------------------------------------------------- */

struct cmi_tokenizer {
    char *bytes;       /* what tokens and added point into */
    cmi_token *tokens; /* [n_ids] */
    uint32_t n_ids;
    cmi_bpe bpe;
    cmi_added_token *added; /* [n_added] */
    uint32_t n_added;
    cmi_added_set added_sets[2]; /* in the order in which they are searched */
    cmi_pattern word_char;       /* matches one; none when no added token is single_word */
    cmi_split splits[CMI_TOKENIZER_MAX_SPLITS];
    uint32_t n_splits;
    uint32_t begin_id; /* what CMI_ENCODE_BEGIN puts first, or CMI_TOKEN_NONE */
    uint32_t bos_id, eos_id, pad_id;
    uint64_t max_length_tokens;
    uint64_t timeout_ns; /* of one encode, besides a microsecond a byte; tests make it shorter */
};

/* ---- loading ------------------------------------------------------------------------------ */

/* Reads a bool that may be absent. */
CMI_NODISCARD cmi_status cmi_tokenizer_json_bool(bool *out, const json_t *object, const char *key,
                                                 bool absent, const char *field, cmi_error *err);

/* Reads added_tokens, whose contents and ids have been checked. free_bytes is the part of t->bytes
 * that the contents go to. The vocabulary is loaded. */
CMI_NODISCARD cmi_status cmi_tokenizer_load_added(cmi_tokenizer *t, const json_t *list,
                                                  const json_t *vocab, char *free_bytes,
                                                  cmi_error *err);

/* Reads root's normalizer, pre_tokenizer, decoder and post_processor. The vocabulary is loaded. */
CMI_NODISCARD cmi_status cmi_tokenizer_load_steps(cmi_tokenizer *t, const json_t *root,
                                                  cmi_error *err);

/* Reads tokenizer_config.json; everything of tokenizer.json is loaded. */
CMI_NODISCARD cmi_status cmi_tokenizer_load_config(cmi_tokenizer *t, const char *config,
                                                   size_t config_bytes, cmi_error *err);

/* ---- encoding ----------------------------------------------------------------------------- */

/* What one call of cmi_tokenizer_encode works with. */
typedef struct cmi_encoder {
    const cmi_tokenizer *tokenizer;
    cmi_ids *ids;
    cmi_error *err;
    cmi_bpe_scratch bpe_scratch;
    struct cmi_piece *pieces; /* [n_pieces] pieces seen before; n_pieces is 0 or a power of two */
    size_t n_pieces;
    cmi_buf prefixed; /* the part that got a prefix space, while its pieces are made; else empty */
    pcre2_match_data *match;
    pcre2_match_context *match_context;
    pcre2_jit_stack *jit_stack; /* NULL while the matcher's own is enough */
    uint32_t n_searches, n_callouts;
    uint64_t deadline_ns; /* of the monotonic clock */
} cmi_encoder;

/* Runs the text through the tokenizer's splits from `step` on and each piece that comes out through
 * cmi_encoder_piece. */
CMI_NODISCARD cmi_status cmi_encoder_split(cmi_encoder *e, uint32_t step, const char *text,
                                           size_t n_bytes);

/* Appends the ids of one piece. */
CMI_NODISCARD cmi_status cmi_encoder_piece(cmi_encoder *e, const char *piece, size_t n_bytes);

#endif
