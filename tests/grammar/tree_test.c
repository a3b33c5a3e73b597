/* Parts put together, markers among them. */
#include "tests/grammar/fixture.h"

#include "base/buf.h"

enum { A = 300, B = 301, N_IDS = 302 }; /* markers behind small_vocab's bytes */

static cmi_vocab *vocab;

/* The bytes, an end token, and two markers. */
static int make_vocab(void **state)
{
    (void)state;
    static char bytes[END_ID];
    cmi_vocab_token tokens[N_IDS] = {0};
    const uint32_t end = END_ID;
    for (uint32_t id = 0; id < END_ID; id++) {
        bytes[id] = (char)id;
        tokens[id] = (cmi_vocab_token){.bytes = &bytes[id], .n_bytes = 1};
    }
    tokens[A] = (cmi_vocab_token){.bytes = "<a>", .n_bytes = 3, .is_marker = true};
    tokens[B] = (cmi_vocab_token){.bytes = "<b>", .n_bytes = 3, .is_marker = true};
    return cmi_vocab_create(&vocab, tokens, N_IDS, &end, 1, NULL) == CMI_OK ? 0 : -1;
}

static int destroy_vocab(void **state)
{
    (void)state;
    cmi_vocab_destroy(vocab);
    return 0;
}

static cmi_grammar *compile_tree(const char *tree)
{
    cmi_grammar *g = NULL;
    cmi_error err = {0};
    cmi_grammar_source source = {.kind = CMI_GRAMMAR_TREE, .text = tree, .n_bytes = strlen(tree)};
    if (cmi_grammar_compile(&g, vocab, &source, &err) != CMI_OK) {
        fail_msg("%s: %s", tree, err.text);
    }
    return g;
}

/* Tokens of a text: bytes, with A and B as the markers and $ as the end; whether all were allowed.
 * Every mask on the way is what each token alone says. */
static bool takes(const cmi_grammar *g, const char *text)
{
    uint32_t mask[CMI_DIV_UP(N_IDS, 32)];
    cmi_matcher m;
    cmi_matcher_init(&m, g);
    for (; *text != '\0'; text++) {
        uint32_t id = *text == 'A' ? A : *text == 'B' ? B : *text == '$' ? END_ID : (uint8_t)*text;
        (void)cmi_matcher_mask(&m, mask);
        for (uint32_t other = 0; other < N_IDS; other++) {
            cmi_matcher copy;
            cmi_matcher_copy(&copy, &m);
            bool allowed = (mask[other / 32] >> other % 32 & 1) != 0;
            assert_int_equal(cmi_matcher_accept(&copy, other), allowed);
        }
        if (!cmi_matcher_accept(&m, id)) {
            return false;
        }
    }
    return true;
}

static void check(const char *tree, const char *const *good, const char *const *bad)
{
    cmi_grammar *g = compile_tree(tree);
    for (; *good != NULL; good++) {
        if (!takes(g, *good)) {
            fail_msg("%s: refuses %s", tree, *good);
        }
    }
    for (; *bad != NULL; bad++) {
        if (takes(g, *bad)) {
            fail_msg("%s: allows %s", tree, *bad);
        }
    }
    cmi_grammar_destroy(g);
}

#define TEXTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void every_part_is_its_texts(void **state)
{
    (void)state;
    check("{\"text\":\"x\xC3\xA9\"}", TEXTS("x\xC3\xA9$"), TEXTS("$", "x$", "y"));
    check("{\"text\":\"\"}", TEXTS("$"), TEXTS("x"));
    check("{\"token\":300}", TEXTS("A$"), TEXTS("B", "$", "<"));
    check("{\"regex\":\"a+|b\"}", TEXTS("aaa$", "b$"), TEXTS("ab", "$"));
    check("{\"json\":{\"type\":\"integer\"}}", TEXTS("12$", "-1$"), TEXTS("a", "$"));
    check("{\"json\":{\"type\":\"object\"}}", TEXTS("{}$", "{\"a\": [1, {}]}$"), TEXTS("[", "1"));
    check("{\"json\":true}", TEXTS("[1]$", "null$"), TEXTS("$"));
}

static void parts_stand_behind_and_beside_each_other(void **state)
{
    (void)state;
    check("{\"sequence\":[{\"text\":\"ab\"},{\"token\":300},{\"any\":[{\"text\":\"\"},"
          "{\"text\":\"\\n\"}]},{\"json\":{\"enum\":[1,2]}},{\"token\":301}]}",
          TEXTS("abA1B$", "abA\n2B$"), TEXTS("abA1$", "abA3", "abA\n\n", "aA", "abB"));
    check("{\"any\":[{\"text\":\"tea\"},{\"text\":\"ten\"},{\"json\":{\"type\":\"boolean\"}}]}",
          TEXTS("tea$", "ten$", "true$"), TEXTS("te$", "tr$", "teatea"));
    check("{\"list\":{\"any\":[{\"text\":\"a\"},{\"text\":\"b\"}]},\"between\":{\"text\":\", \"}}",
          TEXTS("a$", "a, b, a$"), TEXTS("$", "aa", "a, $", "a,b"));
    check("{\"sequence\":[{\"list\":{\"text\":\"a\"}},{\"text\":\"b\"}]}", TEXTS("ab$", "aaab$"),
          TEXTS("b", "abab"));
}

