#include "tests/grammar/fixture.h"

typedef struct schema_case {
    const char *schema;
    const char *good[12], *bad[12];
} schema_case;

static const schema_case values[] = {
    {"{\"type\": \"null\"}", {"null"}, {"", "nul", "0"}},
    {"{\"type\": \"boolean\"}", {"true", "false"}, {"null", "True"}},
    {"{\"type\": \"integer\"}",
     {"0", "-0", "7", "-12", "123456789012345678"},
     {"01", "1.0", "+1", "-", "1234567890123456789"}},
    {"{\"type\": \"number\"}",
     {"0", "-1.5", "1e5", "1.25E-10", "0.1"},
     {"1.", ".5", "1e", "1e100", "01", "0x1"}},
    {"{\"type\": [\"integer\", \"null\"]}", {"1", "null"}, {"\"\"", "true"}},
    {"{\"type\": \"string\", \"nullable\": true}", {"\"\"", "null"}, {"1"}},
    {"{\"const\": \"a\\\"b\"}", {"\"a\\\"b\""}, {"\"a\"", "\"ab\""}},
    {"{\"enum\": [\"red\", 1, 1.5, null, {\"a\": [1]}, \"\xC3\xA9\"]}",
     {"\"red\"", "1", "1.5", "null", "{\"a\":[1]}", "\"\xC3\xA9\""},
     {"\"blue\"", "2", "{\"a\": [1]}"}},
    {"{\"type\": \"string\", \"enum\": [\"a\", 1]}", {"\"a\""}, {"1"}},
    {"{\"type\": \"number\", \"enum\": [0.1, 1]}", {"0.1", "1"}, {"0.10"}},
    {"{\"enum\": [1, 2], \"const\": 2}", {"2"}, {"1"}},
    {"true",
     {"{}", "[]", "1", "\"a\"", "null", "{\"a\": [true, {\"b\": \"c\"}]}"},
     {"", "{", "nul"}},
    {"{\"description\": \"anything\"}", {"[1, [2]]"}, {"[1 2]"}},
    {"{\"type\": \"string\"}",
     {"\"\"", "\"a b\"", "\"\\n\\\"\\\\\\/\\u00e9\"", "\"\\ud83d\\ude00\"", "\"\xF0\x9F\x98\x80\""},
     {"\"", "\"\n\"", "\"\\x\"", "\"\\ud83d\"", "\"\\u0000\"", "\"\xC3\"", "\"\xED\xA0\x80\"",
      "\"\\ude00\""}},
    {"{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}",
     {"\"ab\"", "\"abc\"", "\"\xC3\xA9\\n\"", "\"\\ud83d\\ude00x\""},
     {"\"a\"", "\"abcd\"", "\"\xC3\xA9\"", "\"\\ud83d\\ude00\""}},
    {"{\"minLength\": 1}", {"\"a\""}, {"\"\"", "1"}},
    {"{\"type\": \"string\", \"maxLength\": 0}", {"\"\""}, {"\"a\""}},
    {"{\"type\": \"string\", \"pattern\": \"^[a-z]+$\"}",
     {"\"abc\""},
     {"\"\"", "\"aB\"", "\"\\u0061\""}},
    {"{\"type\": \"string\", \"pattern\": \"a.\\\"\\\\\\\\\\n\"}",
     {"\"ab\\\"\\\\\\n\""},
     {"\"ab\"\"", "\"ab\\\"\\\\\n\""}},
    {"{\"type\": \"string\", \"pattern\": \"[^b]\"}",
     {"\"a\"", "\"\\\"\"", "\"\\u0001\"", "\"\\t\"", "\"\xC3\xA9\""},
     {"\"b\"", "\"\\u0009\"", "\"\\u0000\"", "\"\\u0062\""}},
    {"{\"type\": \"string\", \"pattern\": \"^[a-z]*$\", \"minLength\": 2, \"maxLength\": 4}",
     {"\"ab\"", "\"abcd\""},
     {"\"a\"", "\"abcde\"", "\"A\""}},
    {"{\"type\": \"string\", \"pattern\": \"(ab)+\", \"maxLength\": 5}",
     {"\"ab\"", "\"abab\""},
     {"\"ababab\"", "\"a\""}},
    {"{\"type\": \"string\", \"pattern\": \"(ab)+\", \"minLength\": 3}",
     {"\"abab\"", "\"ababab\""},
     {"\"ab\"", "\"abb\""}},
};

