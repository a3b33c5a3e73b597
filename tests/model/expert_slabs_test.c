/* Slabs hold the bytes that a whole load has for the same experts, whatever the files, the types
 * and the number of threads; a source is refused when it is opened, or says why it cannot read. */
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "model/expert_slabs.h"
#include "tests/model/fixture.h"

/* No width is a multiple of a block of outputs, the inner dimension of down_proj not one of 4. */
static const cmi_model_config odd_config = {
    .vocab_size = 300,
    .hidden_size = 120,
    .intermediate_size = 75,
    .moe_intermediate_size = 22,
    .num_hidden_layers = 4,
    .num_nextn_predict_layers = 1,
    .num_attention_heads = 3,
    .q_lora_rank = 40,
    .kv_lora_rank = 24,
    .qk_nope_head_dim = 12,
    .qk_rope_head_dim = 8,
    .v_head_dim = 10,
    .n_routed_experts = 6,
    .n_shared_experts = 1,
    .num_experts_per_tok = 2,
    .first_k_dense_replace = 1,
    .moe_layer_freq = 2, /* layers 2 and 4 (MTP) have experts, 1 and 3 none */
    .topk_method = CMI_TOPK_NOAUX_TC,
};

static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16, CMI_DTYPE_I8};
static cmi_team *team;

static int setup(void **state)
{
    (void)state;
    cmi_error err;
    return cmi_team_create(&team, 3, &err) == CMI_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    cmi_team_destroy(team);
    return 0;
}

/* A model by files, or by a seed and odd_config (dir NULL). */
typedef struct origin {
    const char *dir;
    uint64_t seed;
    cmi_model_config config;
} origin;

