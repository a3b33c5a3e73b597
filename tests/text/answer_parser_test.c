#include "tests/test.h"

#include "base/rng.h"
#include "text/answer_parser.h"

#define CALLS "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define SEP "<｜tool▁sep｜>"

enum { IN = 1, TOOLS = 2 };

typedef struct parse_case {
    int options;
    const char *text;
    const char *pieces; /* R{..}C{..}T0{name}A0{..}, neighbours of one kind joined */
} parse_case;

static void take_pieces(cmi_answer_parser *p, cmi_buf *out, int *last)
{
    cmi_answer_piece piece;
    while (cmi_answer_parser_next(p, &piece)) {
        assert_true(piece.n_bytes > 0);
        int kind = (int)piece.type * 1000 + (int)piece.call_idx;
        if (kind != *last) {
            cmi_buf_str(out, *last < 0 ? "" : "}");
            cmi_buf_char(out, "RCTA"[piece.type]);
            if (piece.type >= CMI_ANSWER_CALL) {
                cmi_buf_printf(out, "%u", piece.call_idx);
            }
            cmi_buf_char(out, '{');
            *last = kind;
        }
        cmi_buf_append(out, piece.text, piece.n_bytes);
    }
}

/* Seed 0: in one piece; 1: byte by byte; otherwise at random. */
static void parse(int options, const char *text, size_t n, uint64_t seed, cmi_buf *out)
{
    const cmi_answer_parser_options o = {(options & IN) != 0, (options & TOOLS) != 0};
    cmi_answer_parser p;
    cmi_answer_parser_init(&p, &o);
    int last = -1;
    size_t at = 0;
    for (uint64_t i = 0; at < n; i++) {
        uint32_t r[4];
        cmi_philox4x32(seed, i, 0, r);
        size_t piece = seed == 0 ? n : seed == 1 ? 1 : CMI_MIN(n - at, r[0] % 24);
        cmi_answer_parser_feed(&p, text + at, piece);
        at += piece;
        take_pieces(&p, out, &last);
    }
    cmi_answer_parser_end(&p);
    take_pieces(&p, out, &last);
    cmi_buf_str(out, last < 0 ? "" : "}");
    cmi_answer_parser_deinit(&p);
}

static void check_cases(const parse_case *cases, size_t n_cases)
{
    for (size_t i = 0; i < n_cases; i++) {
        for (uint64_t seed = 0; seed < 40; seed++) {
            cmi_buf out;
            cmi_buf_init(&out, 1 << 20);
            parse(cases[i].options, cases[i].text, strlen(cases[i].text), seed, &out);
            if (strcmp(cmi_buf_cstr(&out), cases[i].pieces) != 0) {
                fail_msg("seed %d, %s\n got %s\nwant %s", (int)seed, cases[i].text,
                         cmi_buf_cstr(&out), cases[i].pieces);
            }
            cmi_buf_deinit(&out);
        }
    }
}

static void reasoning_is_split_off(void **state)
{
    (void)state;
    static const parse_case cases[] = {
        {0, "", ""},
        {IN, "", ""},
        {0, "just text", "C{just text}"},
        {IN, "I think.\n</think>\n\nHello", "R{I think.\n}C{Hello}"},
        {IN, "I think</think>Hello", "R{I think}C{Hello}"},
        {IN, "cut off", "R{cut off}"},
        {IN, "cut </thin", "R{cut </thin}"},
        {IN, "</think>\n\nHello", "C{Hello}"},
        {IN, "a</think>\n\n\n\nb", "R{a}C{\n\nb}"},
        {IN, "a</think>\n\n", "R{a}"},
        {IN, "a</thinking></think>b", "R{a</thinking>}C{b}"},
        {IN, "a</think>b</think>c", "R{a}C{b</think>c}"},
        {0, "<think>\nI think.</think>\n\nHello", "R{I think.}C{Hello}"},
        {0, "<think>\n\nx", "R{\nx}"},
        {0, "<think>", ""},
        {0, "<thin", "C{<thin}"},
        {0, "a <think>b</think>", "C{a <think>b</think>}"},
        {IN, "<think>\nagain</think>b", "R{again}C{b}"},
        {IN, CALLS CALL "f" SEP "{}" CALL_END, "R{" CALLS CALL "f" SEP "{}" CALL_END "}"},
    };
    check_cases(cases, CMI_LEN(cases));
}