static const schema_case objects[] = {
    {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": "
     "\"string\"}, \"c\": {\"type\": \"null\"}}, \"required\": [\"b\"]}",
     {"{\"b\":\"\"}", "{\"a\":1,\"b\":\"x\"}", "{\"b\": \"\", \"c\": null}",
      "{\n  \"a\": 1,\n  \"b\": \"\"\n}", "{ \"b\": \"\" }", "{\n\t\"b\": \"\"\n}"},
     {"{}", "{\"a\":1}", "{\"b\":\"\",\"a\":1}", "{\"b\":\"\",\"d\":1}", "{\"b\":\"\",}",
      "{,\"b\":\"\"}", "{  \"b\":\"\"}", "{\"b\" :\"\"}", "{\"b\":\"\"} ", " {\"b\":\"\"}",
      "{\"b\":\"\"\"c\":null}"}},
    {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": "
     "\"integer\"}}}",
     {"{}", "{ }", "{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":2}"},
     {"{\"b\":1,\"a\":1}", "{\"c\":1}", "{\"a\":1,}"}},
    {"{\"type\": \"object\"}", {"{}", "{\"x\":1,\"y\":{\"z\":[]}}"}, {"[]", "{\"x\"}"}},
    {"{\"type\": \"object\", \"additionalProperties\": {\"type\": \"integer\"}}",
     {"{}", "{\"x\":1,\"y\":2}"},
     {"{\"x\":\"\"}"}},
    {"{\"type\": \"object\", \"additionalProperties\": false}", {"{}"}, {"{\"a\":1}"}},
    {"{\"type\": \"object\", \"properties\": {\"ab\": {\"type\": \"integer\"}, \"a\\\"\": "
     "{\"type\": \"null\"}}, \"additionalProperties\": {\"type\": \"boolean\"}}",
     {"{\"ab\":1}", "{\"ab\":1,\"x\":true}", "{\"a\":true}", "{\"abc\":true,\"b\":false}",
      "{\"\":true}", "{\"a\\\"\":null}", "{\"a\\\"b\":true}", "{\"b\\u0061\":true}",
      "{\"\xC3\xA9\":true}"},
     {"{\"ab\":true}", "{\"x\":true,\"ab\":1}", "{\"\\u0061b\":true}", "{\"x\":1}",
      "{\"a\\\"\":true}", "{\"a\\u0022\":true}"}},
    {"{\"type\": \"object\", \"properties\": {\"a\": true}, \"required\": [\"a\", \"z\"], "
     "\"additionalProperties\": {\"type\": \"integer\"}}",
     {"{\"a\":[],\"z\":1}", "{\"a\":1,\"z\":1,\"y\":2}"},
     {"{\"a\":1}", "{\"z\":1,\"a\":1}", "{\"a\":1,\"z\":[]}"}},
    {"{\"required\": [\"z\"]}", {"{\"z\":[]}", "{\"z\":1,\"y\":2}"}, {"{}", "{\"y\":1}"}},
    {"{\"type\": \"object\", \"minProperties\": 1, \"maxProperties\": 2}",
     {"{\"a\":1}", "{\"a\":1,\"b\":2}"},
     {"{}", "{\"a\":1,\"b\":2,\"c\":3}"}},
    {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"object\", \"properties\": "
     "{\"b\": {\"type\": \"array\", \"items\": {\"type\": \"integer\"}}}, \"required\": [\"b\"]}}, "
     "\"required\": [\"a\"]}",
     {"{\"a\":{\"b\":[1,2]}}", "{\"a\": {\"b\": []}}"},
     {"{\"a\":{}}", "{\"a\":{\"b\":[\"\"]}}"}},
    {"{\"properties\": {\"a\": false, \"b\": {\"type\": \"null\"}}}",
     {"{}", "{\"b\":null}"},
     {"{\"a\":1}"}},
};

