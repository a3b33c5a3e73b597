/* Reading tokenizer.json: the file as a whole, the vocabulary and the merge list.
 *
 * Vocabularies write bytes as letters: the printable ASCII and Latin-1 bytes stand for themselves,
 * the other 68 are the letters from U+0100 on, in order. Here tokens are turned into bytes once, so
 * that nothing later has to know these letters. A vocabulary entry with any other character (only
 * added tokens have a reason to) stands for its own UTF-8 and is never made by merges. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "os/file.h"
#include "text/tokenizer_internal.h"

enum {
    MAX_CONFIG_BYTES = 64 << 20,
    FIRST_MOVED_LETTER = 0x100,
    N_LETTERS = 0x100 + 68,
};

typedef struct loader {
    cmi_tokenizer *t;
    const json_t *vocab;
    const json_t *added;
    char *free_bytes; /* the unused part of t->bytes */
    uint8_t letter_bytes[N_LETTERS];
    bool is_letter[N_LETTERS];
    cmi_error *err;
} loader;

static bool is_own_letter(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

static void make_letters(loader *l)
{
    uint32_t next = FIRST_MOVED_LETTER;
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t letter = is_own_letter(byte) ? byte : next++;
        l->letter_bytes[letter] = (uint8_t)byte;
        l->is_letter[letter] = true;
    }
}

/* Turns the letters s[n] into bytes, at most n of them. False when one is no byte's letter. */
static bool letters_to_bytes(const loader *l, const char *s, size_t n, char *out, size_t *n_out)
{
    size_t n_bytes = 0;
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        int length = cmi_utf8_next(s + at, n - at, &cp);
        if (length <= 0 || cp >= N_LETTERS || !l->is_letter[cp]) {
            return false;
        }
        out[n_bytes++] = (char)l->letter_bytes[cp];
        at += (size_t)length;
    }
    *n_out = n_bytes;
    return true;
}

static bool is_id(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 0 &&
           json_integer_value(value) < CMI_TOKENIZER_MAX_IDS;
}

/* How many ids there are and how many bytes their tokens can take. */
static cmi_status measure(loader *l, uint32_t *n_ids_out, size_t *n_bytes_out)
{
    uint32_t n_ids = 0;
    size_t n_bytes = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)l->vocab, key, value)
    {
        if (!is_id(value)) {
            return cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                                 "tokenizer.json: model.vocab[\"%s\"]: not an id below %d", key,
                                 CMI_TOKENIZER_MAX_IDS);
        }
        n_ids = CMI_MAX(n_ids, (uint32_t)json_integer_value(value) + 1);
        n_bytes += strlen(key);
    }
    size_t i;
    json_array_foreach((json_t *)l->added, i, value)
    {
        const json_t *content = json_object_get(value, "content");
        const json_t *id = json_object_get(value, "id");
        if (!json_is_string(content)) {
            return cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                                 "tokenizer.json: added_tokens[%zu].content: not a string", i);
        }
        if (!is_id(id)) {
            return cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                                 "tokenizer.json: added_tokens[%zu].id: not an id below %d", i,
                                 CMI_TOKENIZER_MAX_IDS);
        }
        n_ids = CMI_MAX(n_ids, (uint32_t)json_integer_value(id) + 1);
        n_bytes += json_string_length(content);
    }
    *n_ids_out = n_ids;
    *n_bytes_out = n_bytes;
    return CMI_OK;
}

