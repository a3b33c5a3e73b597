/* tests/policy/prefix_model.h - pages, blocks and sequences in plain arrays, decided by looking at
 * all of them: what the page pool and the prefix cache are compared with.
 *
 * Chains of blocks are paths in a tree in which every node has BRANCHES children, one tree for each
 * namespace; a node's key stands for the tokens on the way to it. A difference fails the test and
 * names seed and step. */
#ifndef CMI_TESTS_POLICY_PREFIX_MODEL_H
#define CMI_TESTS_POLICY_PREFIX_MODEL_H

#include "tests/test.h"

#include "policy/prefix_cache.h"

enum {
    N_PAGES = 61,
    N_BLOCKS = 17,
    N_SEQUENCES = 12,
    N_SPACES = 3,
    BRANCHES = 2,
    DEPTH = 5,
    N_KEY_SLOTS = 31,  /* so many of the cache's are used: many keys share one */
    NODES_A_TREE = 62, /* 2 + 4 + ... + 2^DEPTH */
    N_NODES = N_SPACES * NODES_A_TREE,
    N_EXTRA = 6,
    LEASE_MAX_NS = 40,
    NONE = -1,
};

typedef struct model_node {
    int parent;
    int depth;
    cmi_content_key key;
    bool is_cached;
    int holders;
    uint64_t released; /* number of the release that went through it last */
    cmi_page_id pages[CMI_BLOCK_PAGES];
    cmi_block_id id; /* of its present or last life */
} model_node;

typedef struct model_page {
    int holders;
    bool is_sealed;
    int n_leases;
    uint64_t lease_end_ns;
    cmi_page_id id; /* of the present or last life */
} model_page;

/* A sequence on its way along a path. */
typedef struct sequence {
    bool is_running;
    uint64_t owner;
    int path[DEPTH];
    int n_path;
    int n_held;                                 /* blocks of the path that it holds in the cache */
    cmi_page_id pages[CMI_BLOCK_PAGES * DEPTH]; /* its own, from block n_held on */
    int n_pages;
    bool is_refused; /* a block had no room: what follows stays its own */
} sequence;

typedef struct world {
    uint64_t seed, step, n_draws;
    cmi_page_pool *pool;
    cmi_prefix_cache *cache;
    uint64_t now_ns, n_releases, n_owners;
    model_node nodes[N_NODES];
    model_page pages[N_PAGES];
    sequence sequences[N_SEQUENCES];
    cmi_page_id extra[N_EXTRA]; /* pages held beside sequences, as a transfer does */
    int n_extra;
    int ghosts[N_KEY_SLOTS]; /* the node evicted last of those that share a slot; NONE */
    cmi_prefix_cache_stats stats;
} world;

#define EXPECT(w, condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail_msg("seed %llu, step %llu: %s", (unsigned long long)(w)->seed,                    \
                     (unsigned long long)(w)->step, #condition);                                   \
        }                                                                                          \
    } while (0)

/* Of a zeroed world: the trees, and nothing cached or held. */
void model_init(world *w);

int model_n_free(const world *w);   /* pages */
int model_n_idle(const world *w);   /* blocks */
int model_n_cached(const world *w); /* blocks */

/* These pages were free and have an owner now, in their next life. */
void model_acquired(world *w, const cmi_page_id *ids, uint32_t n);
void model_unref(world *w, cmi_page_id id);

/* The longest idle block goes, the deepest of those let go at once. */
void model_evict(world *w);

void model_hold(world *w, int node);
void model_release(world *w, const int *path, int n_held);

/* Each page is in the state, and has the holders, that sequences, cached blocks and leases give it;
 * blocks and counts are the model's. */
void model_compare_pages(world *w);
void model_compare_blocks(world *w);

#endif
