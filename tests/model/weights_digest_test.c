/* The weights digest: the vectors of docs/CONTENT_KEY.md, the same for any files and threads, and
 * another one for every input. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "model/weights.h"
#include "tests/hex.h"
#include "tests/model/fixture.h"

static const char *models(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("CMI_MODELS"), name);
    return path;
}

static cmi_digest load_digest(const char *dir, const cmi_model_config *config,
                              cmi_weights_options opt, uint32_t n_threads)
{
    cmi_error err = {0};
    cmi_model_config own;
    cmi_generation_config generation;
    cmi_weights *weights = NULL;
    assert_int_equal(cmi_team_create(&opt.team, n_threads, &err), CMI_OK);
    if (cmi_model_config_load(&own, &generation, dir, &err) != CMI_OK ||
        cmi_weights_load(&weights, config == NULL ? &own : config, dir, &opt, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    cmi_digest digest = weights->digest;
    cmi_weights_destroy(weights);
    cmi_team_destroy(opt.team);
    return digest;
}

static void expect_digest(const cmi_digest *digest, const char *want)
{
    expect_hex(digest->bytes, sizeof digest->bytes, want);
}

static bool is_same(const cmi_digest *a, const cmi_digest *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void tensors_have_the_documents_digests(void **state)
{
    (void)state;
    enum { N_BYTES = 3 * 100 * 1000 * 4 };
    uint8_t *bytes = cmi_alloc(N_BYTES, 1);
    cmi_digest digest;
    cmi_tensor a = {.name = "a", .dtype_label = "BF16", .n_dims = 2, .dims = {2, 3}, .n_bytes = 12};
    cmi_tensor b = {
        .name = "b", .dtype_label = "F32", .n_dims = 3, .dims = {3, 100, 1000}, .n_bytes = N_BYTES};
    cmi_tensor none = {.name = "none", .dtype_label = "I8", .n_dims = 1};
    for (uint32_t i = 0; i < 12; i++) {
        bytes[i] = (uint8_t)i;
    }
    cmi_weights_digest_tensor(&digest, &a, bytes);
    expect_digest(&digest, "002706da9f2a5005e77ce919f232bf6ec24596901e8d79bb14e6ea6ff02f8d3e");
    for (uint32_t i = 0; i < N_BYTES; i++) {
        bytes[i] = (uint8_t)((uint64_t)i * 7 % 251);
    }
    cmi_weights_digest_tensor(&digest, &b, bytes);
    expect_digest(&digest, "8475c73ddfdc8d91b35783d56724ab157dfd91414aa92a849f9b230f41b48687");
    cmi_weights_digest_sample(&digest, &b, bytes);
    expect_digest(&digest, "0a4e112105b5ffc03587225f55263ce96ad819ca0b1945ff9e907eae68739694");
    cmi_weights_digest_sample(&digest, &none, NULL);
    expect_digest(&digest, "6e8d5afefce97e8aedb9337f23a97738db54e8f6562782cc6661fc67f1f2ab30");
    cmi_weights_digest_tensor(&digest, &none, NULL);
    expect_digest(&digest, "e45cde0fa4f9997d5c64e3f753d6fe4a1ff32257848a2741ac4f62f4c8d9c88a");
    assert_int_equal(cmi_weights_leaf_rows(&a), 131072 / 6);
    assert_int_equal(cmi_weights_leaf_rows(&b), 32);
    assert_int_equal(cmi_weights_leaf_rows(&none), 0);
    cmi_free(bytes);
}

/* Whatever the weights become, however many threads load them. */
static void the_bundled_models_have_the_documents_digests(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool with_mtp, without_experts;
        const char *want;
    } cases[] = {
        {"matrix-tiny", true, false,
         "603cda187718ead96a09f0046936ad42b7d5d8cbdf85359542ce455a1d39f060"},
        {"matrix-tiny", false, false,
         "e9e6d52f4a3b66b29cb4bad71c803c92c46c39da2212d3f8578dbc4626a0cf8f"},
        {"matrix-tiny-fp8", true, false,
         "08fb36b0fe782ab47b4aa2efde286a7a40e76df71dc30c2329c8bf6f7205ad8f"},
        {"matrix-tiny", true, true,
         "fe909075becb2873a09897aa208177f90a6c89eccc5ec77c421b9519c5a5fdd1"},
        {"matrix-tiny-fp8", true, true,
         "0b18e2224cf330ef129001f1d256c8e7a2e9d37b4c1786e857b1520a32a00703"},
    };
    static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16, CMI_DTYPE_I8};
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        for (size_t k = 0; k < CMI_LEN(dtypes); k++) {
            cmi_weights_options opt = {.dtype = dtypes[k],
                                       .with_mtp = cases[i].with_mtp,
                                       .without_experts = cases[i].without_experts};
            cmi_digest digest = load_digest(models(cases[i].name), NULL, opt, (uint32_t)k + 1);
            expect_digest(&digest, cases[i].want);
        }
    }
}

