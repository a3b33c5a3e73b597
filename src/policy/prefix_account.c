#include <assert.h>

#include "policy/prefix_cache.h"

const char *cmi_prefix_loss_name(cmi_prefix_loss loss)
{
    static const char *const names[] = {
#define CMI_PREFIX_LOSS_TEXT(name, text) text,
        CMI_PREFIX_LOSS_TABLE(CMI_PREFIX_LOSS_TEXT)
#undef CMI_PREFIX_LOSS_TEXT
    };
    assert(loss < CMI_PREFIX_N_LOSSES);
    return names[loss];
}

/* Takes n_blocks of missed tokens out of lost. Which name they had matters to nobody any more. */
static uint64_t take_misses(cmi_prefix_account *account, uint32_t n_blocks)
{
    static const cmi_prefix_loss misses[] = {CMI_PREFIX_LOSS_NOT_CACHED, CMI_PREFIX_LOSS_EVICTED,
                                             CMI_PREFIX_LOSS_OTHER_NAMESPACE};
    uint64_t n_tokens = (uint64_t)n_blocks * CMI_CONTENT_BLOCK_TOKENS;
    uint64_t left = n_tokens;
    for (size_t i = 0; i < CMI_LEN(misses); i++) {
        uint64_t n = CMI_MIN(left, account->lost[misses[i]]);
        account->lost[misses[i]] -= n;
        left -= n;
    }
    assert(left == 0);
    return n_tokens;
}

void cmi_prefix_account_load(cmi_prefix_account *account, uint32_t n_blocks)
{
    uint64_t n_tokens = take_misses(account, n_blocks);
    account->loaded += n_tokens;
    account->used += n_tokens;
}

void cmi_prefix_account_blame(cmi_prefix_account *account, uint32_t n_blocks,
                              cmi_prefix_loss reason)
{
    account->lost[reason] += take_misses(account, n_blocks);
}

void cmi_prefix_account_drop(cmi_prefix_account *account, uint32_t n_blocks, cmi_prefix_loss reason)
{
    uint64_t n_tokens = (uint64_t)n_blocks * CMI_CONTENT_BLOCK_TOKENS;
    assert(n_tokens <= account->used);
    account->used -= n_tokens;
    account->lost[reason] += n_tokens;
}

void cmi_prefix_account_add(cmi_prefix_account *total, const cmi_prefix_account *one)
{
    total->prompt += one->prompt;
    total->looked_up += one->looked_up;
    total->available += one->available;
    total->loaded += one->loaded;
    total->used += one->used;
    for (size_t i = 0; i < CMI_PREFIX_N_LOSSES; i++) {
        total->lost[i] += one->lost[i];
    }
}
