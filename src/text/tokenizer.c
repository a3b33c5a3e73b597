/* Encoding: the text goes through the added tokens that must be found first, what these leave
 * through the other added tokens, what those leave through the pre-tokenizer's splits, and each
 * piece through BPE. Nothing is copied on the way: all of it works on slices of the caller's text.
 *
 * Text repeats itself, so a call remembers pieces: where one lies in the text, and where its ids
 * lie in the output. A later equal piece copies those ids. The table belongs to the call; a shared
 * one would need locks and could be filled by one client to slow down another. */
#include "text/tokenizer.h"

#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "os/clock.h"
#include "text/tokenizer_internal.h"

enum {
    /* Longer pieces are rare, and comparing them would cost more than it saves. */
    MAX_REMEMBERED_BYTES = 64,
    /* Fits the second-level cache of any server (32 bytes each). */
    MAX_REMEMBERED_PIECES = 1 << 14,
    MIN_REMEMBERING_TEXT_BYTES = 256,
    LONG_PIECE_BYTES = 4096,
};

#define TIMEOUT_NS_PER_BYTE UINT64_C(1000)

typedef struct cmi_piece {
    const char *bytes; /* in the caller's text; NULL: free */
    uint32_t n_bytes;
    uint32_t n_ids;
    size_t first_id; /* its ids are ids->data[first_id, first_id + n_ids) */
} cmi_piece;

void cmi_tokenizer_destroy(cmi_tokenizer *t)
{
    if (t == NULL) {
        return;
    }
    for (uint32_t i = 0; i < t->n_splits; i++) {
        cmi_pattern_deinit(&t->splits[i].pattern);
    }
    cmi_pattern_deinit(&t->word_char);
    cmi_added_set_deinit(&t->added_sets[0]);
    cmi_added_set_deinit(&t->added_sets[1]);
    cmi_bpe_deinit(&t->bpe);
    cmi_free(t->added);
    cmi_free(t->tokens);
    cmi_free(t->bytes);
    cmi_free(t);
}

static cmi_status no_memory(cmi_encoder *e)
{
    return cmi_error_set(e->err, CMI_ERR_NO_MEMORY, "no memory to tokenize the text");
}

static cmi_status merge_piece(cmi_encoder *e, const char *piece, size_t n_bytes)
{
    /* The deadline is for patterns; long merges are honest work. */
    bool is_long = n_bytes >= LONG_PIECE_BYTES;
    uint64_t start_ns = is_long ? cmi_clock_monotonic_ns() : 0;
    if (!cmi_bpe_encode(&e->tokenizer->bpe, &e->bpe_scratch, piece, n_bytes, e->ids)) {
        return no_memory(e);
    }
    e->deadline_ns += is_long ? cmi_clock_monotonic_ns() - start_ns : 0;
    return CMI_OK;
}

cmi_status cmi_encoder_piece(cmi_encoder *e, const char *piece, size_t n_bytes)
{
    bool lasts = e->prefixed.len == 0; /* the piece lies in the caller's text */
    if (e->n_pieces == 0 || n_bytes > MAX_REMEMBERED_BYTES || !lasts) {
        return merge_piece(e, piece, n_bytes);
    }
    cmi_piece *seen = &e->pieces[cmi_hash_bytes(piece, n_bytes) & (e->n_pieces - 1)];
    if (seen->n_bytes == n_bytes && memcmp(seen->bytes, piece, n_bytes) == 0) {
        cmi_ids_reserve(e->ids, seen->n_ids);
        cmi_ids_append(e->ids, e->ids->data + seen->first_id, seen->n_ids);
        return CMI_OK;
    }
    size_t first_id = e->ids->len;
    cmi_status st = merge_piece(e, piece, n_bytes);
    if (st == CMI_OK) {
        *seen = (cmi_piece){piece, (uint32_t)n_bytes, (uint32_t)(e->ids->len - first_id), first_id};
    }
    return st;
}

/* Bytes of the white-space character (Unicode's White_Space) that begins the text; 0: none. */
static size_t white_space_length(const char *text, size_t n_bytes)
{
    uint32_t cp;
    int length = cmi_utf8_next(text, n_bytes, &cp);
    bool white =
        length > 0 && ((cp >= 0x09 && cp <= 0x0D) || cp == 0x20 || cp == 0x85 || cp == 0xA0 ||
                       cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 ||
                       cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000);
    return white ? (size_t)length : 0;
}