static cmi_status load_vocabulary(loader *l)
{
    cmi_tokenizer *t = l->t;
    cmi_strmap_init(&t->bpe.vocabulary, json_object_size(l->vocab));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)l->vocab, key, value)
    {
        cmi_token *token = &t->tokens[json_integer_value(value)];
        if (token->bytes != NULL) {
            return cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                                 "tokenizer.json: model.vocab[\"%s\"]: another token has id %d too",
                                 key, (int)json_integer_value(value));
        }
        size_t n = strlen(key), n_bytes = n;
        token->bytes = l->free_bytes;
        if (letters_to_bytes(l, key, n, l->free_bytes, &n_bytes)) {
            cmi_strmap_put(&t->bpe.vocabulary, token->bytes, n_bytes,
                           (uint32_t)(token - t->tokens));
        } else {
            memcpy(l->free_bytes, key, n);
        }
        token->n_bytes = (uint32_t)n_bytes;
        l->free_bytes += n_bytes;
    }
    return CMI_OK;
}

/* Every byte that UTF-8 can hold must have a token, or text would get lost. */
static cmi_status load_byte_ids(loader *l)
{
    cmi_bpe *bpe = &l->t->bpe;
    for (uint32_t byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        bpe->byte_ids[byte] = CMI_BPE_NO_ID;
        bool found = cmi_strmap_get(&bpe->vocabulary, &c, 1, &bpe->byte_ids[byte]);
        bool in_utf8 = byte <= 0xBF || (byte >= 0xC2 && byte <= 0xF4);
        if (!found && in_utf8) {
            return cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                                 "tokenizer.json: model.vocab: no token for the byte 0x%02X; this "
                                 "is not a byte-level vocabulary",
                                 byte);
        }
    }
    return CMI_OK;
}

/* The two halves of a merge, written "a b" or ["a", "b"]. */
static bool merge_halves(const json_t *merge, const char *half[2], size_t n[2])
{
    if (json_is_string(merge)) {
        const char *s = json_string_value(merge);
        size_t length = json_string_length(merge);
        const char *space = memchr(s, ' ', length);
        if (space == NULL || memchr(space + 1, ' ', length - (size_t)(space + 1 - s)) != NULL) {
            return false;
        }
        half[0] = s;
        n[0] = (size_t)(space - s);
        half[1] = space + 1;
        n[1] = length - n[0] - 1;
        return true;
    }
    if (!json_is_array(merge) || json_array_size(merge) != 2) {
        return false;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *s = json_array_get(merge, i);
        if (!json_is_string(s)) {
            return false;
        }
        half[i] = json_string_value(s);
        n[i] = json_string_length(s);
    }
    return true;
}

static cmi_status load_merge(loader *l, const json_t *merge, uint32_t rank, cmi_buf *scratch)
{
    const char *half[2];
    size_t n[2], n_left, n_right;
    if (!merge_halves(merge, half, n)) {
        return cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                             "tokenizer.json: model.merges[%u]: neither \"a b\" nor [\"a\", \"b\"]",
                             rank);
    }
    cmi_bpe *bpe = &l->t->bpe;
    cmi_buf_clear(scratch);
    char *bytes = cmi_buf_reserve(scratch, n[0] + n[1]);
    uint32_t left, right, merged;
    if (bytes == NULL || !letters_to_bytes(l, half[0], n[0], bytes, &n_left) ||
        !letters_to_bytes(l, half[1], n[1], bytes + n_left, &n_right) ||
        !cmi_strmap_get(&bpe->vocabulary, bytes, n_left, &left) ||
        !cmi_strmap_get(&bpe->vocabulary, bytes + n_left, n_right, &right) ||
        !cmi_strmap_get(&bpe->vocabulary, bytes, n_left + n_right, &merged)) {
        return cmi_error_set(
            l->err, CMI_ERR_BAD_DATA,
            "tokenizer.json: model.merges[%u]: \"%.*s\", \"%.*s\" or both together "
            "are not in model.vocab",
            rank, (int)CMI_MIN(n[0], (size_t)100), half[0], (int)CMI_MIN(n[1], (size_t)100),
            half[1]);
    }
    bpe->merged_ids[rank] = merged;
    /* Of two equal merges the later one counts, as in Hugging Face's library. */
    return cmi_pair_map_put(&bpe->ranks, cmi_bpe_pair(left, right), rank)
               ? CMI_OK
               : cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                               "tokenizer.json: model.merges[%u]: its hashes collide", rank);
}

