/* text/answer_parser.h - splits a model's answer, as it arrives, into reasoning, content and calls.
 *
 * Reads DeepSeek's markup: <think>..</think>, then content, then tool calls, each as V3 and R1
 * write them
 *     <｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n{..}\n```<｜tool▁call▁end｜>
 * or as V3.1 does
 *     <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{..}<｜tool▁call▁end｜>
 * between <｜tool▁calls▁begin｜> and <｜tool▁calls▁end｜>.
 * No text is lost: what is not a well-formed head of a call is content as it stands. Arguments are
 * passed on as they come, valid JSON or not.
 *
 * What comes out does not depend on how the text was cut into feeds, except where one run of text
 * is cut into pieces; only what may be the beginning of a marker is held back. One owner. */
#ifndef CMI_TEXT_ANSWER_PARSER_H
#define CMI_TEXT_ANSWER_PARSER_H

#include "base/buf.h"

enum { CMI_ANSWER_MAX_CALL_NAME_BYTES = 256 };

typedef struct cmi_answer_parser_options {
    bool in_reasoning; /* the prompt ended inside <think> */
    bool tool_calls;   /* false: their markup is content like any other */
} cmi_answer_parser_options;

typedef enum cmi_answer_piece_type {
    CMI_ANSWER_REASONING,
    CMI_ANSWER_CONTENT,
    CMI_ANSWER_CALL,      /* a call begins; the text is the function's name, all of it */
    CMI_ANSWER_ARGUMENTS, /* more of the arguments of that call */
} cmi_answer_piece_type;

typedef struct cmi_answer_piece {
    cmi_answer_piece_type type;
    uint32_t call_idx; /* of CALL and ARGUMENTS: 0, 1, ... */
    const char *text;  /* valid until the next call of next or feed; at least one byte */
    size_t n_bytes;
} cmi_answer_piece;

typedef struct cmi_answer_parser {
    int state;
    bool tool_calls;
    bool ended;
    bool fenced;         /* the arguments stand in a ```json block */
    uint32_t n_newlines; /* still to be dropped behind </think> */
    uint32_t n_calls;
    size_t at;       /* pending up to here has been dealt with */
    cmi_buf pending; /* one feed, and less than the head of a call */
} cmi_answer_parser;

void cmi_answer_parser_init(cmi_answer_parser *p, const cmi_answer_parser_options *options);
void cmi_answer_parser_deinit(cmi_answer_parser *p); /* NULL or zeroed is fine */

/* Adds text; then take pieces until there is none. Linear in the text, however it is cut. */
void cmi_answer_parser_feed(cmi_answer_parser *p, const char *text, size_t n_bytes);

/* The answer is over: what was held back comes with the next pieces. */
void cmi_answer_parser_end(cmi_answer_parser *p);

/* False: no piece before the next feed. */
CMI_NODISCARD bool cmi_answer_parser_next(cmi_answer_parser *p, cmi_answer_piece *piece_out);

/* The text so far ends inside the reasoning. */
bool cmi_answer_parser_in_reasoning(const cmi_answer_parser *p);

#endif
