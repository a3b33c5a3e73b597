#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "text/tokenizer_internal.h"

#define NO_NODE UINT32_MAX
#define NO_TOKEN UINT32_MAX

/* An edge's key holds the node above 8 bits; the bound keeps the trie's memory near that of the
 * file. */
enum { MAX_NODES = 1 << 24 };

static uint64_t edge(uint32_t node, char byte)
{
    return (uint64_t)node << 8 | (unsigned char)byte;
}

static bool insert(cmi_added_set *set, const cmi_added_token *token, uint32_t token_idx)
{
    uint32_t node = 0;
    for (uint32_t i = 0; i < token->n_bytes; i++) {
        uint64_t key = edge(node, token->content[i]);
        uint32_t child = cmi_pair_map_get(&set->edges, key, NO_NODE);
        if (child == NO_NODE) {
            child = set->n_nodes++;
            if (!cmi_pair_map_put(&set->edges, key, child)) {
                return false;
            }
        }
        node = child;
    }
    set->token_of_node[node] = token_idx;
    set->first_bytes[(unsigned char)token->content[0]] = true;
    return true;
}

/* A trie of the tokens whose `normalized` is as given. */
static cmi_status set_init(cmi_added_set *set, const cmi_added_token *tokens, size_t n_tokens,
                           bool normalized, cmi_error *err)
{
    size_t max_nodes = 1;
    for (size_t i = 0; i < n_tokens; i++) {
        max_nodes += tokens[i].normalized == normalized ? tokens[i].n_bytes : 0;
    }
    if (max_nodes > MAX_NODES) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA,
                             "tokenizer.json: added_tokens: more than %d bytes of content",
                             MAX_NODES);
    }
    *set = (cmi_added_set){.n_nodes = 1};
    set->token_of_node = cmi_alloc(max_nodes, sizeof *set->token_of_node);
    memset(set->token_of_node, 0xFF, max_nodes * sizeof *set->token_of_node);
    if (!cmi_pair_map_init(&set->edges, max_nodes)) {
        return cmi_error_set(err, CMI_ERR_NO_MEMORY, "tokenizer.json: added_tokens: no memory");
    }
    for (size_t i = 0; i < n_tokens; i++) {
        if (tokens[i].normalized == normalized && !insert(set, &tokens[i], (uint32_t)i)) {
            return cmi_error_set(err, CMI_ERR_BAD_DATA,
                                 "tokenizer.json: added_tokens[%zu]: its hashes collide", i);
        }
    }
    return CMI_OK;
}

/* ---- loading ------------------------------------------------------------------------------ */

/* An added token may be in the vocabulary as well, then under the same id. name: its content, with
 * a NUL behind it. */
static cmi_status claim_id(cmi_tokenizer *t, size_t idx, const cmi_added_token *added,
                           const char *name, const json_t *vocab, cmi_error *err)
{
    cmi_token *token = &t->tokens[added->id];
    const json_t *in_vocab = strlen(name) == added->n_bytes ? json_object_get(vocab, name) : NULL;
    bool is_same = token->bytes != NULL && token->n_bytes == added->n_bytes &&
                   memcmp(token->bytes, added->content, added->n_bytes) == 0;
    if (in_vocab != NULL ? json_integer_value(in_vocab) != added->id
                         : token->bytes != NULL && !is_same) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA,
                             "tokenizer.json: added_tokens[%zu]: \"%s\" has id %u, which "
                             "contradicts another token",
                             idx, name, added->id);
    }
    token->bytes = added->content;
    token->n_bytes = added->n_bytes;
    token->special = added->special;
    token->added = true;
    return CMI_OK;
}

static cmi_status read_flags(cmi_added_token *added, size_t idx, const json_t *object,
                             cmi_error *err)
{
    char field[48];
    snprintf(field, sizeof field, "added_tokens[%zu]", idx);
    cmi_status st = cmi_tokenizer_json_bool(&added->special, object, "special", false, field, err);
    struct {
        const char *key;
        bool *out;
        bool absent;
    } flags[] = {{"normalized", &added->normalized, !added->special},
                 {"single_word", &added->single_word, false},
                 {"lstrip", &added->lstrip, false},
                 {"rstrip", &added->rstrip, false}};
    for (size_t i = 0; st == CMI_OK && i < CMI_LEN(flags); i++) {
        st = cmi_tokenizer_json_bool(flags[i].out, object, flags[i].key, flags[i].absent, field,
                                     err);
    }
    return st;
}

