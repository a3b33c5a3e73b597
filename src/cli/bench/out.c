#include "cli/bench/out.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cmi_bench_format_parse(const char *name, cmi_bench_format *format_out)
{
    static const char *const names[] = {"md", "csv", "json"};
    for (size_t i = 0; i < CMI_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *format_out = (cmi_bench_format)i;
            return true;
        }
    }
    return false;
}

/* ---- the table for people ---- */

enum { CELL_BYTES = 256 };

static int width_of(const cmi_bench_cell *cell)
{
    return CMI_MAX(cell->width, (int)strlen(cell->title));
}

static void print_md_head(const cmi_bench_cell *cells, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (cells[i].title != NULL) {
            int width = width_of(&cells[i]);
            printf(cells[i].kind == CMI_BENCH_TEXT ? "| %-*s " : "| %*s ", width, cells[i].title);
        }
    }
    printf("|\n");
    for (size_t i = 0; i < n; i++) {
        if (cells[i].title != NULL) {
            bool is_text = cells[i].kind == CMI_BENCH_TEXT;
            printf(is_text ? "| " : "|-");
            for (int w = 0; w < width_of(&cells[i]); w++) {
                putchar('-');
            }
            printf(is_text ? " " : ":");
        }
    }
    printf("|\n");
}

static void print_md_row(const cmi_bench_cell *cells, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const cmi_bench_cell *c = &cells[i];
        char text[CELL_BYTES];
        if (c->title == NULL) {
            continue;
        }
        if (c->kind == CMI_BENCH_TEXT) {
            printf("| %-*s ", width_of(c), c->text);
            continue;
        }
        if (c->kind == CMI_BENCH_NONE) {
            snprintf(text, sizeof text, "-");
        } else {
            double scale = c->scale != 0 ? c->scale : 1;
            snprintf(text, sizeof text, "%.*f%s", c->decimals, c->number * scale,
                     c->unit != NULL ? c->unit : "");
        }
        printf("| %*s ", width_of(c), text);
    }
    printf("|\n");
}

/* ---- CSV and JSON ---- */

static void print_csv_head(const cmi_bench_cell *cells, size_t n)
{
    const char *comma = "";
    for (size_t i = 0; i < n; i++) {
        if (cells[i].key != NULL) {
            printf("%s%s", comma, cells[i].key);
            comma = ",";
        }
    }
    printf("\n");
}

/* Quoted as RFC 4180 says. */
static void print_csv_text(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        printf(*text == '"' ? "\"%c" : "%c", *text);
    }
    putchar('"');
}

static void print_csv_row(const cmi_bench_cell *cells, size_t n)
{
    const char *comma = "";
    for (size_t i = 0; i < n; i++) {
        const cmi_bench_cell *c = &cells[i];
        if (c->key == NULL) {
            continue;
        }
        printf("%s", comma);
        comma = ",";
        if (c->kind == CMI_BENCH_TEXT) {
            print_csv_text(c->text);
        } else if (c->kind != CMI_BENCH_NONE) {
            printf(c->kind == CMI_BENCH_COUNT ? "%.0f" : "%.9g", c->number);
        }
    }
    printf("\n");
}

static json_t *json_value(const cmi_bench_cell *c)
{
    switch (c->kind) {
    case CMI_BENCH_TEXT:
        return json_string(c->text);
    case CMI_BENCH_COUNT:
        return json_integer((json_int_t)c->number);
    case CMI_BENCH_REAL:
        return json_real(c->number);
    default:
        return json_null();
    }
}

static void print_json_row(const cmi_bench_cell *cells, size_t n)
{
    json_t *row = json_object();
    for (size_t i = 0; i < n; i++) {
        if (cells[i].key != NULL) {
            json_object_set_new(row, cells[i].key, json_value(&cells[i]));
        }
    }
    json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    printf("\n");
    json_decref(row);
}

void cmi_bench_out_row(cmi_bench_out *out, const cmi_bench_cell *cells, size_t n_cells)
{
    if (out->progress != NULL) {
        cmi_progress_end(out->progress);
    }
    bool is_first = !out->has_head;
    out->has_head = true;
    switch (out->format) {
    case CMI_BENCH_MD:
        if (is_first) {
            print_md_head(cells, n_cells);
        }
        print_md_row(cells, n_cells);
        break;
    case CMI_BENCH_CSV:
        if (is_first) {
            print_csv_head(cells, n_cells);
        }
        print_csv_row(cells, n_cells);
        break;
    case CMI_BENCH_JSON:
        print_json_row(cells, n_cells);
        break;
    }
    (void)fflush(stdout);
}
