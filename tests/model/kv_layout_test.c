/* tests/model/kv_layout_test.c - the bytes of a KV page. */
#include "tests/test.h"

#include "model/kv_layout.h"

enum { RANK = 19, ROPE = 6, LATENT_COLS = 32, LAYERS = 3, PAGE_BYTES_MAX = 64 << 10 };

static CMI_ALIGNED(64) uint8_t page[PAGE_BYTES_MAX];

static cmi_kv_layout make(cmi_dtype dtype)
{
    cmi_model_config config = {
        .num_hidden_layers = LAYERS, .kv_lora_rank = RANK, .qk_rope_head_dim = ROPE};
    cmi_kv_layout layout = cmi_kv_layout_make(&config, dtype, true);
    assert_true(layout.page_bytes <= sizeof page);
    return layout;
}

/* Value i of token t's row, exact in BF16 and never zero. */
static float value_of(uint32_t t, uint32_t i)
{
    return (float)(1 + t % 16 * 16 + i % 13) * (i % 2 == 0 ? 1.0f : -0.5f);
}

static size_t value_bytes(const cmi_kv_layout *layout)
{
    return cmi_dtype_bytes(layout->dtype);
}

static float value_at(const cmi_kv_layout *layout, const void *base, size_t at)
{
    if (layout->dtype == CMI_DTYPE_BF16) {
        cmi_bf16 v;
        memcpy(&v, (const uint8_t *)base + at * sizeof v, sizeof v);
        return cmi_bf16_to_f32(v);
    }
    float v;
    memcpy(&v, (const uint8_t *)base + at * sizeof v, sizeof v);
    return v;
}

/* Stores tokens slot .. slot + n - 1 in one call. */
static void store(const cmi_kv_layout *layout, uint32_t slot, uint32_t n, uint32_t begin)
{
    static uint8_t rows[8 * (LATENT_COLS + 8) * sizeof(float)];
    uint32_t cols = layout->latent_cols + layout->rope_cols;
    memset(rows, 0, sizeof rows);
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t i = 0; i < RANK + ROPE; i++) {
            uint32_t col = i < RANK ? i : layout->latent_cols + i - RANK;
            float v = value_of(slot + t, i);
            if (layout->dtype == CMI_DTYPE_BF16) {
                ((cmi_bf16 *)(void *)rows)[t * cols + col] = cmi_bf16_from_f32(v);
            } else {
                ((float *)(void *)rows)[t * cols + col] = v;
            }
        }
    }
    cmi_kv_store(layout, page, slot, rows, n, begin);
}

/* Slot t holds token t's row, or zeros. */
static void expect_slot(const cmi_kv_layout *layout, uint32_t t, bool zeros)
{
    for (uint32_t i = 0; i < layout->latent_cols; i++) {
        float want = zeros || i >= RANK ? 0.0f : value_of(t, i);
        size_t at = cmi_value_tile_at(layout->lane_values, t, i);
        assert_true(value_at(layout, page, at) == want);
    }
    for (uint32_t i = 0; i < ROPE; i++) {
        float want = zeros ? 0.0f : value_of(t, RANK + i);
        size_t at = cmi_key_tile_at(layout->lane_values, t, i);
        assert_true(value_at(layout, page + layout->rope_offset, at) == want);
    }
}

static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16};

/* Part of what a page is between hosts and versions: a change here must be one on purpose. */
static void places_are_fixed(void **state)
{
    (void)state;
    cmi_kv_layout bf16 = make(CMI_DTYPE_BF16), f32 = make(CMI_DTYPE_F32);
    assert_int_equal(bf16.latent_cols, LATENT_COLS);
    assert_int_equal(bf16.rope_offset, LATENT_COLS * 64 * 2);
    assert_int_equal(bf16.layer_bytes, (LATENT_COLS + ROPE) * 64 * 2);
    assert_int_equal(bf16.page_bytes, (LAYERS + 1) * bf16.layer_bytes);
    assert_int_equal(f32.layer_bytes, (LATENT_COLS + ROPE) * 64 * 4);
    /* BF16, column 17 of token 5: second block of columns, third pair, second lane, second half */
    assert_int_equal(cmi_value_tile_at(2, 5, 17), 1024 + 2 * 32 + 1 * 2 + 1);
    /* input 3 of token 5: second pair, sixth lane, second half */
    assert_int_equal(cmi_key_tile_at(2, 5, 3), 128 + 5 * 2 + 1);
    assert_ptr_equal(cmi_kv_page_layer(&bf16, page, 2, 1),
                     page + 2 * bf16.page_bytes + bf16.layer_bytes);
}

static void rows_come_back(void **state)
{
    (void)state;
    for (size_t d = 0; d < CMI_LEN(dtypes); d++) {
        cmi_kv_layout layout = make(dtypes[d]);
        static uint8_t rows[64 * 24 * sizeof(float)];
        memset(page, 0xFF, sizeof page);
        for (uint32_t t = 0; t < 64; t += 2) {
            store(&layout, t, 2, 0);
        }
        cmi_kv_load_latent(&layout, page, 3, 61, rows, 24);
        for (uint32_t t = 0; t < 64; t++) {
            expect_slot(&layout, t, false);
            for (uint32_t i = 0; t >= 3 && i < RANK; i++) {
                assert_true(value_at(&layout, rows, (t - 3) * 24 + i) == value_of(t, i));
            }
        }
        for (size_t i = layout.layer_bytes; i < sizeof page; i++) {
            assert_int_equal(page[i], 0xFF);
        }
    }
}

