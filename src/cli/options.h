/* cli/options.h - GNU long options from a table, with the spellings that users bring along.
 *
 * "--name value", "--name=value", underscores as good as hyphens, one-letter names as "-x". The
 * table is also the help text. A table with an option "config" takes options from a YAML file too,
 * before those of the command line (cli/options_config.c). */
#ifndef CMI_CLI_OPTIONS_H
#define CMI_CLI_OPTIONS_H

#include "base/error.h"

typedef enum cmi_option_kind {
    CMI_OPTION_FLAG,   /* bool *: set to true */
    CMI_OPTION_UINT,   /* uint32_t *: decimal, min .. max */
    CMI_OPTION_NUMBER, /* double * */
    CMI_OPTION_TEXT,   /* const char ** */
    CMI_OPTION_LIST,   /* cmi_option_list *: may come several times */
    CMI_OPTION_CONFIG, /* const char **: a file with options (cli/config_file.h), read first */
} cmi_option_kind;

enum { CMI_OPTION_LIST_MAX = 64 };
typedef struct cmi_option_list {
    const char *items[CMI_OPTION_LIST_MAX];
    size_t n_items;
    bool is_from_file; /* of --config: the next value begins a new list */
} cmi_option_list;

typedef struct cmi_option {
    const char *names; /* "max-model-len|context-length|c": the first is shown, all are taken */
    const char *value; /* what stands for the value in the help; NULL for a flag */
    const char *help;  /* one or more lines; NULL hides the option */
    cmi_option_kind kind;
    void *to;
    uint32_t min, max; /* of CMI_OPTION_UINT */
} cmi_option;

typedef struct cmi_command_line {
    const cmi_option *const *tables; /* ends with NULL; each table ends with names NULL */
    const char **positional;
    size_t n_positional_max;
    size_t n_positional; /* out */
} cmi_command_line;

/* Parses argv[0 .. argc) (without program and command names).
 * CMI_ERR_INVALID: err names the option and what it takes. CMI_ERR_CANCELLED: --help was given. */
CMI_NODISCARD cmi_status cmi_options_parse(cmi_command_line *line, int argc, char **argv,
                                           cmi_error *err);

/* Prints the options of one table under a title. */
void cmi_options_print(const char *title, const cmi_option *table);

#endif
