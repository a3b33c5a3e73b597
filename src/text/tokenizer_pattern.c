/* Patterns of tokenizer.json are written for Oniguruma with Ruby syntax. PCRE2 reads most of that
 * alike, but not all: \s also takes U+180E, \h and \v are other classes, \p{Han} also takes
 * characters that Han merely uses, X{1,3}+ is possessive instead of repeated, {,3} is literal text,
 * a class cannot hold a class. Any of these would silently give other tokens. So a pattern is read
 * piece by piece and written anew: what means the same is copied, what differs is rewritten, and
 * everything else (back references, \b, intersections, ...) is refused by name. ^ and $ match at
 * lines and a dot stops at line feeds only, by options.
 *
 * The reader need not find every error: what is malformed is left for PCRE2 to refuse. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "text/tokenizer_internal.h"

/* Unicode's White_Space, which is what \s means in Oniguruma, and what it leaves out. */
#define WHITE_SPACE                                                                                \
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"            \
    "\\x{205f}\\x{3000}"
#define NOT_WHITE_SPACE                                                                            \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}"               \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"                 \
    "\\x{3001}-\\x{10ffff}"
#define HEX_DIGIT "0-9A-Fa-f"
#define NOT_HEX_DIGIT "\\x00-/:-@G-`g-\\x{10ffff}"

enum {
    MAX_GROUP_DEPTH = 100,
    MAX_CLASS_DEPTH = 100,
    MAX_NAME_BYTES = 64,
    /* The longest rewriting of one byte of a pattern is a class of about 130 bytes. */
    MAX_REWRITTEN_BYTES = CMI_TOKENIZER_MAX_PATTERN_BYTES * 130,
};

#define NO_ATOM SIZE_MAX

typedef struct reader {
    const char *p, *end;
    const char *begin;
    cmi_buf out;
    size_t atom;                         /* where in out the last atom begins, or NO_ATOM */
    size_t group_atoms[MAX_GROUP_DEPTH]; /* where the open groups begin */
    int depth;
    const char *field;
    cmi_error *err;
} reader;

static cmi_status refuse(const reader *r, const char *what)
{
    return cmi_error_set(r->err, CMI_ERR_UNSUPPORTED,
                         "tokenizer.json: %s: %s at byte %zu of the pattern is not supported",
                         r->field, what, (size_t)(r->p - r->begin));
}

