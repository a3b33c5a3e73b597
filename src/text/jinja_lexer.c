/* text/jinja_lexer.c - tokens, and the rules by which tags eat the whitespace around them.
 *
 * The rules are those of Jinja2 with trim_blocks and lstrip_blocks:
 *   - "-" inside a tag's delimiter strips all whitespace on that side;
 *   - "+" switches the next two off for that side;
 *   - a newline right behind a block tag or comment is dropped;
 *   - spaces before a block tag or comment that begins its line are dropped.
 * A trailing newline of the source is dropped as well. Every byte is looked at a bounded number of
 * times: a tag that is not closed is an error where it begins. */
#include "text/jinja_lexer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/unicode.h"

bool cmi_jinja_lexer_fail(cmi_jinja_lexer *lexer, cmi_status st, uint32_t line, const char *fmt,
                          ...)
{
    char text[sizeof lexer->err->text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    cmi_error_set(lexer->err, st, "line %u: %s", line, text);
    return false;
}

cmi_status cmi_jinja_lexer_init(cmi_jinja_lexer *lexer, cmi_arena *arena, const char *source,
                                size_t n_bytes, cmi_error *err)
{
    *lexer = (cmi_jinja_lexer){.arena = arena, .err = err, .line = 1};
    char *copy = cmi_arena_alloc(arena, n_bytes);
    if (copy == NULL) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "the template has too many bytes (%zu)",
                             n_bytes);
    }
    size_t n = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        bool is_cr = source[i] == '\r';
        if (is_cr && i + 1 < n_bytes && source[i + 1] == '\n') {
            continue;
        }
        copy[n++] = is_cr ? '\n' : source[i];
    }
    size_t n_valid = cmi_utf8_valid_prefix(copy, n);
    if (n_valid != n) {
        uint32_t line = 1;
        for (size_t i = 0; i < n_valid; i++) {
            line += copy[i] == '\n';
        }
        cmi_jinja_lexer_fail(lexer, CMI_ERR_BAD_DATA, line, "the template is not valid UTF-8");
        return CMI_ERR_BAD_DATA;
    }
    lexer->source = copy;
    lexer->n_bytes = n > 0 && copy[n - 1] == '\n' ? n - 1 : n;
    return CMI_OK;
}

static char peek(const cmi_jinja_lexer *lexer, size_t at)
{
    return at < lexer->n_bytes ? lexer->source[at] : '\0';
}

static bool looking_at(const cmi_jinja_lexer *lexer, size_t at, const char *text)
{
    size_t n = strlen(text);
    return n <= lexer->n_bytes - at && memcmp(lexer->source + at, text, n) == 0;
}

static void advance_to(cmi_jinja_lexer *lexer, size_t at)
{
    for (; lexer->at < at; lexer->at++) {
        lexer->line += lexer->source[lexer->at] == '\n';
    }
}

/* The first position at or behind `at` that is not whitespace. */
static size_t skip_space(const cmi_jinja_lexer *lexer, size_t at)
{
    while (at < lexer->n_bytes) {
        uint32_t cp = 0;
        int n = cmi_utf8_next(lexer->source + at, lexer->n_bytes - at, &cp);
        if (!cmi_unicode_is_space(cp)) {
            break;
        }
        at += (size_t)n;
    }
    return at;
}

/* The end of what is left of [from, to) without its trailing whitespace. */
static size_t strip_space_back(const cmi_jinja_lexer *lexer, size_t from, size_t to)
{
    while (to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)lexer->source[at] & 0xC0) == 0x80) {
            at--;
        }
        uint32_t cp = 0;
        cmi_utf8_next(lexer->source + at, to - at, &cp);
        if (!cmi_unicode_is_space(cp)) {
            break;
        }
        to = at;
    }
    return to;
}