static const schema_case arrays[] = {
    {"{\"type\": \"array\", \"items\": {\"type\": \"integer\"}}",
     {"[]", "[1]", "[1,2, 3]", "[\n  1,\n  2\n]", "[ ]"},
     {"[1,]", "[\"\"]", "[,1]", "1", "[1 2]"}},
    {"{\"type\": \"array\"}", {"[]", "[1,\"a\",[{}]]"}, {"{}"}},
    {"{\"type\": \"array\", \"minItems\": 2, \"maxItems\": 3, \"items\": {\"type\": \"boolean\"}}",
     {"[true,false]", "[true, true, true]", "[true,false ]"},
     {"[]", "[true]", "[true ]", "[true,true,true,true]"}},
    {"{\"type\": \"array\", \"minItems\": 1}", {"[1]"}, {"[]", "[ ]"}},
    {"{\"type\": \"array\", \"maxItems\": 0}", {"[]", "[ ]"}, {"[1]"}},
    {"{\"type\": \"array\", \"items\": false}", {"[]"}, {"[1]"}},
    {"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}",
     {"[]", "[1]", "[1,\"\"]"},
     {"[\"\"]", "[1,\"\",2]", "[1,2]"}},
    {"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"integer\"}], \"items\": {\"type\": "
     "\"null\"}, \"minItems\": 1, \"maxItems\": 3}",
     {"[1]", "[1,null]", "[1, null, null]"},
     {"[]", "[1,null,null,null]", "[null]"}},
    {"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"integer\"}], \"items\": {\"type\": "
     "\"null\"}}",
     {"[]", "[1]", "[1,null,null,null,null]"},
     {"[1,1]"}},
    {"{\"type\": \"array\", \"items\": [{\"type\": \"integer\"}, {\"type\": \"null\"}], "
     "\"additionalItems\": false, \"minItems\": 2}",
     {"[1,null]"},
     {"[1]", "[1,null,1]"}},
    {"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"integer\"}], \"minItems\": 2}",
     {"[1,\"x\"]", "[1,2,3]"},
     {"[1]"}},
    {"{\"type\": \"array\", \"items\": {\"type\": \"array\", \"items\": {\"type\": \"integer\"}, "
     "\"minItems\": 1, \"maxItems\": 2}, \"maxItems\": 2}",
     {"[]", "[[1],[1,2]]"},
     {"[[]]", "[[1],[1],[1]]", "[[1,2,3]]"}},
};

