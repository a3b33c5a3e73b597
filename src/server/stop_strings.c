#include "server/stop_strings.h"

#include <string.h>

#include "base/alloc.h"

/* How many bytes of s are matched after c, when `matched` were before it. */
static uint32_t step(const cmi_stop_string *s, uint32_t matched, char c)
{
    if (matched == s->n_bytes) {
        matched = s->border[matched - 1];
    }
    while (matched > 0 && s->text[matched] != c) {
        matched = s->border[matched - 1];
    }
    return s->text[matched] == c ? matched + 1 : 0;
}

bool cmi_stop_set_add(cmi_stop_set *set, const char *text, size_t n_bytes)
{
    if (n_bytes == 0 || n_bytes > CMI_MAX_STOP_STRING_BYTES || set->n == CMI_MAX_STOP_STRINGS) {
        return false;
    }
    cmi_stop_string *s = &set->strings[set->n++];
    s->text = cmi_strndup(text, n_bytes);
    s->n_bytes = n_bytes;
    s->border = cmi_alloc(n_bytes, sizeof *s->border);
    for (uint32_t i = 1; i < n_bytes; i++) {
        s->border[i] = step(s, s->border[i - 1], text[i]);
    }
    return true;
}

void cmi_stop_set_deinit(cmi_stop_set *set)
{
    if (set == NULL) {
        return;
    }
    for (uint32_t i = 0; i < set->n; i++) {
        cmi_free(set->strings[i].text);
        cmi_free(set->strings[i].border);
    }
    *set = (cmi_stop_set){0};
}

void cmi_stop_matcher_init(cmi_stop_matcher *matcher, const cmi_stop_set *set)
{
    *matcher = (cmi_stop_matcher){.set = set};
    cmi_buf_init(&matcher->held, SIZE_MAX / 2); /* one piece of text and less than a stop string */
}

void cmi_stop_matcher_deinit(cmi_stop_matcher *matcher)
{
    if (matcher != NULL) {
        cmi_buf_deinit(&matcher->held);
    }
}

/* Advances every automaton by one byte; the longest string that is complete now, or -1. */
static int step_all(cmi_stop_matcher *m, char c)
{
    int found = -1;
    for (uint32_t i = 0; i < m->set->n; i++) {
        const cmi_stop_string *s = &m->set->strings[i];
        m->matched[i] = step(s, m->matched[i], c);
        bool complete = m->matched[i] == s->n_bytes;
        if (complete && (found < 0 || s->n_bytes > m->set->strings[found].n_bytes)) {
            found = (int)i;
        }
    }
    return found;
}

int cmi_stop_matcher_feed(cmi_stop_matcher *matcher, const char *text, size_t n_bytes, bool keep,
                          cmi_buf *out)
{
    cmi_buf *held = &matcher->held;
    int found = -1;
    size_t n_read = 0;
    while (found < 0 && n_read < n_bytes) {
        found = step_all(matcher, text[n_read++]);
    }
    cmi_buf_append(held, text, n_read);
    size_t hold = 0;
    if (found >= 0) {
        hold = keep ? 0 : matcher->set->strings[found].n_bytes;
    } else {
        for (uint32_t i = 0; i < matcher->set->n; i++) {
            hold = CMI_MAX(hold, matcher->matched[i]);
        }
    }
    size_t n_free = held->len - hold;
    cmi_buf_append(out, held->data, n_free);
    cmi_buf_consume(held, n_free);
    return found;
}

void cmi_stop_matcher_flush(cmi_stop_matcher *matcher, cmi_buf *out)
{
    cmi_buf_append(out, matcher->held.data, matcher->held.len);
    cmi_buf_clear(&matcher->held);
    memset(matcher->matched, 0, sizeof matcher->matched);
}