/* Where the character before `at` begins; at > 0. */
static size_t previous_char(const char *text, size_t at)
{
    do {
        at--;
    } while (at > 0 && (text[at] & 0xC0) == 0x80);
    return at;
}

static bool is_word_char(cmi_encoder *e, const char *text, size_t n_bytes)
{
    uint32_t cp;
    int length = cmi_utf8_next(text, n_bytes, &cp);
    return length > 0 && pcre2_match(e->tokenizer->word_char.code, (PCRE2_SPTR)text, (size_t)length,
                                     0, PCRE2_NO_UTF_CHECK, e->match, NULL) >= 0;
}

static bool touches_a_word(cmi_encoder *e, const char *text, size_t n_bytes, size_t begin,
                           size_t end)
{
    size_t before = begin > 0 ? previous_char(text, begin) : 0;
    return is_word_char(e, text + before, begin - before) ||
           is_word_char(e, text + end, n_bytes - end);
}

static cmi_status encode_part(cmi_encoder *e, unsigned set_idx, const char *text, size_t n_bytes);

/* Cuts the set's tokens out of the text. A token that takes white space along may take some that
 * another token begins with; that one counts all the same, as in Hugging Face's library. */
static cmi_status encode_around_added(cmi_encoder *e, unsigned set_idx, const char *text,
                                      size_t n_bytes)
{
    const cmi_added_set *set = &e->tokenizer->added_sets[set_idx];
    size_t done = 0, begin, end, white_end = 0;
    uint32_t token_idx;
    cmi_status st = CMI_OK;
    for (size_t from = 0;
         st == CMI_OK && cmi_added_set_search(set, text, n_bytes, from, &begin, &end, &token_idx);
         from = end) {
        const cmi_added_token *token = &e->tokenizer->added[token_idx];
        if (token->single_word && touches_a_word(e, text, n_bytes, begin, end)) {
            continue;
        }
        while (token->lstrip && begin > done) {
            size_t before = previous_char(text, begin);
            if (white_space_length(text + before, begin - before) == 0) {
                break;
            }
            begin = before;
        }
        if (begin > done) {
            st = encode_part(e, set_idx + 1, text + done, begin - done);
        }
        cmi_ids_push(e->ids, token->id);
        done = end;
        if (token->rstrip) {
            /* White space that was run over once is not run over again. */
            white_end = CMI_MAX(white_end, end);
            for (size_t n; (n = white_space_length(text + white_end, n_bytes - white_end)) > 0;) {
                white_end += n;
            }
            done = white_end;
        }
    }
    return st == CMI_OK && done < n_bytes ? encode_part(e, set_idx + 1, text + done, n_bytes - done)
                                          : st;
}

static cmi_status encode_part(cmi_encoder *e, unsigned set_idx, const char *text, size_t n_bytes)
{
    return set_idx < CMI_LEN(e->tokenizer->added_sets)
               ? encode_around_added(e, set_idx, text, n_bytes)
               : cmi_encoder_split(e, 0, text, n_bytes);
}

static cmi_status encoder_init(cmi_encoder *e, size_t text_bytes)
{
    e->deadline_ns =
        cmi_clock_monotonic_ns() + e->tokenizer->timeout_ns + text_bytes * TIMEOUT_NS_PER_BYTE;
    cmi_buf_init(&e->prefixed, CMI_TOKENIZER_MAX_TEXT_BYTES + 1);
    e->match = pcre2_match_data_create(1, NULL);
    e->match_context = pcre2_match_context_create(NULL);
    if (e->match == NULL || e->match_context == NULL) {
        return no_memory(e);
    }
    pcre2_set_heap_limit(e->match_context, 64 << 10); /* KiB; for the interpreter */
    if (text_bytes >= MIN_REMEMBERING_TEXT_BYTES) {
        e->n_pieces = 64;
        while (e->n_pieces < MAX_REMEMBERED_PIECES && e->n_pieces < text_bytes / 8) {
            e->n_pieces *= 2;
        }
        e->pieces = cmi_alloc(e->n_pieces, sizeof *e->pieces);
    }
    return CMI_OK;
}

