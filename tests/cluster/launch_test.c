#include "tests/test.h"

#include "base/compiler.h"
#include "cluster/launch.h"

static cmi_launch read_good(const char *const *env)
{
    cmi_launch launch;
    cmi_error err = {0};
    if (cmi_launch_read(&launch, env, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return launch;
}

static void check(const char *const *env, const char *launcher, uint32_t rank, uint32_t n_ranks,
                  uint32_t local_rank, const char *host, uint32_t port)
{
    const cmi_launch launch = read_good(env);
    assert_string_equal(launch.launcher, launcher);
    assert_int_equal(launch.rank, rank);
    assert_int_equal(launch.n_ranks, n_ranks);
    assert_int_equal(launch.local_rank, local_rank);
    assert_string_equal(launch.host, host);
    assert_int_equal(launch.port, port);
}

static void launchers_are_known(void **state)
{
    (void)state;
    const char *const torchrun[] = {"HOME=/",
                                    "RANK=3",
                                    "WORLD_SIZE=8",
                                    "LOCAL_RANK=1",
                                    "MASTER_ADDR=10.0.0.1",
                                    "MASTER_PORT=29500",
                                    NULL};
    check(torchrun, "torchrun", 3, 8, 1, "10.0.0.1", 29500);
    const char *const slurm[] = {"SLURM_PROCID=5", "SLURM_NTASKS=6", "SLURM_LOCALID=2",
                                 "SLURM_JOB_NODELIST=node[03-05,9],other", NULL};
    check(slurm, "Slurm", 5, 6, 2, "node03", 0);
    const char *const mpirun[] = {
        "SLURM_PROCID=0",         "SLURM_NTASKS=1", /* of the script around it */
        "SLURM_JOB_NODELIST=a,b", "OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE=2", NULL};
    check(mpirun, "Open MPI", 1, 2, CMI_LAUNCH_UNKNOWN, "a", 0);
    const char *const pmi[] = {"PMI_RANK=0", "PMI_SIZE=1024", NULL};
    check(pmi, "PMI", 0, 1024, CMI_LAUNCH_UNKNOWN, "", 0);
    const char *const half[] = {"RANK=3",
                                "RANKS=9",
                                "SLURM_PROCID=0",
                                "SLURM_NTASKS=1",
                                "SLURM_JOB_NODELIST=job",
                                "SLURM_STEP_NODELIST=step",
                                NULL};
    check(half, "Slurm", 0, 1, CMI_LAUNCH_UNKNOWN, "step", 0);
}

static void wrong_variables_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *env[5];
        const char *says;
    } cases[] = {
        {{"RANK=8", "WORLD_SIZE=8", NULL}, "RANK"},
        {{"RANK=-1", "WORLD_SIZE=8", NULL}, "RANK"},
        {{"RANK=", "WORLD_SIZE=8", NULL}, "RANK"},
        {{"RANK=1", "WORLD_SIZE=99999999999999999999", NULL}, "WORLD_SIZE"},
        {{"RANK=1", "WORLD_SIZE=1025", NULL}, "WORLD_SIZE"},
        {{"RANK=0", "WORLD_SIZE=0", NULL}, "WORLD_SIZE"},
        {{"RANK=0", "WORLD_SIZE=1", "LOCAL_RANK=x", NULL}, "LOCAL_RANK"},
        {{"RANK=0", "WORLD_SIZE=1", "MASTER_PORT=65536", NULL}, "MASTER_PORT"},
        {{"SLURM_PROCID=0", "SLURM_NTASKS=1", "SLURM_JOB_NODELIST=a[", NULL}, "nodes"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_launch launch;
        cmi_error err = {0};
        assert_int_equal(cmi_launch_read(&launch, cases[i].env, &err), CMI_ERR_INVALID);
        assert_non_null(strstr(err.text, cases[i].says));
    }
    const char *const none[] = {"RANK=1", "PMI_SIZE=1", NULL};
    cmi_launch launch;
    cmi_error err = {0};
    assert_int_equal(cmi_launch_read(&launch, none, &err), CMI_ERR_NOT_FOUND);
}

static void slurm_lists_have_a_first_host(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"node1", "node1"},
        {"a.b-c_d,x", "a.b-c_d"},
        {"n[7]", "n7"},
        {"n[007-100]", "n007"},
        {"rack[0-3]node[12,14]-ib,foo", "rack0node12-ib"},
        {"[1-2]", "1"},
    };
    static const char *const wrong[] = {"", ",a", "n[", "n[]", "n[a]", "n[1", "n]", "n[-1]", "a b"};
    char host[CMI_LAUNCH_MAX_HOST + 1];
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        assert_true(cmi_launch_first_host(cases[i][0], host));
        assert_string_equal(host, cases[i][1]);
    }
    for (size_t i = 0; i < CMI_LEN(wrong); i++) {
        assert_false(cmi_launch_first_host(wrong[i], host));
    }
}

static void hosts_become_addresses(void **state)
{
    (void)state;
    cmi_member members[4];
    cmi_error err = {0};
    uint32_t n = 0;
    const char *text = "a:1,10.0.0.2:65535,[fe80::1]:7,local:x-1";
    assert_int_equal(cmi_launch_read_hosts(members, 4, &n, text, "ucx:", &err), CMI_OK);
    assert_int_equal(n, 4);
    assert_string_equal(members[0].address, "ucx:a:1");
    assert_string_equal(members[1].address, "ucx:10.0.0.2:65535");
    assert_string_equal(members[2].address, "ucx:[fe80::1]:7");
    assert_string_equal(members[3].address, "local:x-1");
    assert_int_equal(cmi_launch_read_hosts(members, 3, &n, text, "ucx:", &err), CMI_ERR_INVALID);
    assert_non_null(strstr(err.text, "more than 3"));
    static const char *const wrong[] = {"",          "a",    "a:",   "a:0",   "a:65536",
                                        ":1",        "a:1,", ",a:1", "a:1,b", "a b:1",
                                        "fe80::1:7", "[]:1", "[a:1", "local:"};
    for (size_t i = 0; i < CMI_LEN(wrong); i++) {
        assert_int_equal(cmi_launch_read_hosts(members, 4, &n, wrong[i], "", &err),
                         CMI_ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(launchers_are_known),
        cmocka_unit_test(wrong_variables_are_named),
        cmocka_unit_test(slurm_lists_have_a_first_host),
        cmocka_unit_test(hosts_become_addresses),
    };
    return cmocka_run_group_tests_name("launch", tests, NULL, NULL);
}
