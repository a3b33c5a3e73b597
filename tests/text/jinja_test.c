/* The sandbox of the interpreter: its limits, its error lines, and templates shared by threads.
 * What templates mean is tested against Python in jinja_golden_test.c. */
#include "tests/test.h"

#include <pthread.h>

#include "base/alloc.h"
#include "text/jinja.h"

enum { OUTPUT_BYTES_MAX = 4 << 20 };

typedef struct result {
    cmi_status status;
    cmi_error err;
    cmi_buf out;
} result;

static result render_with(const char *source, size_t n, const char *json,
                          const cmi_jinja_options *options)
{
    result res = {.status = CMI_OK};
    cmi_jinja *jinja = NULL;
    cmi_jinja_var vars[8];
    size_t n_vars = 0;
    cmi_buf_init(&res.out, OUTPUT_BYTES_MAX);
    json_t *object = json_loads(json, 0, NULL);
    assert_non_null(object);
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        assert_true(n_vars < CMI_LEN(vars));
        vars[n_vars++] = (cmi_jinja_var){.name = key, .value = value};
    }
    res.status = cmi_jinja_parse(&jinja, source, n, &res.err);
    if (res.status == CMI_OK) {
        res.status = cmi_jinja_render(jinja, vars, n_vars, options, &res.out, &res.err);
    }
    cmi_jinja_destroy(jinja);
    json_decref(object);
    return res;
}

static result render(const char *source, const char *json)
{
    const cmi_jinja_options options = CMI_JINJA_OPTIONS_DEFAULT;
    return render_with(source, strlen(source), json, &options);
}

static void expect_text(const char *source, const char *json, const char *want)
{
    result res = render(source, json);
    if (res.status != CMI_OK) {
        fail_msg("%.200s: %s", source, res.err.text);
    }
    assert_string_equal(cmi_buf_cstr(&res.out), want);
    cmi_buf_deinit(&res.out);
}

static void expect_status(const char *source, cmi_status want)
{
    result res = render(source, "{}");
    if (res.status != want) {
        fail_msg("%.200s: %s (%s)", source, cmi_status_text(res.status), res.err.text);
    }
    assert_true(want == CMI_OK || res.out.len == 0);
    cmi_buf_deinit(&res.out);
}

static void expect_error(const char *source, const char *json, cmi_status want, const char *line)
{
    result res = render(source, json);
    assert_int_equal(res.status, want);
    assert_string_equal(res.err.text, line);
    assert_int_equal(res.out.len, 0);
    cmi_buf_deinit(&res.out);
}

/* n times `part` between head and tail; the caller frees it. */
static char *repeat(const char *head, const char *part, size_t n, const char *tail)
{
    cmi_buf text;
    cmi_buf_init(&text, 64 << 20);
    assert_true(cmi_buf_str(&text, head));
    for (size_t i = 0; i < n; i++) {
        assert_true(cmi_buf_str(&text, part));
    }
    assert_true(cmi_buf_str(&text, tail));
    return text.data;
}

static void expect_repeated(const char *head, const char *part, size_t n, const char *tail,
                            cmi_status want)
{
    char *source = repeat(head, part, n, tail);
    expect_status(source, want);
    cmi_free(source);
}

/* ---- errors ---- */

static void errors_name_the_line(void **state)
{
    (void)state;
    expect_error("a\nb\n{{ x.y }}", "{}", CMI_ERR_BAD_DATA, "line 3: 'x' is undefined");
    expect_error("{% set d = {} %}\n{{ d.x.y }}", "{}", CMI_ERR_BAD_DATA,
                 "line 2: dict has no attribute or item 'x'");
    expect_error("{{ 1 +\n\n 'a' }}", "{}", CMI_ERR_BAD_DATA,
                 "line 1: + cannot be used between int and str");
    expect_error("\n\n{% for x in 1 %}{% endfor %}", "{}", CMI_ERR_BAD_DATA,
                 "line 3: int cannot be iterated over");
    expect_error("{# a\nb #}\n{{ 'a'|nosuch }}", "{}", CMI_ERR_BAD_DATA,
                 "line 3: there is no filter 'nosuch'");
    expect_error("{% macro f() %}\n{{ 1 // 0 }}\n{% endmacro %}\n{{ f() }}", "{}", CMI_ERR_BAD_DATA,
                 "line 2: division by zero");
    expect_error("{{ 9223372036854775807 + 1 }}", "{}", CMI_ERR_BAD_DATA,
                 "line 1: the result of + does not fit in 64 bits");
}

