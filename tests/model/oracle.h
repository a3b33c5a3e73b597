/* tests/model/oracle.h - DeepSeek-V2/V3 in float64, written from the papers and the published
 * modelling code without the forward pass's means: whole sequences, explicit keys and values of
 * every head, no pages, no absorption, no chunks; libm. Slow and plain. */
#ifndef CMI_TESTS_MODEL_ORACLE_H
#define CMI_TESTS_MODEL_ORACLE_H

#include "tests/model/random_model.h"

/* What the model says about tokens 0 .. n-1. */
typedef struct oracle {
    uint32_t n;
    double *hidden; /* [n][hidden_size] after the final norm */
    double *mtp; /* [n][hidden_size]: row i from (hidden i-1, token i), after the MTP layer's head
                    norm; row 0 unused. NULL without an MTP layer */
    /* How far the gates were from choosing other experts, at the least: a score's distance from the
     * next one, or a group's. INFINITY without experts. */
    double margin;
} oracle;

oracle oracle_run(const random_model *model, const uint32_t *tokens, uint32_t n);
void oracle_free(oracle *o);

/* lm_head * hidden: [vocab_size]. */
void oracle_logits(const random_model *model, const double *hidden, double *logits_out);

#endif
