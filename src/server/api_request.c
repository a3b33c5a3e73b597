/* From a body to a job: read the fields, make the prompts' ids, see that prompt and answer fit the
 * context, then copy all of it into one engine request for each choice. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "server/api_internal.h"

/* vLLM's limit under which sampling is greedy; it keeps 1 / temperature finite. */
#define MIN_TEMPERATURE 1e-5

/* What the requests of all choices have in common. */
typedef struct shared_lists {
    cmi_ids stop_token_ids;
    cmi_logit_bias bias[CMI_MAX_LOGIT_BIAS];
    uint32_t n_bias;
} shared_lists;

static int fields_endpoint(cmi_api_endpoint endpoint)
{
    return endpoint == CMI_API_CHAT_COMPLETIONS ? CMI_API_IN_CHAT : CMI_API_IN_COMPLETIONS;
}

static double pick(double recommended, double otherwise)
{
    return isnan(recommended) || recommended == 0 ? otherwise : recommended;
}

static cmi_api_params default_params(const cmi_api *api, cmi_api_endpoint endpoint)
{
    const cmi_api_sampling_defaults *d = &api->opt.sampling;
    return (cmi_api_params){
        .n = 1,
        .temperature = pick(d->temperature, 1),
        .top_p = pick(d->top_p, 1),
        .top_k = d->top_k,
        .repetition_penalty = pick(d->repetition_penalty, 1),
        .skip_special_tokens = true,
        .speculative = true,
        .max_drafts = CMI_MAX_DRAFTS,
        .parallel_tool_calls = true,
        .include_reasoning = true,
        .add_generation_prompt = endpoint == CMI_API_CHAT_COMPLETIONS,
        .add_special_tokens = endpoint == CMI_API_COMPLETIONS,
    };
}

static cmi_status read_prompts(cmi_api_job *job, const json_t *root, cmi_api_error *err)
{
    const json_t *value = json_object_get(root, "prompt");
    if (value == NULL || json_is_null(value)) {
        return cmi_api_refuse(err, "prompt", "prompt is missing.");
    }
    size_t n = json_array_size(value);
    const json_t *first = json_array_get(value, 0);
    bool is_list = json_is_string(first) || json_is_array(first);
    if (json_is_array(value) && n == 0) {
        return cmi_api_refuse(err, "prompt", "prompt must not be empty.");
    }
    size_t n_prompts = is_list ? n : 1;
    if (n_prompts * (uint64_t)job->params.n > CMI_API_MAX_CHOICES) {
        return cmi_api_refuse(err, "prompt",
                              "A request can have at most %d choices: %zu prompts times n = %lld "
                              "are more.",
                              CMI_API_MAX_CHOICES, n_prompts, (long long)job->params.n);
    }
    job->prompts = cmi_alloc(n_prompts, sizeof *job->prompts);
    job->n_prompts = (uint32_t)n_prompts;
    for (size_t i = 0; i < n_prompts; i++) {
        const json_t *one = is_list ? json_array_get(value, i) : value;
        if ((json_is_array(one) && json_array_size(one) == 0) ||
            (json_is_string(one) && json_string_length(one) == 0)) {
            return cmi_api_refuse(err, "prompt", "prompt must not be empty.");
        }
        cmi_status st = cmi_api_text_prompt(job->api, one, job->params.add_special_tokens, "prompt",
                                            &job->prompts[i], err);
        if (st != CMI_OK) {
            return st;
        }
    }
    return CMI_OK;
}

