/* cli/bench/out.h - rows of results: an aligned Markdown table for people, CSV, or one JSON object
 * a line. A row is printed as soon as it is there. */
#ifndef CMI_CLI_BENCH_OUT_H
#define CMI_CLI_BENCH_OUT_H

#include "cli/progress.h"

typedef enum cmi_bench_format {
    CMI_BENCH_MD,
    CMI_BENCH_CSV,
    CMI_BENCH_JSON,
} cmi_bench_format;

/* False: no such format. */
bool cmi_bench_format_parse(const char *name, cmi_bench_format *format_out);

typedef enum cmi_bench_cell_kind {
    CMI_BENCH_TEXT,
    CMI_BENCH_COUNT, /* a whole number */
    CMI_BENCH_REAL,
    CMI_BENCH_NONE, /* null, "-", nothing */
} cmi_bench_cell_kind;

typedef struct cmi_bench_cell {
    const char *key;   /* in JSON and CSV; NULL: not there */
    const char *title; /* in the table for people; NULL: not there */
    cmi_bench_cell_kind kind;
    const char *text;
    double number;
    int width;    /* in the table; text is left-aligned, numbers right */
    double scale; /* the table shows number * scale with these decimals and this unit */
    int decimals;
    const char *unit; /* NULL: none */
} cmi_bench_cell;

typedef struct cmi_bench_out {
    cmi_bench_format format;
    bool has_head;
    cmi_progress *progress; /* taken away before a line is printed */
} cmi_bench_out;

/* All rows have the same keys and titles. The first one is printed below a head. */
void cmi_bench_out_row(cmi_bench_out *out, const cmi_bench_cell *cells, size_t n_cells);

#endif