static void fields_that_change_the_mathematics_change_the_digest(void **state)
{
    (void)state;
    cmi_model_config config;
    cmi_generation_config generation;
    cmi_error err;
    const char *dir = models("matrix-tiny");
    assert_int_equal(cmi_model_config_load(&config, &generation, dir, &err), CMI_OK);
    cmi_digest set = {{1, 2, 3}}, digests[8];
    cmi_model_config c[CMI_LEN(digests)];
    for (size_t i = 0; i < CMI_LEN(c); i++) {
        c[i] = config;
    }
    c[1].rope_theta *= 2;
    c[2].num_experts_per_tok--;
    c[3].scoring_func = CMI_SCORING_SOFTMAX;
    c[4].rms_norm_eps = 1e-5;
    c[5].rope_scaling = (cmi_rope_scaling){.is_yarn = true, .factor = 4};
    c[6].rope_scaling = (cmi_rope_scaling){.is_yarn = true, .factor = 4, .mscale = 1};
    c[7].norm_topk_prob = false;
    for (size_t i = 0; i < CMI_LEN(digests); i++) {
        cmi_weights_digest_model(&digests[i], &c[i], &set);
        for (size_t k = 0; k < i; k++) {
            assert_false(is_same(&digests[i], &digests[k]));
        }
    }
    /* These say where to stop, not what to compute. */
    c[0].max_position_embeddings *= 2;
    c[0].eos_token_ids[0]++;
    c[0].rope_scaling.mscale = 3; /* without YaRN */
    cmi_digest same;
    cmi_weights_digest_model(&same, &c[0], &set);
    assert_true(is_same(&same, &digests[0]));
}

static void sets_have_no_order_and_no_doubles_for_one(void **state)
{
    (void)state;
    cmi_digest one[3] = {{{3}}, {{1}}, {{2}}}, other[3] = {{{2}}, {{3}}, {{1}}}, a, b, c;
    cmi_weights_digest_set(&a, one, 3);
    cmi_weights_digest_set(&b, other, 3);
    cmi_weights_digest_set(&c, other, 2);
    assert_true(is_same(&a, &b));
    assert_false(is_same(&a, &c));
    cmi_weights_digest_set(&c, NULL, 0);
    assert_false(is_same(&a, &c));
}

/* The tensors of matrix-tiny in three files, last ones first. One has a byte of its first row or of
 * its last one changed. */
static void write_shards(const temp_dir *dir, const cmi_checkpoint *from, const char *changed,
                         bool at_first)
{
    cmi_buf index;
    cmi_buf_init(&index, 1 << 20);
    cmi_buf_str(&index, "{\"weight_map\": {");
    for (uint32_t shard = 0; shard < 3; shard++) {
        char name[32];
        st_builder b;
        st_begin(&b);
        snprintf(name, sizeof name, "s%u.safetensors", shard);
        for (uint32_t i = from->n_tensors; i-- > 0;) {
            const cmi_tensor *t = from->tensors[i].tensor;
            if (i % 3 != shard) {
                continue;
            }
            uint8_t *bytes = cmi_alloc(t->n_bytes, 1);
            memcpy(bytes, cmi_safetensors_data(from->tensors[i].file, t), t->n_bytes);
            if (changed != NULL && strcmp(changed, t->name) == 0) {
                bytes[at_first ? 0 : t->n_bytes - 2] ^= 1;
            }
            st_add(&b, t->name, t->dtype_label, t->n_dims == 1 ? 0 : t->dims[0],
                   t->dims[t->n_dims - 1], bytes, t->n_bytes);
            cmi_buf_printf(&index, "%s\"%s\": \"%s\"", index.data[index.len - 1] == '{' ? "" : ", ",
                           t->name, name);
            cmi_free(bytes);
        }
        st_write(&b, dir, name);
    }
    cmi_buf_str(&index, "}}");
    temp_write_text(dir, "model.safetensors.index.json", cmi_buf_cstr(&index));
    cmi_buf_deinit(&index);
}