static void syntax_errors_name_the_line(void **state)
{
    (void)state;
    expect_error("a\n{% if x %}\nb", "{}", CMI_ERR_BAD_DATA,
                 "line 2: a block that begins here is not closed by {% endif %}");
    expect_error("a\n{{ 1 2 }}", "{}", CMI_ERR_BAD_DATA, "line 2: expected '}}', got '2'");
    expect_error("{% endfor %}", "{}", CMI_ERR_BAD_DATA, "line 1: 'endfor' has no block to close");
    expect_error("\n{% include 'x' %}", "{}", CMI_ERR_BAD_DATA,
                 "line 2: the tag 'include' is not supported here");
    expect_error("{{ 'a }}", "{}", CMI_ERR_BAD_DATA, "line 1: a string is not closed by '");
    expect_error("\n{# a", "{}", CMI_ERR_BAD_DATA, "line 2: a comment is not closed by #}");
    expect_error("{{ 99999999999999999999 }}", "{}", CMI_ERR_BAD_DATA,
                 "line 1: a number has more than 64 bits");
    expect_error("{{ \"\\ud800\" }}", "{}", CMI_ERR_BAD_DATA,
                 "line 1: the escape '\\u' of a string is not complete, not a character or not "
                 "supported");
    expect_error("{{ \xE2\x80\x9C }}", "{}", CMI_ERR_BAD_DATA,
                 "line 1: unexpected character U+201C");
    expect_error("\na\xFF", "{}", CMI_ERR_BAD_DATA, "line 2: the template is not valid UTF-8");
    expect_error("{% for x in [] recursive %}{% endfor %}", "{}", CMI_ERR_BAD_DATA,
                 "line 1: recursive loops are not supported");
}

static void raise_exception_gives_its_own_words(void **state)
{
    (void)state;
    expect_error("a\n{{ raise_exception('Rôles must ' ~ 'alternate') }}", "{}", CMI_ERR_INVALID,
                 "Rôles must alternate");
    expect_error("{{ raise_exception('a\nb') }}", "{}", CMI_ERR_INVALID, "a?b");
}

static void output_before_the_render_stays(void **state)
{
    (void)state;
    const cmi_jinja_options options = CMI_JINJA_OPTIONS_DEFAULT;
    cmi_jinja *jinja = NULL;
    cmi_buf out;
    cmi_buf_init(&out, 20);
    cmi_buf_str(&out, "kept");
    assert_int_equal(cmi_jinja_parse(&jinja, "abc{{ x.y }}", 12, NULL), CMI_OK);
    assert_int_equal(cmi_jinja_render(jinja, NULL, 0, &options, &out, NULL), CMI_ERR_BAD_DATA);
    assert_string_equal(cmi_buf_cstr(&out), "kept");
    cmi_jinja_destroy(jinja);
    assert_int_equal(cmi_jinja_parse(&jinja, "{{ 'abc' * 100 }}", 17, NULL), CMI_OK);
    assert_int_equal(cmi_jinja_render(jinja, NULL, 0, &options, &out, NULL), CMI_ERR_TOO_LARGE);
    assert_string_equal(cmi_buf_cstr(&out), "kept");
    cmi_jinja_destroy(jinja);
    cmi_jinja_destroy(NULL);
    cmi_buf_deinit(&out);
}

/* ---- limits ---- */

static void loops_that_do_not_end_are_stopped(void **state)
{
    (void)state;
    static const char *const sources[] = {
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% set q = a + b %}{% endfor %}"
        "{% endfor %}",
        "{% for a in range(100000) %}{% if a in range(100000) and 'x' in range(100000) %}{% endif "
        "%}"
        "{% endfor %}",
        "{{ range(100000)|unique|list }}",
    };
    for (size_t i = 0; i < CMI_LEN(sources); i++) {
        expect_status(sources[i], CMI_ERR_TIMEOUT);
    }
}

/* Text functions that look at a megabyte a hundred thousand times. */
static void long_text_counts_as_work(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "a == b",
        "'ab' in a",
        "a.find('ab')",
        "a.rfind('b' ~ a[:1000])",
        "a.count('ab')",
        "a.startswith('b', 999999)",
        "(a ~ 'é')[999999]",
        "a.isdigit()",
        "a is upper",
        "' ' in a.strip('bcdefgha')",
    };
    for (size_t i = 0; i < CMI_LEN(parts); i++) {
        char source[400];
        snprintf(source, sizeof source,
                 "{%% set a = 'a' * 1000000 %%}{%% set b = 'a' * 999999 ~ 'b' %%}"
                 "{%% for i in range(100000) %%}{%% if %s %%}{%% endif %%}{%% endfor %%}",
                 parts[i]);
        result res = render(source, "{}");
        if (res.status != CMI_ERR_TIMEOUT && res.status != CMI_ERR_TOO_LARGE) {
            fail_msg("%s: %s", parts[i], cmi_status_text(res.status));
        }
        cmi_buf_deinit(&res.out);
    }
}

