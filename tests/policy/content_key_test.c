/* Content keys: the vectors of docs/CONTENT_KEY.md, and that every input counts. */
#include "tests/test.h"

#include "policy/content_key.h"
#include "tests/hex.h"

enum { N_TOKENS = 2 * CMI_CONTENT_BLOCK_TOKENS };

typedef struct inputs {
    uint8_t secret[32];
    cmi_content_model model;
    uint32_t tokens[N_TOKENS];
} inputs;

static inputs make_inputs(void)
{
    inputs in = {.model = {.quantization = CMI_CONTENT_QUANTIZATION_W8A8_INT8,
                           .compute_dtype = CMI_DTYPE_BF16,
                           .kv_dtype = CMI_DTYPE_I8,
                           .kv_layout_version = 7,
                           .with_mtp = true}};
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        in.tokens[i] = i;
    }
    for (uint32_t i = 0; i < 32; i++) {
        in.secret[i] = (uint8_t)i;
        in.model.weights_digest[i] = (uint8_t)(100 + i);
    }
    return in;
}

static cmi_content_space space_of(const inputs *in, const char *salt)
{
    cmi_content_space space;
    cmi_content_space_make(&space, in->secret, sizeof in->secret, salt, strlen(salt));
    return space;
}

static void expect_key(const cmi_content_key *key, const char *want)
{
    expect_hex(key->bytes, sizeof key->bytes, want);
}

static void keys_are_the_documents_vectors(void **state)
{
    (void)state;
    inputs in = make_inputs();
    cmi_content_space plain = space_of(&in, ""), salted = space_of(&in, "tenant-7");
    cmi_content_key keys[3];
    expect_hex(plain.key, sizeof plain.key,
               "7bdcaefbcf40ec0990c5b6b2c6287845e8d8f22d50a81e4b6ff0a065fe19e2e0");
    expect_hex(salted.key, sizeof salted.key,
               "68d4ff8acd22c0ce89f3fce41a5d2122afa209057c334d32257e637453c01c9d");
    assert_true(plain.tag == UINT64_C(0x337da4ade761dfcb));
    assert_int_equal(cmi_content_keys_make(keys, 3, &plain, &in.model, in.tokens, N_TOKENS), 2);
    expect_key(&keys[0], "3500c8af4f6a6593f5e831591bdd9b6370926d9c73d129dd47f23dd32c9c64bb");
    expect_key(&keys[1], "7cfafbbecbd4f646537e3bfb19f52c6bdc861896c8e0dcd6f7af799c4238b7cd");
    cmi_content_key_make(keys, &salted, &in.model, &cmi_content_key_root, in.tokens);
    expect_key(keys, "b13643baad37e9e0ee052bda619555d81de2bdb666dbe8f36a04e21ffddc186b");
    in.model.quantization = CMI_CONTENT_QUANTIZATION_NONE;
    in.model.compute_dtype = CMI_DTYPE_F32;
    in.model.kv_dtype = CMI_DTYPE_F32;
    in.model.with_mtp = false;
    cmi_content_key_make(keys, &plain, &in.model, &cmi_content_key_root, in.tokens);
    expect_key(keys, "5462e60a9ad3b8bdd40616cd660d2e90a893174b322170177c2c3d3e1b7a3ab9");
}

static void partial_blocks_have_no_key(void **state)
{
    (void)state;
    inputs in = make_inputs();
    cmi_content_space space = space_of(&in, "");
    cmi_content_key keys[2] = {{{0}}};
    static const struct {
        uint32_t n_tokens, max_keys, want;
    } cases[] = {{0, 2, 0},   {127, 2, 0}, {128, 2, 1}, {255, 2, 1},
                 {256, 2, 2}, {256, 1, 1}, {256, 0, 0}};
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        assert_int_equal(cmi_content_keys_make(keys, cases[i].max_keys, &space, &in.model,
                                               in.tokens, cases[i].n_tokens),
                         cases[i].want);
    }
}

