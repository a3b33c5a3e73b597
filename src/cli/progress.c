#include "cli/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "os/clock.h"

enum { BAR_WIDTH = 30 };
static const uint64_t REDRAW_NS = 100000000;

void cmi_progress_start(cmi_progress *p, const char *what)
{
    *p = (cmi_progress){.what = what,
                        .started_ns = cmi_clock_monotonic_ns(),
                        .is_terminal = isatty(STDERR_FILENO) == 1};
}

/* False when it is too early to draw again. */
static bool due(cmi_progress *p, uint64_t done, uint64_t total)
{
    uint64_t now = cmi_clock_monotonic_ns();
    if (!p->is_terminal || (now - p->drawn_ns < REDRAW_NS && done < total)) {
        return false;
    }
    p->drawn_ns = now;
    return true;
}

static void draw_bar(const cmi_progress *p, uint64_t done, uint64_t total)
{
    double share = total > 0 ? (double)done / (double)total : 1;
    fprintf(stderr, "\r%s [", p->what);
    for (int i = 0; i < BAR_WIDTH; i++) {
        fputc(i < (int)(share * BAR_WIDTH) ? '=' : ' ', stderr);
    }
    fprintf(stderr, "] %3.0f %%", share * 100);
}

void cmi_progress_bytes(void *arg, uint64_t done, uint64_t total)
{
    cmi_progress *p = arg;
    if (!due(p, done, total)) {
        return;
    }
    double seconds = (double)(p->drawn_ns - p->started_ns) * 1e-9;
    double mb_s = seconds > 0 ? (double)done * 1e-6 / seconds : 0;
    draw_bar(p, done, total);
    fprintf(stderr, "  %.2f of %.2f GB, %.0f MB/s\x1b[K", (double)done * 1e-9, (double)total * 1e-9,
            mb_s);
    fflush(stderr);
}

void cmi_progress_count(cmi_progress *p, uint64_t done, uint64_t total)
{
    if (due(p, done, total)) {
        draw_bar(p, done, total);
        fprintf(stderr, "  %llu of %llu\x1b[K", (unsigned long long)done,
                (unsigned long long)total);
        fflush(stderr);
    }
}

void cmi_progress_end(cmi_progress *p)
{
    if (p->drawn_ns != 0) {
        fprintf(stderr, "\r\x1b[K");
        fflush(stderr);
    }
}
