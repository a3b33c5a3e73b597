/* What clients ask answers to look like, as the tree that the engine gets, or an error that names
 * the field. */
#include "tests/server/api_util.h"

#include <stdlib.h>

#include "text/chat_template.h"

#define HI "'messages': [{'role': 'user', 'content': 'Hi'}]"
#define FREE ", 'chat_template_kwargs': {'enable_thinking': false}" /* begins with the content */
#define SCHEMA "{'type': 'object', 'properties': {'b': {'type': 'integer'}, 'a': true}}"
#define TOOL(name, more)                                                                           \
    "{'type': 'function', 'function': {'name': '" name "', 'parameters': " SCHEMA more "}}"

enum { THINK_CLOSE = 2047, CALLS_BEGIN = 2037 };

static api_run make(cmi_api_endpoint endpoint, const char *body)
{
    api_run run = api_play(endpoint, body, NULL);
    if (run.status != CMI_OK) {
        fail_msg("%s: %s", body, run.err.message);
    }
    return run;
}

/* Fails unless the job's requests carry this tree (in api_json's form; NULL: none). */
static void assert_tree(const api_run *run, const char *tree, const char *field)
{
    const cmi_request *r = cmi_api_job_request(run->job, 0);
    cmi_error err = {0};
    assert_int_equal(cmi_request_check(r, r->n_bytes, &err), CMI_OK);
    if (tree == NULL) {
        assert_int_equal(r->n_grammar_bytes, 0);
        assert_null(cmi_api_job_format_field(run->job));
        return;
    }
    json_t *got = json_loadb(cmi_request_grammar(r), r->n_grammar_bytes, 0, NULL);
    api_assert_json(got, tree);
    json_decref(got);
    assert_string_equal(cmi_api_job_format_field(run->job), field);
}

static void every_spelling_is_a_tree(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *tree, *field;
    } cases[] = {
        {"'response_format': {'type': 'text'}", NULL, NULL},
        {"'response_format': null, 'regex': null, 'structured_outputs': null", NULL, NULL},
        {"'response_format': {'type': 'json_object'}", "{'json': {'type': 'object'}}",
         "response_format"},
        {"'response_format': {'type': 'json_object', 'schema': " SCHEMA "}", "{'json': " SCHEMA "}",
         "response_format"},
        {"'response_format': {'type': 'json_schema', 'json_schema': {'name': 'x', 'strict': true,"
         " 'schema': " SCHEMA "}}",
         "{'json': " SCHEMA "}", "response_format"},
        {"'structured_outputs': {'json': " SCHEMA ", 'regex': null}", "{'json': " SCHEMA "}",
         "structured_outputs"},
        {"'structured_outputs': {'json': '{\\'type\\': \\'integer\\'}'}",
         "{'json': {'type': 'integer'}}", "structured_outputs"},
        {"'structured_outputs': {'regex': 'a+'}", "{'regex': 'a+'}", "structured_outputs"},
        {"'structured_outputs': {'choice': ['a', 'b']}", "{'any': [{'text': 'a'}, {'text': 'b'}]}",
         "structured_outputs"},
        {"'structured_outputs': {'json_object': true}", "{'json': {'type': 'object'}}",
         "structured_outputs"},
        {"'structured_outputs': {'json_object': false}", NULL, NULL},
        {"'guided_json': " SCHEMA, "{'json': " SCHEMA "}", "guided_json"},
        {"'guided_regex': '\\\\d'", "{'regex': '\\\\d'}", "guided_regex"},
        {"'guided_choice': ['a']", "{'any': [{'text': 'a'}]}", "guided_choice"},
        {"'json_schema': '{}'", "{'json': {}}", "json_schema"},
        {"'regex': 'x'", "{'regex': 'x'}", "regex"},
        {"'regex': 'x', 'response_format': {'type': 'text'}", "{'regex': 'x'}", "regex"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        char body[1000];
        (void)snprintf(body, sizeof body, "{'prompt': 'x', %s}", cases[i].fields);
        api_run run = make(CMI_API_COMPLETIONS, body);
        assert_tree(&run, cases[i].tree, cases[i].field);
        assert_int_equal(cmi_api_job_request(run.job, 0)->n_grammar_start_ids, 0);
        api_run_end(&run);
        (void)snprintf(body, sizeof body, "{" HI FREE ", %s}", cases[i].fields);
        run = make(CMI_API_CHAT_COMPLETIONS, body);
        assert_tree(&run, cases[i].tree, cases[i].field);
        assert_int_equal(cmi_api_job_request(run.job, 0)->n_grammar_start_ids, 0);
        api_run_end(&run);
    }
}

