/* Any bytes as an answer (the first one chooses options and cuts): what comes out does not depend
 * on the cuts, and of an answer without well-formed markup nothing is lost. */
#include "text/answer_parser.h"

#include <assert.h>
#include <string.h>

#include "base/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void take(cmi_answer_parser *p, cmi_buf *out, int *last)
{
    cmi_answer_piece piece;
    while (cmi_answer_parser_next(p, &piece)) {
        assert(piece.n_bytes > 0);
        int kind = (int)piece.type * 1000000 + (int)piece.call_idx;
        if (kind != *last) {
            cmi_buf_printf(out, "\n[%d]", kind);
            *last = kind;
        }
        cmi_buf_append(out, piece.text, piece.n_bytes);
    }
}

static void parse(uint8_t options, bool cut, const char *text, size_t n, cmi_buf *out)
{
    const cmi_answer_parser_options o = {(options & 1) != 0, (options & 2) != 0};
    cmi_answer_parser p;
    cmi_answer_parser_init(&p, &o);
    int last = -1;
    size_t at = 0;
    for (uint64_t i = 0; at < n; i++) {
        uint32_t w[4];
        cmi_philox4x32(options, i, 0, w);
        size_t piece = cut ? CMI_MIN(n - at, w[0] % 7) : n;
        cmi_answer_parser_feed(&p, text + at, piece);
        at += piece;
        take(&p, out, &last);
    }
    cmi_answer_parser_end(&p);
    take(&p, out, &last);
    cmi_answer_parser_deinit(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes == 0) {
        return 0;
    }
    const char *text = (const char *)data + 1;
    size_t n = n_bytes - 1;
    cmi_buf whole, cut;
    cmi_buf_init(&whole, SIZE_MAX / 2);
    cmi_buf_init(&cut, SIZE_MAX / 2);
    parse(data[0], false, text, n, &whole);
    parse(data[0], true, text, n, &cut);
    assert(whole.len == cut.len && memcmp(cmi_buf_cstr(&whole), cmi_buf_cstr(&cut), cut.len) == 0);
    cmi_buf_deinit(&whole);
    cmi_buf_deinit(&cut);
    return 0;
}
