#include "tests/test.h"

#include "base/blake2b.h"
#include "tests/hex.h"

static void hash(uint8_t out[CMI_BLAKE2B_BYTES], const void *bytes, size_t n_bytes, size_t part)
{
    uint8_t key[CMI_BLAKE2B_KEY_BYTES_MAX];
    for (size_t i = 0; i < sizeof key; i++) {
        key[i] = (uint8_t)i;
    }
    cmi_blake2b h;
    cmi_blake2b_init(&h, key, sizeof key);
    for (size_t at = 0; at < n_bytes; at += part) {
        cmi_blake2b_update(&h, (const uint8_t *)bytes + at, CMI_MIN(part, n_bytes - at));
    }
    cmi_blake2b_final(&h, out);
}

/* Values of Python's hashlib, whose BLAKE2b is the reference implementation. */
static void digests_are_those_of_another_implementation(void **state)
{
    (void)state;
    cmi_blake2b h;
    uint8_t digest[CMI_BLAKE2B_BYTES];
    cmi_blake2b_init(&h, NULL, 0);
    cmi_blake2b_final(&h, digest);
    expect_hex(digest, sizeof digest,
               "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    cmi_blake2b_init(&h, "not used", 0);
    cmi_blake2b_update(&h, "abc", 3);
    cmi_blake2b_final(&h, digest);
    expect_hex(digest, sizeof digest,
               "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
}

static void parts_change_nothing(void **state)
{
    (void)state;
    uint8_t bytes[768], digest[CMI_BLAKE2B_BYTES];
    static const size_t parts[] = {1, 7, 64, 127, 128, 129, 768};
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)i;
    }
    for (size_t i = 0; i < CMI_LEN(parts); i++) {
        hash(digest, bytes, sizeof bytes, parts[i]);
        expect_hex(digest, sizeof digest,
                   "4b846372177de700a4548707dd4094b0a6e137c016c2dea7355b2bbba7380792");
    }
}

static void a_state_is_wiped_in_the_end(void **state)
{
    (void)state;
    cmi_blake2b h, zero = {{0}};
    uint8_t digest[CMI_BLAKE2B_BYTES];
    cmi_blake2b_init(&h, "a secret", 8);
    cmi_blake2b_final(&h, digest);
    assert_memory_equal(&h, &zero, sizeof h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_another_implementation),
        cmocka_unit_test(parts_change_nothing),
        cmocka_unit_test(a_state_is_wiped_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