static void properties_keep_their_order(void **state)
{
    (void)state;
    static const char schema[] =
        "{\"json\":{\"type\":\"object\",\"properties\":{\"b\":{\"type\":\"integer\"},\"a\":true}}}";
    api_run run = make(CMI_API_COMPLETIONS, "{'prompt': 'x', 'guided_json': " SCHEMA "}");
    const cmi_request *r = cmi_api_job_request(run.job, 0);
    assert_int_equal(r->n_grammar_bytes, sizeof schema - 1);
    assert_memory_equal(cmi_request_grammar(r), schema, sizeof schema - 1);
    api_run_end(&run);
}

static void every_choice_has_the_format(void **state)
{
    (void)state;
    api_run run = make(CMI_API_COMPLETIONS, "{'prompt': ['x', 'y'], 'n': 2, 'regex': 'x'}");
    assert_int_equal(cmi_api_job_n_requests(run.job), 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(cmi_api_job_request(run.job, i)->n_grammar_bytes, 13);
    }
    api_run_end(&run);
}

static void the_answer_behind_the_reasoning_is_bound(void **state)
{
    (void)state;
    api_run run = make(CMI_API_CHAT_COMPLETIONS, "{" HI ", 'regex': 'x'}");
    const cmi_request *r = cmi_api_job_request(run.job, 0);
    assert_tree(&run,
                "{'sequence': [{'any': [{'text': ''}, {'text': '\\n'}, {'text': '\\n\\n'}]},"
                " {'regex': 'x'}]}",
                "regex");
    assert_int_equal(r->n_grammar_start_ids, 1);
    assert_int_equal(r->grammar_start_ids[0], THINK_CLOSE);
    assert_true((r->flags & CMI_REQUEST_GRAMMAR_MUST_BEGIN) != 0);
    api_run_end(&run);
}

/* ---- calls ---- */

#define BEFORE "{'token': 2037}, {'token': 2039}, {'text': 'function'}, {'token': 2041}"
#define REST "{'token': 2039}, {'text': 'function'}, {'token': 2041}"
#define AFTER "{'text': '\\n```'}, {'token': 2040}, {'token': 2038}"
#define BETWEEN "{'sequence': [{'text': '\\n```'}, {'token': 2040}, {'text': '\\n'}, " REST "]}"
#define CALL(name, schema)                                                                         \
    "{'sequence': [{'text': '" name "'}, {'text': '\\n```json\\n'}, {'json': " schema              \
    ", 'name': '" name "'}]}"
#define ANY "{'type': 'object'}"

static void a_forced_call_is_the_whole_answer(void **state)
{
    (void)state;
    api_run run =
        make(CMI_API_CHAT_COMPLETIONS, "{" HI FREE ", 'tool_choice': 'required', 'tools': [" TOOL(
                                           "f", "") "," TOOL("g", ", 'strict': false") "]}");
    assert_tree(&run,
                "{'sequence': [" BEFORE ", {'list': {'any': [" CALL("f", SCHEMA) "," CALL(
                    "g", ANY) "]}, 'between': " BETWEEN "}, " AFTER "]}",
                "tool_choice");
    const cmi_request *r = cmi_api_job_request(run.job, 0);
    assert_true((r->flags & CMI_REQUEST_GRAMMAR_MUST_BEGIN) != 0);
    assert_int_equal(r->n_grammar_start_ids, 0);
    api_run_end(&run);

    run = make(CMI_API_CHAT_COMPLETIONS,
               "{" HI FREE
               ", 'parallel_tool_calls': false, 'regex': 'x', 'tools': [" TOOL("f", "") "," TOOL(
                   "g", "") "], 'tool_choice': {'type': 'function', 'function': {'name': "
                            "'g'}}}");
    assert_tree(&run, "{'sequence': [" BEFORE ", {'any': [" CALL("g", SCHEMA) "]}, " AFTER "]}",
                "tool_choice");
    api_run_end(&run);

    run = make(CMI_API_CHAT_COMPLETIONS,
               "{" HI ", 'tool_choice': 'required', 'tools': [" TOOL("f", "") "]}");
    r = cmi_api_job_request(run.job, 0);
    assert_int_equal(r->n_grammar_start_ids, 1);
    assert_int_equal(r->grammar_start_ids[0], THINK_CLOSE);
    api_run_end(&run);
}