static origin bundled(const char *name)
{
    static char dir[512];
    origin from = {.dir = dir};
    cmi_generation_config generation;
    cmi_error err = {0};
    snprintf(dir, sizeof dir, "%s/%s", getenv("CMI_MODELS"), name);
    if (cmi_model_config_load(&from.config, &generation, dir, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return from;
}

static cmi_weights *load(const origin *from, const cmi_weights_options *opt)
{
    cmi_weights *weights = NULL;
    cmi_error err = {0};
    cmi_status st = from->dir != NULL
                        ? cmi_weights_load(&weights, &from->config, from->dir, opt, &err)
                        : cmi_weights_random(&weights, &from->config, from->seed, opt, &err);
    if (st != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return weights;
}

static cmi_expert_source *open_source(const origin *from, const cmi_weights_options *opt)
{
    cmi_expert_source *source = NULL;
    cmi_error err = {0};
    cmi_status st = from->dir != NULL
                        ? cmi_expert_source_open(&source, &from->config, from->dir, opt, &err)
                        : cmi_expert_source_random(&source, &from->config, from->seed, opt, &err);
    if (st != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return source;
}

static const cmi_layer_weights *layer_at(const cmi_weights *w, uint32_t idx)
{
    return idx < w->n_layers ? &w->layers[idx] : &w->mtp->layer;
}

/* Every expert of a model and a slab for it, the last ones first; slabs are dirty. */
typedef struct slabs {
    cmi_expert_target *targets;
    size_t n;
    size_t slab_bytes;
    uint8_t *memory;
} slabs;

static slabs make_slabs(const cmi_expert_source *source, const cmi_model_config *c,
                        const cmi_weights_options *opt)
{
    slabs s = {.slab_bytes = cmi_expert_slab_bytes(c, opt)};
    size_t most = (c->num_hidden_layers + 1) * (size_t)c->n_routed_experts;
    s.targets = cmi_alloc(most, sizeof *s.targets);
    s.memory = cmi_alloc_aligned(most * s.slab_bytes, CMI_CACHE_LINE);
    memset(s.memory, 0xAA, most * s.slab_bytes);
    for (uint32_t layer = c->num_hidden_layers + 1; layer-- > 0;) {
        assert_int_equal(cmi_expert_source_has_layer(source, layer),
                         cmi_model_config_is_moe(c, layer));
        for (uint32_t e = c->n_routed_experts; cmi_model_config_is_moe(c, layer) && e-- > 0;) {
            s.targets[s.n] = (cmi_expert_target){{layer, e}, s.memory + s.n * s.slab_bytes};
            s.n++;
        }
    }
    assert_false(cmi_expert_source_has_layer(source, c->num_hidden_layers + 1));
    return s;
}

static void drop_slabs(slabs *s)
{
    cmi_free(s->memory);
    cmi_free(s->targets);
}

static void expect_same_linear(const cmi_linear *got, const cmi_linear *want)
{
    assert_true(got->stride == want->stride && got->n_out == want->n_out &&
                got->n_in == want->n_in && got->dtype == want->dtype);
}

/* The slab has all the bytes, and the view finds them where the whole has them. */
static void expect_expert(const cmi_expert_source *source, const cmi_expert_target *t,
                          size_t slab_bytes, const cmi_weights *whole)
{
    const cmi_ffn *want = &layer_at(whole, t->id.layer_idx)->experts[t->id.expert];
    const uint8_t *bytes = want->gate_up.w;
    const cmi_ffn got = cmi_expert_view(source, t->slab);
    if (memcmp(t->slab, bytes, slab_bytes) != 0) {
        fail_msg("layer %u, expert %u differs", t->id.layer_idx, t->id.expert);
    }
    if (t->id.expert > 0) {
        assert_ptr_equal((const uint8_t *)want[-1].gate_up.w + slab_bytes, bytes);
    }
    expect_same_linear(&got.gate_up, &want->gate_up);
    expect_same_linear(&got.down, &want->down);
    assert_int_equal(got.width, want->width);
    assert_ptr_equal(got.gate_up.w, t->slab);
    assert_int_equal((const uint8_t *)got.down.w - (const uint8_t *)t->slab,
                     (const uint8_t *)want->down.w - bytes);
}

typedef struct progress {
    uint64_t done, total;
} progress;

static void on_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    progress *p = arg;
    assert_true(done_bytes > p->done && done_bytes <= total_bytes);
    *p = (progress){done_bytes, total_bytes};
}

static void expect_all_slabs(const origin *from, cmi_dtype dtype)
{
    cmi_error err = {0};
    progress told = {0};
    cmi_weights_options opt = {.dtype = dtype, .int8_head = true, .with_mtp = true, .team = team};
    cmi_weights *whole = load(from, &opt);
    cmi_expert_source *source = open_source(from, &opt);
    slabs one = make_slabs(source, &from->config, &opt);
    slabs many = make_slabs(source, &from->config, &opt);
    opt.progress = on_progress;
    opt.progress_arg = &told;
    assert_int_equal(cmi_expert_read_many(source, many.targets, many.n, &opt, &err), CMI_OK);
    assert_int_equal(cmi_expert_read_many(source, many.targets, 0, &opt, &err), CMI_OK);
    assert_true(told.done == told.total && told.done > 0);
    for (size_t i = 0; i < one.n; i++) {
        assert_int_equal(cmi_expert_read(source, &one.targets[i], &err), CMI_OK);
        expect_expert(source, &one.targets[i], one.slab_bytes, whole);
        expect_expert(source, &many.targets[i], many.slab_bytes, whole);
    }
    assert_null(cmi_expert_view(source, NULL).gate_up.w);
    assert_null(cmi_expert_view(source, NULL).down.w);
    drop_slabs(&many);
    drop_slabs(&one);
    cmi_expert_source_close(source);
    cmi_weights_destroy(whole);
}

static void slabs_of_files_have_the_bytes_of_a_whole_load(void **state)
{
    (void)state;
    static const char *const names[] = {"matrix-tiny", "matrix-tiny-fp8"};
    for (size_t i = 0; i < CMI_LEN(names); i++) {
        origin from = bundled(names[i]);
        for (size_t k = 0; k < CMI_LEN(dtypes); k++) {
            expect_all_slabs(&from, dtypes[k]);
        }
    }
}

static void slabs_of_a_seed_have_the_bytes_of_the_whole(void **state)
{
    (void)state;
    origin from = {.seed = 7, .config = odd_config};
    for (size_t k = 0; k < CMI_LEN(dtypes); k++) {
        expect_all_slabs(&from, dtypes[k]);
    }
}

/* ---- the weights beside them ---- */

static void expect_bare_weights(const origin *from, cmi_dtype dtype)
{
    cmi_weights_options opt = {.dtype = dtype, .with_mtp = true, .team = team};
    cmi_weights *whole = load(from, &opt);
    opt.without_experts = true;
    cmi_weights *bare = load(from, &opt);
    uint64_t n_experts = 0;
    assert_int_equal(bare->n_bytes, cmi_weights_estimate_bytes(&from->config, &opt));
    for (uint32_t i = 0; i <= bare->n_layers; i++) {
        const cmi_layer_weights *layer = layer_at(bare, i), *other = layer_at(whole, i);
        for (uint32_t e = 0; layer->is_moe && e < bare->n_experts; e++, n_experts++) {
            expect_same_linear(&layer->experts[e].gate_up, &other->experts[e].gate_up);
            expect_same_linear(&layer->experts[e].down, &other->experts[e].down);
            assert_int_equal(layer->experts[e].width, other->experts[e].width);
            assert_null(layer->experts[e].gate_up.w);
            assert_null(layer->experts[e].down.w);
        }
    }
    assert_true(n_experts > 0);
    assert_int_equal(whole->block_bytes - bare->block_bytes,
                     n_experts * cmi_expert_slab_bytes(&from->config, &opt));
    assert_int_equal(whole->n_bytes - bare->n_bytes, whole->block_bytes - bare->block_bytes);
    /* A seed says it all; files are named by samples of the experts (weights_digest_test.c). */
    assert_int_equal(memcmp(&whole->digest, &bare->digest, sizeof bare->digest) == 0,
                     from->dir == NULL);
    cmi_weights_destroy(bare);
    cmi_weights_destroy(whole);
}

static void weights_without_experts_lack_their_bytes_only(void **state)
{
    (void)state;
    origin files = bundled("matrix-tiny"), random = {.seed = 3, .config = odd_config};
    for (size_t k = 0; k < CMI_LEN(dtypes); k++) {
        expect_bare_weights(&files, dtypes[k]);
        expect_bare_weights(&random, dtypes[k]);
    }
}

/* ---- what is wrong with files ---- */

/* matrix-tiny but for one tensor: left out, or with one row less. */
static void write_model(const temp_dir *dir, const char *changed, bool is_shorter)
{
    cmi_checkpoint from;
    cmi_error err = {0};
    st_builder b;
    assert_int_equal(cmi_checkpoint_open(&from, bundled("matrix-tiny").dir, &err), CMI_OK);
    st_begin(&b);
    for (uint32_t i = 0; i < from.n_tensors; i++) {
        const cmi_tensor *t = from.tensors[i].tensor;
        const bool is_changed = changed != NULL && strcmp(t->name, changed) == 0;
        uint64_t n_rows = t->n_dims == 1 ? 0 : t->dims[0], n_cols = t->dims[t->n_dims - 1];
        size_t n_bytes = t->n_bytes;
        if (is_changed && !is_shorter) {
            continue;
        }
        if (is_changed) {
            n_bytes -= n_bytes / n_rows;
            n_rows--;
        }
        st_add(&b, t->name, t->dtype_label, n_rows, n_cols,
               cmi_safetensors_data(from.tensors[i].file, t), n_bytes);
    }
    st_write(&b, dir, "model.safetensors");
    cmi_checkpoint_close(&from);
}

static void wrong_experts_are_refused_when_opening(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool is_shorter;
        const char *says;
    } cases[] = {
        {"model.layers.3.mlp.experts.11.up_proj.weight", false,
         "tensor model.layers.3.mlp.experts.11.up_proj.weight is missing"},
        {"model.layers.5.mlp.experts.0.down_proj.weight", false, "experts.0.down_proj.weight is"},
        {"model.layers.1.mlp.experts.15.gate_proj.weight", true, "shape is [63, 256], but"},
    };
    origin tiny = bundled("matrix-tiny");
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        temp_dir dir;
        temp_dir_make(&dir);
        write_model(&dir, cases[i].name, cases[i].is_shorter);
        cmi_weights_options opt = {
            .dtype = CMI_DTYPE_BF16, .with_mtp = true, .without_experts = true, .team = team};
        cmi_expert_source *source = NULL;
        cmi_weights *weights = NULL;
        cmi_error err = {0};
        assert_int_equal(cmi_expert_source_open(&source, &tiny.config, dir.path, &opt, &err),
                         CMI_ERR_BAD_DATA);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_null(source);
        err = (cmi_error){0};
        assert_int_equal(cmi_weights_load(&weights, &tiny.config, dir.path, &opt, &err),
                         CMI_ERR_BAD_DATA);
        assert_non_null(strstr(err.text, cases[i].says));
        temp_dir_remove(&dir);
    }
    cmi_weights_options opt = {.dtype = CMI_DTYPE_F16};
    cmi_expert_source *source = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_expert_source_open(&source, &tiny.config, tiny.dir, &opt, &err),
                     CMI_ERR_INVALID);
    assert_int_equal(cmi_expert_source_random(&source, &tiny.config, 1, &opt, &err),
                     CMI_ERR_INVALID);
    opt.dtype = CMI_DTYPE_BF16;
    assert_int_equal(cmi_expert_source_open(&source, &tiny.config, "/none", &opt, &err),
                     CMI_ERR_NOT_FOUND);
    cmi_expert_source_close(NULL);
}

