/* engine/grammar_cache.c - a list, most recently used first: it is short, and looked through once a
 * request. */
#include "engine/grammar_cache.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/blake2b.h"

enum { DIGEST_BYTES = 32 };

struct cmi_shared_grammar {
    uint8_t digest[DIGEST_BYTES]; /* of the source */
    cmi_grammar *grammar;
    size_t n_bytes;
    uint32_t n_users; /* lock */
    cmi_shared_grammar *next;
};

struct cmi_grammar_cache {
    const cmi_vocab *vocab;
    uint64_t max_bytes;
    pthread_mutex_t lock; /* guards everything below */
    cmi_shared_grammar *first;
    cmi_grammar_cache_stats stats; /* n_used, n_idle and n_bytes by adding up */
};

cmi_grammar_cache *cmi_grammar_cache_create(const cmi_vocab *vocab, uint64_t max_bytes)
{
    cmi_grammar_cache *cache = cmi_alloc(1, sizeof *cache);
    cache->vocab = vocab;
    cache->max_bytes = max_bytes > 0 ? max_bytes : (uint64_t)CMI_GRAMMAR_CACHE_MAX_BYTES;
    pthread_mutex_init(&cache->lock, NULL);
    return cache;
}

static void destroy_list(cmi_shared_grammar *first)
{
    while (first != NULL) {
        cmi_shared_grammar *next = first->next;
        cmi_grammar_destroy(first->grammar);
        cmi_free(first);
        first = next;
    }
}

void cmi_grammar_cache_destroy(cmi_grammar_cache *cache)
{
    if (cache != NULL) {
        destroy_list(cache->first);
        pthread_mutex_destroy(&cache->lock);
        cmi_free(cache);
    }
}

/* Finds and moves to the front. Locked. */
static cmi_shared_grammar *find(cmi_grammar_cache *cache, const uint8_t *digest)
{
    for (cmi_shared_grammar **at = &cache->first; *at != NULL; at = &(*at)->next) {
        cmi_shared_grammar *found = *at;
        if (memcmp(found->digest, digest, DIGEST_BYTES) == 0) {
            *at = found->next;
            found->next = cache->first;
            cache->first = found;
            return found;
        }
    }
    return NULL;
}

static uint64_t used_bytes(const cmi_grammar_cache *cache)
{
    uint64_t n = 0;
    for (const cmi_shared_grammar *s = cache->first; s != NULL; s = s->next) {
        n += s->n_users > 0 ? s->n_bytes : 0;
    }
    return n;
}

/* Takes those that are idle and over a limit out of the list. Locked. */
static cmi_shared_grammar *take_out_idle(cmi_grammar_cache *cache)
{
    const uint64_t room = cache->max_bytes - CMI_MIN(used_bytes(cache), cache->max_bytes);
    const uint64_t max_bytes = CMI_MIN(room, (uint64_t)CMI_GRAMMAR_CACHE_IDLE_BYTES);
    cmi_shared_grammar *out = NULL;
    uint64_t n_bytes = 0;
    uint32_t n = 0;
    for (cmi_shared_grammar **at = &cache->first; *at != NULL;) {
        cmi_shared_grammar *s = *at;
        if (s->n_users == 0) {
            n_bytes += s->n_bytes;
            n++;
        }
        if (s->n_users == 0 && (n > CMI_GRAMMAR_CACHE_IDLE || n_bytes > max_bytes)) {
            *at = s->next;
            s->next = out;
            out = s;
        } else {
            at = &s->next;
        }
    }
    return out;
}

static cmi_status compile(const cmi_grammar_cache *cache, const char *tree, size_t n_bytes,
                          cmi_shared_grammar **made_out, cmi_error *err)
{
    cmi_grammar_source source = {.kind = CMI_GRAMMAR_TREE, .text = tree, .n_bytes = n_bytes};
    cmi_grammar *grammar = NULL;
    cmi_status st = cmi_grammar_compile(&grammar, cache->vocab, &source, err);
    if (st == CMI_OK) {
        *made_out = cmi_alloc(1, sizeof **made_out);
        (*made_out)->grammar = grammar;
        (*made_out)->n_bytes = cmi_grammar_n_bytes(grammar);
    }
    return st;
}

/* Puts what was compiled into the list; *made is what was not needed after all. Locked. */
static cmi_status add(cmi_grammar_cache *cache, cmi_shared_grammar **made,
                      cmi_shared_grammar **shared_out, cmi_error *err)
{
    cmi_shared_grammar *shared = find(cache, (*made)->digest);
    if (shared == NULL) { /* nobody else was faster */
        if (used_bytes(cache) + (*made)->n_bytes > cache->max_bytes) {
            return cmi_error_set(err, CMI_ERR_NO_CAPACITY,
                                 "the formats of running and waiting requests take %llu MiB, no "
                                 "more are taken",
                                 (unsigned long long)(used_bytes(cache) >> 20));
        }
        shared = *made;
        shared->next = cache->first;
        cache->first = shared;
        *made = NULL;
    }
    cache->stats.n_compiled++;
    shared->n_users++;
    *shared_out = shared;
    return CMI_OK;
}

cmi_status cmi_grammar_cache_take(cmi_grammar_cache *cache, const char *tree, size_t n_bytes,
                                  cmi_shared_grammar **shared_out, cmi_error *err)
{
    uint8_t digest[DIGEST_BYTES];
    cmi_blake2b h;
    cmi_blake2b_init(&h, NULL, 0);
    cmi_blake2b_update(&h, tree, n_bytes);
    cmi_blake2b_final(&h, digest);

    pthread_mutex_lock(&cache->lock);
    cmi_shared_grammar *found = find(cache, digest);
    if (found != NULL) {
        found->n_users++;
        cache->stats.n_hits++;
        *shared_out = found;
    }
    pthread_mutex_unlock(&cache->lock);
    if (found != NULL) {
        return CMI_OK;
    }
    cmi_shared_grammar *made = NULL;
    cmi_status st = compile(cache, tree, n_bytes, &made, err);
    if (st != CMI_OK) {
        return st;
    }
    memcpy(made->digest, digest, DIGEST_BYTES);
    pthread_mutex_lock(&cache->lock);
    st = add(cache, &made, shared_out, err);
    cmi_shared_grammar *out = take_out_idle(cache);
    pthread_mutex_unlock(&cache->lock);
    destroy_list(made);
    destroy_list(out);
    return st;
}

void cmi_grammar_cache_give(cmi_grammar_cache *cache, cmi_shared_grammar *shared)
{
    pthread_mutex_lock(&cache->lock);
    shared->n_users--;
    pthread_mutex_unlock(&cache->lock);
}

const cmi_grammar *cmi_shared_grammar_get(const cmi_shared_grammar *shared)
{
    return shared->grammar;
}

void cmi_grammar_cache_stats_get(cmi_grammar_cache *cache, cmi_grammar_cache_stats *stats_out)
{
    pthread_mutex_lock(&cache->lock);
    *stats_out = cache->stats;
    for (const cmi_shared_grammar *s = cache->first; s != NULL; s = s->next) {
        stats_out->n_used += s->n_users > 0 ? 1 : 0;
        stats_out->n_idle += s->n_users > 0 ? 0 : 1;
        stats_out->n_bytes += s->n_bytes;
    }
    pthread_mutex_unlock(&cache->lock);
}