static const schema_case combined[] = {
    {"{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"array\", \"items\": {\"type\": "
     "\"string\"}}]}",
     {"1", "[\"\"]"},
     {"\"\"", "[1]"}},
    {"{\"oneOf\": [{\"const\": \"abc\"}, {\"const\": \"abd\"}]}",
     {"\"abc\"", "\"abd\""},
     {"\"ab\""}},
    {"{\"anyOf\": [{\"type\": \"object\", \"properties\": {\"kind\": {\"const\": \"a\"}, \"x\": "
     "{\"type\": \"integer\"}}, \"required\": [\"kind\", \"x\"]}, {\"type\": \"object\", "
     "\"properties\": {\"kind\": {\"const\": \"b\"}, \"y\": {\"type\": \"string\"}}, \"required\": "
     "[\"kind\", \"y\"]}]}",
     {"{\"kind\":\"a\",\"x\":1}", "{\"kind\":\"b\",\"y\":\"\"}"},
     {"{\"kind\":\"a\",\"y\":\"\"}", "{\"kind\":\"b\",\"x\":1}"}},
    {"{\"allOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}}, "
     "\"required\": [\"a\"]}, {\"properties\": {\"b\": {\"type\": \"null\"}, \"a\": {\"minimum\": "
     "3}}, \"required\": [\"b\"]}]}",
     {"{\"a\":3,\"b\":null}"},
     {"{\"a\":2,\"b\":null}", "{\"a\":3}"}},
    {"{\"type\": \"string\", \"allOf\": [{\"minLength\": 1}, {\"maxLength\": 2}, {\"minLength\": "
     "2}]}",
     {"\"ab\""},
     {"\"a\"", "\"abc\""}},
    {"{\"type\": [\"string\", \"number\"], \"allOf\": [{\"type\": [\"integer\", \"null\"]}]}",
     {"1"},
     {"1.5", "\"\"", "null"}},
    {"{\"allOf\": [{\"enum\": [1, 2, 3]}, {\"enum\": [2, 3, 4]}]}", {"2", "3"}, {"1", "4"}},
    {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": "
     "\"integer\"}}, \"anyOf\": [{\"required\": [\"a\"]}, {\"required\": [\"b\"]}]}",
     {"{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":1}"},
     {"{}"}},
    {"{\"allOf\": [{\"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": true}, "
     "\"additionalProperties\": false}, {\"properties\": {\"a\": true, \"c\": true}}]}",
     {"{\"a\":1}", "{}", "{\"b\":[]}"},
     {"{\"c\":1}", "{\"a\":\"\"}"}},
    {"{\"anyOf\": [{\"type\": \"string\", \"maxLength\": 2}, {\"type\": \"string\", \"minLength\": "
     "4}]}",
     {"\"ab\"", "\"abcd\"", "\"\""},
     {"\"abc\""}},
    {"{\"$ref\": \"#/$defs/a%20b~1c\", \"$defs\": {\"a b/c\": {\"type\": \"integer\"}}}",
     {"1"},
     {"\"\""}},
    {"{\"$ref\": \"#/$defs/s\", \"maxLength\": 1, \"$defs\": {\"s\": {\"type\": \"string\", "
     "\"title\": \"t\"}}}",
     {"\"a\""},
     {"\"ab\""}},
    {"{\"type\": \"object\", \"properties\": {\"v\": {\"type\": \"integer\"}, \"next\": {\"$ref\": "
     "\"#\"}}, \"required\": [\"v\"]}",
     {"{\"v\":1}", "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3}}}"},
     {"{\"v\":1,\"next\":{}}"}},
    {"{\"$ref\": \"#/$defs/tree\", \"$defs\": {\"tree\": {\"anyOf\": [{\"type\": \"null\"}, "
     "{\"type\": \"array\", \"prefixItems\": [{\"$ref\": \"#/$defs/tree\"}, {\"$ref\": "
     "\"#/$defs/tree\"}], \"minItems\": 2}]}}}",
     {"null", "[null,null]", "[[null,null],null]"},
     {"[null]", "[null,null,null]"}},
    {"{\"$defs\": {\"e\": {\"anyOf\": [{\"type\": \"object\", \"properties\": {\"l\": {\"$ref\": "
     "\"#/$defs/e\"}, \"op\": {\"const\": \"+\"}}, \"required\": [\"l\", \"op\"]}, {\"type\": "
     "\"object\", \"properties\": {\"l\": {\"$ref\": \"#/$defs/e\"}, \"op\": {\"const\": \"-\"}}, "
     "\"required\": [\"l\", \"op\"]}, {\"type\": \"integer\"}]}}, \"$ref\": \"#/$defs/e\"}",
     {"1", "{\"l\":{\"l\":{\"l\":1,\"op\":\"-\"},\"op\":\"+\"},\"op\":\"-\"}"},
     {"{\"l\":1}", "{\"l\":1,\"op\":\"*\"}"}},
};