/* The content and the id have been checked. */
static cmi_status load_token(cmi_tokenizer *t, size_t idx, const json_t *object,
                             const json_t *vocab, char **free_bytes, cmi_error *err)
{
    const json_t *content = json_object_get(object, "content");
    size_t n_bytes = json_string_length(content);
    if (n_bytes == 0) {
        return CMI_OK; /* Hugging Face's library ignores it too */
    }
    if (n_bytes > CMI_TOKENIZER_MAX_ADDED_BYTES) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA,
                             "tokenizer.json: added_tokens[%zu].content: more than %d bytes", idx,
                             CMI_TOKENIZER_MAX_ADDED_BYTES);
    }
    cmi_added_token *added = &t->added[t->n_added++];
    *added = (cmi_added_token){.content = *free_bytes,
                               .n_bytes = (uint32_t)n_bytes,
                               .id = (uint32_t)json_integer_value(json_object_get(object, "id"))};
    memcpy(*free_bytes, json_string_value(content), n_bytes);
    *free_bytes += n_bytes;
    cmi_status st = read_flags(added, idx, object, err);
    return st == CMI_OK ? claim_id(t, idx, added, json_string_value(content), vocab, err) : st;
}

cmi_status cmi_tokenizer_load_added(cmi_tokenizer *t, const json_t *list, const json_t *vocab,
                                    char *free_bytes, cmi_error *err)
{
    t->added = cmi_alloc(json_array_size(list), sizeof *t->added);
    bool any_single_word = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        cmi_status st = load_token(t, i, json_array_get(list, i), vocab, &free_bytes, err);
        if (st != CMI_OK) {
            return st;
        }
    }
    for (uint32_t i = 0; i < t->n_added; i++) {
        any_single_word |= t->added[i].single_word;
    }
    cmi_status st = CMI_OK;
    if (any_single_word) {
        /* What \w is in the library's regular expressions. */
        static const char word_char[] = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]";
        st = cmi_pattern_init(&t->word_char, word_char, sizeof word_char - 1,
                              "added_tokens[].single_word", err);
    }
    for (int normalized = 0; st == CMI_OK && normalized < 2; normalized++) {
        st = set_init(&t->added_sets[normalized], t->added, t->n_added, normalized == 1, err);
    }
    return st;
}

/* ---- searching ---------------------------------------------------------------------------- */

void cmi_added_set_deinit(cmi_added_set *set)
{
    if (set != NULL) {
        cmi_pair_map_deinit(&set->edges);
        cmi_free(set->token_of_node);
        *set = (cmi_added_set){0};
    }
}

/* The longest token that begins the text; returns its bytes, 0: none. */
static size_t longest_prefix(const cmi_added_set *set, const char *text, size_t n_bytes,
                             uint32_t *token_out)
{
    size_t longest = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        node = cmi_pair_map_get(&set->edges, edge(node, text[i]), NO_NODE);
        if (node == NO_NODE) {
            break;
        }
        if (set->token_of_node[node] != NO_TOKEN) {
            *token_out = set->token_of_node[node];
            longest = i + 1;
        }
    }
    return longest;
}

bool cmi_added_set_search(const cmi_added_set *set, const char *text, size_t n_bytes, size_t from,
                          size_t *begin_out, size_t *end_out, uint32_t *token_out)
{
    for (size_t at = from; at < n_bytes; at++) {
        if (!set->first_bytes[(unsigned char)text[at]]) {
            continue;
        }
        size_t length = longest_prefix(set, text + at, n_bytes - at, token_out);
        if (length > 0) {
            *begin_out = at;
            *end_out = at + length;
            return true;
        }
    }
    return false;
}

uint32_t cmi_added_set_find(const cmi_added_set *set, const char *bytes, size_t n_bytes)
{
    uint32_t token = NO_TOKEN;
    return n_bytes > 0 && longest_prefix(set, bytes, n_bytes, &token) == n_bytes ? token : NO_TOKEN;
}