static void both_forms_of_calls_are_read(void **state)
{
    (void)state;
    static const parse_case cases[] = {
        {TOOLS,
         CALLS CALL "function" SEP "get_time\n```json\n{\"zone\": \"UTC\"}\n```" CALL_END CALLS_END,
         "T0{get_time}A0{{\"zone\": \"UTC\"}}"},
        {TOOLS | IN,
         "hm</think>\n\nLet me see.\n" CALLS CALL "function" SEP "f\n```json\n{}\n```" CALL_END
         "\n" CALL "function" SEP "g\n```json\n{\"a\":1}\n```" CALL_END CALLS_END,
         "R{hm}C{Let me see.\n}T0{f}A0{{}}T1{g}A1{{\"a\":1}}"},
        {TOOLS,
         CALLS CALL "f" SEP "{\"a\": \"</think>\"}" CALL_END CALL "g" SEP "{}" CALL_END CALLS_END,
         "T0{f}A0{{\"a\": \"</think>\"}}T1{g}A1{{}}"},
        {TOOLS, CALLS CALL "function" SEP "{\"a\":1}" CALL_END CALLS_END,
         "T0{function}A0{{\"a\":1}}"},
        {TOOLS, CALLS "\n " CALL "f.g:h-1" SEP "{}" CALL_END "\n" CALLS_END " after",
         "T0{f.g:h-1}A0{{}}C{ after}"},
        {TOOLS, CALLS CALL "f" SEP "{}" CALL_END CALLS_END CALLS CALL "g" SEP "{}" CALL_END,
         "T0{f}A0{{}}T1{g}A1{{}}"},
        /* variants of the fence */
        {TOOLS, CALLS CALL "function" SEP "f\n```json\n{}```\n" CALL_END, "T0{f}A0{{}}"},
        {TOOLS, CALLS CALL "function" SEP "f\n```json\n{}\n```\n" CALL_END, "T0{f}A0{{}}"},
        {TOOLS, CALLS CALL "function" SEP "f\n```json\n{}" CALL_END, "T0{f}A0{{}}"},
        {TOOLS, CALLS CALL "function" SEP "f\n{}" CALL_END, "T0{f}A0{{}}"},
        {TOOLS, CALLS CALL "function" SEP "f\n```json\n{\"a\": \"```\"}\n```" CALL_END,
         "T0{f}A0{{\"a\": \"```\"}}"},
        /* ended early: what is there counts */
        {TOOLS, CALLS CALL "function" SEP "f\n```json\n{\"a\"", "T0{f}A0{{\"a\"}"},
        {TOOLS, CALLS CALL "function" SEP "f\n```json\n{}\n```", "T0{f}A0{{}}"},
        {TOOLS, CALLS CALL "function" SEP "f\n```json\n{}\n```" CALL_END "\n", "T0{f}A0{{}}"},
        {TOOLS, CALLS CALL "f" SEP, "T0{f}"},
        {TOOLS, CALLS CALL "f" SEP CALL_END, "T0{f}"},
    };
    check_cases(cases, CMI_LEN(cases));
}

static void malformed_markup_is_content(void **state)
{
    (void)state;
    static const parse_case cases[] = {
        {0, CALLS CALL "f" SEP "{}" CALL_END CALLS_END,
         "C{" CALLS CALL "f" SEP "{}" CALL_END CALLS_END "}"},
        {TOOLS, CALLS, "C{" CALLS "}"},
        {TOOLS, "a" CALLS "b", "C{a" CALLS "b}"},
        {TOOLS, CALLS CALL "f", "C{" CALLS CALL "f}"},
        {TOOLS, CALLS CALL "f g" SEP "{}", "C{" CALLS CALL "f g" SEP "{}}"},
        {TOOLS, CALLS CALL SEP "{}", "C{" CALLS CALL SEP "{}}"},
        {TOOLS, CALLS CALL "function" SEP, "C{" CALLS CALL "function" SEP "}"},
        {TOOLS, CALLS CALL "function" SEP "f" CALL_END,
         "C{" CALLS CALL "function" SEP "f" CALL_END "}"},
        {TOOLS, CALLS CALL "function" SEP "f\n```js", "C{" CALLS CALL "function" SEP "f\n```js}"},
        {TOOLS, CALL "f" SEP "{}" CALL_END, "C{" CALL "f" SEP "{}" CALL_END "}"},
        {TOOLS, CALLS CALL "f" SEP "{}" CALL_END " and then", "T0{f}A0{{}}C{ and then}"},
        {TOOLS, CALLS CALL "f" SEP "{}" CALL_END CALL "?" CALLS CALL "g" SEP "1" CALL_END,
         "T0{f}A0{{}}C{" CALL "?}T1{g}A1{1}"},
        {TOOLS, CALLS CALLS CALL "f" SEP "{}" CALL_END, "C{" CALLS "}T0{f}A0{{}}"},
        {TOOLS, CALLS_END, "C{" CALLS_END "}"},
    };
    check_cases(cases, CMI_LEN(cases));
}

