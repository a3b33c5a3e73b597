/* Reading the steps around the vocabulary: normalizer, pre_tokenizer, decoder, post_processor, and
 * tokenizer_config.json, which names the special tokens. Each has many types in Hugging Face's
 * library; those that byte-level BPE models use are read, any other is refused by name. */
#include <stdio.h>
#include <string.h>

#include "text/tokenizer_internal.h"

enum { MAX_STEP_DEPTH = 4 }; /* of a Sequence within a Sequence; real files have one */

/* How GPT-2 cuts text; a ByteLevel pre-tokenizer with use_regex does it like this. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* A step's type; "" when it has none. */
static const char *type_of(const json_t *step)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    return type == NULL ? "" : type;
}

static bool is_type(const json_t *step, const char *type)
{
    return strcmp(type_of(step), type) == 0;
}

static cmi_status refuse_type(const json_t *step, const char *field, const char *supported,
                              cmi_error *err)
{
    return cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                         "tokenizer.json: %s.type: \"%s\" is not supported, only %s", field,
                         type_of(step), supported);
}

static cmi_status check_normalizer(const json_t *step, const char *field, int depth, cmi_error *err)
{
    if (step == NULL || json_is_null(step)) {
        return CMI_OK;
    }
    if (!is_type(step, "Sequence") || depth == MAX_STEP_DEPTH) {
        return refuse_type(step, field, "an empty Sequence or null", err);
    }
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(step, "normalizers"), i, item)
    {
        char item_field[96];
        snprintf(item_field, sizeof item_field, "%.60s.normalizers[%zu]", field, i);
        cmi_status st = check_normalizer(item, item_field, depth + 1, err);
        if (st != CMI_OK) {
            return st;
        }
    }
    return CMI_OK;
}

/* ---- pre_tokenizer ------------------------------------------------------------------------ */

/* NULL, with err set, when there are too many. */
static cmi_split *new_split(cmi_tokenizer *t, const char *field, cmi_error *err)
{
    if (t->n_splits == CMI_TOKENIZER_MAX_SPLITS) {
        cmi_error_set(err, CMI_ERR_BAD_DATA, "tokenizer.json: pre_tokenizer: over %d steps",
                      CMI_TOKENIZER_MAX_SPLITS);
        return NULL;
    }
    cmi_split *split = &t->splits[t->n_splits++];
    *split = (cmi_split){.behavior = CMI_SPLIT_ISOLATED};
    snprintf(split->field, sizeof split->field, "%s", field);
    return split;
}

