#include "engine/output_grammar.h"

#include <string.h>

#include "base/alloc.h"

_Static_assert((int)CMI_MAX_GRAMMAR_BYTES == (int)CMI_GRAMMAR_MAX_SOURCE_BYTES,
               "what a message carries can be compiled");

static void clear(uint32_t *mask, uint32_t id)
{
    mask[id / 32] &= ~(UINT32_C(1) << id % 32);
}

static bool is_empty(const uint32_t *mask, uint32_t n_words)
{
    uint32_t any = 0;
    for (uint32_t i = 0; i < n_words; i++) {
        any |= mask[i];
    }
    return any == 0;
}

/* The mask behind m. A request that wants no end goes on while the text can. */
static bool make_mask(const cmi_matcher *m, const cmi_request *request, uint32_t *mask,
                      uint32_t n_words)
{
    if (!cmi_matcher_mask(m, mask)) {
        return false;
    }
    if ((request->flags & CMI_REQUEST_IGNORE_EOS) == 0 || !cmi_matcher_is_complete(m)) {
        return true;
    }
    const cmi_vocab *vocab = cmi_grammar_vocab(m->grammar);
    const uint32_t *end_ids = cmi_vocab_end_ids(vocab);
    for (uint32_t i = 0; i < cmi_vocab_n_end_ids(vocab); i++) {
        clear(mask, end_ids[i]);
    }
    return !is_empty(mask, n_words) || cmi_matcher_mask(m, mask);
}

static bool begin(cmi_output_grammar *og, const cmi_request *request)
{
    og->has_begun = true;
    cmi_matcher_init(&og->matcher, cmi_shared_grammar_get(og->shared));
    return make_mask(&og->matcher, request, og->mask, og->n_words);
}

static cmi_status take(cmi_shared_grammar **shared_out, cmi_grammar_cache *cache,
                       const cmi_request *request, cmi_error *err)
{
    if (cache == NULL) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "this model's answers cannot be bound");
    }
    cmi_status st = cmi_grammar_cache_take(cache, cmi_request_grammar(request),
                                           request->n_grammar_bytes, shared_out, err);
    return st == CMI_OK || st == CMI_ERR_NO_CAPACITY ? st : CMI_ERR_BAD_DATA;
}

cmi_status cmi_output_grammar_open(cmi_output_grammar **og_out, cmi_grammar_cache *cache,
                                   const cmi_vocab *vocab, const cmi_request *request,
                                   cmi_error *err)
{
    cmi_shared_grammar *shared = NULL;
    *og_out = NULL;
    if (request->n_grammar_bytes == 0) {
        return CMI_OK;
    }
    cmi_status st = take(&shared, cache, request, err);
    if (st != CMI_OK) {
        return st;
    }
    const uint32_t n_words = cmi_vocab_mask_words(vocab);
    cmi_output_grammar *og = cmi_alloc(1, sizeof *og + n_words * sizeof *og->mask);
    og->shared = shared;
    og->n_words = n_words;
    /* Tried even where it begins later, since what cannot begin is better known now. */
    if (!begin(og, request)) {
        cmi_output_grammar_close(og, cache);
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "no token of the model begins such a text");
    }
    og->has_begun = request->n_grammar_start_ids == 0;
    *og_out = og;
    return CMI_OK;
}

void cmi_output_grammar_close(cmi_output_grammar *og, cmi_grammar_cache *cache)
{
    if (og != NULL) {
        cmi_grammar_cache_give(cache, og->shared);
        cmi_free(og);
    }
}

cmi_output_step cmi_output_grammar_step(cmi_output_grammar *og, const cmi_request *request,
                                        uint32_t token_id)
{
    bool ok = true;
    if (!og->has_begun) {
        og->n_started += token_id == request->grammar_start_ids[og->n_started] ? 1 : 0;
        ok = og->n_started < request->n_grammar_start_ids || begin(og, request);
    } else {
        ok = cmi_matcher_accept(&og->matcher, token_id);
        if (ok && og->matcher.ended) {
            return CMI_OUTPUT_ENDED;
        }
        ok = ok && make_mask(&og->matcher, request, og->mask, og->n_words);
    }
    return ok ? CMI_OUTPUT_GOES_ON : CMI_OUTPUT_FAILED;
}

const uint32_t *cmi_output_grammar_mask(const cmi_output_grammar *og)
{
    return og != NULL && og->has_begun ? og->mask : NULL;
}

bool cmi_output_grammar_allows_beside(const cmi_output_grammar *og, const uint32_t *token_ids,
                                      uint32_t n)
{
    for (uint32_t word = 0; word < og->n_words; word++) {
        uint32_t left = og->mask[word];
        for (uint32_t i = 0; left != 0 && i < n; i++) {
            left &= token_ids[i] / 32 == word ? ~(UINT32_C(1) << token_ids[i] % 32) : UINT32_MAX;
        }
        if (left != 0) {
            return true;
        }
    }
    return false;
}

const uint32_t *cmi_output_grammar_draft_mask(const cmi_output_grammar *og,
                                              const cmi_request *request, cmi_matcher *ahead,
                                              const uint32_t *drafts, uint32_t n,
                                              uint32_t *mask_out)
{
    if (og == NULL || !og->has_begun) {
        return NULL;
    }
    if (n == 1) {
        cmi_matcher_copy(ahead, &og->matcher);
    }
    bool ok = cmi_matcher_accept(ahead, drafts[n - 1]) &&
              make_mask(ahead, request, mask_out, og->n_words);
    return ok ? mask_out : NULL;
}
