#include "cli/bench/load_prompt.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/bench/load_random.h"

enum {
    MIN_WORDS = 16,
    MAX_WORDS = 8192, /* of a tokenizer: enough that prompts differ */
    N_PROBE_WORDS = 512,
    MIN_TOKEN_ID = 32, /* below are special tokens, mostly */
    MAX_TOKEN_BYTES = 24,
};

/* Common enough to be one token of most vocabularies of natural text. */
static const char *const common_words[] = {
    " about",  " after",   " again",  " air",     " all",      " also",    " always", " animal",
    " answer", " around",  " ask",    " away",    " back",     " because", " become", " before",
    " begin",  " between", " big",    " book",    " both",     " boy",     " bring",  " build",
    " call",   " came",    " can",    " car",     " carry",    " change",  " child",  " city",
    " close",  " cold",    " come",   " could",   " country",  " cut",     " day",    " did",
    " door",   " down",    " draw",   " each",    " early",    " earth",   " east",   " eat",
    " end",    " enough",  " even",   " every",   " example",  " eye",     " face",   " family",
    " far",    " father",  " feel",   " few",     " find",     " fire",    " first",  " follow",
    " food",   " form",    " found",  " four",    " friend",   " from",    " full",   " game",
    " gave",   " girl",    " give",   " good",    " great",    " green",   " ground", " group",
    " grow",   " half",    " hand",   " hard",    " head",     " hear",    " help",   " here",
    " high",   " home",    " hope",   " hour",    " house",    " idea",    " just",   " keep",
    " kind",   " know",    " land",   " large",   " last",     " late",    " learn",  " leave",
    " left",   " letter",  " life",   " light",   " line",     " list",    " listen", " live",
    " long",   " look",    " made",   " make",    " many",     " mark",    " mean",   " might",
    " miss",   " money",   " moon",   " more",    " morning",  " most",    " mother", " mountain",
    " move",   " much",    " music",  " must",    " name",     " near",    " need",   " never",
    " new",    " next",    " night",  " north",   " note",     " nothing", " notice", " now",
    " number", " off",     " often",  " old",     " once",     " only",    " open",   " order",
    " other",  " our",     " over",   " own",     " page",     " paper",   " part",   " people",
    " person", " picture", " place",  " plan",    " plant",    " play",    " point",  " problem",
    " quick",  " quite",   " rain",   " read",    " real",     " red",     " right",  " river",
    " road",   " rock",    " room",   " round",   " run",      " said",    " same",   " saw",
    " school", " sea",     " second", " see",     " sentence", " set",     " ship",   " short",
    " should", " show",    " side",   " simple",  " sing",     " sister",  " sit",    " sleep",
    " slow",   " small",   " snow",   " some",    " song",     " soon",    " sound",  " south",
    " spell",  " spring",  " stand",  " star",    " start",    " state",   " still",  " stop",
    " story",  " street",  " strong", " study",   " such",     " summer",  " sun",    " table",
    " take",   " talk",    " tell",   " that",    " them",     " then",    " there",  " these",
    " thing",  " think",   " those",  " thought", " three",    " through", " time",   " together",
    " took",   " tree",    " true",   " turn",    " under",    " until",   " use",    " very",
    " voice",  " wait",    " walk",   " want",    " warm",     " watch",   " water",  " well",
    " went",   " west",    " what",   " when",    " where",    " which",   " while",  " white",
    " whole",  " why",     " will",   " wind",    " winter",   " with",    " wood",   " word",
    " work",   " world",   " would",  " write",   " year",     " yellow",  " yes",    " young",
};

/* The token's bytes are a space and lower-case letters. */
static bool is_word(const char *bytes, size_t n)
{
    if (bytes == NULL || n < 3 || n > MAX_TOKEN_BYTES || bytes[0] != ' ') {
        return false;
    }
    for (size_t i = 1; i < n; i++) {
        if (bytes[i] < 'a' || bytes[i] > 'z') {
            return false;
        }
    }
    return true;
}

static size_t count_tokens(const cmi_tokenizer *tokenizer, const cmi_buf *text, unsigned flags)
{
    cmi_ids ids = {0};
    cmi_status st =
        cmi_tokenizer_encode(tokenizer, cmi_buf_cstr(text), text->len, flags, &ids, NULL);
    size_t n = st == CMI_OK ? ids.len : 0;
    cmi_ids_deinit(&ids);
    return n;
}

/* Words next to each other stay one token each. */
static bool words_hold(const cmi_load_prompts *prompts)
{
    cmi_buf text;
    cmi_buf_init(&text, (size_t)N_PROBE_WORDS * MAX_TOKEN_BYTES);
    cmi_load_random random;
    cmi_load_random_init(&random, 0, CMI_LOAD_STREAM_REQUEST, 0);
    for (uint32_t i = 0; i < N_PROBE_WORDS; i++) {
        cmi_buf_str(&text, prompts->words[cmi_load_random_below(&random, prompts->n_words)]);
    }
    size_t n = count_tokens(prompts->opt.tokenizer, &text, CMI_ENCODE_ADDED_TOKENS);
    cmi_buf_deinit(&text);
    return n == N_PROBE_WORDS;
}