/* Changes one input, by its number; false: there is no such input. */
static bool change(inputs *in, cmi_content_key *parent, const char **salt, uint32_t which)
{
    switch (which) {
    case 0:
        return true; /* none */
    case 1:
        in->secret[31] ^= 1;
        return true;
    case 2:
        *salt = "a";
        return true;
    case 3:
        *salt = "b";
        return true;
    case 4:
        in->model.weights_digest[31] ^= 0x80;
        return true;
    case 5:
        in->model.quantization = CMI_CONTENT_QUANTIZATION_NONE;
        return true;
    case 6:
        in->model.compute_dtype = CMI_DTYPE_F32;
        return true;
    case 7:
        in->model.kv_dtype = CMI_DTYPE_BF16;
        return true;
    case 8:
        in->model.kv_layout_version++;
        return true;
    case 9:
        in->model.with_mtp = false;
        return true;
    case 10:
        parent->bytes[0] ^= 1;
        return true;
    case 11:
        in->tokens[0] = 1 << 24;
        return true;
    case 12:
        in->tokens[127] = 126;
        return true;
    default:
        return false;
    }
}

static void every_input_makes_another_key(void **state)
{
    (void)state;
    cmi_content_key keys[16];
    uint32_t n = 0;
    for (;; n++) {
        inputs in = make_inputs();
        cmi_content_key parent = cmi_content_key_root;
        const char *salt = "";
        if (!change(&in, &parent, &salt, n)) {
            break;
        }
        cmi_content_space space = space_of(&in, salt);
        cmi_content_key_make(&keys[n], &space, &in.model, &parent, in.tokens);
        for (uint32_t i = 0; i < n; i++) {
            if (cmi_content_key_equal(&keys[i], &keys[n])) {
                fail_msg("inputs %u and %u have one key", i, n);
            }
        }
    }
    assert_int_equal(n, 13);
}

static void a_key_covers_all_tokens_before_its_block(void **state)
{
    (void)state;
    inputs in = make_inputs();
    cmi_content_space space = space_of(&in, "");
    cmi_content_key a[2], b[2];
    cmi_content_keys_make(a, 2, &space, &in.model, in.tokens, N_TOKENS);
    in.tokens[5]++;
    cmi_content_keys_make(b, 2, &space, &in.model, in.tokens, N_TOKENS);
    assert_false(cmi_content_key_equal(&a[1], &b[1]));
    in.tokens[5]--;
    in.tokens[200]++;
    cmi_content_keys_make(b, 2, &space, &in.model, in.tokens, N_TOKENS);
    assert_true(cmi_content_key_equal(&a[0], &b[0]));
    assert_false(cmi_content_key_equal(&a[1], &b[1]));
}

/* "ab" + "" and "a" + "b" of secret and salt are two namespaces: both say their length. */
static void secrets_and_salts_do_not_run_together(void **state)
{
    (void)state;
    uint8_t bytes[33];
    memset(bytes, 'x', sizeof bytes);
    cmi_content_space spaces[4];
    cmi_content_space_make(&spaces[0], bytes, 17, NULL, 0);
    cmi_content_space_make(&spaces[1], bytes, 16, bytes + 16, 1);
    cmi_content_space_make(&spaces[2], bytes, 16, NULL, 0);
    cmi_content_space_make(&spaces[3], bytes, 16, bytes, 2);
    for (size_t i = 0; i < CMI_LEN(spaces); i++) {
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(spaces[i].key, spaces[j].key, sizeof spaces[i].key);
            assert_true(spaces[i].tag != spaces[j].tag);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_the_documents_vectors),
        cmocka_unit_test(partial_blocks_have_no_key),
        cmocka_unit_test(every_input_makes_another_key),
        cmocka_unit_test(a_key_covers_all_tokens_before_its_block),
        cmocka_unit_test(secrets_and_salts_do_not_run_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
