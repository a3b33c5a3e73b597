/* Splitting text with the pre-tokenizer's patterns, in one pass and without lists: every part that
 * a step makes goes through the later steps at once, so the recursion is as deep as there are
 * steps. A step sees its part only: look-around does not reach over the part's ends.
 *
 * A pattern comes from a file and may be built to take for ever, so time must be looked at while it
 * runs. PCRE2 counts backtracking, but not the characters that a repetition runs over: the pattern
 * (?=[^x]*x)y takes quadratic time without ever backtracking. Therefore one call of the matcher
 * tries a few start positions only, under a limit of steps that honest patterns rarely meet, and
 * the clock is read between calls. A search that meets the limit (a long run of spaces can) is done
 * again by the guarded form of the pattern, which reads the clock on its way and has no limit. So
 * time decides about failure only, never about the ids. */
#include <string.h>

#include "os/clock.h"
#include "text/tokenizer_internal.h"

enum {
    /* Start positions in one call of the matcher: few, so that a hostile pattern returns soon, and
     * enough that the calls cost nothing (about 1 ns a byte). */
    WINDOW_BYTES = 64,
    /* Powers of two. */
    SEARCHES_BETWEEN_CLOCK_READS = 16,
    CALLOUTS_BETWEEN_CLOCK_READS = 1024,
    JIT_STACK_START_BYTES = 64 << 10,
    JIT_STACK_MAX_BYTES = 64 << 20,
};

/* A step may run over the whole part, so the limit of one attempt shrinks with it: about 0.1 s.
 * DeepSeek-V3's patterns need fewer than 128 on source code, but one for each byte of white space.
 */
static uint32_t step_limit(size_t n_bytes)
{
    uint64_t limit = (UINT64_C(1) << 28) / CMI_MAX(n_bytes, (size_t)1);
    return (uint32_t)CMI_MIN(CMI_MAX(limit, UINT64_C(1) << 7), UINT64_C(1) << 20);
}

static bool is_late(const cmi_encoder *e)
{
    return cmi_clock_monotonic_ns() > e->deadline_ns;
}

/* PCRE2 calls it before every item of a guarded pattern; not 0 ends the match. */
static int guard(pcre2_callout_block *block, void *encoder)
{
    (void)block;
    cmi_encoder *e = encoder;
    return (++e->n_callouts & (CALLOUTS_BETWEEN_CLOCK_READS - 1)) == 0 && is_late(e)
               ? PCRE2_ERROR_CALLOUT
               : 0;
}

static cmi_status split_error(cmi_encoder *e, const cmi_split *split, cmi_status st,
                              const char *what)
{
    return cmi_error_set(e->err, st, "tokenizer.json: %s: the pattern cannot split this text: %s",
                         split->field, what);
}

/* The matcher's own stack is small and on ours; the first pattern that needs more gets a mapping.
 */
static bool grow_jit_stack(cmi_encoder *e)
{
    if (e->jit_stack != NULL) {
        return false;
    }
    e->jit_stack = pcre2_jit_stack_create(JIT_STACK_START_BYTES, JIT_STACK_MAX_BYTES, NULL);
    if (e->jit_stack == NULL) {
        return false;
    }
    pcre2_jit_stack_assign(e->match_context, NULL, e->jit_stack);
    return true;
}

/* Where the first character behind `at` begins, which may be within a character; at most
 * n_bytes + 1. */
static size_t next_char(const char *text, size_t n_bytes, size_t at)
{
    do {
        at++;
    } while (at < n_bytes && (text[at] & 0xC0) == 0x80);
    return at;
}

static int match(cmi_encoder *e, const pcre2_code *code, const char *text, size_t n_bytes,
                 size_t from)
{
    int rc;
    do {
        rc = pcre2_match(code, (PCRE2_SPTR)text, n_bytes, from, PCRE2_NO_UTF_CHECK, e->match,
                         e->match_context);
    } while (rc == PCRE2_ERROR_JIT_STACKLIMIT && grow_jit_stack(e));
    return rc;
}

/* Looks for a match that begins in the window at `from`, with the guard if need be. */
static int match_in_window(cmi_encoder *e, const cmi_pattern *pattern, const char *text,
                           size_t n_bytes, size_t from)
{
    pcre2_set_match_limit(e->match_context, step_limit(n_bytes));
    int rc = match(e, pattern->code, text, n_bytes, from);
    if (rc == PCRE2_ERROR_MATCHLIMIT) {
        pcre2_set_match_limit(e->match_context, UINT32_MAX);
        pcre2_set_callout(e->match_context, guard, e);
        rc = match(e, pattern->guarded, text, n_bytes, from);
    }
    return rc;
}

typedef struct found_match {
    bool any;
    size_t begin, end;
} found_match;