static void values_that_grow_without_end_are_stopped(void **state)
{
    (void)state;
    static const char *const sources[] = {
        "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}"
        "{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}"
        "{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}"
        "{% endfor %}{{ ns.s|tojson }}",
        "{{ 'a' * 1000000000000000 }}",
        "{{ ('a' * 1000000) * 9223372036854775807 }}",
        "{{ [0] * 1000000000000000 }}",
        "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
        "{{ range(100000)|join('x' * 100000) }}",
        "{{ ('a\\n' * 100000)|indent(100000) }}",
        "{{ [1]|batch(1000000000, 0)|list }}",
        "{{ [1]|tojson(indent=1000000000) }}",
        "{{ range(1000000) }}",
        "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
    };
    for (size_t i = 0; i < CMI_LEN(sources); i++) {
        expect_status(sources[i], CMI_ERR_TOO_LARGE);
    }
}

static void nesting_is_bounded_when_parsing(void **state)
{
    (void)state;
    static const struct {
        const char *head, *part, *tail;
    } bombs[] = {
        {"{{ ", "(", ""},
        {"{{ ", "[", ""},
        {"{{ ", "{1:", ""},
        {"{{ ", "not ", "1 }}"},
        {"{{ ", "-", "1 }}"},
        {"{{ ", "1+", "1 }}"},
        {"{{ ", "1**", "1 }}"},
        {"{{ a", ".b", " }}"},
        {"{{ a", "[0]", " }}"},
        {"{{ a", "()", " }}"},
        {"{{ a", "|upper", "}}"},
        {"{{ a", " is odd is", "}}"},
        {"{{ ", "1 and ", "1 }}"},
        {"{{ ", "f(", ""},
        {"{{ ", "1 if 1 else ", "1 }}"},
        {"", "{% if 1 %}", ""},
        {"", "{% for x in y %}", ""},
        {"", "{% set x %}", ""},
        {"{% set ", "(", "x = 1 %}"},
        {"{% for ", "(", "x in y %}{% endfor %}"},
    };
    for (size_t i = 0; i < CMI_LEN(bombs); i++) {
        char *source = repeat(bombs[i].head, bombs[i].part, 100000, bombs[i].tail);
        result res = render(source, "{}");
        if (res.status != CMI_ERR_TOO_LARGE && res.status != CMI_ERR_BAD_DATA) {
            fail_msg("%s: %s", bombs[i].part, cmi_status_text(res.status));
        }
        cmi_buf_deinit(&res.out);
        cmi_free(source);
    }
}

static void nesting_that_is_allowed_works(void **state)
{
    (void)state;
    char *source = repeat("{{ ", "(", 250, "1");
    char *whole = repeat(source, ")", 250, " }}");
    expect_text(whole, "{}", "1");
    cmi_free(source);
    cmi_free(whole);
    whole = repeat("{{ 0", " + 1", 250, " }}");
    expect_text(whole, "{}", "250");
    cmi_free(whole);
    whole = repeat("{{ (''", " ~ 'ab'", 5000, ")|length }}");
    expect_text(whole, "{}", "10000");
    cmi_free(whole);
}

static void nesting_is_bounded_when_rendering(void **state)
{
    (void)state;
    static const char *const sources[] = {
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}"
        "{% endfor %}{{ ns.l }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}"
        "{% endfor %}{{ ns.l|tojson }}",
        "{% set ns = namespace(l=[], m=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}"
        "{% set ns.m = [ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
        "{% set ns = namespace(l=[], m=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}"
        "{% set ns.m = [ns.m] %}{% endfor %}{{ ns.l < ns.m }}",
        "{% set ns = namespace(l=()) %}{% for i in range(5000) %}{% set ns.l = (ns.l,) %}"
        "{% endfor %}{{ {ns.l: 1} }}",
    };
    for (size_t i = 0; i < CMI_LEN(sources); i++) {
        expect_status(sources[i], CMI_ERR_TOO_LARGE);
    }
}