static cmi_status load_merges(loader *l, const json_t *merges)
{
    if (!json_is_array(merges) || json_array_size(merges) > CMI_TOKENIZER_MAX_IDS) {
        return cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                             "tokenizer.json: model.merges: not an array of at most %d merges",
                             CMI_TOKENIZER_MAX_IDS);
    }
    size_t n_merges = json_array_size(merges);
    l->t->bpe.merged_ids = cmi_alloc(n_merges, sizeof(uint32_t));
    if (!cmi_pair_map_init(&l->t->bpe.ranks, n_merges)) {
        return cmi_error_set(l->err, CMI_ERR_NO_MEMORY, "tokenizer.json: model.merges: no memory");
    }
    cmi_buf scratch;
    cmi_buf_init(&scratch, CMI_TOKENIZER_MAX_FILE_BYTES);
    cmi_status st = CMI_OK;
    for (size_t i = 0; st == CMI_OK && i < n_merges; i++) {
        st = load_merge(l, json_array_get(merges, i), (uint32_t)i, &scratch);
    }
    cmi_buf_deinit(&scratch);
    return st;
}

/* Options of the BPE model that change what it does; the others do not matter when every byte has a
 * token. */
static cmi_status check_model_options(loader *l, const json_t *model)
{
    const json_t *type = json_object_get(model, "type");
    if (type != NULL && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0)) {
        return cmi_error_set(l->err, CMI_ERR_UNSUPPORTED,
                             "tokenizer.json: model.type: \"%s\" is not supported, only BPE",
                             json_is_string(type) ? json_string_value(type) : "?");
    }
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout != NULL && !json_is_null(dropout) && json_number_value(dropout) != 0.0) {
        return cmi_error_set(l->err, CMI_ERR_UNSUPPORTED,
                             "tokenizer.json: model.dropout: not supported");
    }
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < CMI_LEN(affixes); i++) {
        const json_t *affix = json_object_get(model, affixes[i]);
        if (affix != NULL && !json_is_null(affix) && json_string_length(affix) > 0) {
            return cmi_error_set(l->err, CMI_ERR_UNSUPPORTED,
                                 "tokenizer.json: model.%s: not supported", affixes[i]);
        }
    }
    return cmi_tokenizer_json_bool(&l->t->bpe.whole_pieces_first, model, "ignore_merges", false,
                                   "model", l->err);
}

static cmi_status load_tokens(loader *l, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    if (!json_is_object(model)) {
        return cmi_error_set(l->err, CMI_ERR_BAD_DATA, "tokenizer.json: model: not an object");
    }
    cmi_status st = check_model_options(l, model);
    if (st != CMI_OK) {
        return st;
    }
    l->vocab = json_object_get(model, "vocab");
    l->added = json_object_get(root, "added_tokens");
    if (!json_is_object(l->vocab)) {
        return cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                             "tokenizer.json: model.vocab: not an object");
    }
    if (l->added != NULL && !json_is_null(l->added) && !json_is_array(l->added)) {
        return cmi_error_set(l->err, CMI_ERR_BAD_DATA,
                             "tokenizer.json: added_tokens: not an array");
    }
    size_t n_bytes = 0;
    st = measure(l, &l->t->n_ids, &n_bytes);
    if (st != CMI_OK) {
        return st;
    }
    l->t->tokens = cmi_try_alloc(l->t->n_ids, sizeof *l->t->tokens);
    l->t->bytes = cmi_try_alloc(n_bytes, 1);
    if (l->t->tokens == NULL || l->t->bytes == NULL) {
        return cmi_error_set(l->err, CMI_ERR_NO_MEMORY, "tokenizer.json: model.vocab: no memory");
    }
    l->free_bytes = l->t->bytes;
    st = load_vocabulary(l);
    st = st == CMI_OK ? load_byte_ids(l) : st;
    st = st == CMI_OK ? load_merges(l, json_object_get(model, "merges")) : st;
    return st == CMI_OK ? cmi_tokenizer_load_added(l->t, l->added, l->vocab, l->free_bytes, l->err)
                        : st;
}

