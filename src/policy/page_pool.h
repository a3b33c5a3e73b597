/* policy/page_pool.h - which KV pages are free, being filled, sealed, or leased to a peer.
 *
 * A page is a number; its bytes lie elsewhere (engine/). Its life:
 *
 *     free --acquire--> filling --seal--> sealed
 *      ^                   |                 |     the last holder lets go:
 *      |                   +--------+--------+
 *      |                            v
 *      +----- no lease runs --------+------ a lease runs ------> leased
 *      ^                                                            |
 *      +------------------ it ends, or runs out --------------------+
 *
 *   filling  one owner holds it and writes it
 *   sealed   its bytes never change again; any number of holders (refs)
 *   leased   nobody here holds it, but a peer may still read or write it
 *
 * A lease is a peer's right to reach a page's memory until a stated time. It may be given while the
 * page is held and ends by itself, so a peer that died costs at most lease_max_ns.
 *
 * An id is a page and its generation, which grows with each acquire: an id that outlived its page
 * is told from the page's next life. The functions of a holder assert that its id is live: a stale
 * one is our own bug. Ids that come from elsewhere, or late, are asked for with
 * cmi_page_pool_is_live first, or go to the lease functions, which return CMI_ERR_NOT_FOUND.
 *
 * Pure: no I/O, no clock, no allocation after init. Thread: belongs to the engine's thread. Cost
 * O(1) a page where nothing else is said. */
#ifndef CMI_POLICY_PAGE_POOL_H
#define CMI_POLICY_PAGE_POOL_H

#include "base/status.h"

enum {
    CMI_PAGE_TOKENS = 64,
    CMI_PAGE_POOL_PAGES_MAX = 1 << 24,
};

typedef struct cmi_page_pool cmi_page_pool;

typedef struct cmi_page_id {
    uint32_t idx; /* 0 .. n_pages - 1: where the bytes lie */
    uint32_t gen;
} cmi_page_id;

typedef enum cmi_page_state {
    CMI_PAGE_FREE,
    CMI_PAGE_FILLING,
    CMI_PAGE_SEALED,
    CMI_PAGE_LEASED,
    CMI_PAGE_N_STATES,
} cmi_page_state;

typedef struct cmi_page_pool_options {
    uint32_t n_pages;      /* fixed for life, 1 .. CMI_PAGE_POOL_PAGES_MAX */
    uint32_t n_checksums;  /* a page: one for each layer's slice; may be 0 */
    uint64_t lease_max_ns; /* the longest lease */
} cmi_page_pool_options;

typedef struct cmi_page_info {
    cmi_page_state state;
    uint32_t gen;
    uint32_t refs;     /* holders: 1 when filling, >= 1 when sealed, else 0 */
    uint32_t n_leases; /* that run, as far as expire has been told the time */
    uint64_t owner;    /* who fills or filled it; 0 when free */
    uint64_t lease_end_ns;
} cmi_page_info;

/* Bytes of memory that a pool needs; 0: an option is out of range. */
size_t cmi_page_pool_bytes(const cmi_page_pool_options *opt);

/* Builds a pool in memory, which is aligned to 64 bytes, must outlive it and is the caller's again
 * after deinit. On error *pool_out is untouched.
 * CMI_ERR_INVALID: an option is out of range. CMI_ERR_NO_MEMORY: n_bytes are too few. */
CMI_NODISCARD cmi_status cmi_page_pool_init(cmi_page_pool **pool_out, void *memory, size_t n_bytes,
                                            const cmi_page_pool_options *opt);
void cmi_page_pool_deinit(cmi_page_pool *pool); /* NULL is fine; asserts that no page is held */

/* ---- holders ---- */

/* Takes n free pages or none, for owner (not 0), who holds each once; lowest numbers of a fresh
 * pool first. Their checksums are 0. CMI_ERR_NO_CAPACITY: fewer are free. O(n). */
CMI_NODISCARD cmi_status cmi_page_pool_acquire(cmi_page_pool *pool, uint64_t owner, uint32_t n,
                                               cmi_page_id *ids_out);

/* filling -> sealed; the owner goes on holding it. Asserts that owner fills it. */
void cmi_page_pool_seal(cmi_page_pool *pool, uint64_t owner, cmi_page_id id);

/* Another holder of a sealed page. */
void cmi_page_pool_ref(cmi_page_pool *pool, cmi_page_id id);

/* One holder less. Without one the page is free, or leased while a lease runs. */
void cmi_page_pool_unref(cmi_page_pool *pool, cmi_page_id id);

/* cmi_page_pool_unref of n pages, last one first; asserts that owner acquired them. O(n). */
void cmi_page_pool_release(cmi_page_pool *pool, uint64_t owner, uint32_t n, const cmi_page_id *ids);

/* ---- leases ---- */

/* Lets a peer reach the page until now_ns + for_ns (for_ns is cut to lease_max_ns), beside the
 * leases that it has: the longest one counts. CMI_ERR_NOT_FOUND: the id is not live. */
CMI_NODISCARD cmi_status cmi_page_pool_lease(cmi_page_pool *pool, cmi_page_id id, uint64_t now_ns,
                                             uint64_t for_ns);

/* A peer is done; the page is free if that was its last lease and nobody holds it.
 * CMI_ERR_NOT_FOUND: no lease runs for this id, because it ran out and the page was given away, or
 * because there never was one. What the peer has written or read is then nothing to rely on. */
CMI_NODISCARD cmi_status cmi_page_pool_lease_end(cmi_page_pool *pool, cmi_page_id id);

/* Ends the leases of pages nobody holds that have run out at now_ns. Returns how many pages became
 * free. Call it once a step and when pages are short. O(pages leased). */
uint32_t cmi_page_pool_expire(cmi_page_pool *pool, uint64_t now_ns);

/* ---- looking ---- */

/* Somebody holds the page in the life that id names. False for any id that is not. */
bool cmi_page_pool_is_live(const cmi_page_pool *pool, cmi_page_id id);

/* Of the page in its present life. Asserts idx < n_pages. */
cmi_page_info cmi_page_pool_info(const cmi_page_pool *pool, uint32_t page_idx);

/* [n_checksums] of a live page: the pool keeps them, the caller writes and checks them. */
uint32_t *cmi_page_pool_checksums(cmi_page_pool *pool, cmi_page_id id);

uint32_t cmi_page_pool_count(const cmi_page_pool *pool, cmi_page_state state);
uint32_t cmi_page_pool_size(const cmi_page_pool *pool); /* n_pages */

/* Every page is in exactly one state and list, with the fields that this state allows. For tests
 * and fault hunting. O(n_pages). */
bool cmi_page_pool_check(const cmi_page_pool *pool);

#endif