static void encoder_deinit(cmi_encoder *e)
{
    cmi_bpe_scratch_deinit(&e->bpe_scratch);
    cmi_buf_deinit(&e->prefixed);
    cmi_free(e->pieces);
    pcre2_jit_stack_free(e->jit_stack);
    pcre2_match_context_free(e->match_context);
    pcre2_match_data_free(e->match);
}

static cmi_status check_text(const char *text, size_t n_bytes, cmi_error *err)
{
    if (n_bytes > CMI_TOKENIZER_MAX_TEXT_BYTES) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE,
                             "a text of %zu bytes is over the tokenizer's limit of %d", n_bytes,
                             CMI_TOKENIZER_MAX_TEXT_BYTES);
    }
    size_t valid = cmi_utf8_valid_prefix(text, n_bytes);
    return valid == n_bytes
               ? CMI_OK
               : cmi_error_set(err, CMI_ERR_INVALID, "the text is not UTF-8 at byte %zu", valid);
}

cmi_status cmi_tokenizer_encode(const cmi_tokenizer *t, const char *text, size_t n_bytes,
                                unsigned flags, cmi_ids *ids_out, cmi_error *err)
{
    cmi_status st = check_text(text, n_bytes, err);
    if (st != CMI_OK) {
        return st;
    }
    size_t start = ids_out->len;
    cmi_encoder e = {.tokenizer = t, .ids = ids_out, .err = err};
    bool begin = (flags & CMI_ENCODE_BEGIN) != 0 && t->begin_id != CMI_TOKEN_NONE;
    if (begin) {
        cmi_ids_push(ids_out, t->begin_id);
    }
    st = encoder_init(&e, n_bytes);
    if (st == CMI_OK && (flags & CMI_ENCODE_ADDED_TOKENS) != 0) {
        st = encode_part(&e, 0, text, n_bytes);
    } else if (st == CMI_OK) {
        st = cmi_encoder_split(&e, 0, text, n_bytes);
    }
    encoder_deinit(&e);
    if (st != CMI_OK) {
        ids_out->len = start;
    } else if (begin && ids_out->len > start + 1 && ids_out->data[start + 1] == t->begin_id) {
        /* The text has its own. */
        ids_out->len--;
        memmove(ids_out->data + start, ids_out->data + start + 1,
                (ids_out->len - start) * sizeof *ids_out->data);
    }
    return st;
}

uint32_t cmi_tokenizer_n_ids(const cmi_tokenizer *t)
{
    return t->n_ids;
}

const char *cmi_tokenizer_token_bytes(const cmi_tokenizer *t, uint32_t id, size_t *n_bytes_out)
{
    const cmi_token *token = id < t->n_ids ? &t->tokens[id] : NULL;
    *n_bytes_out = token == NULL ? 0 : token->n_bytes;
    return token == NULL ? NULL : token->bytes;
}

bool cmi_tokenizer_is_special(const cmi_tokenizer *t, uint32_t id)
{
    return id < t->n_ids && t->tokens[id].special;
}

bool cmi_tokenizer_is_added(const cmi_tokenizer *t, uint32_t id)
{
    return id < t->n_ids && t->tokens[id].added;
}

uint32_t cmi_tokenizer_find(const cmi_tokenizer *t, const char *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < CMI_LEN(t->added_sets); i++) {
        uint32_t token_idx = cmi_added_set_find(&t->added_sets[i], bytes, n_bytes);
        if (token_idx != UINT32_MAX) {
            return t->added[token_idx].id;
        }
    }
    uint32_t id = CMI_TOKEN_NONE;
    cmi_strmap_get(&t->bpe.vocabulary, bytes, n_bytes, &id);
    return id;
}

uint32_t cmi_tokenizer_bos_id(const cmi_tokenizer *t)
{
    return t->bos_id;
}

uint32_t cmi_tokenizer_eos_id(const cmi_tokenizer *t)
{
    return t->eos_id;
}

uint32_t cmi_tokenizer_pad_id(const cmi_tokenizer *t)
{
    return t->pad_id;
}

uint64_t cmi_tokenizer_max_length_tokens(const cmi_tokenizer *t)
{
    return t->max_length_tokens;
}