/* Where the data [from, to) ends when a tag with this sign follows it. */
static size_t data_end(const cmi_jinja_lexer *lexer, size_t from, size_t to, char sign,
                       bool is_variable)
{
    if (sign == '-') {
        return strip_space_back(lexer, from, to);
    }
    if (sign == '+' || is_variable) {
        return to;
    }
    const char *source = lexer->source;
    size_t line_at = to;
    while (line_at > from && source[line_at - 1] != '\n') {
        line_at--;
    }
    bool starts_line = line_at > from || from == 0 || source[from - 1] == '\n';
    return starts_line && skip_space(lexer, line_at) >= to ? line_at : to;
}

/* The position behind a block tag or comment whose "%}" or "#}" is at end_at. */
static size_t behind_end(const cmi_jinja_lexer *lexer, size_t end_at, char sign)
{
    size_t at = end_at + 2;
    if (sign == '-') {
        return skip_space(lexer, at);
    }
    return sign != '+' && peek(lexer, at) == '\n' ? at + 1 : at;
}

static char sign_at(const cmi_jinja_lexer *lexer, size_t at)
{
    char c = peek(lexer, at);
    return c == '-' || c == '+' ? c : '\0';
}

/* Whether "{%", an optional sign, the word and "%}" stand at `at`: sets where the sign of the end
 * (or the end) is. */
static bool match_word_tag(const cmi_jinja_lexer *lexer, size_t at, const char *word,
                           size_t *end_out)
{
    if (!looking_at(lexer, at, "{%")) {
        return false;
    }
    at += 2;
    at = skip_space(lexer, sign_at(lexer, at) != '\0' ? at + 1 : at);
    if (!looking_at(lexer, at, word)) {
        return false;
    }
    at = skip_space(lexer, at + strlen(word));
    *end_out = at;
    return looking_at(lexer, sign_at(lexer, at) != '\0' ? at + 1 : at, "%}");
}

static void set_data(const cmi_jinja_lexer *lexer, cmi_jinja_token *token, size_t from, size_t to)
{
    *token = (cmi_jinja_token){.kind = CMI_JINJA_T_DATA,
                               .line = lexer->line,
                               .text = lexer->source + from,
                               .n_bytes = to - from};
}

/* {% raw %} at begin_at, with its content as data. `raw %}` drops no newline behind it, and its
 * "+" is not known: so it is in Jinja2. */
static bool read_raw(cmi_jinja_lexer *lexer, size_t raw_end, cmi_jinja_token *token)
{
    uint32_t begin_line = lexer->line;
    char sign = sign_at(lexer, raw_end);
    size_t from = raw_end + 2 + (sign != '\0');
    from = sign == '-' ? skip_space(lexer, from) : from;
    advance_to(lexer, from);
    const char *source = lexer->source;
    size_t at = from;
    for (;;) {
        const char *tag = memmem(source + at, lexer->n_bytes - at, "{%", 2);
        if (tag == NULL) {
            return cmi_jinja_lexer_fail(lexer, CMI_ERR_BAD_DATA, begin_line,
                                        "'raw' is not closed by {%% endraw %%}");
        }
        at = (size_t)(tag - source);
        size_t end = 0;
        if (match_word_tag(lexer, at, "endraw", &end)) {
            set_data(lexer, token, from, data_end(lexer, from, at, sign_at(lexer, at + 2), false));
            char end_sign = sign_at(lexer, end);
            advance_to(lexer, behind_end(lexer, end_sign != '\0' ? end + 1 : end, end_sign));
            return true;
        }
        at += 2;
    }
}

static bool skip_comment(cmi_jinja_lexer *lexer, size_t begin_at)
{
    size_t from = begin_at + 2 + (sign_at(lexer, begin_at + 2) != '\0');
    const char *end =
        from > lexer->n_bytes ? NULL : memmem(lexer->source + from, lexer->n_bytes - from, "#}", 2);
    if (end == NULL) {
        return cmi_jinja_lexer_fail(lexer, CMI_ERR_BAD_DATA, lexer->line,
                                    "a comment is not closed by #}");
    }
    size_t end_at = (size_t)(end - lexer->source);
    char sign = end_at > from ? sign_at(lexer, end_at - 1) : '\0';
    advance_to(lexer, behind_end(lexer, end_at, sign));
    return true;
}

