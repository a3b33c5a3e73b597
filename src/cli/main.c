/* cli/main.c - finds the command. Options and their help live with the commands. */
#include <stdio.h>
#include <string.h>

#include "cli/ranks.h"

typedef struct command {
    const char *name;
    const char *help;
    cmi_command_fn *fn;
} command;

static const command commands[] = {
    {"run", "answer a prompt, or hold a conversation at the terminal", cmi_cmd_run},
    {"serve", "serve a model through the OpenAI API", cmi_cmd_serve},
    {"score", "print logprobs and top logits of given tokens as JSON lines", cmi_cmd_score},
    {"eval", "count exact matches on a file of tasks", cmi_cmd_eval},
    {"bench", "measure a model, the kernels, the machine's limits, or a server under load",
     cmi_cmd_bench},
    {"eplb", "place experts and their replicas on ranks by measured load", cmi_cmd_eplb},
};

static const command *find_command(const char *name)
{
    for (size_t i = 0; i < CMI_LEN(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    fprintf(stderr, "cminfer: unknown command \"%s\"; \"cminfer help\" lists them\n", name);
    return CMI_EXIT_USAGE;
}

static int print_help(void)
{
    puts("Usage: cminfer COMMAND MODEL [OPTION]...\n"
         "\n"
         "Serves DeepSeek-class models (MLA, mixture of experts, multi-token prediction) on CPUs.\n"
         "MODEL is a Hugging Face directory, or ORG/NAME in the Hugging Face cache.\n");
    for (size_t i = 0; i < CMI_LEN(commands); i++) {
        printf("  %-8s  %s\n", commands[i].name, commands[i].help);
    }
    puts("  help      show this text, or with a command its options\n"
         "\n"
         "  --version shows the version.\n"
         "\n"
         "Examples:\n"
         "  cminfer serve models/matrix-tiny\n"
         "  cminfer run models/matrix-tiny -p 'What is 345 + 78?'");
    return CMI_EXIT_OK;
}

/* sub names a command's subcommand, or is NULL. */
static int print_command_help(const char *name, char *sub)
{
    char help[] = "--help";
    char *argv[] = {sub != NULL ? sub : help, help, NULL};
    const command *found = find_command(name);
    return found != NULL ? found->fn(sub != NULL ? 2 : 1, argv) : unknown_command(name);
}

static int run_command(int argc, char **argv)
{
    if (argc < 2) {
        fputs("cminfer: a command is missing; \"cminfer help\" lists them\n", stderr);
        return CMI_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        puts("cminfer " CMI_VERSION);
        return CMI_EXIT_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        return argc > 2 ? print_command_help(argv[2], argc > 3 ? argv[3] : NULL) : print_help();
    }
    const command *found = find_command(name);
    return found != NULL ? found->fn(argc - 2, argv + 2) : unknown_command(name);
}

/* Output that did not reach its file is a failure, whatever the command thought. */
int main(int argc, char **argv)
{
    cmi_cli_ranks_remember(argv);
    int exit_status = run_command(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout) != 0) && exit_status == CMI_EXIT_OK) {
        fputs("cminfer: cannot write standard output\n", stderr);
        return CMI_EXIT_FAILED;
    }
    return exit_status;
}