static cmi_status find_words(cmi_load_prompts *prompts, cmi_error *err)
{
    const cmi_tokenizer *tokenizer = prompts->opt.tokenizer;
    uint32_t n_ids = cmi_tokenizer_n_ids(tokenizer);
    prompts->words = cmi_alloc(MAX_WORDS, sizeof *prompts->words);
    for (uint32_t id = 0; id < n_ids && prompts->n_words < MAX_WORDS; id++) {
        size_t n;
        const char *bytes = cmi_tokenizer_token_bytes(tokenizer, id, &n);
        if (!is_word(bytes, n)) {
            continue;
        }
        cmi_buf word;
        cmi_buf_init(&word, MAX_TOKEN_BYTES);
        cmi_buf_append(&word, bytes, n);
        if (count_tokens(tokenizer, &word, CMI_ENCODE_ADDED_TOKENS) == 1) {
            prompts->words[prompts->n_words++] = cmi_strndup(bytes, n);
        }
        cmi_buf_deinit(&word);
    }
    if (prompts->n_words < MIN_WORDS || !words_hold(prompts)) {
        return cmi_error_set(err, CMI_ERR_UNSUPPORTED,
                             "this tokenizer has too few words that are one token each; leave "
                             "--tokenizer out, or use --token-ids");
    }
    cmi_buf letter;
    cmi_buf_init(&letter, 1);
    cmi_buf_char(&letter, 'a');
    size_t n_plain = count_tokens(tokenizer, &letter, 0);
    prompts->n_begin = (uint32_t)(count_tokens(tokenizer, &letter, CMI_ENCODE_BEGIN) - n_plain);
    cmi_buf_deinit(&letter);
    return CMI_OK;
}

static void choose_common_words(cmi_load_prompts *prompts)
{
    prompts->words = cmi_alloc(CMI_LEN(common_words), sizeof *prompts->words);
    prompts->n_words = CMI_LEN(common_words);
    for (size_t i = 0; i < CMI_LEN(common_words); i++) {
        prompts->words[i] = cmi_strndup(common_words[i], strlen(common_words[i]));
    }
}

static cmi_status choose_ids(cmi_load_prompts *prompts, cmi_error *err)
{
    const cmi_tokenizer *tokenizer = prompts->opt.tokenizer;
    uint32_t n = tokenizer != NULL ? cmi_tokenizer_n_ids(tokenizer) : prompts->opt.vocab_size;
    prompts->words = cmi_alloc(n, sizeof *prompts->words);
    for (uint32_t id = MIN_TOKEN_ID; id < n; id++) {
        size_t n_bytes;
        if (tokenizer == NULL || (cmi_tokenizer_token_bytes(tokenizer, id, &n_bytes) != NULL &&
                                  !cmi_tokenizer_is_special(tokenizer, id))) {
            char word[16];
            int length = snprintf(word, sizeof word, ",%u", id);
            prompts->words[prompts->n_words++] = cmi_strndup(word, (size_t)length);
        }
    }
    if (prompts->n_words == 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "the vocabulary is too small for --token-ids");
    }
    return CMI_OK;
}

/* The user's fields come last, so that they replace ours. */
static cmi_status add_extra(cmi_load_prompts *prompts, json_t *fields, cmi_error *err)
{
    static const char *const ours[] = {"prompt", "messages", "stream", "stream_options"};
    if (prompts->opt.extra_body == NULL) {
        return CMI_OK;
    }
    json_error_t why;
    json_t *extra = json_loads(prompts->opt.extra_body, 0, &why);
    cmi_status st = CMI_OK;
    if (!json_is_object(extra)) {
        st = cmi_error_set(err, CMI_ERR_INVALID, "--extra-body takes a JSON object%s%s",
                           extra == NULL ? ": " : "", extra == NULL ? why.text : "");
    }
    for (size_t i = 0; st == CMI_OK && i < CMI_LEN(ours); i++) {
        if (json_object_get(extra, ours[i]) != NULL) {
            st = cmi_error_set(err, CMI_ERR_INVALID, "--extra-body cannot set \"%s\"", ours[i]);
        }
    }
    prompts->has_max = json_object_get(extra, "max_tokens") != NULL ||
                       json_object_get(extra, "max_completion_tokens") != NULL;
    if (st == CMI_OK) {
        json_object_update(fields, extra);
    }
    json_decref(extra);
    return st;
}