/* The system says instead of a signal that a page is gone: Linux 5.14, but no emulator. */
static bool can_fetch(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)page), 0);
    void *bytes = mmap(NULL, page, PROT_READ, MAP_PRIVATE, fileno(f), 0);
    assert_ptr_not_equal(bytes, MAP_FAILED);
    assert_int_equal(ftruncate(fileno(f), 0), 0);
    const bool can = madvise(bytes, page, 22) != 0 && errno == EFAULT;
    munmap(bytes, page);
    fclose(f);
    return can;
}

static void a_truncated_file_is_an_error_until_it_is_whole_again(void **state)
{
    (void)state;
    if (!can_fetch()) {
        skip();
    }
    temp_dir dir;
    temp_dir_make(&dir);
    write_model(&dir, NULL, false);
    origin from = bundled("matrix-tiny");
    cmi_weights_options opt = {.dtype = CMI_DTYPE_BF16, .with_mtp = true, .team = team};
    cmi_weights *whole = load(&from, &opt);
    from.dir = dir.path;
    cmi_expert_source *source = open_source(&from, &opt);
    slabs s = make_slabs(source, &from.config, &opt);
    cmi_error err = {0};
    const char *file = temp_path(&dir, "model.safetensors");
    assert_int_equal(truncate(file, 4096), 0);
    assert_int_equal(cmi_expert_read(source, s.targets, &err), CMI_ERR_IO);
    assert_non_null(strstr(err.text, file));
    err = (cmi_error){0};
    assert_int_equal(cmi_expert_read_many(source, s.targets, s.n, &opt, &err), CMI_ERR_IO);
    assert_non_null(strstr(err.text, "cannot be read"));
    write_model(&dir, NULL, false); /* into the same file */
    assert_int_equal(cmi_expert_read(source, s.targets, &err), CMI_OK);
    expect_expert(source, s.targets, s.slab_bytes, whole);
    drop_slabs(&s);
    cmi_expert_source_close(source);
    cmi_weights_destroy(whole);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slabs_of_files_have_the_bytes_of_a_whole_load),
        cmocka_unit_test(slabs_of_a_seed_have_the_bytes_of_the_whole),
        cmocka_unit_test(weights_without_experts_lack_their_bytes_only),
        cmocka_unit_test(wrong_experts_are_refused_when_opening),
        cmocka_unit_test(a_truncated_file_is_an_error_until_it_is_whole_again),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
