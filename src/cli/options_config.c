/* cli/options_config.c - options from a file: --config FILE.
 *
 * The keys are the long names of options, underscores as good as hyphens. A flag takes true or
 * false; false for NAME is --no-NAME where there is such a thing. What the command line says wins:
 * files are read first, and the first value of a list there puts the file's away. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/config_file.h"
#include "cli/options_internal.h"
#include "os/file.h"

#define MAX_CONFIG_BYTES ((size_t)1 << 20)

/* Values that options point to, for as long as the process lives. */
enum { MAX_VALUES = 1024 };
static char *values[MAX_VALUES];
static size_t n_values;

static cmi_status keep(const char *value, const char **kept_out, cmi_error *err)
{
    if (n_values == MAX_VALUES) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "too many values");
    }
    *kept_out = values[n_values++] = cmi_strndup(value, strlen(value));
    return CMI_OK;
}

static bool is_one_of(const char *value, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(value, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

static cmi_status set_flag(const cmi_command_line *line, const cmi_option *option, const char *key,
                           const char *value, cmi_error *err)
{
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "on"};
    static const char *const no[] = {"false", "False", "FALSE", "no", "off"};
    char opposite[80];
    if (is_one_of(value, yes, CMI_LEN(yes))) {
        *(bool *)option->to = true;
        return CMI_OK;
    }
    if (!is_one_of(value, no, CMI_LEN(no))) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s takes true or false, not \"%s\"", key,
                             value);
    }
    snprintf(opposite, sizeof opposite, "no-%s", key);
    option = cmi_option_find(line, opposite, strlen(opposite));
    if (option != NULL && option->kind == CMI_OPTION_FLAG) {
        *(bool *)option->to = true;
    }
    return CMI_OK;
}

static cmi_status set(const cmi_command_line *line, const char *key, const char *value,
                      cmi_error *err)
{
    const cmi_option *option = cmi_option_find(line, key, strlen(key));
    if (option == NULL || option->kind == CMI_OPTION_CONFIG) {
        return cmi_error_set(err, CMI_ERR_INVALID, "unknown key \"%s\"; --help lists the options",
                             key);
    }
    if (value == NULL) {
        return CMI_OK;
    }
    if (option->kind == CMI_OPTION_FLAG) {
        return set_flag(line, option, key, value, err);
    }
    const char *kept = NULL;
    cmi_status st = keep(value, &kept, err);
    if (st == CMI_OK && option->kind == CMI_OPTION_LIST) {
        ((cmi_option_list *)option->to)->is_from_file =
            false; /* one value more, not another list */
    }
    st = st == CMI_OK ? cmi_option_store(option, key, kept, err) : st;
    if (st == CMI_OK && option->kind == CMI_OPTION_LIST) {
        ((cmi_option_list *)option->to)->is_from_file = true;
    }
    return st;
}

static cmi_status on_value(void *arg, const char *key, const char *value, size_t line_number,
                           cmi_error *err)
{
    cmi_error why = {0};
    cmi_status st = set(arg, key, value, &why);
    return st == CMI_OK ? st : cmi_error_set(err, st, "line %zu: %s", line_number, why.text);
}

static cmi_status read_config(const cmi_command_line *line, const char *path, cmi_error *err)
{
    cmi_buf text;
    cmi_error why = {0};
    cmi_status st = cmi_file_read(&text, path, MAX_CONFIG_BYTES, err);
    if (st == CMI_OK) {
        st = cmi_config_parse(cmi_buf_cstr(&text), text.len, on_value, (void *)line, &why);
        st = st == CMI_OK ? st : cmi_error_set(err, CMI_ERR_INVALID, "%s, %s", path, why.text);
    }
    cmi_buf_deinit(&text);
    return st;
}

cmi_status cmi_options_read_configs(const cmi_command_line *line, int argc, char **argv,
                                    cmi_error *err)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *name = argv[i] + strspn(argv[i], "-");
        size_t n = strcspn(name, "=");
        if (argv[i][0] != '-' || *name == '\0') {
            continue;
        }
        const cmi_option *option = cmi_option_find(line, name, n);
        bool stands_apart = option != NULL && option->kind != CMI_OPTION_FLAG && name[n] == '\0';
        i += stands_apart ? 1 : 0;
        if (option != NULL && option->kind == CMI_OPTION_CONFIG && i < argc) {
            cmi_status st = read_config(line, stands_apart ? argv[i] : name + n + 1, err);
            if (st != CMI_OK) {
                return st;
            }
        }
    }
    return CMI_OK;
}