static bool next_is(const reader *r, const char *s)
{
    size_t n = strlen(s);
    return (size_t)(r->end - r->p) >= n && memcmp(r->p, s, n) == 0;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_ascii_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Copies one character of the pattern as it is. */
static void copy_char(reader *r)
{
    uint32_t cp;
    int length = cmi_utf8_next(r->p, (size_t)(r->end - r->p), &cp);
    size_t n = length > 0 ? (size_t)length : 1;
    cmi_buf_append(&r->out, r->p, n);
    r->p += n;
}

/* A name of three or more letters may be a script; PCRE2's plain \p{Han} means the extended set. */
static bool is_script(const char *name, size_t n)
{
    char pattern[MAX_NAME_BYTES + 16];
    int length = snprintf(pattern, sizeof pattern, "\\p{sc:%.*s}", (int)n, name);
    int code;
    PCRE2_SIZE offset;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, (PCRE2_SIZE)length,
                                         PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
    pcre2_code_free(compiled);
    return compiled != NULL;
}

/* \p{Name}, \p{^Name} or \P{Name}; p is at the backslash. */
static cmi_status read_property(reader *r)
{
    const char *name = r->p + 3;
    if (r->end - r->p < 4 || r->p[2] != '{') {
        return refuse(r, "a property without braces");
    }
    bool negated = r->p[1] == 'P';
    if (*name == '^') {
        negated = !negated;
        name++;
    }
    size_t n = 0;
    while (name + n < r->end && n < MAX_NAME_BYTES &&
           (is_ascii_letter(name[n]) || name[n] == '_' || name[n] == ' ')) {
        n++;
    }
    if (n == 0 || name + n == r->end || name[n] != '}') {
        return refuse(r, "a property name");
    }
    const char *prefix = n > 2 && is_script(name, n) ? "sc:" : "";
    cmi_buf_printf(&r->out, "\\%c{%s%.*s}", negated ? 'P' : 'p', prefix, (int)n, name);
    r->p = name + n + 1;
    return CMI_OK;
}

/* \xHH, \x{H...} or \uHHHH; p is at the backslash. */
static cmi_status read_code_point(reader *r)
{
    bool braced = r->p[1] == 'x' && r->end - r->p > 2 && r->p[2] == '{';
    const char *digits = r->p + (braced ? 3 : 2);
    size_t n_max = braced ? 8 : r->p[1] == 'x' ? 2 : 4;
    size_t n = 0;
    while (digits + n < r->end && n < n_max && is_hex(digits[n])) {
        n++;
    }
    bool whole = braced ? n > 0 && digits + n < r->end && digits[n] == '}' : n == n_max;
    bool is_byte = r->p[1] == 'x' && !braced && whole && digits[0] >= '8';
    if (!whole || is_byte) {
        return refuse(r, is_byte ? "a byte that is no character" : "a character code");
    }
    cmi_buf_printf(&r->out, "\\x{%.*s}", (int)n, digits);
    r->p = digits + n + (braced ? 1 : 0);
    return CMI_OK;
}

/* The class that an escaped letter stands for, without brackets; NULL: none. */
static const char *class_of_escape(char c)
{
    switch (c) {
    case 's':
        return WHITE_SPACE;
    case 'S':
        return NOT_WHITE_SPACE;
    case 'd':
        return "\\p{Nd}";
    case 'D':
        return "\\P{Nd}";
    case 'h':
        return HEX_DIGIT;
    case 'H':
        return NOT_HEX_DIGIT;
    default:
        return NULL;
    }
}

/* An escape that means one character inside and outside of classes, or a property. *is_set_out:
 * it stands for several characters. */
static cmi_status read_escape(reader *r, bool *is_set_out)
{
    if (r->end - r->p < 2) {
        return refuse(r, "a backslash without a character");
    }
    char c = r->p[1];
    *is_set_out = c == 'p' || c == 'P';
    if (*is_set_out) {
        return read_property(r);
    }
    if (c == 'x' || c == 'u') {
        return read_code_point(r);
    }
    if (c == 'v') {
        cmi_buf_str(&r->out, "\\x0b");
    } else if (memchr("tnrfae", c, 6) != NULL) {
        cmi_buf_append(&r->out, r->p, 2);
    } else if (is_ascii_letter(c) || is_digit(c)) {
        char what[] = "the escape \\?";
        what[sizeof what - 2] = c;
        return refuse(r, what);
    } else if (c > ' ' && c < 0x7F) {
        cmi_buf_append(&r->out, r->p, 2);
    } else {
        r->p++; /* an escaped white space or non-ASCII character is that character */
        copy_char(r);
        return CMI_OK;
    }
    r->p += 2;
    return CMI_OK;
}

/* What the part of a class before a hyphen was, which says what the hyphen means. */
typedef enum class_state {
    CLASS_START,
    CLASS_CHAR,  /* a hyphen makes it the begin of a range */
    CLASS_RANGE, /* behind "a-": the next character ends the range */
    CLASS_SET,   /* behind \s, "a-z" or a nested class: a hyphen is itself */
} class_state;

/* One character, escape or hyphen of a class. */
static cmi_status read_class_item(reader *r, class_state *state)
{
    bool is_set = false;
    const char *set = *r->p == '\\' && r->end - r->p > 1 ? class_of_escape(r->p[1]) : NULL;
    if (set != NULL) {
        is_set = true;
        cmi_buf_str(&r->out, set);
        r->p += 2;
    } else if (*r->p == '\\') {
        cmi_status st = read_escape(r, &is_set);
        if (st != CMI_OK) {
            return st;
        }
    } else if (*r->p == '-' && *state == CLASS_CHAR && !next_is(r, "-]")) {
        copy_char(r);
        *state = CLASS_RANGE;
        return CMI_OK;
    } else {
        if (*r->p == '-' || *r->p == '^' || *r->p == ']') {
            cmi_buf_char(&r->out, '\\');
        }
        copy_char(r);
    }
    if (is_set && *state == CLASS_RANGE) {
        return refuse(r, "a range that ends in a set");
    }
    *state = is_set || *state == CLASS_RANGE ? CLASS_SET : CLASS_CHAR;
    return CMI_OK;
}

/* A class; p is at its bracket. A class within a class is their union, so that it can be read as if
 * its brackets were not there, unless it is negated. */
static cmi_status read_class(reader *r)
{
    cmi_buf_char(&r->out, '[');
    r->p++;
    if (next_is(r, "^")) {
        copy_char(r);
    }
    class_state state = CLASS_START;
    int depth = 1;
    bool at_start = true;
    while (r->p < r->end) {
        if (*r->p == ']' && !at_start) {
            r->p++;
            state = CLASS_SET;
            if (--depth == 0) {
                cmi_buf_char(&r->out, ']');
                return CMI_OK;
            }
            continue;
        }
        at_start = false;
        if (next_is(r, "&&") || next_is(r, "[:") || next_is(r, "[^")) {
            return refuse(r, *r->p == '&'     ? "an intersection of classes"
                             : r->p[1] == ':' ? "a POSIX class"
                                              : "a negated class within a class");
        }
        if (*r->p == '[') {
            if (state == CLASS_RANGE || ++depth > MAX_CLASS_DEPTH) {
                return refuse(r, "this nesting of classes");
            }
            r->p++;
            state = CLASS_SET;
            at_start = true;
            continue;
        }
        cmi_status st = read_class_item(r, &state);
        if (st != CMI_OK) {
            return st;
        }
    }
    return refuse(r, "a class without its closing bracket");
}

/* The ways to open a group. Nothing can refer back to a group, so none needs to capture. */
static cmi_status read_group_start(reader *r)
{
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    if (r->depth == MAX_GROUP_DEPTH) {
        return refuse(r, "this nesting of groups");
    }
    if (next_is(r, "(?i)") && r->p == r->begin) {
        cmi_buf_str(&r->out, "(?i)"); /* elsewhere it would reach over alternatives in PCRE2 */
        r->p += 4;
        return CMI_OK;
    }
    r->group_atoms[r->depth++] = r->out.len;
    r->atom = NO_ATOM;
    for (size_t i = 0; i < CMI_LEN(same); i++) {
        if (next_is(r, same[i])) {
            cmi_buf_str(&r->out, same[i]);
            r->p += strlen(same[i]);
            return CMI_OK;
        }
    }
    if (next_is(r, "(?") || next_is(r, "(*")) {
        return refuse(r, "this kind of group");
    }
    cmi_buf_str(&r->out, "(?:");
    r->p++;
    return CMI_OK;
}

/* {n}, {n,}, {n,m} or {,m}; p is at the brace. Any other brace is a character. */
static cmi_status read_interval(reader *r)
{
    const char *at = r->p + 1;
    const char *low = at;
    while (at < r->end && is_digit(*at)) {
        at++;
    }
    size_t n_low = (size_t)(at - low), n_high = 0;
    bool comma = at < r->end && *at == ',';
    const char *high = comma ? ++at : at;
    while (comma && at < r->end && is_digit(*at)) {
        at++;
        n_high++;
    }
    if (n_low + n_high == 0 || at == r->end || *at != '}') {
        r->atom = r->out.len;
        cmi_buf_str(&r->out, "\\{");
        r->p++;
        return CMI_OK;
    }
    if (r->atom == NO_ATOM || n_low > 5 || n_high > 5) {
        return refuse(r, "this repetition");
    }
    char interval[32];
    int length = snprintf(interval, sizeof interval, "{%.*s%s%.*s}", n_low > 0 ? (int)n_low : 1,
                          n_low > 0 ? low : "0", comma ? "," : "", (int)n_high, high);
    r->p = at + 1;
    if (next_is(r, "+") || next_is(r, "*") || (next_is(r, "?") && !comma)) {
        /* In Ruby's syntax these repeat the repetition. */
        size_t n_atom = r->out.len - r->atom;
        if (!cmi_buf_str(&r->out, "(?:")) {
            return refuse(r, "a pattern that grows so much");
        }
        memmove(r->out.data + r->atom + 3, r->out.data + r->atom, n_atom);
        memcpy(r->out.data + r->atom, "(?:", 3);
        cmi_buf_printf(&r->out, "%.*s)%c", length, interval, *r->p);
        r->p++;
    } else {
        cmi_buf_append(&r->out, interval, (size_t)length);
    }
    return CMI_OK;
}

/* An escape outside of classes; p is at the backslash. */
static cmi_status read_outer_escape(reader *r)
{
    char c = r->end - r->p > 1 ? r->p[1] : 0;
    const char *set = class_of_escape(c);
    r->atom = r->out.len;
    if (set != NULL) {
        cmi_buf_printf(&r->out, "[%s]", set);
        r->p += 2;
        return CMI_OK;
    }
    if (c == 'A' || c == 'z' || c == 'Z') {
        cmi_buf_append(&r->out, r->p, 2);
        r->p += 2;
        return CMI_OK;
    }
    bool is_set;
    return read_escape(r, &is_set);
}

static cmi_status read_item(reader *r)
{
    switch (*r->p) {
    case '\\':
        return read_outer_escape(r);
    case '[':
        r->atom = r->out.len;
        return read_class(r);
    case '(':
        return read_group_start(r);
    case ')':
        if (r->depth == 0) {
            return refuse(r, "a closing parenthesis without an opening one");
        }
        r->atom = r->group_atoms[--r->depth];
        break;
    case '{':
        return read_interval(r);
    case ']':
    case '}':
        r->atom = r->out.len;
        cmi_buf_char(&r->out, '\\');
        break;
    case '|':
        r->atom = NO_ATOM;
        break;
    case '*':
    case '+':
    case '?':
        break;
    default:
        r->atom = r->out.len;
        break;
    }
    copy_char(r);
    return CMI_OK;
}

static pcre2_code *compile_one(const char *pattern, size_t n_bytes, uint32_t options,
                               const char *field, cmi_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (context == NULL) {
        cmi_error_set(err, CMI_ERR_NO_MEMORY, "tokenizer.json: %s: no memory", field);
        return NULL;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int reason;
    PCRE2_SIZE offset;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, n_bytes, options, &reason, &offset, context);
    if (code != NULL && pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) != 0) {
        /* Where the JIT is forbidden or missing, the interpreter runs. It would look for a first
         * character through the whole text, however near the last start position is. */
        pcre2_code_free(code);
        code = pcre2_compile((PCRE2_SPTR)pattern, n_bytes, options | PCRE2_NO_START_OPTIMIZE,
                             &reason, &offset, context);
    }
    pcre2_compile_context_free(context);
    if (code == NULL) {
        char text[128];
        pcre2_get_error_message(reason, (PCRE2_UCHAR *)text, sizeof text);
        cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                      "tokenizer.json: %s: PCRE2 does not take the pattern: %s", field, text);
    }
    return code;
}