static cmi_status read_behavior(cmi_split *split, const json_t *step, cmi_error *err)
{
    static const char *const names[] = {
        [CMI_SPLIT_ISOLATED] = "Isolated",
        [CMI_SPLIT_REMOVED] = "Removed",
        [CMI_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [CMI_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
        [CMI_SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *name = json_string_value(json_object_get(step, "behavior"));
    for (size_t i = 0; name != NULL && i < CMI_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            split->behavior = (cmi_split_behavior)i;
            return CMI_OK;
        }
    }
    return cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                         "tokenizer.json: %s.behavior: \"%s\" is not supported", split->field,
                         name == NULL ? "" : name);
}

static cmi_status load_split(cmi_tokenizer *t, const json_t *step, const char *field,
                             cmi_error *err)
{
    cmi_split *split = new_split(t, field, err);
    if (split == NULL) {
        return CMI_ERR_BAD_DATA;
    }
    cmi_status st = read_behavior(split, step, err);
    if (st == CMI_OK) {
        st = cmi_tokenizer_json_bool(&split->invert, step, "invert", false, field, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    const json_t *pattern = json_object_get(step, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *literal = json_object_get(pattern, "String");
    if (json_is_string(regex)) {
        return cmi_pattern_init(&split->pattern, json_string_value(regex),
                                json_string_length(regex), field, err);
    }
    if (json_is_string(literal)) {
        return cmi_pattern_init_literal(&split->pattern, json_string_value(literal),
                                        json_string_length(literal), field, err);
    }
    return cmi_error_set(err, CMI_ERR_BAD_DATA,
                         "tokenizer.json: %s.pattern: neither {\"Regex\": text} nor {\"String\": "
                         "text}",
                         field);
}

static cmi_status load_digits(cmi_tokenizer *t, const json_t *step, const char *field,
                              cmi_error *err)
{
    cmi_split *split = new_split(t, field, err);
    if (split == NULL) {
        return CMI_ERR_BAD_DATA;
    }
    bool individual;
    cmi_status st =
        cmi_tokenizer_json_bool(&individual, step, "individual_digits", false, field, err);
    if (st != CMI_OK) {
        return st;
    }
    split->behavior = individual ? CMI_SPLIT_ISOLATED : CMI_SPLIT_CONTIGUOUS;
    return cmi_pattern_init(&split->pattern, "\\p{N}", 5, field, err);
}

static cmi_status load_byte_level(cmi_tokenizer *t, const json_t *step, const char *field,
                                  cmi_error *err)
{
    bool prefix_space, use_regex;
    cmi_status st =
        cmi_tokenizer_json_bool(&prefix_space, step, "add_prefix_space", false, field, err);
    if (st == CMI_OK) {
        st = cmi_tokenizer_json_bool(&use_regex, step, "use_regex", true, field, err);
    }
    if (st != CMI_OK || (!prefix_space && !use_regex)) {
        return st;
    }
    cmi_split *split = new_split(t, field, err);
    if (split == NULL) {
        return CMI_ERR_BAD_DATA;
    }
    split->prefix_space = prefix_space;
    return use_regex ? cmi_pattern_init(&split->pattern, gpt2_pattern, sizeof gpt2_pattern - 1,
                                        field, err)
                     : CMI_OK;
}

/* *bytes_done: a ByteLevel step has been read. What follows one would see letters for bytes. */
static cmi_status load_pre_tokenizer(cmi_tokenizer *t, const json_t *step, const char *field,
                                     int depth, bool *bytes_done, cmi_error *err)
{
    if (*bytes_done) {
        return cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                             "tokenizer.json: %s: a step behind ByteLevel is not supported", field);
    }
    if (is_type(step, "Split")) {
        return load_split(t, step, field, err);
    }
    if (is_type(step, "Digits")) {
        return load_digits(t, step, field, err);
    }
    if (is_type(step, "ByteLevel")) {
        *bytes_done = true;
        return load_byte_level(t, step, field, err);
    }
    if (!is_type(step, "Sequence") || depth == MAX_STEP_DEPTH) {
        return refuse_type(step, field, "Sequence, Split, Digits and ByteLevel", err);
    }
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(step, "pretokenizers"), i, item)
    {
        char item_field[96];
        snprintf(item_field, sizeof item_field, "%.60s.pretokenizers[%zu]", field, i);
        cmi_status st = load_pre_tokenizer(t, item, item_field, depth + 1, bytes_done, err);
        if (st != CMI_OK) {
            return st;
        }
    }
    return CMI_OK;
}

/* ---- decoder and post_processor ------------------------------------------------------------ */

static cmi_status check_decoder(const json_t *step, cmi_error *err)
{
    if (is_type(step, "ByteLevel")) {
        return CMI_OK;
    }
    if (!is_type(step, "Sequence")) {
        return refuse_type(step, "decoder", "ByteLevel", err);
    }
    bool any = false;
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(step, "decoders"), i, item)
    {
        any |= is_type(item, "ByteLevel");
        if (!is_type(item, "ByteLevel") && !is_type(item, "Fuse")) {
            return refuse_type(item, "decoder.decoders[]", "ByteLevel and Fuse", err);
        }
    }
    return any ? CMI_OK : refuse_type(step, "decoder", "ByteLevel, alone or in a Sequence", err);
}

/* A template may put one token before the text; its id becomes t->begin_id and, unless
 * tokenizer_config.json names another, t->bos_id. */
static cmi_status read_template(cmi_tokenizer *t, const json_t *step, const char *field,
                                cmi_error *err)
{
    const json_t *single = json_object_get(step, "single");
    size_t n = json_array_size(single);
    const json_t *token =
        n == 2 ? json_object_get(json_array_get(single, 0), "SpecialToken") : NULL;
    const json_t *text = json_object_get(json_array_get(single, n - 1), "Sequence");
    if (n == 0 || n > 2 || text == NULL || (n == 2 && token == NULL)) {
        return cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                             "tokenizer.json: %s.single: only one special token before the text is "
                             "supported",
                             field);
    }
    if (token == NULL) {
        return CMI_OK;
    }
    const char *name = json_string_value(json_object_get(token, "id"));
    const json_t *special =
        name == NULL ? NULL : json_object_get(json_object_get(step, "special_tokens"), name);
    const json_t *ids = json_object_get(special, "ids");
    json_int_t id = json_integer_value(json_array_get(ids, 0));
    if (json_array_size(ids) != 1 || !json_is_integer(json_array_get(ids, 0)) || id < 0 ||
        id >= t->n_ids || t->tokens[id].bytes == NULL) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA,
                             "tokenizer.json: %s.special_tokens: no single token id for \"%s\"",
                             field, name == NULL ? "" : name);
    }
    t->begin_id = t->bos_id = (uint32_t)id;
    return CMI_OK;
}