static void strict_calls_are_bound_from_their_first_token(void **state)
{
    (void)state;
    for (int thinking = 0; thinking <= 1; thinking++) {
        char body[2000];
        (void)snprintf(body, sizeof body,
                       "{" HI "%s, 'tools': [" TOOL("f", ", 'strict': true") "," TOOL("g", "") "]}",
                       thinking == 1 ? "" : FREE);
        api_run run = make(CMI_API_CHAT_COMPLETIONS, body);
        assert_tree(&run,
                    "{'sequence': [" REST ", {'list': {'any': [" CALL("f", SCHEMA) "," CALL(
                        "g", ANY) "]}, 'between': " BETWEEN "}, " AFTER "]}",
                    "tools");
        const cmi_request *r = cmi_api_job_request(run.job, 0);
        assert_true((r->flags & CMI_REQUEST_GRAMMAR_MUST_BEGIN) == 0);
        assert_int_equal(r->n_grammar_start_ids, 1 + thinking);
        assert_int_equal(r->grammar_start_ids[0], thinking == 1 ? THINK_CLOSE : CALLS_BEGIN);
        assert_int_equal(r->grammar_start_ids[thinking], CALLS_BEGIN);
        api_run_end(&run);
    }
}

static void other_calls_are_as_free_as_before(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{" HI ", 'tools': [" TOOL("f", "") "]}",
        "{" HI ", 'tools': [" TOOL("f", ", 'strict': false") "], 'tool_choice': 'auto'}",
        "{" HI ", 'tools': [" TOOL("f", ", 'strict': true") "], 'tool_choice': 'none'}",
        "{" HI ", 'tools': [" TOOL("no name of ours", "") "]}",
    };
    for (size_t i = 0; i < CMI_LEN(bodies); i++) {
        api_run run = make(CMI_API_CHAT_COMPLETIONS, bodies[i]);
        assert_tree(&run, NULL, NULL);
        api_run_end(&run);
    }
}

static void a_format_leaves_calls_possible(void **state)
{
    (void)state;
    api_run run =
        make(CMI_API_CHAT_COMPLETIONS, "{" HI FREE ", 'regex': 'x', 'tools': [" TOOL("f", "") "]}");
    assert_tree(&run,
                "{'any': [{'regex': 'x'}, {'sequence': [" BEFORE
                ", {'list': {'any': [" CALL("f", ANY) "]}, 'between': " BETWEEN "}, " AFTER "]}]}",
                "regex");
    api_run_end(&run);
}

/* A job of an api with a template of its own. */
static cmi_status make_with_template(const char *text, const char *body, cmi_api_job **job_out,
                                     cmi_api_error *err)
{
    static const char *const names[] = {"m"};
    char dir[512];
    cmi_error why = {0};
    cmi_chat_template *t = NULL;
    cmi_api *api = NULL;
    (void)snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    assert_int_equal(cmi_chat_template_load_choice(&t, dir, text, &why), CMI_OK);
    const cmi_api_options opt = {.model_names = names,
                                 .n_model_names = 1,
                                 .tokenizer = world.tokenizer,
                                 .chat_template = t,
                                 .engine = {.vocab_size = 2048, .max_model_len = 2048}};
    assert_int_equal(cmi_api_create(&api, &opt, &why), CMI_OK);
    const char *json = api_json(body);
    cmi_status st =
        cmi_api_job_create(job_out, api, CMI_API_CHAT_COMPLETIONS, json, strlen(json), 1, 0, err);
    cmi_api_destroy(api);
    cmi_chat_template_destroy(t);
    return st;
}

