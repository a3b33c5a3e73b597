/* grammar/build.c - compiling: from a source to rules, from rules to tables. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "grammar/grammar_internal.h"
#include "grammar/regex_internal.h"
#include "grammar/schema_internal.h"

/* ---- What the writers use ---- */

void cmi_build_fail(cmi_build *b, cmi_status st, const char *fmt, ...)
{
    if (b->status != CMI_OK) {
        return;
    }
    char text[sizeof b->err->text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    b->status = cmi_error_set(b->err, st, "%s", text);
}

bool cmi_build_work(cmi_build *b, uint64_t n)
{
    if (n > b->max_work - b->work) {
        cmi_build_fail(b, CMI_ERR_TOO_LARGE, "the grammar is too large: over %u steps to compile",
                       b->max_work);
        return false;
    }
    b->work += (uint32_t)n;
    return b->status == CMI_OK;
}

void *cmi_build_grow(void *items, uint32_t n, uint32_t *cap, size_t item_bytes)
{
    if (n < *cap) {
        return items;
    }
    *cap = *cap == 0 ? 16 : *cap * 2;
    return cmi_realloc(items, *cap, item_bytes);
}

uint32_t cmi_build_rule(cmi_build *b, const char *key, const cmi_rule *rule)
{
    uint32_t id = 0;
    size_t n = strlen(key);
    if (cmi_strmap_get(&b->rule_ids, key, n, &id) || !cmi_build_work(b, 1)) {
        return id;
    }
    if (b->n_rules == CMI_BUILD_MAX_RULES) {
        cmi_build_fail(b, CMI_ERR_TOO_LARGE, "the grammar is too large: over %d different schemas",
                       CMI_BUILD_MAX_RULES);
        return 0;
    }
    b->rules = cmi_build_grow(b->rules, b->n_rules, &b->cap_rules, sizeof *b->rules);
    cmi_rule *made = &b->rules[b->n_rules];
    *made = *rule;
    made->key = cmi_strndup(key, n);
    made->root = b->root;
    made->root_id = b->root_id;
    memcpy(made->path, b->path, sizeof made->path);
    cmi_strmap_put(&b->rule_ids, made->key, n, b->n_rules);
    return b->n_rules++;
}

uint16_t cmi_build_counter(cmi_build *b, uint32_t min, uint32_t max, char special)
{
    b->counters = cmi_build_grow(b->counters, b->n_counters, &b->cap_counters, sizeof *b->counters);
    b->counters[b->n_counters] = (cmi_counter){.min = min, .max = max, .special = (uint8_t)special};
    return (uint16_t)b->n_counters++;
}

/* ---- Sources ---- */

static void write_regex_root(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    cmi_regex_write(b, "regular expression", rule->source->text, rule->source->n_bytes,
                    CMI_SPELL_UTF8, 0, CMI_UNBOUNDED, from, to);
}

static void write_choice_root(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    const cmi_grammar_source *source = rule->source;
    size_t n_bytes = 0;
    for (size_t i = 0; i < source->n_choices && b->status == CMI_OK; i++) {
        const cmi_grammar_choice *choice = &source->choices[i];
        n_bytes += choice->n_bytes;
        if (n_bytes > CMI_GRAMMAR_MAX_SOURCE_BYTES) {
            cmi_build_fail(b, CMI_ERR_TOO_LARGE, "the choices have over %d bytes",
                           CMI_GRAMMAR_MAX_SOURCE_BYTES);
        } else if (choice->n_bytes == 0 ||
                   cmi_utf8_valid_prefix(choice->text, choice->n_bytes) != choice->n_bytes) {
            cmi_build_fail(b, CMI_ERR_BAD_DATA, "choice %zu is empty or not UTF-8", i);
        } else {
            cmi_nfa_literal(b, from, to, choice->text, choice->n_bytes);
        }
    }
}

static void write_object_root(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    (void)rule;
    cmi_json_object_write(b, from, to);
}

static void add_root(cmi_build *b, const cmi_grammar_source *source)
{
    cmi_rule root = {.source = source};
    switch (source->kind) {
    case CMI_GRAMMAR_JSON_OBJECT:
        root.write = write_object_root;
        break;
    case CMI_GRAMMAR_JSON_SCHEMA:
        root.write = cmi_schema_root_write;
        break;
    case CMI_GRAMMAR_REGEX:
        root.write = write_regex_root;
        break;
    case CMI_GRAMMAR_CHOICE:
        root.write = write_choice_root;
        break;
    case CMI_GRAMMAR_TREE:
        root.write = cmi_tree_root_write;
        break;
    default:
        cmi_build_fail(b, CMI_ERR_INVALID, "no such kind of grammar");
        return;
    }
    if (source->text != NULL && source->n_bytes > CMI_GRAMMAR_MAX_SOURCE_BYTES) {
        cmi_build_fail(b, CMI_ERR_TOO_LARGE, "a source of %zu bytes, at most %d", source->n_bytes,
                       CMI_GRAMMAR_MAX_SOURCE_BYTES);
        return;
    }
    (void)!cmi_build_rule(b, "root", &root);
}

/* ---- Compiling ---- */

static uint32_t limit(uint32_t wanted, uint32_t most)
{
    return wanted == 0 ? most : CMI_MIN(wanted, most);
}

static void write_rules(cmi_build *b)
{
    for (uint32_t i = 0; i < b->n_rules && b->status == CMI_OK; i++) {
        const cmi_rule rule = b->rules[i]; /* the array may move while it is written */
        memcpy(b->path, rule.path, sizeof b->path);
        b->root = rule.root;
        b->root_id = rule.root_id;
        cmi_nfa_reset(&b->nfa);
        uint32_t from = cmi_nfa_state(b), to = cmi_nfa_state(b);
        rule.write(b, &rule, from, to);
        b->rules[i].start = (uint16_t)cmi_dfa_build(b, from, to);
    }
}

static void build_deinit(cmi_build *b)
{
    for (uint32_t i = 0; i < b->n_rules; i++) {
        cmi_free(b->rules[i].key);
    }
    cmi_free(b->rules);
    cmi_strmap_deinit(&b->rule_ids);
    cmi_nfa_deinit(&b->nfa);
    cmi_free(b->states);
    cmi_free(b->edges);
    cmi_free(b->calls);
    cmi_free(b->counters);
    json_decref(b->kept);
    json_decref(b->source);
}

cmi_status cmi_grammar_compile(cmi_grammar **grammar_out, const cmi_vocab *vocab,
                               const cmi_grammar_source *source, cmi_error *err)
{
    cmi_error ignored;
    cmi_build b = {.err = err != NULL ? err : &ignored,
                   .vocab = vocab,
                   .max_work = limit(source->max_work, CMI_GRAMMAR_MAX_WORK),
                   .max_states = limit(source->max_states, CMI_GRAMMAR_MAX_STATES),
                   .kept = json_array()};
    cmi_strmap_init(&b.rule_ids, 64);
    (void)!cmi_build_counter(&b, 0, 0, '\0');
    add_root(&b, source);
    write_rules(&b);
    cmi_grammar *g = cmi_grammar_assemble(&b);
    if (g != NULL) {
        g->vocab = vocab;
        cmi_grammar_find_plain_runs(g);
        cmi_grammar_make_caches(g, limit(source->max_cache_bytes, CMI_GRAMMAR_MAX_CACHE_BYTES),
                                CMI_MIN(b.max_work, (uint32_t)CMI_GRAMMAR_MAX_CACHE_WORK));
        *grammar_out = g;
    }
    cmi_status st = b.status;
    build_deinit(&b);
    return st;
}