static cmi_status load_post_processor(cmi_tokenizer *t, const json_t *step, const char *field,
                                      int depth, cmi_error *err)
{
    if (step == NULL || json_is_null(step) || is_type(step, "ByteLevel")) {
        return CMI_OK; /* ByteLevel moves offsets only */
    }
    if (is_type(step, "TemplateProcessing")) {
        return read_template(t, step, field, err);
    }
    if (!is_type(step, "Sequence") || depth == MAX_STEP_DEPTH) {
        return refuse_type(step, field, "ByteLevel, TemplateProcessing and Sequence", err);
    }
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(step, "processors"), i, item)
    {
        char item_field[96];
        snprintf(item_field, sizeof item_field, "%.60s.processors[%zu]", field, i);
        cmi_status st = load_post_processor(t, item, item_field, depth + 1, err);
        if (st != CMI_OK) {
            return st;
        }
    }
    return CMI_OK;
}

cmi_status cmi_tokenizer_load_steps(cmi_tokenizer *t, const json_t *root, cmi_error *err)
{
    bool bytes_done = false;
    cmi_status st = check_normalizer(json_object_get(root, "normalizer"), "normalizer", 0, err);
    if (st == CMI_OK) {
        st = load_pre_tokenizer(t, json_object_get(root, "pre_tokenizer"), "pre_tokenizer", 0,
                                &bytes_done, err);
    }
    if (st == CMI_OK && !bytes_done) {
        st = cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                           "tokenizer.json: pre_tokenizer: no ByteLevel step; only byte-level BPE "
                           "is supported");
    }
    st = st == CMI_OK ? check_decoder(json_object_get(root, "decoder"), err) : st;
    return st == CMI_OK ? load_post_processor(t, json_object_get(root, "post_processor"),
                                              "post_processor", 0, err)
                        : st;
}

/* ---- tokenizer_config.json ------------------------------------------------------------------ */

/* The id of a token named as a string or as an object with its content; CMI_TOKEN_NONE when it is
 * absent or no token of the vocabulary. */
static uint32_t named_token(const cmi_tokenizer *t, const json_t *config, const char *key)
{
    const json_t *name = json_object_get(config, key);
    if (json_is_object(name)) {
        name = json_object_get(name, "content");
    }
    return json_is_string(name)
               ? cmi_tokenizer_find(t, json_string_value(name), json_string_length(name))
               : CMI_TOKEN_NONE;
}

/* add_bos_token decides when it is there, else post_processor has decided. */
static cmi_status read_begin(cmi_tokenizer *t, const json_t *config, cmi_error *err)
{
    const json_t *add_bos = json_object_get(config, "add_bos_token");
    if (json_is_true(json_object_get(config, "add_eos_token"))) {
        return cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                             "tokenizer_config.json: add_eos_token: an end token behind every text "
                             "is not supported");
    }
    if (json_is_true(add_bos) && t->bos_id == CMI_TOKEN_NONE) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA,
                             "tokenizer_config.json: bos_token: add_bos_token wants one, and it is "
                             "not a token of tokenizer.json");
    }
    if (json_is_boolean(add_bos)) {
        t->begin_id = json_is_true(add_bos) ? t->bos_id : CMI_TOKEN_NONE;
    }
    return CMI_OK;
}

cmi_status cmi_tokenizer_load_config(cmi_tokenizer *t, const char *config, size_t config_bytes,
                                     cmi_error *err)
{
    /* "No limit" is often written as the integer 10^30, which only a real can hold. */
    json_error_t where;
    json_t *root =
        json_loadb(config, config_bytes, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &where);
    if (!json_is_object(root)) {
        json_decref(root);
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "tokenizer_config.json: line %d: %s",
                             where.line, root == NULL ? where.text : "not an object");
    }
    uint32_t bos_id = named_token(t, root, "bos_token");
    t->bos_id = bos_id == CMI_TOKEN_NONE ? t->bos_id : bos_id;
    t->eos_id = named_token(t, root, "eos_token");
    t->pad_id = named_token(t, root, "pad_token");
    double length = json_real_value(json_object_get(root, "model_max_length"));
    if (length >= 1.0 && length < 0x1p53) {
        t->max_length_tokens = (uint64_t)length;
    }
    cmi_status st = read_begin(t, root, err);
    json_decref(root);
    return st;
}