static const schema_case formats[] = {
    {"{\"type\": \"string\", \"format\": \"date\"}",
     {"\"2024-02-29\"", "\"2023-12-31\"", "\"2000-02-29\"", "\"1999-04-30\""},
     {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-04-31\"", "\"2024-13-01\"", "\"24-01-01\"",
      "\"2024-00-10\""}},
    {"{\"type\": \"string\", \"format\": \"time\"}",
     {"\"23:59:59Z\"", "\"00:00:00.123+05:30\""},
     {"\"24:00:00Z\"", "\"23:59:59\"", "\"1:00:00Z\""}},
    {"{\"type\": \"string\", \"format\": \"date-time\"}",
     {"\"2024-02-29T12:00:00Z\""},
     {"\"2024-02-30T12:00:00Z\"", "\"2024-02-29\""}},
    {"{\"type\": \"string\", \"format\": \"duration\"}",
     {"\"P1Y2M3D\"", "\"PT5M\"", "\"P1DT12H\"", "\"P3W\""},
     {"\"P\"", "\"PT\"", "\"P1H\""}},
    {"{\"type\": \"string\", \"format\": \"uuid\"}",
     {"\"123e4567-e89b-12d3-A456-426614174000\""},
     {"\"123e4567e89b12d3a456426614174000\"", "\"g23e4567-e89b-12d3-a456-426614174000\""}},
    {"{\"type\": \"string\", \"format\": \"email\"}",
     {"\"a.b+c@example.com\""},
     {"\"a@b\"", "\"a@@b.c\"", "\".a@b.c\"", "\"a@-b.c\""}},
    {"{\"type\": \"string\", \"format\": \"hostname\"}",
     {"\"a\"", "\"a-b.example\""},
     {"\"-a\"", "\"a..b\"", "\"a-\""}},
    {"{\"type\": \"string\", \"format\": \"ipv4\"}",
     {"\"127.0.0.1\"", "\"255.249.199.9\""},
     {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""}},
    {"{\"type\": \"string\", \"format\": \"email\", \"maxLength\": 6}",
     {"\"a@b.cd\""},
     {"\"a@b.cde\""}},
};

static void check_cases(void **state, const schema_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cmi_grammar *g = compile_schema(*state, cases[i].schema);
        check_texts(g, cases[i].schema, cases[i].good, cases[i].bad);
        cmi_grammar_destroy(g);
    }
}

static void values_fit_their_schema(void **state)
{
    check_cases(state, values, CMI_LEN(values));
}

static void objects_fit_their_schema(void **state)
{
    check_cases(state, objects, CMI_LEN(objects));
}

static void arrays_fit_their_schema(void **state)
{
    check_cases(state, arrays, CMI_LEN(arrays));
}

static void combined_and_recursive_schemas_work(void **state)
{
    check_cases(state, combined, CMI_LEN(combined));
}

static void formats_are_exact(void **state)
{
    check_cases(state, formats, CMI_LEN(formats));
}

static void any_object_is_an_object(void **state)
{
    cmi_grammar *g = compile_json_object(*state);
    const char *const good[] = {"{}", "{\"a\": {\"b\": [1, 2.5e3, null, \"x\"]}}",
                                "{\n  \"a\": 1\n}", NULL};
    const char *const bad[] = {"", "[]", "1", "{\"a\":}", "{\"a\":1", NULL};
    check_texts(g, "json object", good, bad);
    cmi_grammar_destroy(g);
}