/* The next "{{", "{%" or "{#" at or behind `at`, or the end of the source. */
static size_t find_tag(const cmi_jinja_lexer *lexer, size_t at)
{
    while (at < lexer->n_bytes) {
        const char *brace = memchr(lexer->source + at, '{', lexer->n_bytes - at);
        if (brace == NULL) {
            break;
        }
        at = (size_t)(brace - lexer->source);
        char next = peek(lexer, at + 1);
        if (next == '{' || next == '%' || next == '#') {
            return at;
        }
        at++;
    }
    return lexer->n_bytes;
}

/* Data up to the next tag, and past the tag's delimiter. The token is empty data for a comment. */
static bool next_in_data(cmi_jinja_lexer *lexer, cmi_jinja_token *token)
{
    size_t from = lexer->at;
    size_t tag_at = find_tag(lexer, from);
    if (tag_at == lexer->n_bytes) {
        set_data(lexer, token, from, tag_at);
        advance_to(lexer, tag_at);
        return true;
    }
    char kind = lexer->source[tag_at + 1];
    char sign = sign_at(lexer, tag_at + 2);
    set_data(lexer, token, from, data_end(lexer, from, tag_at, sign, kind == '{'));
    advance_to(lexer, tag_at);
    if (kind == '#') {
        return skip_comment(lexer, tag_at);
    }
    lexer->after_data = kind == '{' ? CMI_JINJA_T_VARIABLE_BEGIN : CMI_JINJA_T_BLOCK_BEGIN;
    return true;
}

/* The delimiter that stands at lexer->at: a raw block, or the beginning of an expression. */
static bool begin_tag(cmi_jinja_lexer *lexer, cmi_jinja_token *token)
{
    cmi_jinja_token_kind kind = lexer->after_data;
    lexer->after_data = CMI_JINJA_T_EOF;
    size_t raw_end = 0;
    if (match_word_tag(lexer, lexer->at, "raw", &raw_end) && peek(lexer, raw_end) != '+') {
        return read_raw(lexer, raw_end, token);
    }
    *token = (cmi_jinja_token){.kind = kind, .line = lexer->line};
    lexer->mode = kind == CMI_JINJA_T_VARIABLE_BEGIN ? CMI_JINJA_IN_VARIABLE : CMI_JINJA_IN_BLOCK;
    lexer->n_open_brackets = 0;
    size_t at = lexer->at + 2;
    advance_to(lexer, sign_at(lexer, at) != '\0' ? at + 1 : at);
    return true;
}

/* Whether a tag ends at lexer->at; then the lexer is behind it. */
static bool end_tag(cmi_jinja_lexer *lexer, cmi_jinja_token *token)
{
    if (lexer->n_open_brackets > 0) {
        return false;
    }
    bool is_variable = lexer->mode == CMI_JINJA_IN_VARIABLE;
    char sign = sign_at(lexer, lexer->at);
    if (is_variable && sign == '+') {
        return false; /* an operator */
    }
    size_t end_at = lexer->at + (sign != '\0');
    if (end_at > lexer->n_bytes || !looking_at(lexer, end_at, is_variable ? "}}" : "%}")) {
        return false;
    }
    token->kind = is_variable ? CMI_JINJA_T_VARIABLE_END : CMI_JINJA_T_BLOCK_END;
    size_t behind = end_at + 2;
    if (!is_variable) {
        behind = behind_end(lexer, end_at, sign);
    } else if (sign == '-') {
        behind = skip_space(lexer, behind);
    }
    advance_to(lexer, behind);
    lexer->mode = CMI_JINJA_IN_DATA;
    return true;
}

