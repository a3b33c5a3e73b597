#include <stdio.h>
#include <string.h>

/* Exit statuses; 1 is for work that failed. */
enum { EXIT_DONE = 0, EXIT_USAGE = 2 };

static int print_version(void)
{
    puts("cminfer " CMI_VERSION);
    return EXIT_DONE;
}

static int print_help(void)
{
    puts("Usage: cminfer COMMAND [OPTION]...\n"
         "\n"
         "  help       show this text\n"
         "  --version  show the version");
    return EXIT_DONE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs("cminfer: a command is missing; \"cminfer help\" lists them\n", stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        return print_version();
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0) {
        return print_help();
    }
    fprintf(stderr, "cminfer: unknown command \"%s\"; \"cminfer help\" lists them\n", argv[1]);
    return EXIT_USAGE;
}
