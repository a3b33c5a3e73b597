/* engine/grammar_cache.h - compiled grammars by their source, shared by the requests that use them.
 *
 * Clients send the same schema with every request, and compiling takes milliseconds. Grammars that
 * nobody uses are kept up to a limit, the last used ones; all together take at most
 * CMI_GRAMMAR_CACHE_MAX_BYTES. Any thread; compiling holds no lock, giving back frees nothing. */
#ifndef CMI_ENGINE_GRAMMAR_CACHE_H
#define CMI_ENGINE_GRAMMAR_CACHE_H

#include "grammar/grammar.h"

typedef struct cmi_grammar_cache cmi_grammar_cache;
typedef struct cmi_shared_grammar cmi_shared_grammar;

enum {
    CMI_GRAMMAR_CACHE_IDLE = 64,              /* grammars that nobody uses, */
    CMI_GRAMMAR_CACHE_IDLE_BYTES = 128 << 20, /* and their memory */
    CMI_GRAMMAR_CACHE_MAX_BYTES = 1024 << 20, /* of all */
};

typedef struct cmi_grammar_cache_stats {
    uint64_t n_hits, n_compiled; /* since the start */
    uint32_t n_used, n_idle;     /* grammars that are there */
    uint64_t n_bytes;            /* of all of them */
} cmi_grammar_cache_stats;

/* vocab outlives the cache. max_bytes 0: CMI_GRAMMAR_CACHE_MAX_BYTES. */
cmi_grammar_cache *cmi_grammar_cache_create(const cmi_vocab *vocab, uint64_t max_bytes);

/* When everything was given back. NULL is fine. */
void cmi_grammar_cache_destroy(cmi_grammar_cache *cache);

/* The grammar of a tree (CMI_GRAMMAR_TREE), compiled unless it is there; to be given back once.
 * Errors of cmi_grammar_compile, which are not kept, and CMI_ERR_NO_CAPACITY: those in use take all
 * of the memory. */
CMI_NODISCARD cmi_status cmi_grammar_cache_take(cmi_grammar_cache *cache, const char *tree,
                                                size_t n_bytes, cmi_shared_grammar **shared_out,
                                                cmi_error *err);
void cmi_grammar_cache_give(cmi_grammar_cache *cache, cmi_shared_grammar *shared);

const cmi_grammar *cmi_shared_grammar_get(const cmi_shared_grammar *shared);

void cmi_grammar_cache_stats_get(cmi_grammar_cache *cache, cmi_grammar_cache_stats *stats_out);

#endif
