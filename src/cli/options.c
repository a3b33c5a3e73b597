#include "cli/options_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char fold(char c)
{
    return c == '_' ? '-' : c;
}

/* The n bytes at name are one of the names in "a|b|c". */
static bool has_name(const char *names, const char *name, size_t n)
{
    for (const char *at = names;; at++) {
        size_t length = strcspn(at, "|");
        size_t same = 0;
        while (same < n && same < length && fold(name[same]) == at[same]) {
            same++;
        }
        if (same == n && length == n) {
            return true;
        }
        at += length;
        if (*at == '\0') {
            return false;
        }
    }
}

const cmi_option *cmi_option_find(const cmi_command_line *line, const char *name, size_t n)
{
    for (size_t t = 0; line->tables[t] != NULL; t++) {
        for (const cmi_option *option = line->tables[t]; option->names != NULL; option++) {
            if (has_name(option->names, name, n)) {
                return option;
            }
        }
    }
    return NULL;
}

static cmi_status store_uint(const cmi_option *option, const char *given, const char *value,
                             cmi_error *err)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || value[0] == '-' || number < option->min ||
        number > option->max) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s takes a number from %u to %u, not \"%s\"",
                             given, option->min, option->max, value);
    }
    *(uint32_t *)option->to = (uint32_t)number;
    return CMI_OK;
}

static cmi_status store_number(const cmi_option *option, const char *given, const char *value,
                               cmi_error *err)
{
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end != '\0' || !isfinite(number)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s takes a number, not \"%s\"", given, value);
    }
    *(double *)option->to = number;
    return CMI_OK;
}

cmi_status cmi_option_store(const cmi_option *option, const char *given, const char *value,
                            cmi_error *err)
{
    cmi_option_list *list;
    switch (option->kind) {
    case CMI_OPTION_UINT:
        return store_uint(option, given, value, err);
    case CMI_OPTION_NUMBER:
        return store_number(option, given, value, err);
    case CMI_OPTION_TEXT:
    case CMI_OPTION_CONFIG:
        *(const char **)option->to = value;
        return CMI_OK;
    case CMI_OPTION_LIST:
        list = option->to;
        list->n_items = list->is_from_file ? 0 : list->n_items;
        list->is_from_file = false;
        if (list->n_items == CMI_OPTION_LIST_MAX) {
            return cmi_error_set(err, CMI_ERR_INVALID, "%s: more than %d values", given,
                                 CMI_OPTION_LIST_MAX);
        }
        list->items[list->n_items++] = value;
        return CMI_OK;
    case CMI_OPTION_FLAG:
        break;
    }
    return cmi_error_set(err, CMI_ERR_INVALID, "%s takes no value", given);
}

/* One option at argv[*at]; moves *at over a value that stands apart. */
static cmi_status parse_option(const cmi_command_line *line, int argc, char **argv, int *at,
                               cmi_error *err)
{
    const char *given = argv[*at];
    const char *name = given + (given[1] == '-' ? 2 : 1);
    size_t n = strcspn(name, "=");
    if (has_name("help|h", name, n)) {
        return CMI_ERR_CANCELLED;
    }
    const cmi_option *option = cmi_option_find(line, name, n);
    if (option == NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "unknown option \"%s\"; --help lists the options", given);
    }
    bool has_value = name[n] == '=';
    if (option->kind == CMI_OPTION_FLAG && !has_value) {
        *(bool *)option->to = true;
        return CMI_OK;
    }
    if (has_value) {
        return cmi_option_store(option, given, name + n + 1, err);
    }
    if (*at + 1 >= argc) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s needs a value: %s", given, option->value);
    }
    (*at)++;
    return cmi_option_store(option, given, argv[*at], err);
}

cmi_status cmi_options_parse(cmi_command_line *line, int argc, char **argv, cmi_error *err)
{
    bool options_over = false;
    line->n_positional = 0;
    cmi_status config_st = cmi_options_read_configs(line, argc, argv, err);
    if (config_st != CMI_OK) {
        return config_st;
    }
    for (int at = 0; at < argc; at++) {
        if (!options_over && strcmp(argv[at], "--") == 0) {
            options_over = true;
        } else if (!options_over && argv[at][0] == '-' && argv[at][1] != '\0') {
            cmi_status st = parse_option(line, argc, argv, &at, err);
            if (st != CMI_OK) {
                return st;
            }
        } else if (line->n_positional < line->n_positional_max) {
            line->positional[line->n_positional++] = argv[at];
        } else {
            return cmi_error_set(err, CMI_ERR_INVALID, "\"%s\" is one argument too many", argv[at]);
        }
    }
    return CMI_OK;
}

void cmi_options_print(const char *title, const cmi_option *table)
{
    enum { HELP_COLUMN = 34 };
    printf("\n%s\n", title);
    for (const cmi_option *option = table; option->names != NULL; option++) {
        if (option->help == NULL) {
            continue;
        }
        int n_name = (int)strcspn(option->names, "|");
        const char *value = option->value != NULL ? option->value : "";
        int width = printf("  %s%.*s %s", n_name == 1 ? "-" : "--", n_name, option->names, value);
        const char *help = option->help;
        printf("%*s", width < HELP_COLUMN ? HELP_COLUMN - width : 1, "");
        for (;;) {
            int n = (int)strcspn(help, "\n");
            printf("%.*s\n", n, help);
            if (help[n] == '\0') {
                break;
            }
            help += n + 1;
            printf("%*s", HELP_COLUMN, "");
        }
    }
}