/* One token after the other: those stored stay, and a lane never holds anything but numbers. */
static void a_slot_leaves_its_neighbours(void **state)
{
    (void)state;
    for (size_t d = 0; d < CMI_LEN(dtypes); d++) {
        cmi_kv_layout layout = make(dtypes[d]);
        memset(page, 0xFF, sizeof page); /* NaN */
        for (uint32_t t = 0; t < 64; t++) {
            store(&layout, t, 1, 0);
            expect_slot(&layout, t, false);
            for (uint32_t i = 0; i < t; i++) {
                expect_slot(&layout, i, false);
            }
            for (uint32_t i = t + 1; i % layout.lane_values != 0; i++) {
                expect_slot(&layout, i, true);
            }
        }
    }
}

/* The MTP layer's slot 0, which nothing is stored in, becomes zero with slot 1. */
static void slots_before_the_first_are_zero(void **state)
{
    (void)state;
    for (size_t d = 0; d < CMI_LEN(dtypes); d++) {
        cmi_kv_layout layout = make(dtypes[d]);
        memset(page, 0xFF, sizeof page);
        store(&layout, 1, 1, 1);
        expect_slot(&layout, 0, true);
        expect_slot(&layout, 1, false);
        store(&layout, 2, 2, 1);
        expect_slot(&layout, 1, false);
        expect_slot(&layout, 3, false);
        assert_int_equal(value_bytes(&layout) * layout.lane_values, CMI_ATTN_LANE_BYTES);
    }
}

/* INT8: code i of token t, and its scale. */
static int8_t code_of(uint32_t t, uint32_t i)
{
    return (int8_t)((int)((t * 37 + i * 11) % 255) - 127);
}

static float scale_of(uint32_t t)
{
    return 0.25f * (float)(t + 1);
}

static void store_i8(const cmi_kv_layout *layout, uint32_t slot, uint32_t n, uint32_t begin)
{
    static CMI_ALIGNED(4) uint8_t rows[8 * 128];
    assert_true(n * layout->row_bytes <= sizeof rows);
    memset(rows, 0, sizeof rows);
    for (uint32_t t = 0; t < n; t++) {
        uint8_t *row = rows + t * layout->row_bytes;
        float scale = scale_of(slot + t);
        for (uint32_t i = 0; i < RANK; i++) {
            row[i] = (uint8_t)code_of(slot + t, i);
        }
        for (uint32_t i = 0; i < ROPE; i++) {
            cmi_bf16 v = cmi_bf16_from_f32(value_of(slot + t, RANK + i));
            memcpy(row + layout->row_rope_offset + i * sizeof v, &v, sizeof v);
        }
        memcpy(row + layout->row_scale_offset, &scale, sizeof scale);
    }
    cmi_kv_store(layout, page, slot, rows, n, begin);
}

static void expect_slot_i8(const cmi_kv_layout *layout, uint32_t t, bool zeros)
{
    uint8_t row[RANK];
    cmi_bf16 wide[RANK];
    float scale = cmi_kv_load_quantized(layout, page, t, row);
    cmi_kv_load_latent(layout, page, t, 1, wide, RANK);
    assert_true(scale == (zeros ? 0.0f : scale_of(t)));
    for (uint32_t i = 0; i < RANK; i++) {
        int code = zeros ? 0 : code_of(t, i);
        assert_int_equal(row[i], code + 128);
        assert_int_equal((int8_t)page[cmi_value_tile_at(4, t, i)], code);
        assert_int_equal(wide[i], cmi_bf16_from_f32((float)code * scale));
    }
    for (uint32_t i = 0; i < ROPE; i++) {
        cmi_bf16 v;
        memcpy(&v, page + layout->rope_offset + cmi_key_tile_at(2, t, i) * sizeof v, sizeof v);
        assert_true(cmi_bf16_to_f32(v) == (zeros ? 0.0f : value_of(t, RANK + i)));
    }
}

/* Four slots share a lane: those stored stay, those behind are zero, scale included. */
static void int8_slots_hold_codes_and_scales(void **state)
{
    (void)state;
    cmi_kv_layout layout = make(CMI_DTYPE_I8);
    assert_int_equal(layout.operand_dtype, CMI_DTYPE_BF16);
    assert_int_equal(layout.scales_offset, LATENT_COLS * 64);
    assert_int_equal(layout.rope_offset, LATENT_COLS * 64 + 64 * 4);
    assert_int_equal(layout.layer_bytes, LATENT_COLS * 64 + 64 * 4 + ROPE * 64 * 2);
    memset(page, 0xFF, sizeof page);
    for (uint32_t t = 0; t < 64; t++) {
        store_i8(&layout, t, 1, 0);
        for (uint32_t i = 0; i <= t; i++) {
            expect_slot_i8(&layout, i, false);
        }
        for (uint32_t i = t + 1; i % 4 != 0; i++) {
            expect_slot_i8(&layout, i, true);
        }
    }
    memset(page, 0xFF, sizeof page);
    store_i8(&layout, 1, 2, 1);
    expect_slot_i8(&layout, 0, true);
    expect_slot_i8(&layout, 1, false);
    expect_slot_i8(&layout, 2, false);
    expect_slot_i8(&layout, 3, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_are_fixed),
        cmocka_unit_test(rows_come_back),
        cmocka_unit_test(a_slot_leaves_its_neighbours),
        cmocka_unit_test(slots_before_the_first_are_zero),
        cmocka_unit_test(int8_slots_hold_codes_and_scales),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