static cmi_status compile(cmi_pattern *p, const char *pattern, size_t n_bytes, uint32_t options,
                          const char *field, cmi_error *err)
{
    options |= PCRE2_UTF | PCRE2_USE_OFFSET_LIMIT;
    *p = (cmi_pattern){.code = compile_one(pattern, n_bytes, options, field, err)};
    if (p->code != NULL) {
        p->guarded = compile_one(pattern, n_bytes, options | PCRE2_AUTO_CALLOUT, field, err);
    }
    return p->guarded != NULL ? CMI_OK : CMI_ERR_UNSUPPORTED;
}

void cmi_pattern_deinit(cmi_pattern *p)
{
    if (p != NULL) {
        pcre2_code_free(p->code);
        pcre2_code_free(p->guarded);
        *p = (cmi_pattern){0};
    }
}

static cmi_status check_length(size_t n_bytes, const char *field, cmi_error *err)
{
    return n_bytes <= CMI_TOKENIZER_MAX_PATTERN_BYTES
               ? CMI_OK
               : cmi_error_set(err, CMI_ERR_BAD_DATA,
                               "tokenizer.json: %s: a pattern of %zu bytes is over the limit of %d",
                               field, n_bytes, CMI_TOKENIZER_MAX_PATTERN_BYTES);
}

cmi_status cmi_pattern_init(cmi_pattern *p, const char *pattern, size_t n_bytes, const char *field,
                            cmi_error *err)
{
    cmi_status st = check_length(n_bytes, field, err);
    reader r = {.p = pattern,
                .end = pattern + n_bytes,
                .begin = pattern,
                .atom = NO_ATOM,
                .field = field,
                .err = err};
    cmi_buf_init(&r.out, MAX_REWRITTEN_BYTES);
    while (st == CMI_OK && r.p < r.end) {
        st = read_item(&r);
    }
    if (st == CMI_OK) {
        st = compile(p, cmi_buf_cstr(&r.out), r.out.len,
                     PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, field, err);
    }
    cmi_buf_deinit(&r.out);
    return st;
}

cmi_status cmi_pattern_init_literal(cmi_pattern *p, const char *text, size_t n_bytes,
                                    const char *field, cmi_error *err)
{
    cmi_status st = check_length(n_bytes, field, err);
    return st == CMI_OK ? compile(p, text, n_bytes, PCRE2_LITERAL, field, err) : st;
}
