/* Every variant that this processor can run returns the reference's bits. */
#include "tests/test.h"

#include "base/buf.h"
#include "base/float_env.h"
#include "kernels/variants.h"
#include "tests/kernels/battery.h"

enum { N_SEEDS = 2 };
static const size_t results_bytes_max = 64 << 20;

typedef struct comparison {
    const char *kernel, *isa;
    uint64_t seed;
    const cmi_buf *want;
    size_t at; /* bytes compared so far */
} comparison;

static void record(void *context, const char *label, const void *bytes, size_t n_bytes)
{
    (void)label;
    assert_true(cmi_buf_append(context, bytes, n_bytes));
}

static void compare(void *context, const char *label, const void *bytes, size_t n_bytes)
{
    comparison *c = context;
    assert_true(c->at + n_bytes <= c->want->len);
    const unsigned char *got = bytes, *want = (const unsigned char *)c->want->data + c->at;
    for (size_t i = 0; i < n_bytes; i++) {
        if (got[i] != want[i]) {
            fail_msg("%s %s, seed %llu: %s: byte %zu of %zu differs from ref", c->kernel, c->isa,
                     (unsigned long long)c->seed, label, i, n_bytes);
        }
    }
    c->at += n_bytes;
}

#define AGREE_TEST(name, type)                                                                     \
    static void name##_variants_agree(void **state)                                                \
    {                                                                                              \
        (void)state;                                                                               \
        const uint32_t flags = cmi_cpu_flags();                                                    \
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {                                         \
            cmi_buf want;                                                                          \
            cmi_buf_init(&want, results_bytes_max);                                                \
            battery ref = {.seed = seed, .sink = record, .context = &want};                        \
            battery_##name(&ref, cmi_##name##_variants[0].fn);                                     \
            for (size_t v = 1; v < cmi_##name##_n_variants; v++) {                                 \
                const cmi_##name##_variant *variant = &cmi_##name##_variants[v];                   \
                if ((variant->cpu_flags & flags) != variant->cpu_flags) {                          \
                    print_message("%s: not %s on this processor\n", #name, variant->isa);          \
                    continue;                                                                      \
                }                                                                                  \
                comparison c = {#name, variant->isa, seed, &want, 0};                              \
                battery b = {.seed = seed, .sink = compare, .context = &c};                        \
                battery_##name(&b, variant->fn);                                                   \
                assert_int_equal(c.at, want.len);                                                  \
            }                                                                                      \
            cmi_buf_deinit(&want);                                                                 \
        }                                                                                          \
    }
CMI_KERNEL_TABLE(AGREE_TEST)
#undef AGREE_TEST

int main(void)
{
    cmi_float_env_set();
#define AGREE_ENTRY(name, type) cmocka_unit_test(name##_variants_agree),
    const struct CMUnitTest tests[] = {CMI_KERNEL_TABLE(AGREE_ENTRY)};
#undef AGREE_ENTRY
    return cmocka_run_group_tests(tests, NULL, NULL);
}