static void deep_json_is_refused(void **state)
{
    (void)state;
    char *head = repeat("{\"x\":", "[", 1900, "1");
    char *json = repeat(head, "]", 1900, "}");
    const cmi_jinja_options options = CMI_JINJA_OPTIONS_DEFAULT;
    result res = render_with("{{ x }}", 7, json, &options);
    assert_int_equal(res.status, CMI_ERR_TOO_LARGE);
    cmi_buf_deinit(&res.out);
    res = render_with("{{ y }}", 7, json, &options);
    assert_int_equal(res.status, CMI_OK); /* what is not mentioned is not looked at */
    cmi_buf_deinit(&res.out);
    cmi_free(head);
    cmi_free(json);
}

static void large_templates_parse(void **state)
{
    (void)state;
    char *source = repeat("", "x", 1000000, "");
    result res = render(source, "{}");
    assert_int_equal(res.status, CMI_OK);
    assert_int_equal(res.out.len, 1000000);
    cmi_buf_deinit(&res.out);
    cmi_free(source);
    expect_repeated("", "{% if 0 %}{{ a.b[1]|upper }}{% endif %}", 25000, "", CMI_OK);
    expect_repeated("{% if 0 %}", "{% elif 0 %}", 80000, "{% endif %}", CMI_OK);
    expect_repeated("", "x", CMI_JINJA_SOURCE_BYTES_MAX, "", CMI_OK);
    expect_repeated("", "x", CMI_JINJA_SOURCE_BYTES_MAX, "x", CMI_ERR_TOO_LARGE);
}

static void hostile_sources_end_quickly(void **state)
{
    (void)state;
    expect_repeated("", "{% raw %}", 100000, "", CMI_ERR_BAD_DATA);
    expect_repeated("", "{#", 500000, "", CMI_ERR_BAD_DATA);
    expect_repeated("", "{%", 500000, "", CMI_ERR_BAD_DATA);
    expect_repeated("{{ '", "\\", 500000, "", CMI_ERR_BAD_DATA);
    expect_repeated("{% ", " ", 1000000, "%}", CMI_ERR_BAD_DATA);
    expect_repeated("{{ ", "\"a\"", 300000, " }}", CMI_ERR_TOO_LARGE);
    expect_repeated("{{ f(", "a=1,", 300, ") }}", CMI_ERR_BAD_DATA);
}

static void the_number_of_names_is_bounded(void **state)
{
    (void)state;
    cmi_buf source;
    cmi_buf_init(&source, 1 << 20);
    for (int i = 0; i <= CMI_JINJA_NAMES_MAX; i++) {
        cmi_buf_printf(&source, "{%% set a%d = 1 %%}", i);
    }
    expect_status(cmi_buf_cstr(&source), CMI_ERR_TOO_LARGE);
    cmi_buf_deinit(&source);
}

static void limits_are_options(void **state)
{
    (void)state;
    const char *source = "{% for i in range(100) %}{{ i ~ 'abc' }}{% endfor %}";
    cmi_jinja_options options = CMI_JINJA_OPTIONS_DEFAULT;
    options.max_steps = 100;
    result res = render_with(source, strlen(source), "{}", &options);
    assert_int_equal(res.status, CMI_ERR_TIMEOUT);
    assert_string_equal(res.err.text, "line 1: the template did not end within 100 steps");
    cmi_buf_deinit(&res.out);
    options = (cmi_jinja_options)CMI_JINJA_OPTIONS_DEFAULT;
    options.max_value_bytes = 2000;
    res = render_with(source, strlen(source), "{}", &options);
    assert_int_equal(res.status, CMI_ERR_TOO_LARGE);
    assert_string_equal(res.err.text,
                        "line 1: the values of this template take more than 2000 bytes");
    cmi_buf_deinit(&res.out);
}

/* Joining piece by piece must not copy the whole each time: 20,000 pieces of 100 bytes would be
 * 20 GB of copies, far over the limits. */
static void building_text_piece_by_piece_is_linear(void **state)
{
    (void)state;
    expect_text("{% set ns = namespace(s='') %}{% set p = 'x' * 100 %}"
                "{% for i in range(20000) %}{% set ns.s = ns.s + p + '\\n' %}{% endfor %}"
                "{{ ns.s|length }}",
                "{}", "2020000");
}

/* A text that has been appended to stays what it was, and can be appended to twice. */
static void joined_texts_do_not_disturb_each_other(void **state)
{
    (void)state;
    expect_text("{% set a = 'x' + 'y' + n %}{% set b = a + '1' %}{% set c = a + '2' %}"
                "{% set d = b + '3' %}{{ a }} {{ b }} {{ c }} {{ d }} {{ a + a + a }}",
                "{\"n\": \"z\"}", "xyz xyz1 xyz2 xyz13 xyzxyzxyz");
}

