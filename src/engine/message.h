/* engine/message.h - what the server and an engine say to each other.
 *
 * Both messages are versioned values without pointers, in host byte order: they can be copied,
 * queued, logged, and later sent to another process. The engine knows token ids only; text, stop
 * strings and reasoning belong to the server, which cancels a request when its text is complete.
 *
 * A request ends exactly once: after CMI_EVENT_FINISHED no event of its id follows. */
#ifndef CMI_ENGINE_MESSAGE_H
#define CMI_ENGINE_MESSAGE_H

#include "base/error.h"

enum {
    CMI_MESSAGE_VERSION = 4,
    CMI_CACHE_SALT_BYTES = 32,
    CMI_MAX_TOP_LOGPROBS = 20,
    CMI_MAX_STOP_TOKEN_IDS = 64,
    CMI_MAX_LOGIT_BIAS = 1024,
    CMI_MAX_PROMPT_TOKENS = 1 << 24,
    CMI_MAX_GIVEN_TOKENS = 1 << 24,
    CMI_MAX_GRAMMAR_BYTES = 1 << 18,
    CMI_MAX_GRAMMAR_START_IDS = 2,
};

enum {
    CMI_REQUEST_LOGPROBS = 1u << 0, /* token events carry logprob and n_top_logprobs others */
    CMI_REQUEST_PROMPT_LOGPROBS = 1u << 1, /* a PROMPT_TOKEN event for every prompt token */
    CMI_REQUEST_IGNORE_EOS = 1u << 2,      /* the model's end tokens do not end the request */
    /* End and stop tokens cannot be sampled before the grammar has begun, so that no answer goes
     * without it. */
    CMI_REQUEST_GRAMMAR_MUST_BEGIN = 1u << 3,
};

typedef struct cmi_logit_bias {
    uint32_t token_id;
    float bias; /* added to the logit */
} cmi_logit_bias;

/* The head of a request; prompt ids, output ids, stop token ids, logit biases and the grammar
 * follow it in this order, read them through the functions below. Sampling: temperature 0 is
 * greedy; then repetition, frequency and presence penalties, logit bias, the grammar's mask,
 * temperature, top_k, top_p, min_p apply in this order.
 *
 * A grammar is the text of a tree (CMI_GRAMMAR_TREE of grammar/grammar.h), in UTF-8. From its start
 * on the output is what it allows: an end token comes only where its text is complete, and comes
 * there even with min_tokens or CMI_REQUEST_IGNORE_EOS when nothing else may. A stop token id that
 * the text allows ends it unfinished, as the sender wished. Logprobs are those without it.
 *
 * Output ids are of an output that was begun elsewhere, by an engine that is gone. The request goes
 * on behind them with what it would have said there: the same tokens, logprobs and end, bit for
 * bit. Events of these tokens and of the first n_prompt_events prompt tokens were sent before and
 * are not sent again; indices and n_output_tokens count on from them. Its TTFT target counts no
 * more. If they end it already, FINISHED is all that comes. */
typedef struct cmi_request {
    uint32_t version;         /* CMI_MESSAGE_VERSION */
    uint32_t n_bytes;         /* of the whole message */
    uint64_t request_id;      /* the sender's, unique among its live requests */
    uint64_t seed;            /* with the position it determines every random choice */
    uint64_t tenant;          /* whom it counts for where the queue is shared fairly; a digest */
    uint32_t n_prompt_tokens; /* >= 1 */
    uint32_t n_output_tokens; /* that were generated before; 0 .. max_tokens */
    uint32_t n_prompt_events; /* PROMPT_TOKEN events that came before; all, with output tokens */
    uint32_t n_stop_token_ids;
    uint32_t n_logit_bias;
    uint32_t max_tokens;     /* output tokens; >= 1 */
    uint32_t min_tokens;     /* end and stop tokens cannot be sampled before so many */
    uint32_t flags;          /* CMI_REQUEST_... */
    uint32_t n_top_logprobs; /* 0 .. CMI_MAX_TOP_LOGPROBS */
    uint32_t top_k;          /* 0: off */
    int32_t priority;        /* lower goes first; 0: as most do */
    uint32_t max_drafts;     /* that may be tried for it in a step, where there are any; 0: none */
    /* What its sender wants, in us; 0: nothing. The first token so long after the request came, the
     * others so far apart in the mean; and by when it ends, finished or not. */
    uint32_t ttft_target_us, tpot_target_us;
    uint32_t timeout_ms;
    uint32_t age_us;          /* how long ago it came when it is submitted: time that is used up */
    float temperature;        /* >= 0 */
    float top_p;              /* (0, 1] */
    float min_p;              /* [0, 1] */
    float repetition_penalty; /* > 0; 1: off; over prompt and output */
    float frequency_penalty;  /* [-2, 2]; over the output */
    float presence_penalty;   /* [-2, 2]; over the output */
    /* Requests share cached prompts with those of the same salt only; all zeros: none. A digest, so
     * that any text can be one. */
    uint8_t cache_salt[CMI_CACHE_SALT_BYTES];
    uint32_t n_grammar_bytes; /* 0: none */
    /* The grammar begins behind these tokens of the output, when they have come in this order, not
     * necessarily side by side; 0: at once. Unused ones are 0. */
    uint32_t n_grammar_start_ids;
    uint32_t grammar_start_ids[CMI_MAX_GRAMMAR_START_IDS];
} cmi_request;