/* As DeepSeek-V3.1 writes them. */
static void markup_is_what_the_template_makes_of_calls(void **state)
{
    (void)state;
    static const char template[] =
        "{%- for m in messages -%}{%- if m.tool_calls is defined -%}<｜tool▁calls▁begin｜>"
        "{%- for c in m.tool_calls -%}<｜tool▁call▁begin｜>{{ c.function.name }}<｜tool▁sep｜>"
        "{{ c.function.arguments }}<｜tool▁call▁end｜>{%- endfor -%}<｜tool▁calls▁end｜>"
        "{%- else -%}{{ m.content }}{%- endif -%}{%- endfor -%}";
    cmi_api_job *job = NULL;
    cmi_api_error err = {0};
    cmi_status st = make_with_template(
        template, "{" HI ", 'tool_choice': 'required', 'tools': [" TOOL("f", "") "]}", &job, &err);
    assert_int_equal(st, CMI_OK);
    api_run run = {.job = job};
    assert_tree(&run,
                "{'sequence': [{'token': 2037}, {'token': 2039}, {'list': {'any': [{'sequence':"
                " [{'text': 'f'}, {'token': 2041}, {'json': " SCHEMA ", 'name': 'f'}]}]},"
                " 'between': {'sequence': [{'token': 2040}, {'token': 2039}]}}, {'token': 2040},"
                " {'token': 2038}]}",
                "tool_choice");
    cmi_api_job_destroy(job);
}

static void calls_of_unknown_markup_cannot_be_bound(void **state)
{
    (void)state;
    static const char *const templates[] = {
        "{{ messages[0].content }}",
        ("{%- for m in messages -%}<tool_call>{{ m.tool_calls | default([]) | tojson }}{%- endfor "
         "-%}"),
        "{{ raise_exception('no') if messages | length > 1 else 'x' }}",
    };
    for (size_t i = 0; i < CMI_LEN(templates); i++) {
        cmi_api_job *job = NULL;
        cmi_api_error err = {0};
        assert_int_equal(
            make_with_template(
                templates[i], "{" HI ", 'tools': [" TOOL("f", ", 'strict': true") "]}", &job, &err),
            CMI_ERR_INVALID);
        assert_string_equal(err.param, "tools");
        assert_non_null(strstr(err.message, "cannot be bound"));
        assert_int_equal(make_with_template(templates[i],
                                            "{" HI ", 'regex': 'x', 'tools': [" TOOL("f", "") "]}",
                                            &job, &err),
                         CMI_OK);
        api_run run = {.job = job};
        assert_tree(&run, "{'regex': 'x'}", "regex");
        cmi_api_job_destroy(job);
    }
}

/* ---- refusals ---- */

typedef struct refusal {
    const char *fields, *param, *says;
} refusal;

static void check_refusals(cmi_api_endpoint endpoint, const char *needed, const refusal *cases,
                           size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char body[2000];
        (void)snprintf(body, sizeof body, "{%s, %s}", needed, cases[i].fields);
        api_run run = api_play(endpoint, body, NULL);
        if (run.status != CMI_ERR_INVALID || run.err.http_status != 400 ||
            strcmp(run.err.param, cases[i].param) != 0 ||
            strstr(run.err.message, cases[i].says) == NULL) {
            fail_msg("%s: status %d, param \"%s\": %s", body, run.status, run.err.param,
                     run.err.message);
        }
        api_run_end(&run);
    }
}

static void bad_formats_are_refused_by_name(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {"'response_format': 'json_object'", "response_format", "an object"},
        {"'response_format': {'type': 5}", "response_format", "\"type\""},
        {"'response_format': {'type': 'json_schema'}", "response_format", "\"schema\""},
        {"'response_format': {'type': 'json_schema', 'json_schema': 5}", "response_format",
         "\"schema\""},
        {"'response_format': {'type': 'json_schema', 'json_schema': {'schema': 5}}",
         "response_format.json_schema.schema", "an object"},
        {"'response_format': {'type': 'structural_tag'}", "response_format", "not supported"},
        {"'structured_outputs': 'json'", "structured_outputs", "an object"},
        {"'structured_outputs': {}", "structured_outputs", "must have json"},
        {"'structured_outputs': {'json': 5}", "structured_outputs.json", "an object"},
        {"'structured_outputs': {'json': '{'}", "structured_outputs.json", "not valid JSON"},
        {"'structured_outputs': {'regex': 5}", "structured_outputs.regex", "a string"},
        {"'structured_outputs': {'regex': ''}", "structured_outputs.regex", "a string"},
        {"'structured_outputs': {'choice': []}", "structured_outputs.choice", "not empty"},
        {"'structured_outputs': {'choice': ['a', 5]}", "structured_outputs.choice", "strings"},
        {"'structured_outputs': {'choice': ['']}", "structured_outputs.choice", "empty"},
        {"'structured_outputs': {'json_object': 5}", "structured_outputs.json_object", "boolean"},
        {"'structured_outputs': {'grammar': 'root ::= x'}", "structured_outputs",
         "grammar is not supported"},
        {"'structured_outputs': {'structural_tag': '{}'}", "structured_outputs",
         "structural_tag is not supported"},
        {"'structured_outputs': {'regex': 'a', 'json': {}}", "structured_outputs", "one kind"},
        {"'guided_json': []", "guided_json", "an object"},
        {"'guided_regex': {}", "guided_regex", "a string"},
        {"'guided_choice': 'a'", "guided_choice", "an array"},
        {"'guided_grammar': 'x'", "guided_grammar", "not supported"},
        {"'json_schema': 5", "json_schema", "an object"},
        {"'regex': ['a']", "regex", "a string"},
        {"'ebnf': 'x'", "ebnf", "not supported"},
        {"'structural_tag': '{}'", "structural_tag", "not supported"},
        {"'regex': 'a', 'guided_json': {}", "regex", "guided_json and regex both"},
        {"'response_format': {'type': 'json_object'}, 'guided_regex': 'a'", "guided_regex", "both"},
    };
    check_refusals(CMI_API_COMPLETIONS, "'prompt': 'x'", cases, CMI_LEN(cases));
    check_refusals(CMI_API_CHAT_COMPLETIONS, HI, cases, CMI_LEN(cases));
}

