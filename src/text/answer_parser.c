/* A state machine over `pending`. Every state either finds its marker, or gives out everything but
 * the longest end of pending that may still become the marker. The head of a call (up to its name)
 * is the only place where a decision needs more than one marker; it is read by a cursor that starts
 * again with every feed, which is cheap because a head is short (answer_markup.c). */
#include "text/answer_parser.h"

#include <string.h>

#include "text/answer_markup_internal.h"

enum {
    STATE_START, /* before the first byte that tells whether the answer opens with <think> */
    STATE_START_IN_REASONING,
    STATE_REASONING_NEWLINE, /* behind <think> */
    STATE_REASONING,
    STATE_CONTENT_NEWLINES, /* behind </think> */
    STATE_CONTENT,
    STATE_CALLS,     /* pending[at..] begins with the marker that opens calls */
    STATE_BETWEEN,   /* behind a call */
    STATE_ARGUMENTS, /* of a call */
};

#define CALL_END "<｜tool▁call▁end｜>"

static const cmi_marker think_open = CMI_MARKER("<think>");
static const cmi_marker think_close = CMI_MARKER("</think>");
static const cmi_marker calls_begin = CMI_MARKER("<｜tool▁calls▁begin｜>");
static const cmi_marker calls_end = CMI_MARKER("<｜tool▁calls▁end｜>");
static const cmi_marker call_end = CMI_MARKER(CALL_END);

/* How the arguments of a call may end; the unfenced form is the last one alone. */
static const cmi_marker arguments_ends[] = {
    CMI_MARKER("\n```\n" CALL_END), CMI_MARKER("\n```" CALL_END), CMI_MARKER("```\n" CALL_END),
    CMI_MARKER("```" CALL_END),     CMI_MARKER(CALL_END),
};

static const char *rest(const cmi_answer_parser *p)
{
    return cmi_buf_cstr(&p->pending) + p->at;
}

static size_t rest_bytes(const cmi_answer_parser *p)
{
    return p->pending.len - p->at;
}

/* Fills in a piece with the next n bytes; false when there are none. */
static bool give(cmi_answer_parser *p, cmi_answer_piece_type type, size_t n, cmi_answer_piece *out)
{
    if (n == 0) {
        return false;
    }
    *out = (cmi_answer_piece){.type = type, .text = rest(p), .n_bytes = n};
    if (type == CMI_ANSWER_CALL || type == CMI_ANSWER_ARGUMENTS) {
        out->call_idx = p->n_calls - 1;
    }
    p->at += n;
    return true;
}

/* Gives what stands before m. *found: pending[at..] will then begin with m. */
static bool give_until(cmi_answer_parser *p, cmi_answer_piece_type type, const cmi_marker *m,
                       bool *found, cmi_answer_piece *out)
{
    const char *text = rest(p);
    size_t n = rest_bytes(p);
    const char *at = memmem(text, n, m->text, m->n);
    *found = at != NULL;
    if (at != NULL) {
        return give(p, type, (size_t)(at - text), out);
    }
    return give(p, type, p->ended ? n : n - cmi_marker_partial_end(text, n, m), out);
}

/* Drops up to p->n_newlines newlines. False: more text may bring more of them. */
static bool drop_newlines(cmi_answer_parser *p)
{
    while (p->n_newlines > 0 && rest_bytes(p) > 0 && *rest(p) == '\n') {
        p->n_newlines--;
        p->at++;
    }
    return p->n_newlines == 0 || rest_bytes(p) > 0;
}

/* What stands before the arguments is no head of a call, so it is text. */
static void back_to_content(cmi_answer_parser *p)
{
    p->state = STATE_CONTENT;
}

static bool open_call(cmi_answer_parser *p, const cmi_call_head *head, cmi_answer_piece *out)
{
    p->n_calls++;
    p->fenced = head->fenced;
    p->state = STATE_ARGUMENTS;
    size_t start = p->at;
    p->at = start + head->name_at;
    bool given = give(p, CMI_ANSWER_CALL, head->name_bytes, out);
    p->at = start + head->arguments_at;
    return given;
}

/* One step of the states below: STEP_PIECE gave a piece, STEP_ON changed the state, STEP_WAIT needs
 * more text. */
typedef enum step { STEP_PIECE, STEP_ON, STEP_WAIT } step;

static step step_start(cmi_answer_parser *p)
{
    cmi_match found = cmi_marker_match(rest(p), rest_bytes(p), &think_open);
    if (found == CMI_MATCH_PARTIAL && !p->ended) {
        return STEP_WAIT;
    }
    if (found == CMI_MATCH_YES) {
        p->at += think_open.n;
        p->n_newlines = 1;
        p->state = STATE_REASONING_NEWLINE;
    } else {
        p->state = p->state == STATE_START ? STATE_CONTENT : STATE_REASONING;
    }
    return STEP_ON;
}

static step step_reasoning(cmi_answer_parser *p, cmi_answer_piece *out)
{
    bool found;
    if (give_until(p, CMI_ANSWER_REASONING, &think_close, &found, out)) {
        return STEP_PIECE;
    }
    if (!found) {
        return STEP_WAIT;
    }
    p->at += think_close.n;
    p->n_newlines = 2; /* the template writes "</think>\n\n" */
    p->state = STATE_CONTENT_NEWLINES;
    return STEP_ON;
}

static step step_content(cmi_answer_parser *p, cmi_answer_piece *out)
{
    if (!p->tool_calls) {
        return give(p, CMI_ANSWER_CONTENT, rest_bytes(p), out) ? STEP_PIECE : STEP_WAIT;
    }
    bool found;
    if (give_until(p, CMI_ANSWER_CONTENT, &calls_begin, &found, out)) {
        return STEP_PIECE;
    }
    p->state = found ? STATE_CALLS : p->state;
    return found ? STEP_ON : STEP_WAIT;
}

