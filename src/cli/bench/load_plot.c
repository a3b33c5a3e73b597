#include "cli/bench/load_plot.h"

#include <math.h>
#include <string.h>

static const char *const grey = "#6b7280";

double cmi_plot_step(double max, int n)
{
    double rough = max / n;
    double power = pow(10, floor(log10(rough)));
    double in_power = rough / power; /* 1 .. 10 */
    return power * (in_power <= 1.0001 ? 1 : in_power <= 2 ? 2 : in_power <= 5 ? 5 : 10);
}

void cmi_plot_text(FILE *to, const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        switch (*at) {
        case '<':
            fputs("&lt;", to);
            break;
        case '>':
            fputs("&gt;", to);
            break;
        case '&':
            fputs("&amp;", to);
            break;
        default:
            if ((unsigned char)*at >= ' ') {
                fputc(*at, to);
            }
        }
    }
}

void cmi_plot_begin(FILE *to, double width, double height, const char *title, const char *subtitle)
{
    fprintf(to,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" "
            "height=\"%g\" font-family=\"system-ui, sans-serif\" font-size=\"12\" "
            "fill=\"#111827\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n"
            "<text x=\"24\" y=\"32\" font-size=\"18\" font-weight=\"600\">",
            width, height, width, height);
    cmi_plot_text(to, title);
    fprintf(to, "</text>\n<text x=\"24\" y=\"52\" fill=\"%s\">", grey);
    cmi_plot_text(to, subtitle);
    fputs("</text>\n", to);
}

void cmi_plot_end(FILE *to)
{
    fputs("</svg>\n", to);
}

static double x_of(const cmi_plot_panel *panel, double x)
{
    return panel->left + CMI_MIN(CMI_MAX(x, 0), panel->x_max) / panel->x_max * panel->width;
}

static double y_of(const cmi_plot_panel *panel, double y)
{
    double share = CMI_MIN(CMI_MAX(y, 0), panel->y_max) / panel->y_max;
    return panel->top + (1 - share) * panel->height;
}

/* "2500" or "0.25", and no "-0" or "1e+06" */
static void print_tick(FILE *to, double value, double step)
{
    int decimals = step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;
    fprintf(to, "%.*f", decimals, value);
}

static void draw_ticks(FILE *to, const cmi_plot_panel *panel)
{
    double bottom = panel->top + panel->height;
    double x_step = cmi_plot_step(panel->x_max, panel->width > 500 ? 10 : 4);
    double y_step = cmi_plot_step(panel->y_max, panel->height > 180 ? 5 : 4);
    for (double x = 0; x <= panel->x_max * 1.0001; x += x_step) {
        fprintf(to,
                "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#e5e7eb\"/>"
                "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" fill=\"%s\">",
                x_of(panel, x), panel->top, bottom, x_of(panel, x), bottom + 16, grey);
        print_tick(to, x, x_step);
        fputs("</text>\n", to);
    }
    for (double y = 0; y <= panel->y_max * 1.0001; y += y_step) {
        fprintf(to,
                "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#e5e7eb\"/>"
                "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"%s\">",
                panel->left, y_of(panel, y), panel->left + panel->width, panel->left - 6,
                y_of(panel, y) + 4, grey);
        print_tick(to, y, y_step);
        fputs("</text>\n", to);
    }
}

void cmi_plot_panel_begin(FILE *to, const cmi_plot_panel *panel)
{
    double bottom = panel->top + panel->height;
    double middle = panel->top + panel->height / 2;
    draw_ticks(to, panel);
    fprintf(to, "<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" stroke=\"#374151\"/>\n",
            panel->left, panel->top, bottom, panel->left + panel->width);
    fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" font-weight=\"600\">", panel->left, panel->top - 10);
    cmi_plot_text(to, panel->title);
    fprintf(to, "</text>\n<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
            panel->left + panel->width / 2, bottom + 34);
    cmi_plot_text(to, panel->x_label);
    fprintf(to,
            "</text>\n<text transform=\"translate(%.1f %.1f) rotate(-90)\" "
            "text-anchor=\"middle\">",
            panel->left - 48, middle);
    cmi_plot_text(to, panel->y_label);
    fputs("</text>\n", to);
}

void cmi_plot_curve(FILE *to, cmi_plot_panel *panel, const double *x, const double *y, size_t n,
                    bool steps, const char *colour, const char *name)
{
    fprintf(to, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\" d=\"", colour);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && steps) {
            fprintf(to, "H%.1f", x_of(panel, x[i]));
        }
        fprintf(to, "%c%.1f %.1f", i == 0 ? 'M' : 'L', x_of(panel, x[i]), y_of(panel, y[i]));
    }
    if (n > 0 && steps) {
        fprintf(to, "H%.1f", panel->left + panel->width);
    }
    fputs("\"/>\n", to);
    if (name != NULL) {
        double right = panel->left + panel->width - 8;
        double at = panel->top + panel->height - 24 - 16 * (double)panel->n_legend++;
        fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"%s\">", right, at,
                colour);
        cmi_plot_text(to, name);
        fputs("</text>\n", to);
    }
}

void cmi_plot_mark(FILE *to, const cmi_plot_panel *panel, double x, int row, const char *colour,
                   const char *text)
{
    double at = x_of(panel, x);
    bool is_left = at < panel->left + panel->width * 0.8;
    fprintf(to,
            "<path d=\"M%.1f %.1fV%.1f\" stroke=\"%s\" stroke-dasharray=\"4 3\"/>"
            "<text x=\"%.1f\" y=\"%.1f\" font-size=\"10\" text-anchor=\"%s\" fill=\"%s\">",
            at, panel->top, panel->top + panel->height, colour, is_left ? at + 3 : at - 3,
            panel->top + panel->height - 6 - 14 * row, is_left ? "start" : "end", colour);
    cmi_plot_text(to, text);
    fputs("</text>\n", to);
}
