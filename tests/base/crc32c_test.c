/* CRC32C: known values, and every version the same as the table's at all lengths and offsets. */
#include "tests/test.h"

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/rng.h"

static uint8_t *random_bytes(size_t n)
{
    uint8_t *bytes = cmi_alloc(n, 1);
    for (size_t i = 0; i < n; i++) {
        uint32_t words[4];
        cmi_philox4x32(7, i, 0, words);
        bytes[i] = (uint8_t)words[0];
    }
    return bytes;
}

/* RFC 3720 B.4, and the check value of the catalogues of CRCs. */
static void known_values(void **state)
{
    (void)state;
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];
    memset(ones, 0xFF, sizeof ones);
    for (uint8_t i = 0; i < 32; i++) {
        up[i] = i;
        down[i] = (uint8_t)(31 - i);
    }
    static const uint8_t command[48] = {
        0x01, 0xC0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, 0x28, [40] = 0x02};
    for (size_t v = 0; v < cmi_crc32c_n_variants; v++) {
        const cmi_crc32c_variant *variant = &cmi_crc32c_variants[v];
        if (!variant->is_here()) {
            continue;
        }
        assert_int_equal(variant->fn(0, "", 0), 0);
        assert_int_equal(variant->fn(0, "123456789", 9), 0xE3069283);
        assert_int_equal(variant->fn(0, zeros, sizeof zeros), 0x8A9136AA);
        assert_int_equal(variant->fn(0, ones, sizeof ones), 0x62A8AB43);
        assert_int_equal(variant->fn(0, up, sizeof up), 0x46DD794E);
        assert_int_equal(variant->fn(0, down, sizeof down), 0x113FDB5C);
        assert_int_equal(variant->fn(0, command, sizeof command), 0xD9963A56);
    }
}

static void versions_agree(void **state)
{
    (void)state;
    enum { N = 3 * 3 * 4096 + 100 };
    uint8_t *bytes = random_bytes(N + 16);
    static const size_t lengths[] = {0,    1,     7,     8,     9,     63,    64,    65,    4095,
                                     4096, 12287, 12288, 12289, 12295, 24576, 24583, 36864, N};
    for (size_t v = 1; v < cmi_crc32c_n_variants; v++) {
        const cmi_crc32c_variant *variant = &cmi_crc32c_variants[v];
        for (size_t i = 0; i < CMI_LEN(lengths) && variant->is_here(); i++) {
            for (size_t offset = 0; offset < 9; offset++) {
                uint32_t start = (uint32_t)(i * 0x9E3779B9u);
                assert_int_equal(variant->fn(start, bytes + offset, lengths[i]),
                                 cmi_crc32c_variants[0].fn(start, bytes + offset, lengths[i]));
            }
        }
    }
    cmi_free(bytes);
}

static void pieces_chain(void **state)
{
    (void)state;
    enum { N = 50000 };
    uint8_t *bytes = random_bytes(N);
    uint32_t whole = cmi_crc32c(0, bytes, N);
    assert_int_equal(whole, cmi_crc32c_variants[0].fn(0, bytes, N));
    for (size_t cut = 0; cut <= N; cut += 4999) {
        uint32_t first = cmi_crc32c(0, bytes, cut);
        assert_int_equal(cmi_crc32c(first, bytes + cut, N - cut), whole);
    }
    cmi_free(bytes);
}

static void a_flipped_bit_shows(void **state)
{
    (void)state;
    enum { N = 300 };
    uint8_t *bytes = random_bytes(N);
    uint32_t whole = cmi_crc32c(0, bytes, N);
    for (size_t bit = 0; bit < 8 * N; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(cmi_crc32c(0, bytes, N), whole);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cmi_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(versions_agree),
        cmocka_unit_test(pieces_chain),
        cmocka_unit_test(a_flipped_bit_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
