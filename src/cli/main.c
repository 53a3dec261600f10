/* trex: one program for all ranks of a search, and for its single steps by hand. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const struct cli_command *const commands[] = {
    &cli_check,    &cli_prefetch, &cli_search,  &cli_train, &cli_eval, &cli_generate, &cli_data,
    &cli_tokenize, &cli_sources,  &cli_confine, &cli_relay, &cli_init, &cli_version,  NULL,
};

static void print_commands(FILE *out)
{
    fputs("usage: trex COMMAND [ARGUMENTS]\n\n"
          "Fine-tunes language models without a person at the wheel.\n\n",
          out);
    for (int i = 0; commands[i] != NULL; i++) {
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\ntrex COMMAND --help says more. Run folders are read with trex-tree.\n", out);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_commands(stderr);
        return CLI_WRONG_INPUT;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_commands(stdout);
        return CLI_DONE;
    }
    if (strcmp(name, "--version") == 0) {
        name = "version";
    }
    for (int i = 0; commands[i] != NULL; i++) {
        if (strcmp(name, commands[i]->name) == 0) {
            return commands[i]->run(commands[i], argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "trex: there is no command \"%s\"\n\n", name);
    print_commands(stderr);
    return CLI_WRONG_INPUT;
}
