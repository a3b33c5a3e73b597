/* cli/bench/load_plot.h - a panel of a plot in SVG: two axes with ticks, a grid, and curves. */
#ifndef CMI_CLI_BENCH_LOAD_PLOT_H
#define CMI_CLI_BENCH_LOAD_PLOT_H

#include <stdio.h>

#include "base/compiler.h"

typedef struct cmi_plot_panel {
    double left, top, width, height; /* of the area between the axes, in pixels */
    double x_max, y_max;             /* both axes begin at 0 */
    const char *title, *x_label, *y_label;
    size_t n_legend; /* curves named so far */
} cmi_plot_panel;

/* 1, 2 or 5 times a power of ten: the distance of about n ticks from 0 to max (> 0). */
double cmi_plot_step(double max, int n);

void cmi_plot_begin(FILE *to, double width, double height, const char *title, const char *subtitle);
void cmi_plot_end(FILE *to);

/* Draws the axes. Both ends must be positive. */
void cmi_plot_panel_begin(FILE *to, const cmi_plot_panel *panel);

/* A curve through n points; with steps, each value holds up to the next x. Points beyond the ends
 * are drawn at them. A name other than NULL goes into the legend. */
void cmi_plot_curve(FILE *to, cmi_plot_panel *panel, const double *x, const double *y, size_t n,
                    bool steps, const char *colour, const char *name);

/* A dashed line across, at x, with a text beside it, `row` rows above the bottom. */
void cmi_plot_mark(FILE *to, const cmi_plot_panel *panel, double x, int row, const char *colour,
                   const char *text);

/* With what XML gives a meaning escaped, and control characters left out. */
void cmi_plot_text(FILE *to, const char *text);

#endif