static void files_do_not_matter_and_bytes_do(void **state)
{
    (void)state;
    static const char expert[] = "model.layers.2.mlp.experts.7.down_proj.weight";
    static const struct {
        const char *changed;
        bool at_first, is_another, is_another_without_experts;
    } cases[] = {{NULL, false, false, false},
                 {expert, false, true, false}, /* a sample is the first row only */
                 {expert, true, true, true},
                 {"model.norm.weight", false, true, true}};
    cmi_weights_options opt = {.dtype = CMI_DTYPE_BF16, .with_mtp = true}, bare = opt;
    bare.without_experts = true;
    cmi_digest want = load_digest(models("matrix-tiny"), NULL, opt, 2);
    cmi_digest want_bare = load_digest(models("matrix-tiny"), NULL, bare, 1);
    cmi_checkpoint from;
    cmi_error err;
    cmi_buf config;
    assert_int_equal(cmi_checkpoint_open(&from, models("matrix-tiny"), &err), CMI_OK);
    assert_int_equal(cmi_file_read(&config, models("matrix-tiny/config.json"), 1 << 20, &err),
                     CMI_OK);
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        temp_dir dir;
        temp_dir_make(&dir);
        temp_write_text(&dir, "config.json", cmi_buf_cstr(&config));
        write_shards(&dir, &from, cases[i].changed, cases[i].at_first);
        cmi_digest got = load_digest(dir.path, NULL, opt, 2);
        assert_int_equal(is_same(&got, &want), !cases[i].is_another);
        got = load_digest(dir.path, NULL, bare, 2);
        assert_int_equal(is_same(&got, &want_bare), !cases[i].is_another_without_experts);
        temp_dir_remove(&dir);
    }
    cmi_buf_deinit(&config);
    cmi_checkpoint_close(&from);
}

/* Leaves that copying did not bring by are hashed in the end; those that came twice, once. */
static void rows_may_come_in_any_pieces(void **state)
{
    (void)state;
    cmi_checkpoint files;
    cmi_error err;
    cmi_team *team;
    assert_int_equal(cmi_checkpoint_open(&files, models("matrix-tiny"), &err), CMI_OK);
    assert_int_equal(cmi_team_create(&team, 2, &err), CMI_OK);
    const cmi_checkpoint_tensor *t = cmi_checkpoint_find(&files, "model.embed_tokens.weight");
    cmi_digest want, one;
    cmi_weights_digest_tensor(&one, t->tensor, cmi_safetensors_data(t->file, t->tensor));
    cmi_weights_digest_set(&want, &one, 1);
    assert_int_equal(cmi_weights_leaf_rows(t->tensor), 256);
    static const uint64_t pieces[] = {2048, 256, 255, 257, 1000, 1};
    for (size_t i = 0; i < CMI_LEN(pieces); i++) {
        cmi_weights_hash *hash = cmi_weights_hash_create(&files);
        cmi_weights_hash_want(hash, t);
        cmi_weights_hash_want(hash, t);
        cmi_weights_hash_want(hash, NULL);
        cmi_weights_hash_begin(hash);
        for (uint64_t row = 0; row < 1900; row += pieces[i]) {
            cmi_weights_hash_rows(hash, t, row, CMI_MIN(pieces[i], 2048 - row));
        }
        cmi_digest got;
        cmi_weights_hash_finish(hash, team, &got);
        assert_true(is_same(&got, &want));
        cmi_weights_hash_destroy(hash);
    }
    cmi_weights_hash_destroy(NULL);
    cmi_team_destroy(team);
    cmi_checkpoint_close(&files);
}

static void random_weights_have_one_too(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed;
        uint32_t n_threads, top_k;
        cmi_dtype dtype;
    } cases[] = {{1, 1, 4, CMI_DTYPE_BF16},
                 {1, 2, 4, CMI_DTYPE_BF16}, /* as the first */
                 {2, 1, 4, CMI_DTYPE_BF16},
                 {1, 1, 3, CMI_DTYPE_BF16},
                 {1, 1, 4, CMI_DTYPE_F32}};
    cmi_digest digests[CMI_LEN(cases)];
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_model_config config;
        cmi_generation_config generation;
        cmi_error err;
        cmi_weights *weights;
        cmi_weights_options opt = {.dtype = cases[i].dtype};
        assert_int_equal(cmi_model_config_load(&config, &generation, models("matrix-tiny"), &err),
                         CMI_OK);
        config.num_experts_per_tok = cases[i].top_k;
        assert_int_equal(cmi_team_create(&opt.team, cases[i].n_threads, &err), CMI_OK);
        assert_int_equal(cmi_weights_random(&weights, &config, cases[i].seed, &opt, &err), CMI_OK);
        digests[i] = weights->digest;
        cmi_weights_destroy(weights);
        cmi_team_destroy(opt.team);
        for (size_t k = 0; k < i; k++) {
            assert_int_equal(is_same(&digests[i], &digests[k]), i == 1);
        }
        if (i == 1) {
            digests[1].bytes[0] ^= 1; /* out of the way of the others */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_have_the_documents_digests),
        cmocka_unit_test(the_bundled_models_have_the_documents_digests),
        cmocka_unit_test(fields_that_change_the_mathematics_change_the_digest),
        cmocka_unit_test(sets_have_no_order_and_no_doubles_for_one),
        cmocka_unit_test(files_do_not_matter_and_bytes_do),
        cmocka_unit_test(rows_may_come_in_any_pieces),
        cmocka_unit_test(random_weights_have_one_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