static bool is_name_char(char c)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static void read_name(cmi_jinja_lexer *lexer, cmi_jinja_token *token)
{
    size_t at = lexer->at;
    while (is_name_char(peek(lexer, at))) {
        at++;
    }
    token->kind = CMI_JINJA_T_NAME;
    token->n_bytes = at - lexer->at;
    lexer->at = at;
}

static bool read_string(cmi_jinja_lexer *lexer, cmi_jinja_token *token)
{
    char quote = lexer->source[lexer->at];
    size_t at = lexer->at + 1;
    bool has_escape = false;
    while (at < lexer->n_bytes && lexer->source[at] != quote) {
        bool is_escape = lexer->source[at] == '\\';
        has_escape |= is_escape;
        at += is_escape ? 2 : 1;
    }
    if (at >= lexer->n_bytes) {
        return cmi_jinja_lexer_fail(lexer, CMI_ERR_BAD_DATA, token->line,
                                    "a string is not closed by %c", quote);
    }
    token->kind = CMI_JINJA_T_STRING;
    token->text = lexer->source + lexer->at + 1;
    token->n_bytes = at - lexer->at - 1;
    advance_to(lexer, at + 1);
    return !has_escape || cmi_jinja_unescape(lexer, token);
}

static bool read_operator(cmi_jinja_lexer *lexer, cmi_jinja_token *token)
{
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                            "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                            ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (size_t i = 0; i < CMI_LEN(operators); i++) {
        if (!looking_at(lexer, lexer->at, operators[i])) {
            continue;
        }
        char c = operators[i][0];
        if (c == '(' || c == '[' || c == '{') {
            lexer->n_open_brackets++;
        } else if ((c == ')' || c == ']' || c == '}') && lexer->n_open_brackets > 0) {
            lexer->n_open_brackets--;
        }
        token->kind = CMI_JINJA_T_OPERATOR;
        token->n_bytes = strlen(operators[i]);
        lexer->at += token->n_bytes;
        return true;
    }
    uint32_t cp = 0;
    cmi_utf8_next(lexer->source + lexer->at, lexer->n_bytes - lexer->at, &cp);
    return cmi_jinja_lexer_fail(lexer, CMI_ERR_BAD_DATA, token->line, "unexpected character U+%04X",
                                cp);
}

static bool next_in_tag(cmi_jinja_lexer *lexer, cmi_jinja_token *token)
{
    advance_to(lexer, skip_space(lexer, lexer->at));
    *token = (cmi_jinja_token){.line = lexer->line, .text = lexer->source + lexer->at};
    if (end_tag(lexer, token)) {
        return true;
    }
    char c = peek(lexer, lexer->at);
    if (lexer->at == lexer->n_bytes) {
        token->kind = CMI_JINJA_T_EOF;
        return true;
    }
    if (c >= '0' && c <= '9') {
        return cmi_jinja_read_number(lexer, token);
    }
    if (is_name_char(c)) {
        read_name(lexer, token);
        return true;
    }
    return c == '\'' || c == '"' ? read_string(lexer, token) : read_operator(lexer, token);
}

bool cmi_jinja_lexer_next(cmi_jinja_lexer *lexer, cmi_jinja_token *token_out)
{
    if (lexer->mode != CMI_JINJA_IN_DATA) {
        return next_in_tag(lexer, token_out);
    }
    for (;;) {
        bool in_data = lexer->after_data == CMI_JINJA_T_EOF;
        if (in_data && lexer->at == lexer->n_bytes) {
            *token_out = (cmi_jinja_token){.kind = CMI_JINJA_T_EOF, .line = lexer->line};
            return true;
        }
        if (!(in_data ? next_in_data(lexer, token_out) : begin_tag(lexer, token_out))) {
            return false;
        }
        if (token_out->kind != CMI_JINJA_T_DATA || token_out->n_bytes > 0) {
            return true;
        }
    }
}