/* Finds the leftmost match that begins at or behind `from`. */
static cmi_status search(cmi_encoder *e, const cmi_split *split, const char *text, size_t n_bytes,
                         size_t from, found_match *found_out)
{
    *found_out = (found_match){0};
    for (int rc = PCRE2_ERROR_NOMATCH; rc == PCRE2_ERROR_NOMATCH;) {
        size_t last_start = n_bytes - from > WINDOW_BYTES ? from + WINDOW_BYTES : n_bytes;
        pcre2_set_offset_limit(e->match_context, last_start);
        rc = match_in_window(e, &split->pattern, text, n_bytes, from);
        bool read_clock = (++e->n_searches & (SEARCHES_BETWEEN_CLOCK_READS - 1)) == 0;
        if (rc == PCRE2_ERROR_CALLOUT || (read_clock && is_late(e))) {
            return split_error(e, split, CMI_ERR_TIMEOUT, "it takes too long");
        }
        if (rc >= 0) {
            const PCRE2_SIZE *span = pcre2_get_ovector_pointer(e->match);
            *found_out = (found_match){true, span[0], span[1]};
        } else if (rc != PCRE2_ERROR_NOMATCH) {
            char what[128];
            pcre2_get_error_message(rc, (PCRE2_UCHAR *)what, sizeof what);
            return split_error(e, split, CMI_ERR_TOO_LARGE, what);
        } else if (last_start == n_bytes) {
            return CMI_OK;
        }
        from = next_char(text, n_bytes, last_start);
    }
    return CMI_OK;
}

/* The part that is being put together from matches and what lies between them. */
typedef struct joiner {
    cmi_encoder *e;
    const cmi_split *split;
    uint32_t next_step;
    const char *text;
    size_t begin, end; /* of the part that later spans may still join */
    bool pending;      /* there is such a part */
    bool last_matched;
} joiner;

static bool joins(cmi_split_behavior behavior, bool last_matched, bool matched)
{
    switch (behavior) {
    case CMI_SPLIT_MERGED_WITH_PREVIOUS:
        return matched && !last_matched;
    case CMI_SPLIT_MERGED_WITH_NEXT:
        return !matched && last_matched;
    case CMI_SPLIT_CONTIGUOUS:
        return matched == last_matched;
    default:
        return false;
    }
}

static cmi_status flush(joiner *j)
{
    bool pending = j->pending;
    j->pending = false;
    return pending ? cmi_encoder_split(j->e, j->next_step, j->text + j->begin, j->end - j->begin)
                   : CMI_OK;
}

/* Takes the next span, matched by the pattern or between two matches. Spans come in order and
 * without gaps. */
static cmi_status add_span(joiner *j, size_t begin, size_t end, bool matched)
{
    matched = matched != j->split->invert;
    if (matched && j->split->behavior == CMI_SPLIT_REMOVED) {
        return CMI_OK;
    }
    bool join = j->pending && joins(j->split->behavior, j->last_matched, matched);
    j->last_matched = matched;
    if (join) {
        j->end = end;
        return CMI_OK;
    }
    cmi_status st = flush(j);
    j->begin = begin;
    j->end = end;
    j->pending = true;
    return st;
}

static cmi_status split_part(cmi_encoder *e, uint32_t step, const char *text, size_t n_bytes)
{
    const cmi_split *split = &e->tokenizer->splits[step];
    joiner j = {.e = e, .split = split, .next_step = step + 1, .text = text};
    found_match m;
    size_t from = 0, done = 0;
    bool any = false;
    while (from <= n_bytes) {
        cmi_status st = search(e, split, text, n_bytes, from, &m);
        if (st != CMI_OK) {
            return st;
        }
        if (!m.any) {
            break;
        }
        if (m.begin == m.end && any && m.end == done) {
            from = next_char(text, n_bytes, m.end); /* empty, where the last match ended */
            continue;
        }
        if (m.begin > done) {
            st = add_span(&j, done, m.begin, false);
        }
        if (st == CMI_OK) {
            st = add_span(&j, m.begin, m.end, true);
        }
        if (st != CMI_OK) {
            return st;
        }
        from = done = m.end;
        any = true;
    }
    cmi_status st = done < n_bytes ? add_span(&j, done, n_bytes, false) : CMI_OK;
    return st == CMI_OK ? flush(&j) : st;
}

cmi_status cmi_encoder_split(cmi_encoder *e, uint32_t step, const char *text, size_t n_bytes)
{
    if (n_bytes == 0) {
        return CMI_OK;
    }
    if (step == e->tokenizer->n_splits) {
        return cmi_encoder_piece(e, text, n_bytes);
    }
    const cmi_split *split = &e->tokenizer->splits[step];
    bool prefix = split->prefix_space && text[0] != ' ';
    if (prefix) { /* only the last step does this, so the buffer is not in use yet */
        cmi_buf_char(&e->prefixed, ' ');
        cmi_buf_append(&e->prefixed, text, n_bytes);
        text = e->prefixed.data;
        n_bytes = e->prefixed.len;
    }
    cmi_status st = split->pattern.code == NULL ? cmi_encoder_split(e, step + 1, text, n_bytes)
                                                : split_part(e, step, text, n_bytes);
    if (prefix) {
        cmi_buf_clear(&e->prefixed);
    }
    return st;
}
