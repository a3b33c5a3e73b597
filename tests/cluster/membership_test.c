#include "tests/test.h"

#include "cluster/membership.h"

static cmi_membership *make(uint32_t n, uint32_t self)
{
    cmi_member members[8] = {{.address = "local:zero"}};
    cmi_membership *ms = NULL;
    cmi_error err;
    assert_int_equal(cmi_membership_create_static(&ms, members, n, self, &err), CMI_OK);
    return ms;
}

static void changes_grow_the_version(void **state)
{
    (void)state;
    cmi_membership *ms = make(3, 1);
    cmi_error err;
    uint64_t version = cmi_membership_version(ms), changed;
    assert_int_equal(cmi_membership_count(ms), 3);
    assert_int_equal(cmi_membership_self(ms), 1);
    assert_string_equal(cmi_membership_get(ms, 2, &changed)->name, "rank 2");
    assert_int_equal(changed, version);
    assert_string_equal(cmi_membership_get(ms, 0, NULL)->address, "local:zero");

    assert_int_equal(cmi_membership_announce(ms, "local:one", 7, "node=a", &err), CMI_OK);
    assert_true(cmi_membership_version(ms) > version);
    const cmi_member *self = cmi_membership_get(ms, 1, &changed);
    assert_string_equal(self->address, "local:one");
    assert_string_equal(self->attributes, "node=a");
    assert_int_equal(self->generation, 7);
    assert_int_equal(changed, cmi_membership_version(ms));
    assert_int_equal(cmi_membership_announce(ms, "local:one", 7, NULL, &err), CMI_ERR_INVALID);

    version = cmi_membership_version(ms);
    assert_true(cmi_membership_hear(ms, 2, "local:two", 3));
    assert_false(cmi_membership_hear(ms, 2, "local:two", 3)); /* known */
    assert_false(cmi_membership_hear(ms, 2, "local:old", 2)); /* from before */
    assert_false(cmi_membership_hear(ms, 1, "local:not me", 9));
    assert_false(cmi_membership_hear(ms, 3, "local:nobody", 9));
    assert_int_equal(cmi_membership_version(ms), version + 1);
    assert_string_equal(cmi_membership_get(ms, 2, NULL)->address, "local:two");

    cmi_membership_leave(ms);
    assert_int_equal(cmi_membership_version(ms), version + 2);
    assert_string_equal(cmi_membership_get(ms, 1, NULL)->address, "");
    cmi_membership_destroy(ms);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    cmi_member members[2] = {{.name = "a"}, {.name = "a"}};
    cmi_membership *ms = NULL;
    cmi_error err;
    assert_int_equal(cmi_membership_create_static(&ms, members, 2, 0, &err), CMI_ERR_INVALID);
    assert_non_null(strstr(err.text, "twice"));
    assert_int_equal(cmi_membership_create_static(&ms, members, 1, 1, &err), CMI_ERR_INVALID);
    assert_int_equal(cmi_membership_create_static(&ms, members, 0, 0, &err), CMI_ERR_INVALID);
    assert_int_equal(cmi_membership_create_static(&ms, members, CMI_MEMBERSHIP_MAX + 1, 0, &err),
                     CMI_ERR_INVALID);
    memset(members[0].address, 'x', sizeof members[0].address);
    assert_int_equal(cmi_membership_create_static(&ms, members, 1, 0, &err), CMI_ERR_INVALID);
    assert_null(ms);
    cmi_membership_destroy(NULL);

    char long_text[CMI_MEMBER_MAX_ADDRESS + 2];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    ms = make(2, 0);
    assert_int_equal(cmi_membership_announce(ms, long_text, 1, NULL, &err), CMI_ERR_INVALID);
    assert_false(cmi_membership_hear(ms, 1, long_text, 1));
    cmi_membership_destroy(ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_grow_the_version),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests_name("membership", tests, NULL, NULL);
}