/* What is not understood must not be left out: the line says where it stands. */
static void unsupported_keywords_are_errors_with_their_path(void **state)
{
    static const struct {
        const char *schema, *line;
        cmi_status status;
    } errors[] = {
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"not\": {}}}}",
         "schema at #/properties/a: the keyword \"not\" is not supported", CMI_ERR_UNSUPPORTED},
        {"{\"type\": \"array\", \"items\": {\"type\": \"array\", \"uniqueItems\": true}}",
         "schema at #/items: \"uniqueItems\" is not supported", CMI_ERR_UNSUPPORTED},
        {"{\"anyOf\": [{}, {\"if\": {}}]}", "schema at #/anyOf/1: the keyword \"if\"",
         CMI_ERR_UNSUPPORTED},
        {"{\"typ\": \"object\"}", "the keyword \"typ\"", CMI_ERR_UNSUPPORTED},
        {"{\"type\": \"int\"}", "\"type\" must be", CMI_ERR_BAD_DATA},
        {"{\"type\": \"string\", \"format\": \"idn-email\"}",
         "schema at #: \"format\": \"idn-email\" is not supported", CMI_ERR_UNSUPPORTED},
        {"{\"type\": \"string\", \"pattern\": \"(?=a)\"}", "schema at #/pattern: look-around",
         CMI_ERR_UNSUPPORTED},
        {"{\"type\": \"number\", \"multipleOf\": 5}", "\"multipleOf\"", CMI_ERR_UNSUPPORTED},
        {"{\"patternProperties\": {}}", "\"patternProperties\"", CMI_ERR_UNSUPPORTED},
        {"{\"$ref\": \"http://x/y\"}", "\"$ref\": \"http://x/y\" is nothing inside this schema",
         CMI_ERR_UNSUPPORTED},
        {"{\"$ref\": \"#/$defs/x\"}", "is nothing inside this schema", CMI_ERR_BAD_DATA},
        {"{\"$ref\": \"#\"}", "it refers to itself", CMI_ERR_TOO_LARGE},
        {"{\"$defs\": {\"a\": {\"anyOf\": [{\"$ref\": \"#/$defs/a\"}, {\"type\": \"null\"}]}}, "
         "\"$ref\": \"#/$defs/a\"}",
         "it refers to itself", CMI_ERR_TOO_LARGE},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}, \"required\": "
         "[\"a\"]}",
         "no text fits", CMI_ERR_BAD_DATA},
        {"{\"allOf\": [{\"type\": \"string\"}, {\"type\": \"number\"}]}", "no text fits",
         CMI_ERR_BAD_DATA},
        {"{\"allOf\": [{\"pattern\": \"a\"}, {\"pattern\": \"b\"}]}",
         "two different values of \"pattern\" at once", CMI_ERR_UNSUPPORTED},
        {"false", "no text fits", CMI_ERR_BAD_DATA},
        {"{\"enum\": []}", "no text fits", CMI_ERR_BAD_DATA},
        {"{\"type\": \"string\", \"enum\": [\"a\"], \"minLength\": 3}",
         "\"minLength\" beside enum or const", CMI_ERR_UNSUPPORTED},
        {"{\"required\": [\"a\"], \"additionalProperties\": false}", "no text fits",
         CMI_ERR_BAD_DATA},
        {"{\"type\": \"string\", \"minLength\": -1}", "\"minLength\" must be a whole number",
         CMI_ERR_BAD_DATA},
        {"{\"type\": \"object\", \"properties\": {\"a\": {}}, \"minProperties\": 1}",
         "\"minProperties\"", CMI_ERR_UNSUPPORTED},
        {"{\"type\": \"array\", \"items\": 3}",
         "schema at #/items: a schema must be an object or a boolean", CMI_ERR_BAD_DATA},
        {"{\"type\": \"object\", \"properties\": []}", "\"properties\" must be an object",
         CMI_ERR_BAD_DATA},
        {"{\"type\": ", "the schema is not JSON: line 1", CMI_ERR_BAD_DATA},
        {"[]", "a schema must be an object or a boolean", CMI_ERR_BAD_DATA},
    };
    for (size_t i = 0; i < CMI_LEN(errors); i++) {
        cmi_error err;
        cmi_status st = try_compile(*state, CMI_GRAMMAR_JSON_SCHEMA, errors[i].schema, &err);
        if (st != errors[i].status || strstr(err.text, errors[i].line) == NULL) {
            fail_msg("%s: %d %s", errors[i].schema, st, err.text);
        }
    }
}

static int set_up(void **state)
{
    *state = small_vocab();
    return 0;
}

static int tear_down(void **state)
{
    cmi_vocab_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_fit_their_schema),
        cmocka_unit_test(objects_fit_their_schema),
        cmocka_unit_test(arrays_fit_their_schema),
        cmocka_unit_test(combined_and_recursive_schemas_work),
        cmocka_unit_test(formats_are_exact),
        cmocka_unit_test(any_object_is_an_object),
        cmocka_unit_test(unsupported_keywords_are_errors_with_their_path),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