static cmi_status read_chat(cmi_api_job *job, json_t *root, cmi_api_error *err)
{
    job->prompts = cmi_alloc(1, sizeof *job->prompts);
    job->n_prompts = 1;
    cmi_status st = cmi_api_messages_normalize(root, err);
    if (st == CMI_OK) {
        st = cmi_api_tools_check(root, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    job->tools = cmi_api_tools_shown(root) != NULL;
    return cmi_api_chat_prompt(job->api, root, &job->params, job->created_unix_s, &job->prompts[0],
                               err);
}

/* How many tokens an answer to this prompt may have. Completions default to 16 as OpenAI's do, chat
 * to the rest of the context. */
static cmi_status max_tokens_for(const cmi_api_job *job, const cmi_api_prompt *prompt,
                                 uint32_t *max_tokens_out, cmi_api_error *err)
{
    const cmi_api_params *p = &job->params;
    const char *param = job->endpoint == CMI_API_CHAT_COMPLETIONS ? "messages" : "prompt";
    uint64_t max_len = job->api->opt.engine.max_model_len;
    if (prompt->ids.len >= max_len || prompt->ids.len > CMI_MAX_PROMPT_TOKENS) {
        return cmi_api_refuse(err, param,
                              "The prompt has %zu tokens; the model's context of %llu tokens has "
                              "to hold it and an answer. Shorten the prompt.",
                              prompt->ids.len, (unsigned long long)max_len);
    }
    uint64_t rest = max_len - prompt->ids.len;
    bool given = p->given.max_completion_tokens || p->given.max_tokens;
    uint64_t wanted = p->given.max_completion_tokens ? (uint64_t)p->max_completion_tokens
                                                     : (uint64_t)p->max_tokens;
    if (!given) {
        wanted = job->endpoint == CMI_API_COMPLETIONS ? CMI_MIN(16, rest) : rest;
    }
    if (wanted > rest) {
        return cmi_api_refuse(
            err, p->given.max_completion_tokens ? "max_completion_tokens" : "max_tokens",
            "The prompt has %zu tokens, so of the model's context of %llu tokens "
            "%llu are left, not %llu. Shorten the prompt or the answer.",
            prompt->ids.len, (unsigned long long)max_len, (unsigned long long)rest,
            (unsigned long long)wanted);
    }
    *max_tokens_out = (uint32_t)CMI_MAX(wanted, 1);
    return CMI_OK;
}

static uint64_t seed_for(const cmi_api_job *job, uint32_t choice_idx)
{
    const cmi_api_params *p = &job->params;
    uint32_t nth = choice_idx % (uint32_t)p->n; /* prompts of one list are not told apart */
    uint32_t words[4];
    if (!p->given.seed) {
        cmi_philox4x32(job->api->opt.id_seed, job->number,
                       (uint64_t)CMI_API_DRAW_SEED << 32 | choice_idx, words);
    } else if (nth == 0) {
        return (uint64_t)p->seed;
    } else {
        cmi_philox4x32((uint64_t)p->seed, nth, CMI_API_DRAW_SEED, words);
    }
    return (uint64_t)words[0] << 32 | words[1];
}

static void fill_head(const cmi_api_job *job, uint32_t choice_idx, uint32_t max_tokens,
                      cmi_request *head)
{
    const cmi_api_params *p = &job->params;
    bool chat = job->endpoint == CMI_API_CHAT_COMPLETIONS;
    bool logprobs = chat ? p->logprobs : p->given.n_logprobs;
    *head = cmi_request_defaults();
    head->request_id = job->number * CMI_API_MAX_CHOICES + choice_idx;
    head->seed = seed_for(job, choice_idx);
    head->max_tokens = max_tokens;
    head->min_tokens = (uint32_t)p->min_tokens;
    head->flags = (logprobs ? (unsigned)CMI_REQUEST_LOGPROBS : 0) |
                  (logprobs && !chat && p->echo ? (unsigned)CMI_REQUEST_PROMPT_LOGPROBS : 0) |
                  (p->ignore_eos ? (unsigned)CMI_REQUEST_IGNORE_EOS : 0);
    head->n_top_logprobs = logprobs ? (uint32_t)(chat ? p->top_logprobs : p->n_logprobs) : 0;
    head->priority = (int32_t)p->priority;
    head->max_drafts = p->speculative ? (uint32_t)p->max_drafts : 0;
    head->top_k = p->top_k > 0 ? (uint32_t)p->top_k : 0;
    head->temperature = p->temperature < MIN_TEMPERATURE ? 0.0f : (float)p->temperature;
    head->top_p = (float)p->top_p;
    head->min_p = (float)p->min_p;
    head->repetition_penalty = (float)p->repetition_penalty;
    head->frequency_penalty = (float)p->frequency_penalty;
    head->presence_penalty = (float)p->presence_penalty;
    memcpy(head->cache_salt, job->cache_salt, sizeof head->cache_salt);
    head->flags |= job->format.must_begin ? (unsigned)CMI_REQUEST_GRAMMAR_MUST_BEGIN : 0;
    head->n_grammar_start_ids = job->format.n_start_ids;
    memcpy(head->grammar_start_ids, job->format.start_ids, sizeof head->grammar_start_ids);
}

static cmi_request *make_request(const cmi_api_job *job, const cmi_request *head,
                                 const cmi_ids *prompt, const shared_lists *lists)
{
    cmi_request *request =
        cmi_request_create(head, prompt->data, (uint32_t)prompt->len, lists->stop_token_ids.data,
                           (uint32_t)lists->stop_token_ids.len, lists->bias, lists->n_bias);
    if (job->format.tree != NULL) {
        cmi_request *bound =
            cmi_request_with_grammar(request, job->format.tree, job->format.n_bytes);
        cmi_free(request);
        request = bound;
    }
    return request;
}

static void open_choice(cmi_api_job *job, uint32_t idx, const cmi_api_prompt *prompt)
{
    const cmi_api_params *p = &job->params;
    const cmi_tokenizer *tokenizer = job->api->opt.tokenizer;
    bool chat = job->endpoint == CMI_API_CHAT_COMPLETIONS;
    cmi_api_choice *c = &job->choices[idx];
    c->idx = idx;
    c->prompt = prompt;
    c->stop_token_id = -1;
    c->stop_string = -1;
    c->detokenizer = cmi_detokenizer_start(tokenizer, p->skip_special_tokens);
    cmi_stop_matcher_init(&c->matcher, &job->stops);
    cmi_answer_parser_init(&c->parser,
                           &(cmi_answer_parser_options){.in_reasoning = prompt->in_reasoning,
                                                        .tool_calls = job->tools});
    bool logprobs = (c->request->flags & CMI_REQUEST_LOGPROBS) != 0;
    cmi_api_logprobs_init(&c->logprobs, logprobs ? tokenizer : NULL, chat,
                          c->request->n_top_logprobs);
    c->echo_detokenizer =
        cmi_detokenizer_start(tokenizer, p->skip_special_tokens && !prompt->show_special);
    cmi_buf_init(&c->echo, CMI_API_MAX_TEXT_BYTES);
    cmi_buf_init(&c->content, CMI_API_MAX_TEXT_BYTES);
    cmi_buf_init(&c->reasoning, CMI_API_MAX_TEXT_BYTES);
    cmi_buf_init(&c->calls, CMI_API_MAX_TEXT_BYTES);
}

static cmi_status make_choices(cmi_api_job *job, const shared_lists *lists, cmi_api_error *err)
{
    uint32_t n = (uint32_t)job->params.n;
    job->choices = cmi_alloc((size_t)job->n_prompts * n, sizeof *job->choices);
    for (uint32_t i = 0; i < job->n_prompts * n; i++) {
        const cmi_api_prompt *prompt = &job->prompts[i / n];
        uint32_t max_tokens = 0;
        cmi_status st = max_tokens_for(job, prompt, &max_tokens, err);
        if (st != CMI_OK) {
            return st;
        }
        if (job->params.min_tokens > max_tokens) {
            return cmi_api_refuse(err, "min_tokens", "min_tokens must be at most max_tokens (%u).",
                                  max_tokens);
        }
        cmi_request head;
        fill_head(job, i, max_tokens, &head);
        job->choices[i].request = make_request(job, &head, &prompt->ids, lists);
        open_choice(job, i, prompt);
        job->n_choices = i + 1;
    }
    job->n_open = job->n_choices;
    for (uint32_t i = 0; i < job->n_prompts; i++) {
        cmi_ids_deinit(&job->prompts[i].ids); /* the requests have their copies */
    }
    return CMI_OK;
}

static cmi_status read_lists(cmi_api_job *job, const json_t *root, shared_lists *lists,
                             cmi_api_error *err)
{
    uint32_t vocab_size = job->api->opt.engine.vocab_size;
    cmi_status st = cmi_api_read_stop(root, &job->stops, err);
    if (st == CMI_OK) {
        st = cmi_api_read_cache_salt(root, job->cache_salt, err);
    }
    if (st == CMI_OK) {
        st = cmi_api_read_stop_token_ids(root, vocab_size, &lists->stop_token_ids, err);
    }
    if (st == CMI_OK) {
        st = cmi_api_read_logit_bias(root, vocab_size, lists->bias, &lists->n_bias, err);
    }
    return st;
}

static cmi_status read_body(cmi_api_job *job, json_t *root, cmi_api_error *err)
{
    int endpoint = fields_endpoint(job->endpoint);
    cmi_api_params *p = &job->params;
    cmi_status st = cmi_api_fields_read(root, endpoint, p, err);
    if (st == CMI_OK) {
        st = cmi_api_fields_refuse(root, err);
    }
    shared_lists *lists = cmi_alloc(1, sizeof *lists);
    if (st == CMI_OK) {
        st = read_lists(job, root, lists, err);
    }
    if (st == CMI_OK) {
        bool chat = job->endpoint == CMI_API_CHAT_COMPLETIONS;
        st = chat ? read_chat(job, root, err) : read_prompts(job, root, err);
        if (st == CMI_OK) {
            st = cmi_api_format_read(job->api, root, p, chat, job->prompts[0].in_reasoning,
                                     &job->format, err);
        }
    }
    job->discard_output =
        (p->given.max_completion_tokens && p->max_completion_tokens == 0) ||
        (!p->given.max_completion_tokens && p->given.max_tokens && p->max_tokens == 0);
    if (st == CMI_OK) {
        st = make_choices(job, lists, err);
    }
    cmi_ids_deinit(&lists->stop_token_ids);
    cmi_free(lists);
    return st;
}

cmi_status cmi_api_job_create(cmi_api_job **job_out, const cmi_api *api, cmi_api_endpoint endpoint,
                              const char *body, size_t n_bytes, uint64_t number,
                              uint64_t now_unix_s, cmi_api_error *err)
{
    json_t *root;
    cmi_status st = cmi_api_parse_body(api, body, n_bytes, &root, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_api_job *job = cmi_alloc(1, sizeof *job);
    *job = (cmi_api_job){
        .api = api,
        .endpoint = endpoint,
        .params = default_params(api, endpoint),
        .number = number,
        .created_unix_s = now_unix_s,
    };
    cmi_buf_init(&job->head, CMI_API_MAX_TEXT_BYTES);
    cmi_buf_init(&job->decoded, CMI_API_MAX_TEXT_BYTES);
    cmi_buf_init(&job->released, CMI_API_MAX_TEXT_BYTES);
    uint32_t w[4];
    cmi_philox4x32(api->opt.id_seed, number, (uint64_t)CMI_API_DRAW_ID << 32, w);
    snprintf(job->id, sizeof job->id, "%s-%08x%08x%08x%08x",
             endpoint == CMI_API_CHAT_COMPLETIONS ? "chatcmpl" : "cmpl", w[0], w[1], w[2], w[3]);
    st = read_body(job, root, err);
    json_decref(root);
    if (st != CMI_OK) {
        cmi_api_job_destroy(job);
        return st;
    }
    cmi_api_write_head(job);
    *job_out = job;
    return CMI_OK;
}

static void close_choice(cmi_api_choice *c)
{
    cmi_free(c->request);
    cmi_stop_matcher_deinit(&c->matcher);
    cmi_answer_parser_deinit(&c->parser);
    cmi_api_logprobs_deinit(&c->logprobs);
    cmi_buf_deinit(&c->echo);
    cmi_buf_deinit(&c->content);
    cmi_buf_deinit(&c->reasoning);
    cmi_buf_deinit(&c->calls);
}

void cmi_api_job_destroy(cmi_api_job *job)
{
    if (job == NULL) {
        return;
    }
    for (uint32_t i = 0; i < job->n_choices; i++) {
        close_choice(&job->choices[i]);
    }
    cmi_free(job->choices);
    for (uint32_t i = 0; i < job->n_prompts; i++) {
        cmi_api_prompt_deinit(&job->prompts[i]);
    }
    cmi_free(job->prompts);
    cmi_stop_set_deinit(&job->stops);
    cmi_api_format_deinit(&job->format);
    cmi_buf_deinit(&job->head);
    cmi_buf_deinit(&job->decoded);
    cmi_buf_deinit(&job->released);
    cmi_free(job);
}