static void bad_tool_choices_are_refused_by_name(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {"'tool_choice': 'required'", "tool_choice", "with tools"},
        {"'tool_choice': 'required', 'tools': []", "tool_choice", "with tools"},
        {"'tool_choice': {'type': 'function'}, 'tools': [" TOOL("f", "") "]", "tool_choice",
         "object"},
        {"'tool_choice': {'type': 'allowed_tools'}, 'tools': [" TOOL("f", "") "]", "tool_choice",
         "object"},
        {"'tool_choice': {'type': 'function', 'function': {'name': 'g'}}, 'tools': [" TOOL("f",
                                                                                           "") "]",
         "tool_choice", "no tool \"g\""},
        {"'tools': [" TOOL("f", ", 'strict': 5") "]", "tools[0]", "strict must be a boolean"},
        {"'tools': [" TOOL("f", "") "," TOOL("a b", ", 'strict': true") "]", "tools[1]",
         "the name of a function"},
        {"'tools': [" TOOL("<x>", "") "], 'tool_choice': 'required'", "tools[0]",
         "the name of a function"},
    };
    check_refusals(CMI_API_CHAT_COMPLETIONS, HI, cases, CMI_LEN(cases));
}

static void what_is_too_large_is_refused(void **state)
{
    (void)state;
    cmi_buf body;
    cmi_buf_init(&body, 1 << 20);
    cmi_buf_str(&body, "{\"prompt\":\"x\",\"guided_choice\":[\"a\"");
    for (int i = 0; i < CMI_MAX_GRAMMAR_BYTES / 12; i++) {
        cmi_buf_str(&body, ",\"a\"");
    }
    cmi_buf_str(&body, "]}");
    api_run run = api_play_bytes(CMI_API_COMPLETIONS, body.data, body.len, NULL);
    assert_int_equal(run.err.http_status, 400);
    assert_string_equal(run.err.param, "guided_choice");
    api_run_end(&run);
    cmi_buf_deinit(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_is_a_tree),
        cmocka_unit_test(properties_keep_their_order),
        cmocka_unit_test(every_choice_has_the_format),
        cmocka_unit_test(the_answer_behind_the_reasoning_is_bound),
        cmocka_unit_test(a_forced_call_is_the_whole_answer),
        cmocka_unit_test(strict_calls_are_bound_from_their_first_token),
        cmocka_unit_test(other_calls_are_as_free_as_before),
        cmocka_unit_test(a_format_leaves_calls_possible),
        cmocka_unit_test(markup_is_what_the_template_makes_of_calls),
        cmocka_unit_test(calls_of_unknown_markup_cannot_be_bound),
        cmocka_unit_test(bad_formats_are_refused_by_name),
        cmocka_unit_test(bad_tool_choices_are_refused_by_name),
        cmocka_unit_test(what_is_too_large_is_refused),
    };
    return cmocka_run_group_tests(tests, api_world_setup, api_world_teardown);
}
