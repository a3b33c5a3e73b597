/* cli/eval_perplexity.c - `cminfer eval --perplexity FILE`: how well the model predicts a text.
 *
 * Perplexity is exp of the mean negative log-likelihood of a token given those before it. A .jsonl
 * file holds one document a line ({"text": ...}), another file is one document. A document longer
 * than the window is cut into windows that know nothing of each other. Special tokens in the text
 * are read as such. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/ids.h"
#include "cli/commands.h"
#include "cli/eval.h"
#include "cli/progress.h"
#include "engine/sampler.h"
#include "os/file.h"
#include "text/tokenizer.h"

enum { MAX_FILE_BYTES = 256 << 20, WINDOW_TOKENS = 2048 };

typedef struct perplexity_run {
    cmi_instance *instance;
    cmi_tokenizer *tokenizer;
    cmi_sequence sequence;
    double nll; /* summed, in nats */
    uint64_t n_predicted;
    uint32_t n_documents;
} perplexity_run;

/* Adds what the rows of the step just run, which begin at ids, say about their next tokens. */
static void add_rows(perplexity_run *run, const uint32_t *ids, uint32_t n_rows, bool has_next)
{
    uint32_t vocab_size = run->instance->config.vocab_size;
    uint32_t n = has_next ? n_rows : n_rows - 1;
    for (uint32_t row = 0; row < n; row += CMI_FORWARD_MAX_HEAD_ROWS) {
        uint32_t n_head = CMI_MIN(n - row, (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
        const float *logits = cmi_instance_logits(run->instance, row, n_head);
        for (uint32_t i = 0; i < n_head; i++, logits += vocab_size) {
            float sum = cmi_sampler_log_sum_exp(&run->instance->kernels, logits, vocab_size);
            run->nll += (double)(sum - logits[ids[row + i + 1]]);
        }
    }
    run->n_predicted += n;
}

static cmi_status add_window(perplexity_run *run, const uint32_t *ids, uint32_t n)
{
    cmi_instance *in = run->instance;
    cmi_status st = CMI_OK;
    cmi_sequence_init(&run->sequence, in);
    for (uint32_t at = 0; at < n && st == CMI_OK;) {
        uint32_t n_rows = CMI_MIN(n - at, in->max_num_batched_tokens);
        st = cmi_instance_step(in, &run->sequence, ids + at, n_rows, true);
        if (st == CMI_OK) {
            add_rows(run, ids + at, n_rows, at + n_rows < n);
        }
        at += n_rows;
    }
    cmi_sequence_deinit(&run->sequence, in);
    return st;
}

static cmi_status add_document(perplexity_run *run, const char *text, size_t n_bytes,
                               cmi_error *err)
{
    cmi_ids ids = {0};
    cmi_status st =
        cmi_tokenizer_encode(run->tokenizer, text, n_bytes, CMI_ENCODE_ADDED_TOKENS, &ids, err);
    uint32_t window = CMI_MIN((uint32_t)WINDOW_TOKENS, run->instance->max_model_len);
    for (size_t at = 0; at + 1 < ids.len && st == CMI_OK; at += window) {
        st = add_window(run, ids.data + at, (uint32_t)CMI_MIN(ids.len - at, (size_t)window));
        if (st != CMI_OK) {
            cmi_error_set(err, st, "perplexity: %s", cmi_status_text(st));
        }
    }
    run->n_documents++;
    cmi_ids_deinit(&ids);
    return st;
}

static cmi_status add_json_line(perplexity_run *run, const char *line, size_t n, cmi_error *err)
{
    json_error_t where;
    json_t *item = json_loadb(line, n, 0, &where);
    const json_t *text = json_object_get(item, "text");
    cmi_status st = CMI_OK;
    if (item == NULL) {
        st = cmi_error_set(err, CMI_ERR_BAD_DATA, "%s", where.text);
    } else if (!json_is_string(text)) {
        st = cmi_error_set(err, CMI_ERR_BAD_DATA, "a document needs text (a string)");
    } else {
        st = add_document(run, json_string_value(text), json_string_length(text), err);
    }
    json_decref(item);
    return st;
}

static cmi_status add_file(perplexity_run *run, const char *path, cmi_error *err)
{
    cmi_buf file;
    cmi_progress progress;
    cmi_status st = cmi_file_read(&file, path, MAX_FILE_BYTES, err);
    size_t n_path = strlen(path);
    bool is_jsonl = n_path > 6 && strcmp(path + n_path - 6, ".jsonl") == 0;
    cmi_progress_start(&progress, "perplexity");
    if (st == CMI_OK && !is_jsonl) {
        st = add_document(run, file.data, file.len, err);
    }
    size_t line_no = 0;
    for (size_t at = 0; is_jsonl && st == CMI_OK && at < file.len;) {
        const char *end = memchr(file.data + at, '\n', file.len - at);
        size_t n = end != NULL ? (size_t)(end - file.data) - at : file.len - at;
        line_no++;
        st = n == 0 ? CMI_OK : add_json_line(run, file.data + at, n, err);
        if (st != CMI_OK) {
            cmi_error_prefix(err, "%s line %zu", path, line_no);
        }
        at += n + 1;
        cmi_progress_count(&progress, CMI_MIN(at, file.len), file.len);
    }
    cmi_progress_end(&progress);
    cmi_buf_deinit(&file);
    return st;
}

static void print_result(const perplexity_run *run, bool as_json)
{
    double mean = run->nll / (double)run->n_predicted;
    if (as_json) {
        printf("{\"documents\": %u, \"tokens\": %llu, \"nll\": %.6f, \"perplexity\": %.6f}\n",
               run->n_documents, (unsigned long long)run->n_predicted, mean, exp(mean));
    } else {
        printf("perplexity %.4f (%.5f nats a token, %llu tokens, %u documents)\n", exp(mean), mean,
               (unsigned long long)run->n_predicted, run->n_documents);
    }
}

int cmi_cli_perplexity(const cmi_model_options *opt, const char *path, bool as_json)
{
    cmi_error err = {0};
    perplexity_run run = {0};
    cmi_buf dir;
    cmi_status st = cmi_cli_open_model(&run.instance, &dir, opt, false, &err);
    if (st == CMI_OK) {
        cmi_team_own(run.instance->team);
        st = cmi_tokenizer_load(&run.tokenizer, cmi_buf_cstr(&dir), &err);
    }
    cmi_buf_deinit(&dir);
    if (st == CMI_OK) {
        st = add_file(&run, path, &err);
    }
    if (st == CMI_OK && run.n_predicted == 0) {
        st = cmi_error_set(&err, CMI_ERR_BAD_DATA, "%s: no document has two tokens", path);
    }
    if (st == CMI_OK) {
        print_result(&run, as_json);
    }
    cmi_tokenizer_destroy(run.tokenizer);
    cmi_instance_close(run.instance);
    return st == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}
