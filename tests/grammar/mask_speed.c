/* mask_speed DIR [END_ID] - how long masks take with the vocabulary of DIR/tokenizer.json.
 *
 * Goes through texts of several grammars token by token, and prints for each the time to compile
 * and microseconds a mask: mean, median, worst. Each is the best of a few runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "grammar/matcher.h"
#include "os/clock.h"

typedef struct speed_case {
    const char *name;
    cmi_grammar_kind kind;
    const char *source, *text;
} speed_case;

static const speed_case cases[] = {
    {"any object", CMI_GRAMMAR_JSON_OBJECT, "",
     "{\"name\": \"The quick brown fox\", \"values\": [1, 2.5, -3e2, true, null], \"nested\": "
     "{\"key\": \"value with \\\"quotes\\\" and more words\", \"list\": [[], {}, [\"x\"]]}}"},
    {"object schema", CMI_GRAMMAR_JSON_SCHEMA,
     "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, \"age\": "
     "{\"type\": "
     "\"integer\", \"minimum\": 0, \"maximum\": 150}, \"tags\": {\"type\": \"array\", \"items\": "
     "{\"type\": \"string\"}}, \"mail\": {\"type\": \"string\", \"format\": \"email\"}, \"kind\": "
     "{\"enum\": [\"person\", \"company\"]}}, \"required\": [\"name\", \"age\", \"tags\", "
     "\"mail\", "
     "\"kind\"]}",
     "{\"name\": \"Ada Lovelace, Countess\", \"age\": 36, \"tags\": [\"mathematics\", \"computing "
     "machines\", \"poetry\"], \"mail\": \"ada.lovelace@example.com\", \"kind\": \"person\"}"},
    {"counted string", CMI_GRAMMAR_JSON_SCHEMA,
     "{\"type\": \"string\", \"minLength\": 1, \"maxLength\": 60}",
     "\"The quick brown fox jumps over the lazy dog, and on it goes.\""},
    {"long counted string", CMI_GRAMMAR_JSON_SCHEMA,
     "{\"type\": \"string\", \"minLength\": 1, \"maxLength\": 5000}",
     "\"The quick brown fox jumps over the lazy dog, and then on and on it goes.\""},
    {"pattern [a-z ]{1,200}", CMI_GRAMMAR_JSON_SCHEMA,
     "{\"type\": \"string\", \"pattern\": \"^[a-z ]{1,200}$\"}",
     "\"the quick brown fox jumps over the lazy dog and then on and on it goes\""},
    {"pattern [a-z ]{1,2000}", CMI_GRAMMAR_JSON_SCHEMA,
     "{\"type\": \"string\", \"pattern\": \"^[a-z ]{1,2000}$\"}",
     "\"the quick brown fox jumps over the lazy dog and then on and on it goes\""},
    {"pattern [a-z ]{300,600}", CMI_GRAMMAR_JSON_SCHEMA,
     "{\"type\": \"string\", \"pattern\": \"^[a-z ]{300,600}$\"}",
     "\"the quick brown fox jumps over the lazy dog and then on and on it goes through the woods "
     "and "
     "over the hills until it comes to a river so wide that no fox however quick has ever jumped "
     "it "
     "and there it sits down on a stone and thinks about the dog which by now has woken up and is "
     "on "
     "its way home to a warm place by the fire where nobody jumps over anybody and this is where "
     "the "
     "story ends for all of them x\""},
    {"expression .*", CMI_GRAMMAR_REGEX, "(.|\\n)*",
     "The quick brown fox\njumps over the lazy dog."},
    {"date-time", CMI_GRAMMAR_JSON_SCHEMA, "{\"type\": \"string\", \"format\": \"date-time\"}",
     "\"2024-02-29T12:34:56.789+01:00\""},
};

static int compare_times(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void run_case(const speed_case *c, const cmi_tokenizer *tokenizer, const cmi_vocab *vocab)
{
    enum { REPEATS = 5 };
    cmi_grammar *g = NULL;
    cmi_error err = {0};
    cmi_grammar_source source = {.kind = c->kind, .text = c->source, .n_bytes = strlen(c->source)};
    uint64_t begin, compile_ns = UINT64_MAX;
    for (int r = 0; r < REPEATS; r++) {
        cmi_grammar_destroy(g);
        begin = cmi_clock_monotonic_ns();
        if (cmi_grammar_compile(&g, vocab, &source, &err) != CMI_OK) {
            printf("%s: %s\n", c->name, err.text);
            return;
        }
        compile_ns = CMI_MIN(compile_ns, cmi_clock_monotonic_ns() - begin);
    }
    uint32_t *mask = cmi_alloc(cmi_vocab_mask_words(vocab), sizeof *mask);
    cmi_ids ids = {0};
    if (cmi_tokenizer_encode(tokenizer, c->text, strlen(c->text), 0, &ids, &err) != CMI_OK) {
        ids.len = 0;
    }
    double *times = cmi_alloc(ids.len + 1, sizeof *times), sum = 0;
    cmi_matcher m;
    cmi_matcher_init(&m, g);
    bool ok = true;
    for (size_t i = 0; i <= ids.len; i++) {
        for (int r = 0; r < REPEATS; r++) {
            begin = cmi_clock_monotonic_ns();
            cmi_matcher_mask(&m, mask);
            double us = (double)(cmi_clock_monotonic_ns() - begin) * 1e-3;
            times[i] = r == 0 || us < times[i] ? us : times[i];
        }
        sum += times[i];
        ok = ok && (i == ids.len || cmi_matcher_accept(&m, ids.data[i]));
    }
    qsort(times, ids.len + 1, sizeof *times, compare_times);
    printf("%-24s compiled in %6.1f ms, %5u states, %5zu KB; %3zu masks: mean %6.1f, median %6.1f, "
           "worst %7.1f us%s\n",
           c->name, (double)compile_ns * 1e-6, cmi_grammar_n_states(g),
           cmi_grammar_n_bytes(g) >> 10, ids.len + 1, sum / (double)(ids.len + 1),
           times[(ids.len + 1) / 2], times[ids.len], ok ? "" : " REFUSED");
    cmi_free(times);
    cmi_free(mask);
    cmi_ids_deinit(&ids);
    cmi_grammar_destroy(g);
}

int main(int argc, char **argv)
{
    cmi_tokenizer *tokenizer = NULL;
    cmi_vocab *vocab = NULL;
    cmi_error err = {0};
    if (argc < 2 || cmi_tokenizer_load(&tokenizer, argv[1], &err) != CMI_OK) {
        fprintf(stderr, "usage: mask_speed DIR [END_ID]: %s\n", err.text);
        return 2;
    }
    uint32_t end =
        argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : cmi_tokenizer_eos_id(tokenizer);
    uint64_t begin = cmi_clock_monotonic_ns();
    if (cmi_vocab_from_tokenizer(&vocab, tokenizer, cmi_tokenizer_n_ids(tokenizer), &end, 1,
                                 &err) != CMI_OK) {
        fprintf(stderr, "mask_speed: %s\n", err.text);
        return 1;
    }
    printf("%u tokens, vocabulary made in %.1f ms\n", cmi_vocab_n_ids(vocab),
           (double)(cmi_clock_monotonic_ns() - begin) * 1e-6);
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        run_case(&cases[i], tokenizer, vocab);
    }
    cmi_vocab_destroy(vocab);
    cmi_tokenizer_destroy(tokenizer);
    return 0;
}
