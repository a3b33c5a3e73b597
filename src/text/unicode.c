#include "text/unicode.h"

#include "text/unicode_case_tables.h"

typedef struct case_table {
    const case_run *runs;
    const case_long *longs;
    size_t n_runs, n_longs;
} case_table;

static const case_table tables[] = {
    [CMI_UNICODE_UPPER] = {upper_runs, upper_long, CMI_LEN(upper_runs), CMI_LEN(upper_long)},
    [CMI_UNICODE_LOWER] = {lower_runs, lower_long, CMI_LEN(lower_runs), CMI_LEN(lower_long)},
    [CMI_UNICODE_TITLE] = {title_runs, title_long, CMI_LEN(title_runs), CMI_LEN(title_long)},
};

typedef struct cp_range {
    uint32_t first, last;
} cp_range;

static const cp_range space_ranges[] = {
    {0x09, 0x0D},     {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
    {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000},
};

/* Controls, formats, surrogates, private use and separators; a space is printable. */
static const cp_range hidden_ranges[] = {
    {0x0, 0x1F},        {0x7F, 0xA0},       {0xAD, 0xAD},       {0x600, 0x605},
    {0x61C, 0x61C},     {0x6DD, 0x6DD},     {0x70F, 0x70F},     {0x890, 0x891},
    {0x8E2, 0x8E2},     {0x1680, 0x1680},   {0x180E, 0x180E},   {0x2000, 0x200F},
    {0x2028, 0x202F},   {0x205F, 0x2064},   {0x2066, 0x206F},   {0x3000, 0x3000},
    {0xD800, 0xF8FF},   {0xFEFF, 0xFEFF},   {0xFFF9, 0xFFFB},   {0x110BD, 0x110BD},
    {0x110CD, 0x110CD}, {0x13430, 0x13438}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A},
    {0xE0001, 0xE0001}, {0xE0020, 0xE007F}, {0xF0000, 0xFFFFD}, {0x100000, 0x10FFFD},
};

static bool in_ranges(const cp_range *ranges, size_t n, uint32_t cp)
{
    for (size_t i = 0; i < n && ranges[i].first <= cp; i++) {
        if (cp <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

bool cmi_unicode_is_space(uint32_t cp)
{
    return in_ranges(space_ranges, CMI_LEN(space_ranges), cp);
}

bool cmi_unicode_is_printable(uint32_t cp)
{
    return !in_ranges(hidden_ranges, CMI_LEN(hidden_ranges), cp);
}

/* The last run that starts at or before cp, when it covers cp. */
static const case_run *find_run(const case_table *t, uint32_t cp)
{
    size_t lo = 0;
    size_t hi = t->n_runs;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->runs[mid].first <= cp) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    if (lo == 0) {
        return NULL;
    }
    const case_run *run = &t->runs[lo - 1];
    bool covers = cp <= run->last && (cp - run->first) % (uint32_t)run->step == 0;
    return covers ? run : NULL;
}

/* 0 when the table does not name cp. */
static size_t look_up(const case_table *t, uint32_t cp, uint32_t out[3])
{
    const case_run *run = find_run(t, cp);
    if (run != NULL) {
        out[0] = (uint32_t)((int32_t)cp + run->delta);
        return 1;
    }
    for (size_t i = 0; i < t->n_longs && t->longs[i].from <= cp; i++) {
        if (t->longs[i].from == cp) {
            size_t n = 0;
            while (n < 3 && t->longs[i].to[n] != 0) {
                out[n] = t->longs[i].to[n];
                n++;
            }
            return n;
        }
    }
    return 0;
}

size_t cmi_unicode_map_case(uint32_t cp, cmi_unicode_case to, uint32_t out[3])
{
    out[0] = cp;
    if (cp < 0x80) {
        bool is_upper = cp >= 'A' && cp <= 'Z';
        bool is_lower = cp >= 'a' && cp <= 'z';
        if (to == CMI_UNICODE_LOWER ? is_upper : is_lower) {
            out[0] = cp ^ 0x20;
        }
        return 1;
    }
    size_t n = look_up(&tables[to], cp, out);
    if (n == 0 && to == CMI_UNICODE_TITLE) {
        n = look_up(&tables[CMI_UNICODE_UPPER], cp, out);
    }
    return n == 0 ? 1 : n;
}

bool cmi_unicode_is_cased(uint32_t cp)
{
    uint32_t image[3];
    return cmi_unicode_map_case(cp, CMI_UNICODE_UPPER, image) > 1 || image[0] != cp ||
           cmi_unicode_map_case(cp, CMI_UNICODE_LOWER, image) > 1 || image[0] != cp;
}
