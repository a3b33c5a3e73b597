/* text/tokenizer.h - text to token ids and back, as a Hugging Face tokenizer.json says.
 *
 * Byte-level BPE: added tokens are cut out of the text first, then the pre-tokenizer's patterns
 * split what is between them into pieces, then each piece's bytes are merged pairwise. The ids are
 * those of Hugging Face's tokenizers library; what this file does not know (another model type, a
 * normalizer, an exotic pattern) is refused by name when loading, never approximated.
 *
 * A loaded tokenizer never changes: any number of threads may use it at once. */
#ifndef CMI_TEXT_TOKENIZER_H
#define CMI_TEXT_TOKENIZER_H

#include "base/error.h"
#include "base/ids.h"

typedef struct cmi_tokenizer cmi_tokenizer;

enum {
    CMI_TOKENIZER_MAX_FILE_BYTES = 256 << 20,
    CMI_TOKENIZER_MAX_IDS = 4 << 20, /* ids are below it; merges are at most as many */
    CMI_TOKENIZER_MAX_TEXT_BYTES = 1 << 30,
};

#define CMI_TOKEN_NONE UINT32_MAX

/* Reads dir/tokenizer.json and, when it is there, dir/tokenizer_config.json. The caller destroys
 * *tokenizer_out, which is set only on success. The error line names file and field.
 * CMI_ERR_NOT_FOUND: no tokenizer.json. CMI_ERR_BAD_DATA: malformed, or contradicts itself.
 * CMI_ERR_UNSUPPORTED: valid, but something this tokenizer does not do. */
CMI_NODISCARD cmi_status cmi_tokenizer_load(cmi_tokenizer **tokenizer_out, const char *dir,
                                            cmi_error *err);

/* The same from the bytes of the two files; config may be NULL. Neither is used after the call. */
CMI_NODISCARD cmi_status cmi_tokenizer_load_json(cmi_tokenizer **tokenizer_out, const char *json,
                                                 size_t json_bytes, const char *config,
                                                 size_t config_bytes, cmi_error *err);

void cmi_tokenizer_destroy(cmi_tokenizer *tokenizer); /* NULL is fine */

enum {
    /* Added tokens (special or not) that are spelled out in the text become their ids. Without it
     * they are text like any other. */
    CMI_ENCODE_ADDED_TOKENS = 1u << 0,
    /* The begin token comes first, if the model's files want one and the text's first id is not
     * already it. */
    CMI_ENCODE_BEGIN = 1u << 1,
};

/* Appends the ids of n_bytes of UTF-8, which may hold U+0000. After an error *ids_out has its old
 * length. O(n log n) in the longest piece, linear in everything else; besides the ids it takes up
 * to 32 bytes of memory for every byte of the longest piece.
 * CMI_ERR_INVALID: not UTF-8. CMI_ERR_TOO_LARGE: the text is over CMI_TOKENIZER_MAX_TEXT_BYTES, or
 * a pattern of tokenizer.json ran into a limit of the matcher on it. CMI_ERR_TIMEOUT: a pattern
 * took several seconds and more than a microsecond a byte, as only hostile ones do. */
CMI_NODISCARD cmi_status cmi_tokenizer_encode(const cmi_tokenizer *tokenizer, const char *text,
                                              size_t n_bytes, unsigned flags, cmi_ids *ids_out,
                                              cmi_error *err);

/* One more than the largest id. A model's vocabulary may be padded beyond it. */
uint32_t cmi_tokenizer_n_ids(const cmi_tokenizer *tokenizer);

/* The bytes that id stands for, not always whole UTF-8; NULL and 0 for an id that is no token. They
 * live as long as the tokenizer. */
const char *cmi_tokenizer_token_bytes(const cmi_tokenizer *tokenizer, uint32_t id,
                                      size_t *n_bytes_out);

/* An added token marked special: not part of an answer's text. False for an id that is no token. */
bool cmi_tokenizer_is_special(const cmi_tokenizer *tokenizer, uint32_t id);

/* An added token, special or not: markup rather than text, which is cut out of a text before all
 * else. */
bool cmi_tokenizer_is_added(const cmi_tokenizer *tokenizer, uint32_t id);

/* The id whose bytes are exactly these, added tokens first; CMI_TOKEN_NONE when there is none. */
uint32_t cmi_tokenizer_find(const cmi_tokenizer *tokenizer, const char *bytes, size_t n_bytes);

/* CMI_TOKEN_NONE where the files name none. */
uint32_t cmi_tokenizer_bos_id(const cmi_tokenizer *tokenizer);
uint32_t cmi_tokenizer_eos_id(const cmi_tokenizer *tokenizer);
uint32_t cmi_tokenizer_pad_id(const cmi_tokenizer *tokenizer);

/* model_max_length of tokenizer_config.json; UINT64_MAX when it is absent or a huge placeholder. */
uint64_t cmi_tokenizer_max_length_tokens(const cmi_tokenizer *tokenizer);

#endif