cmi_status cmi_tokenizer_json_bool(bool *out, const json_t *object, const char *key, bool absent,
                                   const char *field, cmi_error *err)
{
    const json_t *value = json_object_get(object, key);
    *out = value == NULL ? absent : json_is_true(value);
    return value == NULL || json_is_boolean(value)
               ? CMI_OK
               : cmi_error_set(err, CMI_ERR_BAD_DATA, "tokenizer.json: %s.%s: not true or false",
                               field, key);
}

cmi_status cmi_tokenizer_load_json(cmi_tokenizer **tokenizer_out, const char *json,
                                   size_t json_bytes, const char *config, size_t config_bytes,
                                   cmi_error *err)
{
    if (json_bytes > CMI_TOKENIZER_MAX_FILE_BYTES) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "tokenizer.json: larger than %d bytes",
                             CMI_TOKENIZER_MAX_FILE_BYTES);
    }
    json_error_t where;
    json_t *root = json_loadb(json, json_bytes, JSON_ALLOW_NUL, &where);
    if (!json_is_object(root)) {
        json_decref(root);
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "tokenizer.json: line %d: %s", where.line,
                             root == NULL ? where.text : "not an object");
    }
    cmi_tokenizer *t = cmi_alloc(1, sizeof *t);
    t->begin_id = t->bos_id = t->eos_id = t->pad_id = CMI_TOKEN_NONE;
    t->max_length_tokens = UINT64_MAX;
    t->timeout_ns = UINT64_C(5000000000);
    loader l = {.t = t, .err = err};
    make_letters(&l);
    cmi_status st = load_tokens(&l, root);
    st = st == CMI_OK ? cmi_tokenizer_load_steps(t, root, err) : st;
    json_decref(root);
    if (st == CMI_OK && config != NULL) {
        st = cmi_tokenizer_load_config(t, config, config_bytes, err);
    }
    if (st != CMI_OK) {
        cmi_tokenizer_destroy(t);
        return st;
    }
    *tokenizer_out = t;
    return CMI_OK;
}

static cmi_status read_file(cmi_buf *out, const char *dir, const char *name, size_t max_bytes,
                            cmi_error *err)
{
    cmi_buf path;
    cmi_buf_init(&path, 1 << 16);
    cmi_status st = cmi_buf_printf(&path, "%s/%s", dir, name)
                        ? cmi_file_read(out, cmi_buf_cstr(&path), max_bytes, err)
                        : cmi_error_set(err, CMI_ERR_INVALID, "the model's path is too long");
    cmi_buf_deinit(&path);
    return st;
}

cmi_status cmi_tokenizer_load(cmi_tokenizer **tokenizer_out, const char *dir, cmi_error *err)
{
    cmi_buf json = {0}, config = {0};
    cmi_status st = read_file(&json, dir, "tokenizer.json", CMI_TOKENIZER_MAX_FILE_BYTES, err);
    if (st == CMI_OK) {
        st = read_file(&config, dir, "tokenizer_config.json", MAX_CONFIG_BYTES, err);
        if (st == CMI_OK || st == CMI_ERR_NOT_FOUND) {
            const char *config_json = st == CMI_OK ? cmi_buf_cstr(&config) : NULL;
            st = cmi_tokenizer_load_json(tokenizer_out, cmi_buf_cstr(&json), json.len, config_json,
                                         config.len, err);
            if (st != CMI_OK) {
                cmi_error_prefix(err, "%s", dir);
            }
        }
    }
    cmi_buf_deinit(&json);
    cmi_buf_deinit(&config);
    return st;
}
