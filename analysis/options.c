#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"

enum { OPTIONS_MAX = 16, FIRST_CODE = 256 };

static void fill_table(const struct command_option *options, struct option *table)
{
    int count = 0;
    table[count++] = (struct option){"help", no_argument, NULL, 'h'};
    for (int i = 0; options[i].name != NULL && count < OPTIONS_MAX - 1; i++) {
        bool both = options[i].flag != NULL && options[i].text != NULL;
        int argument = both                      ? optional_argument
                       : options[i].flag != NULL ? no_argument
                                                 : required_argument;
        table[count++] = (struct option){options[i].name, argument, NULL, FIRST_CODE + i};
    }
    table[count] = (struct option){NULL, 0, NULL, 0};
}

/* The argument after an option whose value may be absent, if it is a number; then it is taken. */
static const char *next_number(int argc, char **argv)
{
    static const char digits[] = "0123456789.";
    if (optind >= argc || argv[optind][0] == '\0' ||
        argv[optind][strspn(argv[optind], digits)] != '\0') {
        return NULL;
    }
    return argv[optind++];
}

bool options_parse(const struct command *command, int argc, char **argv,
                   const struct command_option *options, int min, int max, char ***arguments,
                   int *count, int *exit_code)
{
    struct option table[OPTIONS_MAX];
    fill_table(options, table);
    *exit_code = EXIT_WRONG_INPUT;
    optind = 1;
    for (int code = 0; (code = getopt_long(argc, argv, "h", table, NULL)) != -1;) {
        if (code == 'h') {
            fputs(command->usage, stdout);
            *exit_code = EXIT_DONE;
            return false;
        }
        if (code < FIRST_CODE) { /* getopt_long has said what is wrong */
            fprintf(stderr, "trex-tree %s --help lists the options\n", command->name);
            return false;
        }
        const struct command_option *option = &options[code - FIRST_CODE];
        if (option->flag != NULL) {
            *option->flag = true;
        }
        if (option->text != NULL) {
            *option->text = optarg != NULL ? optarg : next_number(argc, argv);
        }
    }
    *count = argc - optind;
    if (*count < min || *count > max) {
        fprintf(stderr, "trex-tree %s: %d argument%s given, %d needed\n\n%s", command->name, *count,
                *count == 1 ? "" : "s", *count < min ? min : max, command->usage);
        return false;
    }
    *arguments = argv + optind;
    return true;
}

int options_fail(const struct error *err)
{
    fprintf(stderr, "trex-tree: %s\n  %s: %s\n", err->message, status_name(err->code),
            status_advice(err->code));
    switch (err->code) {
    case STATUS_INVALID:
    case STATUS_NOT_FOUND:
    case STATUS_FORMAT:
    case STATUS_RANGE:
    case STATUS_UNSUPPORTED:
        return EXIT_WRONG_INPUT;
    default:
        return EXIT_FAILED;
    }
}

int options_print_json(cJSON *object)
{
    char *text = object != NULL ? cJSON_Print(object) : NULL;
    cJSON_Delete(object);
    if (text == NULL) {
        struct error err;
        FAIL(&err, STATUS_NO_MEMORY, "no memory for the JSON");
        return options_fail(&err);
    }
    printf("%s\n", text);
    cJSON_free(text);
    return EXIT_DONE;
}
