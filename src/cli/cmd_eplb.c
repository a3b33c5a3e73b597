/* cli/cmd_eplb.c - `cminfer eplb`: where experts and their replicas go, from a file of loads. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "cli/commands.h"
#include "cli/eplb_load.h"
#include "os/file.h"
#include "policy/expert_load.h"

enum { MAX_FILE_BYTES = 64 << 20 };

typedef struct eplb_options {
    const char *load;
    cmi_expert_layout layout;
    bool json;
} eplb_options;

typedef struct eplb_run {
    const cmi_expert_layout *layout;
    cmi_eplb_load load;
    cmi_expert_placement *placements; /* [n_layers] */
    void *memory;                     /* of their arrays */
    void *work;
} eplb_run;

static void print_help(const cmi_option *own)
{
    printf(
        "Usage: cminfer eplb --load FILE.json --replicas N --ranks R [OPTION]...\n"
        "\n"
        "Places routed experts on ranks by their load, those in demand several times (EPLB). The\n"
        "placement is that of DeepSeek's published algorithm: hierarchical when the nodes divide\n"
        "the groups, so that the experts of a group stay on one node, and global otherwise.\n"
        "Prints for each layer the load of the busiest rank over the mean, before (every expert\n"
        "once, in order) and after.\n");
    cmi_options_print("Options:", own);
    printf("\n"
           "With --json, one object, the layer outermost in each:\n"
           "  physical_to_logical  the expert in each of the N slots, rank by rank\n"
           "  logical_to_physical  the slots of each expert, filled up with -1\n"
           "  replica_counts       how many slots each expert has\n"
           "\n"
           "Example:\n"
           "  echo '[[90,132,40,61,104,165,39,4,73,56,183,86]]' > load.json\n"
           "  cminfer eplb --load load.json --replicas 16 --groups 4 --nodes 2 --ranks 8\n");
}

/* ---- JSON ---- */

typedef void print_layer_fn(const cmi_expert_placement *p, uint32_t n_columns);

static void print_experts(const cmi_expert_placement *p, uint32_t n_columns)
{
    (void)n_columns;
    for (uint32_t i = 0; i < p->layout.n_replicas; i++) {
        printf("%s%u", i > 0 ? "," : "", p->physical_to_logical[i]);
    }
}

static void print_slots(const cmi_expert_placement *p, uint32_t n_columns)
{
    for (uint32_t e = 0; e < p->layout.n_experts; e++) {
        const uint32_t n = cmi_expert_replica_count(p, e);
        printf(e > 0 ? ",[" : "[");
        for (uint32_t i = 0; i < n_columns; i++) {
            printf("%s%d", i > 0 ? "," : "", i < n ? (int)p->physical[p->first[e] + i] : -1);
        }
        printf("]");
    }
}

static void print_counts(const cmi_expert_placement *p, uint32_t n_columns)
{
    (void)n_columns;
    for (uint32_t e = 0; e < p->layout.n_experts; e++) {
        printf("%s%u", e > 0 ? "," : "", cmi_expert_replica_count(p, e));
    }
}

/* The expert with the most replicas, of equals the first. */
static uint32_t most_replicated(const cmi_expert_placement *p)
{
    uint32_t best = 0;
    for (uint32_t e = 1; e < p->layout.n_experts; e++) {
        best = cmi_expert_replica_count(p, e) > cmi_expert_replica_count(p, best) ? e : best;
    }
    return best;
}

static void print_json(const eplb_run *run)
{
    static const struct {
        const char *name;
        print_layer_fn *print;
    } fields[] = {{"physical_to_logical", print_experts},
                  {"logical_to_physical", print_slots},
                  {"replica_counts", print_counts}};
    uint32_t n_columns = 0; /* the same in all layers */
    for (uint32_t l = 0; l < run->load.n_layers; l++) {
        const cmi_expert_placement *p = &run->placements[l];
        n_columns = CMI_MAX(n_columns, cmi_expert_replica_count(p, most_replicated(p)));
    }
    for (size_t f = 0; f < CMI_LEN(fields); f++) {
        printf("%s\"%s\":[", f > 0 ? "," : "{", fields[f].name);
        for (uint32_t l = 0; l < run->load.n_layers; l++) {
            printf(l > 0 ? ",[" : "[");
            fields[f].print(&run->placements[l], n_columns);
            printf("]");
        }
        printf("]");
    }
    printf("}\n");
}

/* ---- a table ---- */

static void print_head(const eplb_run *run)
{
    const cmi_expert_layout *l = run->layout;
    printf("%u experts in %u slots on %u ranks, ", l->n_experts, l->n_replicas, l->n_ranks);
    if (cmi_expert_layout_is_hierarchical(l)) {
        printf("%u groups on %u nodes (hierarchical)\n", l->n_groups, l->n_nodes);
    } else {
        printf("without regard to groups (global)\n");
    }
    printf("load of the busiest rank / mean of the ranks:\n\n"
           "layer    before     after   most replicas\n");
}