static void a_name_has_a_limit(void **state)
{
    (void)state;
    for (int extra = 0; extra <= 1; extra++) {
        char name[CMI_ANSWER_MAX_CALL_NAME_BYTES + 2] = {0};
        memset(name, 'n', (size_t)(CMI_ANSWER_MAX_CALL_NAME_BYTES + extra));
        cmi_buf text, one, many;
        cmi_buf_init(&text, 10000);
        cmi_buf_init(&one, 10000);
        cmi_buf_init(&many, 10000);
        cmi_buf_printf(&text, CALLS CALL "%s" SEP "{}" CALL_END, name);
        parse(TOOLS, text.data, text.len, 0, &one);
        parse(TOOLS, text.data, text.len, 1, &many);
        assert_string_equal(one.data, many.data);
        assert_int_equal(one.data[0], extra == 0 ? 'T' : 'C');
        cmi_buf_deinit(&text);
        cmi_buf_deinit(&one);
        cmi_buf_deinit(&many);
    }
}

static void text_is_given_at_once(void **state)
{
    (void)state;
    const cmi_answer_parser_options o = {.tool_calls = true};
    cmi_answer_parser p;
    cmi_answer_parser_init(&p, &o);
    cmi_answer_piece piece;
    cmi_answer_parser_feed(&p, "Hi", 2);
    assert_true(cmi_answer_parser_next(&p, &piece));
    assert_int_equal(piece.n_bytes, 2);
    cmi_answer_parser_feed(&p, " <", 2); /* may open a marker */
    assert_true(cmi_answer_parser_next(&p, &piece));
    assert_memory_equal(piece.text, " ", piece.n_bytes);
    assert_false(cmi_answer_parser_next(&p, &piece));
    cmi_answer_parser_feed(&p, "3", 1);
    assert_true(cmi_answer_parser_next(&p, &piece));
    assert_int_equal(piece.n_bytes, 2);
    cmi_answer_parser_deinit(&p);
}

/* Any sequence of markers and scraps gives the same pieces however it is cut. */
static void cuts_do_not_matter(void **state)
{
    (void)state;
    static const char *const parts[] = {
        CALLS, CALLS_END, CALL,        CALL_END,   SEP,       "function", "f",
        "{}",  "\n",      "```json\n", "\n```",    "<think>", "</think>", "x",
        "<",   "\n\n",    " ",         "<｜tool▁", "```",     "\"\\\"",
    };
    for (uint64_t seed = 2; seed < 4000; seed++) {
        cmi_buf text, whole, cut;
        cmi_buf_init(&text, 10000);
        cmi_buf_init(&whole, 10000);
        cmi_buf_init(&cut, 10000);
        uint32_t r[4];
        cmi_philox4x32(seed, 0, 7, r);
        /* half of the texts begin as a call does, to get deep into it */
        cmi_buf_str(&text, (r[1] & 1) != 0 ? CALLS CALL : "");
        cmi_buf_str(&text, (r[1] & 3) == 3 ? "function" SEP "f\n```json\n" : "");
        int options = (int)(r[2] % 4);
        for (uint32_t i = 0; i < r[0] % 12; i++) {
            uint32_t s[4];
            cmi_philox4x32(seed, i, 8, s);
            cmi_buf_str(&text, parts[s[0] % CMI_LEN(parts)]);
        }
        parse(options, cmi_buf_cstr(&text), text.len, 0, &whole);
        for (uint64_t way = 0; way < 3; way++) {
            cmi_buf_clear(&cut);
            parse(options, cmi_buf_cstr(&text), text.len, way == 0 ? 1 : seed * 3 + way, &cut);
            if (strcmp(cmi_buf_cstr(&whole), cmi_buf_cstr(&cut)) != 0) {
                fail_msg("seed %d: %s\nwhole %s\ncut   %s", (int)seed, cmi_buf_cstr(&text),
                         cmi_buf_cstr(&whole), cmi_buf_cstr(&cut));
            }
        }
        cmi_buf_deinit(&text);
        cmi_buf_deinit(&whole);
        cmi_buf_deinit(&cut);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reasoning_is_split_off),
        cmocka_unit_test(both_forms_of_calls_are_read),
        cmocka_unit_test(malformed_markup_is_content),
        cmocka_unit_test(a_name_has_a_limit),
        cmocka_unit_test(text_is_given_at_once),
        cmocka_unit_test(cuts_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
