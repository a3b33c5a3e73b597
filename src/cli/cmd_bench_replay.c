/* cli/cmd_bench_replay.c - `cminfer bench replay`: a recorded scheduler once more, compared and
 * timed. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/commands.h"
#include "os/clock.h"
#include "os/file.h"
#include "os/host_memory.h"
#include "policy/event_replay.h"

typedef struct replay_options {
    const char *path;
    uint32_t repetitions;
    bool json;
} replay_options;

/* What the runs came to. */
typedef struct replay_result {
    cmi_policy_log_info info;
    cmi_replay_state state;
    cmi_replay_status status;
    uint64_t best_ns;
} replay_result;

static const char *ending_text(cmi_policy_log_ending ending)
{
    static const char *const texts[] = {
        [CMI_POLICY_LOG_WHOLE] = "whole",
        [CMI_POLICY_LOG_CUT] = "cut: recording ended before the server did",
        [CMI_POLICY_LOG_BROKEN] = "without an end: the server was killed",
    };
    return texts[ending];
}

static void print_help(const cmi_option *own)
{
    printf("Usage: cminfer bench replay FILE [OPTION]...\n"
           "\n"
           "Makes the calls again that \"cminfer serve --record-events FILE\" recorded, on the\n"
           "scheduler, page pool and prefix cache of this program, compares every plan with the\n"
           "recorded one, byte for byte, and says how many steps a second they plan. The exit\n"
           "status is 1 when a plan differs.\n");
    cmi_options_print("Options:", own);
    printf("\nExample:\n"
           "  cminfer serve models/matrix-tiny --record-events run.events\n"
           "  cminfer bench replay run.events\n");
}

static void run_once(replay_result *result, void *memory, const cmi_file_map *file)
{
    cmi_policy_replay *replay =
        cmi_policy_replay_init(memory, &result->info, file->data, file->n_bytes);
    const uint64_t start_ns = cmi_clock_monotonic_ns();
    do {
        result->status = cmi_policy_replay_next(replay);
    } while (result->status == CMI_REPLAY_SAME);
    const uint64_t ns = cmi_clock_monotonic_ns() - start_ns;
    result->best_ns = result->best_ns == 0 ? ns : CMI_MIN(ns, result->best_ns);
    result->state = *cmi_policy_replay_state(replay);
}

static cmi_status run(replay_result *result, const replay_options *opt, const cmi_file_map *file,
                      cmi_error *err)
{
    cmi_status st = cmi_policy_log_check(file->data, file->n_bytes, &result->info);
    if (st != CMI_OK) {
        return cmi_error_set(err, st, "%s: at byte %" PRIu64 ": %s", opt->path, result->info.offset,
                             result->info.why);
    }
    const size_t n_bytes = cmi_policy_replay_bytes(&result->info);
    if (n_bytes == 0 || n_bytes > cmi_host_memory_available()) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "%s: its options are out of range", opt->path);
    }
    void *memory = cmi_alloc_aligned(n_bytes, CMI_CACHE_LINE);
    result->status = CMI_REPLAY_END;
    for (uint32_t i = 0; i < opt->repetitions && result->status == CMI_REPLAY_END; i++) {
        run_once(result, memory, file);
    }
    cmi_free(memory);
    return CMI_OK;
}

static double steps_per_s(const replay_result *r)
{
    return (double)r->state.n_steps * 1e9 / (double)CMI_MAX(r->best_ns, 1u);
}

static void print_finding(const replay_result *r)
{
    const cmi_replay_state *s = &r->state;
    printf("step %" PRIu64 ", record %" PRIu64 " at byte %" PRIu64 ": ", s->n_steps, s->n_records,
           s->offset);
    if (r->status == CMI_REPLAY_BAD) {
        printf("%s\n", s->why);
    } else if (s->field != NULL) {
        printf("%s %" PRIu32 ": %s: recorded %" PRId64 ", replayed %" PRId64 "\n", s->what, s->idx,
               s->field, (int64_t)s->recorded, (int64_t)s->replayed);
    } else if (s->recorded != s->replayed) {
        printf("%s %" PRIu32 ": recorded %" PRIu64 ", replayed %" PRIu64 "\n", s->what, s->idx,
               s->recorded, s->replayed);
    } else {
        printf("%s: they are other ones\n", s->what);
    }
}

static void print_text(const replay_result *r)
{
    const cmi_replay_state *s = &r->state;
    printf("log: %s\n", ending_text(r->info.ending));
    if (r->status != CMI_REPLAY_END) {
        print_finding(r);
        return;
    }
    printf("the same plans, byte for byte: %" PRIu64 " steps, %" PRIu64 " rows, %" PRIu64
           " requests, %" PRIu64 " preemptions\n",
           s->n_steps, s->n_rows, s->n_requests, s->n_preempted);
    printf("%.0f steps/s, %.2f us a step\n", steps_per_s(r), 1e6 / CMI_MAX(steps_per_s(r), 1e-9));
}

static void print_json(const replay_result *r)
{
    static const char *const endings[] = {"whole", "cut", "broken"};
    static const char *const statuses[] = {
        [CMI_REPLAY_END] = "same", [CMI_REPLAY_DIFFERS] = "differs", [CMI_REPLAY_BAD] = "bad"};
    const cmi_replay_state *s = &r->state;
    printf("{\"result\": \"%s\", \"ending\": \"%s\", \"steps\": %" PRIu64 ", \"rows\": %" PRIu64
           ", \"requests\": %" PRIu64 ", \"preemptions\": %" PRIu64 ", \"steps_per_s\": %.17g}\n",
           statuses[r->status], endings[r->info.ending], s->n_steps, s->n_rows, s->n_requests,
           s->n_preempted, steps_per_s(r));
}

int cmi_cmd_bench_replay(int argc, char **argv)
{
    replay_options opt = {.repetitions = 3};
    const cmi_option own[] = {
        {"repetitions|r", "N", "of the replay, whose fastest counts (default 3)", CMI_OPTION_UINT,
         &opt.repetitions, 1, 1000},
        {"json", NULL, "one JSON object instead of text", CMI_OPTION_FLAG, &opt.json, 0, 0},
        {0},
    };
    const cmi_option *const tables[] = {own, NULL};
    cmi_command_line line = {.tables = tables, .positional = &opt.path, .n_positional_max = 1};
    cmi_error err = {0};
    cmi_status st = cmi_options_parse(&line, argc, argv, &err);
    if (st == CMI_ERR_CANCELLED) {
        print_help(own);
        return CMI_EXIT_OK;
    }
    if (st != CMI_OK || opt.path == NULL) {
        return cmi_cli_usage(st != CMI_OK ? err.text : "bench replay needs a FILE");
    }
    cmi_file_map file = {0};
    replay_result result = {0};
    st = cmi_file_map_open(&file, opt.path, &err);
    if (st == CMI_OK) {
        st = run(&result, &opt, &file, &err);
    }
    if (st == CMI_OK) {
        (opt.json ? print_json : print_text)(&result);
    }
    cmi_file_map_close(&file);
    if (st != CMI_OK) {
        return cmi_cli_fail(&err);
    }
    return result.status == CMI_REPLAY_END ? CMI_EXIT_OK : CMI_EXIT_FAILED;
}
