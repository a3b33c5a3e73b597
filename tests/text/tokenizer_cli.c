/* tests/text/tokenizer_cli.c - the tokenizer as a filter, for tests in other languages.
 *
 * tokenizer_cli DIR: reads strings, each a 4-byte little-endian length and that many bytes, and
 *     writes one line for each: {"ids":[...],"same":true}; same: the ids decode to the string.
 * tokenizer_cli --categories: writes one letter for each code point from U+0000 to U+10FFFF, its
 *     general category's first letter as PCRE2 knows it, a small letter if it is white space.
 * tokenizer_cli DIR --time FILE: writes how long loading takes and how fast encoding the file is.
 */
#include <stdio.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/utf8.h"
#include "os/clock.h"
#include "os/file.h"
#include "text/detokenizer.h"

enum { MAX_STRING_BYTES = 256 << 20 };

static int fail(const cmi_error *err)
{
    fprintf(stderr, "tokenizer_cli: %s\n", err->text);
    return 1;
}

static bool read_string(cmi_buf *out)
{
    unsigned char head[4];
    if (fread(head, 1, sizeof head, stdin) != sizeof head) {
        return false;
    }
    size_t n = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    cmi_buf_clear(out);
    char *to = cmi_buf_reserve(out, n);
    if (to == NULL || fread(to, 1, n, stdin) != n) {
        return false;
    }
    out->len = n;
    return true;
}

static int filter(const cmi_tokenizer *t)
{
    cmi_buf text, decoded;
    cmi_buf_init(&text, MAX_STRING_BYTES);
    cmi_buf_init(&decoded, MAX_STRING_BYTES);
    cmi_ids ids = {0};
    cmi_error err = {0};
    int rc = 0;
    while (rc == 0 && read_string(&text)) {
        ids.len = 0;
        if (cmi_tokenizer_encode(t, cmi_buf_cstr(&text), text.len, CMI_ENCODE_ADDED_TOKENS, &ids,
                                 &err) != CMI_OK) {
            rc = fail(&err);
            break;
        }
        printf("{\"ids\":[");
        for (size_t i = 0; i < ids.len; i++) {
            printf("%s%u", i == 0 ? "" : ",", ids.data[i]);
        }
        cmi_buf_clear(&decoded);
        cmi_tokenizer_decode(t, ids.data, ids.len, false, &decoded);
        bool same = decoded.len == text.len &&
                    memcmp(cmi_buf_cstr(&decoded), cmi_buf_cstr(&text), text.len) == 0;
        printf("],\"same\":%s}\n", same ? "true" : "false");
    }
    cmi_ids_deinit(&ids);
    cmi_buf_deinit(&text);
    cmi_buf_deinit(&decoded);
    return rc;
}

static int categories(void)
{
    static const char *const patterns[] = {"\\p{White_Space}", "\\p{L}", "\\p{M}", "\\p{N}",
                                           "\\p{P}",           "\\p{S}", "\\p{Z}", "\\p{C}"};
    static const char letters[] = " LMNPSZC";
    pcre2_code *codes[CMI_LEN(patterns)];
    for (size_t i = 0; i < CMI_LEN(patterns); i++) {
        int rc;
        PCRE2_SIZE offset;
        codes[i] = pcre2_compile((PCRE2_SPTR)patterns[i], PCRE2_ZERO_TERMINATED,
                                 PCRE2_UTF | PCRE2_UCP, &rc, &offset, NULL);
        if (codes[i] == NULL) {
            return 1;
        }
    }
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        char bytes[4], letter = '?';
        size_t n = cp >= 0xD800 && cp <= 0xDFFF ? 0 : cmi_utf8_encode(cp, bytes);
        bool white = false;
        for (size_t i = 0; n > 0 && i < CMI_LEN(patterns); i++) {
            if (pcre2_match(codes[i], (PCRE2_SPTR)bytes, n, 0, 0, match, NULL) >= 0) {
                white |= i == 0;
                letter = letters[i];
            }
        }
        putchar(white ? letter + 'a' - 'A' : letter);
    }
    pcre2_match_data_free(match);
    for (size_t i = 0; i < CMI_LEN(patterns); i++) {
        pcre2_code_free(codes[i]);
    }
    return 0;
}

static int time_encode(const char *dir, const char *path)
{
    enum { RUNS = 3 };
    cmi_error err = {0};
    cmi_tokenizer *t = NULL;
    uint64_t start = cmi_clock_monotonic_ns();
    if (cmi_tokenizer_load(&t, dir, &err) != CMI_OK) {
        return fail(&err);
    }
    double load_s = 1e-9 * (double)(cmi_clock_monotonic_ns() - start);
    cmi_buf text;
    cmi_status st = cmi_file_read(&text, path, MAX_STRING_BYTES, &err);
    double best_s = 1e9;
    size_t n_ids = 0;
    for (int run = 0; st == CMI_OK && run < RUNS; run++) {
        cmi_ids ids = {0};
        start = cmi_clock_monotonic_ns();
        st = cmi_tokenizer_encode(t, cmi_buf_cstr(&text), text.len, CMI_ENCODE_ADDED_TOKENS, &ids,
                                  &err);
        double s = 1e-9 * (double)(cmi_clock_monotonic_ns() - start);
        best_s = CMI_MIN(best_s, s);
        n_ids = ids.len;
        cmi_ids_deinit(&ids);
    }
    if (st == CMI_OK) {
        printf("load %.3f s; %zu bytes to %zu ids in %.3f s, %.1f MB/s\n", load_s, text.len, n_ids,
               best_s, (double)text.len / best_s / 1e6);
    }
    cmi_buf_deinit(&text);
    cmi_tokenizer_destroy(t);
    return st == CMI_OK ? 0 : fail(&err);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--categories") == 0) {
        return categories();
    }
    if (argc == 4 && strcmp(argv[2], "--time") == 0) {
        return time_encode(argv[1], argv[3]);
    }
    if (argc != 2) {
        fprintf(stderr, "usage: tokenizer_cli DIR [--time FILE] | --categories\n");
        return 2;
    }
    cmi_error err = {0};
    cmi_tokenizer *t = NULL;
    if (cmi_tokenizer_load(&t, argv[1], &err) != CMI_OK) {
        return fail(&err);
    }
    int rc = filter(t);
    cmi_tokenizer_destroy(t);
    return rc;
}