/* Copies head (its version, n_bytes and counts are filled in from the arguments; it has no grammar
 * and no output yet) and the arrays into one block; release it with cmi_free. The counts keep to
 * the limits above (asserted); an array may be NULL when its count is 0. */
CMI_NODISCARD cmi_request *cmi_request_create(const cmi_request *head, const uint32_t *prompt,
                                              uint32_t n_prompt, const uint32_t *stop_token_ids,
                                              uint32_t n_stop_token_ids, const cmi_logit_bias *bias,
                                              uint32_t n_bias);

/* No request with so many tokens, prompt and output together, has more bytes. */
uint64_t cmi_request_max_bytes(uint32_t n_tokens);

/* A copy of the request with a grammar of 1 .. CMI_MAX_GRAMMAR_BYTES (asserted) in place of its
 * own, if any; release it with cmi_free. */
CMI_NODISCARD cmi_request *cmi_request_with_grammar(const cmi_request *request, const char *grammar,
                                                    size_t n_bytes);

/* A copy of the request with these n output tokens, <= its max_tokens and CMI_MAX_GIVEN_TOKENS
 * (asserted), in place of its own, if any, and n_prompt_events; release it with cmi_free. */
CMI_NODISCARD cmi_request *cmi_request_with_output(const cmi_request *request,
                                                   const uint32_t *tokens, uint32_t n,
                                                   uint32_t n_prompt_events);

/* A head with every option off: temperature 1, top_p 1, repetition_penalty 1, max_tokens 1, as many
 * drafts as there are. */
cmi_request cmi_request_defaults(void);

/* Checks a message from elsewhere: version, sizes, ranges, finite floats. bytes need not be
 * aligned. Token ids are checked against the model by the engine. CMI_ERR_INVALID names the field.
 */
CMI_NODISCARD cmi_status cmi_request_check(const void *bytes, size_t n_bytes, cmi_error *err);

const uint32_t *cmi_request_prompt(const cmi_request *request);
const uint32_t *cmi_request_output(const cmi_request *request); /* [n_output_tokens] */
const uint32_t *cmi_request_stop_token_ids(const cmi_request *request);
const cmi_logit_bias *cmi_request_logit_bias(const cmi_request *request);
const char *cmi_request_grammar(const cmi_request *request); /* [n_grammar_bytes] */

typedef enum cmi_event_type {
    CMI_EVENT_PROMPT_TOKEN =
        1,           /* index: position in the prompt; logprob given the tokens before it */
    CMI_EVENT_TOKEN, /* index: position in the output */
    CMI_EVENT_FINISHED,
} cmi_event_type;

typedef enum cmi_finish_reason {
    CMI_FINISH_NONE,
    CMI_FINISH_STOP,   /* an end token or a stop token id, which was the last TOKEN event */
    CMI_FINISH_LENGTH, /* max_tokens, or the context is full */
    CMI_FINISH_ABORT,  /* cancelled */
    CMI_FINISH_ERROR,  /* status says why: CMI_ERR_TIMEOUT, its time was up; CMI_ERR_NO_CAPACITY, it
                          waited for its first step until its target was out of reach;
                          CMI_ERR_UNSUPPORTED, the  grammar allows no token here */
} cmi_finish_reason;

typedef struct cmi_top_logprob {
    uint32_t token_id;
    float logprob;
} cmi_top_logprob;

typedef struct cmi_event {
    uint32_t version;
    uint32_t type; /* cmi_event_type */
    uint64_t request_id;
    uint32_t index;
    uint32_t token_id;
    float logprob; /* of the model before temperature and penalties; NAN: not asked for, or position
                      0 */
    uint32_t n_top;
    cmi_top_logprob top[CMI_MAX_TOP_LOGPROBS]; /* descending; ties by lower id */
    /* In CMI_EVENT_FINISHED, and already in the CMI_EVENT_TOKEN of an end token or stop token id
     * that ends the request, so that the server need not wait to know that its text is not shown;
     * other events: CMI_FINISH_NONE. */
    uint32_t finish_reason; /* cmi_finish_reason */
    uint32_t stop_token_id; /* with CMI_FINISH_STOP */
    /* only in CMI_EVENT_FINISHED: */
    int32_t status; /* cmi_status; CMI_OK unless CMI_FINISH_ERROR */
    uint32_t n_prompt_tokens, n_cached_tokens, n_output_tokens;
    /* In every event, monotonic clock of the engine's host, ns; 0: has not happened. The first
     * token is the first one that this engine generated. */
    uint64_t submitted_ns, started_ns, first_token_ns, now_ns;
} cmi_event;

#endif