/* ---- values from outside ---- */

static void variables_hide_functions_and_may_be_anything(void **state)
{
    (void)state;
    expect_text("{{ range }} {{ a }} {{ b.c[0] }} {{ none }} {{ missing is defined }}",
                "{\"range\": 7, \"a\": null, \"b\": {\"c\": [1.5]}}", "7 None 1.5 None False");
    expect_text("{{ x|length }}{{ x[1] == '\\x00' }}", "{\"x\": \"a\"}", "1False");
}

static void nul_is_text_like_any_other(void **state)
{
    (void)state;
    static const char source[] = "\0{{ x }}{{ '\0' ~ \"\\0\" }}{{ x|length }}";
    const char want[] = "\0a\0b\0\0"
                        "3";
    const cmi_jinja_options options = CMI_JINJA_OPTIONS_DEFAULT;
    cmi_jinja *jinja = NULL;
    json_t *x = json_stringn("a\0b", 3);
    cmi_jinja_var var = {.name = "x", .value = x};
    cmi_buf out;
    cmi_buf_init(&out, 100);
    assert_int_equal(cmi_jinja_parse(&jinja, source, sizeof source - 1, NULL), CMI_OK);
    assert_int_equal(cmi_jinja_render(jinja, &var, 1, &options, &out, NULL), CMI_OK);
    assert_int_equal(out.len, sizeof want - 1);
    assert_memory_equal(out.data, want, out.len);
    cmi_buf_deinit(&out);
    json_decref(x);
    cmi_jinja_destroy(jinja);
}

/* ---- threads ---- */

enum { N_THREADS = 4, N_RENDERS = 200 };

typedef struct shared {
    const cmi_jinja *jinja;
    const json_t *messages;
    bool ok;
} shared;

static void *render_often(void *argument)
{
    shared *s = argument;
    const cmi_jinja_options options = CMI_JINJA_OPTIONS_DEFAULT;
    const cmi_jinja_var var = {.name = "messages", .value = s->messages};
    s->ok = true;
    for (int i = 0; i < N_RENDERS; i++) {
        cmi_buf out;
        cmi_buf_init(&out, 1000);
        s->ok &= cmi_jinja_render(s->jinja, &var, 1, &options, &out, NULL) == CMI_OK &&
                 strcmp(cmi_buf_cstr(&out), "0:é0;1:é1;[1]") == 0;
        cmi_buf_deinit(&out);
    }
    return NULL;
}

static void one_template_serves_many_threads(void **state)
{
    (void)state;
    static const char source[] =
        "{% set ns = namespace(n=0) %}{% macro f(m) %}{{ m.content ~ loop }}{% endmacro %}"
        "{% for m in messages %}{{ loop.index0 }}:{{ f(m) + ns.n|string }};"
        "{% set ns.n = ns.n + 1 %}{% endfor %}{{ [1] }}";
    cmi_jinja *jinja = NULL;
    json_t *messages = json_loads("[{\"content\": \"é\"}, {\"content\": \"é\"}]", 0, NULL);
    assert_int_equal(cmi_jinja_parse(&jinja, source, sizeof source - 1, NULL), CMI_OK);
    pthread_t threads[N_THREADS];
    shared s[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        s[i] = (shared){.jinja = jinja, .messages = messages};
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, &s[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(s[i].ok);
    }
    json_decref(messages);
    cmi_jinja_destroy(jinja);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(syntax_errors_name_the_line),
        cmocka_unit_test(raise_exception_gives_its_own_words),
        cmocka_unit_test(output_before_the_render_stays),
        cmocka_unit_test(loops_that_do_not_end_are_stopped),
        cmocka_unit_test(long_text_counts_as_work),
        cmocka_unit_test(values_that_grow_without_end_are_stopped),
        cmocka_unit_test(nesting_is_bounded_when_parsing),
        cmocka_unit_test(nesting_that_is_allowed_works),
        cmocka_unit_test(nesting_is_bounded_when_rendering),
        cmocka_unit_test(deep_json_is_refused),
        cmocka_unit_test(large_templates_parse),
        cmocka_unit_test(hostile_sources_end_quickly),
        cmocka_unit_test(the_number_of_names_is_bounded),
        cmocka_unit_test(limits_are_options),
        cmocka_unit_test(building_text_piece_by_piece_is_linear),
        cmocka_unit_test(joined_texts_do_not_disturb_each_other),
        cmocka_unit_test(variables_hide_functions_and_may_be_anything),
        cmocka_unit_test(nul_is_text_like_any_other),
        cmocka_unit_test(one_template_serves_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
