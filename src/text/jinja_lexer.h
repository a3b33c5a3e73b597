/* text/jinja_lexer.h - template source to tokens, one at a time.
 *
 * Whitespace control is done here: the parser sees only the data that is printed. */
#ifndef CMI_TEXT_JINJA_LEXER_H
#define CMI_TEXT_JINJA_LEXER_H

#include "base/arena.h"
#include "base/error.h"
#include "text/jinja_value.h"

typedef enum cmi_jinja_token_kind {
    CMI_JINJA_T_EOF,
    CMI_JINJA_T_DATA,
    CMI_JINJA_T_VARIABLE_BEGIN,
    CMI_JINJA_T_VARIABLE_END,
    CMI_JINJA_T_BLOCK_BEGIN,
    CMI_JINJA_T_BLOCK_END,
    CMI_JINJA_T_NAME,
    CMI_JINJA_T_STRING,
    CMI_JINJA_T_INTEGER,
    CMI_JINJA_T_FLOAT,
    CMI_JINJA_T_OPERATOR,
} cmi_jinja_token_kind;

typedef struct cmi_jinja_token {
    cmi_jinja_token_kind kind;
    uint32_t line;    /* 1 is the first */
    const char *text; /* as in the source; the content of a string or data, without a NUL */
    size_t n_bytes;
    union {
        int64_t integer;
        double real;
    };
} cmi_jinja_token;

typedef enum cmi_jinja_lexer_mode {
    CMI_JINJA_IN_DATA,
    CMI_JINJA_IN_VARIABLE,
    CMI_JINJA_IN_BLOCK,
} cmi_jinja_lexer_mode;

typedef struct cmi_jinja_lexer {
    cmi_arena *arena;
    cmi_error *err;
    const char *source; /* newlines are "\n" only */
    size_t n_bytes;
    size_t at;
    uint32_t line; /* of `at` */
    cmi_jinja_lexer_mode mode;
    uint32_t n_open_brackets; /* inside them "}}" and "%}" do not end a tag */
    cmi_jinja_token_kind
        after_data; /* what begins at `at` once the data before it is out, or EOF */
} cmi_jinja_lexer;

/* Copies the source into the arena. CMI_ERR_BAD_DATA: it is not UTF-8. CMI_ERR_TOO_LARGE: the arena
 * has no room. */
CMI_NODISCARD cmi_status cmi_jinja_lexer_init(cmi_jinja_lexer *lexer, cmi_arena *arena,
                                              const char *source, size_t n_bytes, cmi_error *err);

/* False after an error, which then stands in lexer->err. */
CMI_NODISCARD bool cmi_jinja_lexer_next(cmi_jinja_lexer *lexer, cmi_jinja_token *token_out);

/* Reads an escaped string body into text that lies in the arena or in the source itself. */
CMI_NODISCARD bool cmi_jinja_unescape(cmi_jinja_lexer *lexer, cmi_jinja_token *token);

/* The number that begins at lexer->at; false after an error. */
CMI_NODISCARD bool cmi_jinja_read_number(cmi_jinja_lexer *lexer, cmi_jinja_token *token);

/* Writes "line N: ..." and returns false, so that a caller can `return cmi_jinja_lexer_fail(..)`.
 */
CMI_PRINTF(4, 5)
bool cmi_jinja_lexer_fail(cmi_jinja_lexer *lexer, cmi_status st, uint32_t line, const char *fmt,
                          ...);

#endif