static step step_calls(cmi_answer_parser *p, cmi_answer_piece *out)
{
    cmi_markup_cursor c = {.text = rest(p), .n = rest_bytes(p), .at = calls_begin.n};
    cmi_call_head head = {0};
    cmi_markup_take_spaces(&c);
    cmi_match found = cmi_markup_take_call_head(&c, &head);
    if (found == CMI_MATCH_YES) {
        open_call(p, &head, out);
        return STEP_PIECE;
    }
    if (found == CMI_MATCH_PARTIAL && !p->ended) {
        return STEP_WAIT;
    }
    back_to_content(p);
    give(p, CMI_ANSWER_CONTENT, calls_begin.n, out); /* what follows may open calls again */
    return STEP_PIECE;
}

static step step_between(cmi_answer_parser *p, cmi_answer_piece *out)
{
    cmi_markup_cursor c = {.text = rest(p), .n = rest_bytes(p)};
    cmi_call_head head = {0};
    cmi_markup_take_spaces(&c);
    if (c.at == c.n && p->ended) {
        p->at += c.at; /* white space behind a call is markup too */
        return STEP_WAIT;
    }
    cmi_match end_found = cmi_markup_take(&c, &calls_end);
    if (end_found == CMI_MATCH_YES) {
        p->at += c.at;
        back_to_content(p);
        return STEP_ON;
    }
    cmi_match found = cmi_markup_take_call_head(&c, &head);
    if (found == CMI_MATCH_YES) {
        open_call(p, &head, out);
        return STEP_PIECE;
    }
    if ((found == CMI_MATCH_PARTIAL || end_found == CMI_MATCH_PARTIAL) && !p->ended) {
        return STEP_WAIT;
    }
    back_to_content(p);
    return STEP_ON;
}

/* Bytes of text that a closing code fence takes at its end. */
static size_t fence_bytes(const char *text, size_t n)
{
    size_t end = n;
    if (end > 0 && text[end - 1] == '\n') {
        end--;
    }
    if (end < 3 || memcmp(text + end - 3, "```", 3) != 0) {
        return 0;
    }
    end -= 3;
    if (end > 0 && text[end - 1] == '\n') {
        end--;
    }
    return n - end;
}

static step step_arguments(cmi_answer_parser *p, cmi_answer_piece *out)
{
    const char *text = rest(p);
    size_t n = rest_bytes(p);
    const char *end = memmem(text, n, call_end.text, call_end.n);
    if (end == NULL && !p->ended) {
        size_t hold = 0;
        for (size_t i = p->fenced ? 0 : CMI_LEN(arguments_ends) - 1; i < CMI_LEN(arguments_ends);
             i++) {
            hold = CMI_MAX(hold, cmi_marker_partial_end(text, n, &arguments_ends[i]));
        }
        return give(p, CMI_ANSWER_ARGUMENTS, n - hold, out) ? STEP_PIECE : STEP_WAIT;
    }
    size_t n_inner = end == NULL ? n : (size_t)(end - text);
    size_t n_fence = p->fenced ? fence_bytes(text, n_inner) : 0;
    bool given = give(p, CMI_ANSWER_ARGUMENTS, n_inner - n_fence, out);
    p->at += n_fence + (end == NULL ? 0 : call_end.n);
    p->state = STATE_BETWEEN;
    return given ? STEP_PIECE : STEP_ON;
}

static step step_once(cmi_answer_parser *p, cmi_answer_piece *out)
{
    switch (p->state) {
    case STATE_START:
    case STATE_START_IN_REASONING:
        return step_start(p);
    case STATE_REASONING_NEWLINE:
    case STATE_CONTENT_NEWLINES:
        if (!drop_newlines(p)) {
            return STEP_WAIT;
        }
        p->state = p->state == STATE_REASONING_NEWLINE ? STATE_REASONING : STATE_CONTENT;
        return STEP_ON;
    case STATE_REASONING:
        return step_reasoning(p, out);
    case STATE_CONTENT:
        return step_content(p, out);
    case STATE_CALLS:
        return step_calls(p, out);
    case STATE_BETWEEN:
        return step_between(p, out);
    default:
        return step_arguments(p, out);
    }
}

void cmi_answer_parser_init(cmi_answer_parser *p, const cmi_answer_parser_options *options)
{
    *p = (cmi_answer_parser){
        .state = options->in_reasoning ? STATE_START_IN_REASONING : STATE_START,
        .tool_calls = options->tool_calls,
    };
    cmi_buf_init(&p->pending, SIZE_MAX / 2);
}

void cmi_answer_parser_deinit(cmi_answer_parser *p)
{
    if (p != NULL) {
        cmi_buf_deinit(&p->pending);
    }
}

void cmi_answer_parser_feed(cmi_answer_parser *p, const char *text, size_t n_bytes)
{
    cmi_buf_consume(&p->pending, p->at);
    p->at = 0;
    cmi_buf_append(&p->pending, text, n_bytes);
}

void cmi_answer_parser_end(cmi_answer_parser *p)
{
    p->ended = true;
}

bool cmi_answer_parser_next(cmi_answer_parser *p, cmi_answer_piece *piece_out)
{
    for (;;) {
        if (p->ended && rest_bytes(p) == 0) {
            return false;
        }
        step s = step_once(p, piece_out);
        if (s != STEP_ON) {
            return s == STEP_PIECE;
        }
    }
}

bool cmi_answer_parser_in_reasoning(const cmi_answer_parser *p)
{
    return p->state == STATE_START_IN_REASONING || p->state == STATE_REASONING_NEWLINE ||
           p->state == STATE_REASONING;
}