/* Markup of calls: what follows a name depends on the name, and texts hold no marker. */
static void a_call_is_bound_by_its_name(void **state)
{
    (void)state;
    const char *tree =
        "{\"sequence\":[{\"token\":300},{\"list\":{\"any\":["
        "{\"sequence\":[{\"text\":\"get\"},{\"json\":{\"type\":\"object\",\"properties\":"
        "{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"]}},{\"token\":301}]},"
        "{\"sequence\":[{\"text\":\"getall\"},{\"json\":{\"type\":\"object\",\"properties\":"
        "{\"s\":{\"$ref\":\"#/$defs/x\"}},\"required\":[\"s\"],\"$defs\":{\"x\":"
        "{\"type\":\"string\"}}}},{\"token\":301}]}]},\"between\":{\"text\":\"\\n\"}}]}";
    check(tree,
          TEXTS("Aget{\"n\": 1}B$", "Agetall{\"s\": \"x<b>\"}B$",
                "Aget{\"n\":1}B\ngetall{\"s\":\"\"}B$"),
          TEXTS("Aget{\"s", "Agetall{\"n", "Aget{\"n\":1}B\n$", "Agetall{\"s\": \"xB",
                "Agetall{\"s\": \"x\"}$"));
}

/* References point into their own schema, although both say the same. */
static void schemas_of_a_tree_do_not_mix(void **state)
{
    (void)state;
    check("{\"any\":[{\"sequence\":[{\"text\":\"1\"},{\"json\":{\"type\":\"array\",\"items\":"
          "{\"anyOf\":[{\"$ref\":\"#/$defs/x\"}]},\"$defs\":{\"x\":{\"const\":\"one\"}}}}]},"
          "{\"sequence\":[{\"text\":\"2\"},{\"json\":{\"type\":\"array\",\"items\":"
          "{\"anyOf\":[{\"$ref\":\"#/$defs/x\"}]},\"$defs\":{\"x\":{\"const\":\"two\"}}}}]}]}",
          TEXTS("1[\"one\"]$", "2[\"two\", \"two\"]$"), TEXTS("1[\"t", "2[\"o"));
}

static void what_is_no_tree_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *tree, *says;
    } cases[] = {
        {"", "not JSON"},
        {"[]", "part that is known"},
        {"{}", "part that is known"},
        {"{\"text\":5}", "string"},
        {"{\"token\":97}", "marker"},
        {"{\"token\":256}", "marker"},
        {"{\"token\":99999}", "marker"},
        {"{\"token\":-1}", "marker"},
        {"{\"token\":\"a\"}", "marker"},
        {"{\"sequence\":[]}", "not empty"},
        {"{\"any\":{}}", "not empty"},
        {"{\"any\":[5]}", "part that is known"},
        {"{\"list\":5}", "part that is known"},
        {"{\"regex\":\"(\"}", "regular expression"},
        {"{\"json\":{\"if\":{}},\"name\":\"f\"}", "schema at f#: "},
        {"{\"json\":{\"properties\":{\"p\":{\"not\":{}}}},\"name\":\"f\"}",
         "schema at f#/properties/p: "},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_error err = {0};
        cmi_status st = try_compile(vocab, CMI_GRAMMAR_TREE, cases[i].tree, &err);
        if (st >= CMI_OK || strstr(err.text, cases[i].says) == NULL) {
            fail_msg("%s: %d, %s", cases[i].tree, st, err.text);
        }
    }
    cmi_buf deep;
    cmi_buf_init(&deep, 1 << 12);
    for (int i = 0; i < CMI_GRAMMAR_MAX_TREE_DEPTH; i++) {
        cmi_buf_str(&deep, "{\"any\":[");
    }
    cmi_buf_str(&deep, "{\"text\":\"x\"}");
    for (int i = 0; i < CMI_GRAMMAR_MAX_TREE_DEPTH; i++) {
        cmi_buf_str(&deep, "]}");
    }
    cmi_error err = {0};
    assert_int_equal(try_compile(vocab, CMI_GRAMMAR_TREE, cmi_buf_cstr(&deep), &err),
                     CMI_ERR_TOO_LARGE);
    cmi_buf_deinit(&deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_is_its_texts),
        cmocka_unit_test(parts_stand_behind_and_beside_each_other),
        cmocka_unit_test(a_call_is_bound_by_its_name),
        cmocka_unit_test(schemas_of_a_tree_do_not_mix),
        cmocka_unit_test(what_is_no_tree_is_refused),
    };
    return cmocka_run_group_tests(tests, make_vocab, destroy_vocab);
}