static void print_table(const eplb_run *run)
{
    /* Every expert once, in order, spread evenly. */
    cmi_expert_layout plain = *run->layout;
    plain.n_replicas = plain.n_experts;
    plain.n_groups = plain.n_nodes = 1;
    cmi_expert_placement before;
    void *memory = cmi_alloc(cmi_expert_placement_bytes(&plain), 1);
    const bool is_fine = cmi_expert_placement_init(&before, memory, &plain) == CMI_OK;
    double sums[2] = {0, 0};
    print_head(run);
    for (uint32_t l = 0; is_fine && l < run->load.n_layers; l++) {
        const cmi_expert_placement *p = &run->placements[l];
        const float *loads = run->load.loads + (size_t)l * run->load.n_experts;
        const uint32_t most = most_replicated(p);
        const double ratios[2] = {cmi_expert_placement_balance(&before, loads).ratio,
                                  cmi_expert_placement_balance(p, loads).ratio};
        printf("%5u  %8.3f  %8.3f   %u of expert %u\n", l, ratios[0], ratios[1],
               cmi_expert_replica_count(p, most), most);
        sums[0] += ratios[0];
        sums[1] += ratios[1];
    }
    printf(" mean  %8.3f  %8.3f\n", sums[0] / run->load.n_layers, sums[1] / run->load.n_layers);
    cmi_free(memory);
}

/* ---- the command ---- */

static cmi_status read_file(eplb_run *run, const char *path, cmi_error *err)
{
    cmi_buf text;
    cmi_status st = cmi_file_read(&text, path, MAX_FILE_BYTES, err);
    if (st == CMI_OK) {
        st = cmi_eplb_load_parse(&run->load, cmi_buf_cstr(&text), text.len, path, err);
    }
    cmi_buf_deinit(&text);
    return st;
}

/* Whether the published algorithm takes this layout; else prints why not. */
static bool check_layout(const cmi_expert_layout *l)
{
    const char *why = cmi_expert_layout_fault(l);
    why = why != NULL ? why : cmi_expert_layout_rest(l);
    if (why != NULL) {
        fprintf(stderr,
                "cminfer: eplb: %s (%u experts, --replicas %u --groups %u --nodes %u --ranks "
                "%u)\n",
                why, l->n_experts, l->n_replicas, l->n_groups, l->n_nodes, l->n_ranks);
    }
    return why == NULL;
}

static void place(eplb_run *run)
{
    const size_t n_bytes = cmi_expert_placement_bytes(run->layout);
    run->placements = cmi_alloc(run->load.n_layers, sizeof *run->placements);
    run->memory = cmi_alloc(run->load.n_layers, n_bytes);
    run->work = cmi_alloc(cmi_expert_placement_work_bytes(run->layout), 1);
    for (uint32_t l = 0; l < run->load.n_layers; l++) {
        cmi_expert_placement *p = &run->placements[l];
        const float *loads = run->load.loads + (size_t)l * run->load.n_experts;
        if (cmi_expert_placement_init(p, (char *)run->memory + l * n_bytes, run->layout) !=
                CMI_OK ||
            cmi_expert_placement_make(p, loads, run->work) != CMI_OK) {
            abort(); /* layout and loads were checked */
        }
    }
}

static int run_eplb(eplb_options *opt)
{
    cmi_error err = {0};
    eplb_run run = {.layout = &opt->layout};
    int exit_status = CMI_EXIT_OK;
    if (read_file(&run, opt->load, &err) != CMI_OK) {
        exit_status = cmi_cli_fail(&err);
    } else {
        opt->layout.n_experts = run.load.n_experts;
        exit_status = check_layout(run.layout) ? CMI_EXIT_OK : CMI_EXIT_USAGE;
    }
    if (exit_status == CMI_EXIT_OK) {
        place(&run);
        (opt->json ? print_json : print_table)(&run);
    }
    cmi_free(run.placements);
    cmi_free(run.memory);
    cmi_free(run.work);
    cmi_eplb_load_deinit(&run.load);
    return exit_status;
}

int cmi_cmd_eplb(int argc, char **argv)
{
    eplb_options opt = {.layout = {.n_groups = 1, .n_nodes = 1}};
    const cmi_option own[] = {
        {"load", "FILE.json", "an array for each layer: the load of each of its routed experts",
         CMI_OPTION_TEXT, &opt.load, 0, 0},
        {"replicas", "N", "slots in total, one for each expert and the redundant ones",
         CMI_OPTION_UINT, &opt.layout.n_replicas, 1, CMI_EXPERT_REPLICAS_MAX},
        {"ranks", "R", "that share the slots evenly: R must divide N", CMI_OPTION_UINT,
         &opt.layout.n_ranks, 1, CMI_EXPERT_RANKS_MAX},
        {"groups", "G", "of experts, as the model's n_group says (default 1)", CMI_OPTION_UINT,
         &opt.layout.n_groups, 1, CMI_EXPERTS_MAX},
        {"nodes", "M", "with R / M ranks each (default 1)", CMI_OPTION_UINT, &opt.layout.n_nodes, 1,
         CMI_EXPERT_RANKS_MAX},
        {"json", NULL, "one JSON object instead of the table", CMI_OPTION_FLAG, &opt.json, 0, 0},
        {0},
    };
    const cmi_option *const tables[] = {own, NULL};
    cmi_command_line line = {.tables = tables};
    cmi_error err = {0};
    cmi_status st = cmi_options_parse(&line, argc, argv, &err);
    if (st == CMI_ERR_CANCELLED) {
        print_help(own);
        return CMI_EXIT_OK;
    }
    if (st != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    if (opt.load == NULL || opt.layout.n_replicas == 0 || opt.layout.n_ranks == 0) {
        return cmi_cli_usage("eplb needs --load, --replicas and --ranks");
    }
    return run_eplb(&opt);
}
