/* Proofs hold for what they were made for, and for nothing else. */
#include "tests/test.h"

#include "fabric/proof.h"

static void proofs_are_of_one_key_role_and_text(void **state)
{
    (void)state;
    uint8_t key[CMI_PROOF_BYTES], other_key[CMI_PROOF_BYTES], proof[CMI_PROOF_BYTES];
    cmi_proof_make_key(key, (const uint8_t *)"a secret of 16 b", 16);
    cmi_proof_make_key(other_key, (const uint8_t *)"a secret of 16 b", 15);
    assert_memory_not_equal(key, other_key, sizeof key);
    char said[40] = "what both sides have said";
    cmi_proof_make(proof, key, CMI_PROOF_LISTENER, said, sizeof said);
    assert_true(cmi_proof_holds(proof, key, CMI_PROOF_LISTENER, said, sizeof said));
    assert_false(cmi_proof_holds(proof, key, CMI_PROOF_CONNECTOR, said, sizeof said));
    assert_false(cmi_proof_holds(proof, other_key, CMI_PROOF_LISTENER, said, sizeof said));
    assert_false(cmi_proof_holds(proof, key, CMI_PROOF_LISTENER, said, sizeof said - 1));
    for (size_t i = 0; i < sizeof said; i++) {
        said[i] ^= 1;
        assert_false(cmi_proof_holds(proof, key, CMI_PROOF_LISTENER, said, sizeof said));
        said[i] ^= 1;
    }
    for (size_t i = 0; i < sizeof proof; i++) {
        proof[i] ^= 0x80;
        assert_false(cmi_proof_holds(proof, key, CMI_PROOF_LISTENER, said, sizeof said));
        proof[i] ^= 0x80;
    }
    cmi_proof_forget_key(key);
    for (size_t i = 0; i < sizeof key; i++) {
        assert_int_equal(key[i], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(proofs_are_of_one_key_role_and_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