static cmi_status make_tail(cmi_load_prompts *prompts, cmi_error *err)
{
    const cmi_load_prompts_options *opt = &prompts->opt;
    json_t *fields = json_object();
    json_object_set_new(fields, "model", json_string(opt->model));
    json_object_set_new(fields, "stream", json_true());
    json_object_set_new(fields, "stream_options", json_pack("{s:b}", "include_usage", 1));
    if (opt->ignore_eos) {
        json_object_set_new(fields, "ignore_eos", json_true());
    }
    if (opt->temperature >= 0) {
        json_object_set_new(fields, "temperature", json_real(opt->temperature));
    }
    cmi_status st = add_extra(prompts, fields, err);
    if (st == CMI_OK) {
        size_t n = json_dumpb(fields, NULL, 0, JSON_COMPACT);
        char *text = cmi_alloc(n + 1, 1);
        json_dumpb(fields, text, n, JSON_COMPACT);
        prompts->tail = cmi_strndup(text + 1, n - 2); /* without the braces */
        cmi_free(text);
    }
    json_decref(fields);
    return st;
}

cmi_status cmi_load_prompts_init(cmi_load_prompts *prompts, const cmi_load_prompts_options *opt,
                                 cmi_error *err)
{
    *prompts = (cmi_load_prompts){.opt = *opt};
    cmi_status st = make_tail(prompts, err);
    if (st == CMI_OK && opt->token_ids) {
        st = choose_ids(prompts, err);
    } else if (st == CMI_OK && opt->tokenizer != NULL) {
        st = find_words(prompts, err);
    } else if (st == CMI_OK) {
        choose_common_words(prompts);
    }
    return st;
}

void cmi_load_prompts_deinit(cmi_load_prompts *prompts)
{
    for (uint32_t i = 0; prompts->words != NULL && i < prompts->n_words; i++) {
        cmi_free(prompts->words[i]);
    }
    cmi_free(prompts->words);
    cmi_free(prompts->tail);
    *prompts = (cmi_load_prompts){0};
}

/* n words of a random stream. */
static void write_tokens(const cmi_load_prompts *prompts, cmi_load_stream stream, uint64_t id,
                         uint32_t n, cmi_buf *out)
{
    cmi_load_random random;
    cmi_load_random_init(&random, prompts->opt.seed, stream, id);
    for (uint32_t i = 0; i < n; i++) {
        cmi_buf_str(out, prompts->words[cmi_load_random_below(&random, prompts->n_words)]);
    }
}

/* Between the quotes, or up to the bracket at the end. */
static void write_made(const cmi_load_prompts *prompts, const cmi_load_data *data, size_t idx,
                       cmi_buf *out)
{
    const cmi_load_request *request = &data->requests[idx];
    bool has_begin = !prompts->opt.token_ids && !prompts->opt.is_chat;
    uint32_t left = request->input_tokens;
    left = has_begin && left > prompts->n_begin ? left - prompts->n_begin : left;
    for (uint32_t i = 0; i < request->n_blocks && left > 0; i++) {
        uint32_t n = CMI_MIN(left, (uint32_t)CMI_LOAD_BLOCK_TOKENS);
        uint64_t id = data->blocks[request->first_block + i];
        write_tokens(prompts, CMI_LOAD_STREAM_BLOCK, id, n, out);
        left -= n;
    }
    uint32_t n_prefix = CMI_MIN(left, prompts->opt.prefix_tokens);
    write_tokens(prompts, CMI_LOAD_STREAM_PREFIX, 0, n_prefix, out);
    write_tokens(prompts, CMI_LOAD_STREAM_REQUEST, idx, left - n_prefix, out);
}

static void write_prompt(const cmi_load_prompts *prompts, const cmi_load_data *data, size_t idx,
                         cmi_buf *out)
{
    const cmi_load_request *request = &data->requests[idx];
    if (request->text_len > 0) {
        cmi_buf_append(out, data->texts.data + request->text_at, request->text_len);
        return;
    }
    if (!prompts->opt.token_ids) {
        cmi_buf_char(out, '"');
    }
    size_t start = out->len;
    write_made(prompts, data, idx, out);
    if (prompts->opt.token_ids) {
        out->data[start] = '['; /* where the first id has its comma */
    }
    cmi_buf_char(out, prompts->opt.token_ids ? ']' : '"');
}

void cmi_load_prompts_write(const cmi_load_prompts *prompts, const cmi_load_data *data, size_t idx,
                            cmi_buf *out)
{
    const cmi_load_request *request = &data->requests[idx];
    bool is_chat = prompts->opt.is_chat;
    bool is_list = is_chat && request->text_is_chat;
    cmi_buf_str(out, !is_chat  ? "{\"prompt\":"
                     : is_list ? "{\"messages\":"
                               : "{\"messages\":[{\"role\":\"user\",\"content\":");
    write_prompt(prompts, data, idx, out);
    cmi_buf_str(out, is_chat && !is_list ? "}]" : "");
    if (!prompts->has_max) {
        cmi_buf_printf(out, ",\"%s\":%u", is_chat ? "max_completion_tokens" : "max_tokens",
                       request->output_tokens);
    }
    cmi_buf_printf(out, ",%s}", prompts->tail);
}
