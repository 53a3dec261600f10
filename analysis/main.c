/* trex-tree: what a run folder holds, for people and for other programs; and what they want of its
 * search. */
#include <string.h>

#include "analysis/analysis.h"

static const struct command *const commands[] = {
    &command_status, &command_show, &command_best, &command_export,
    &command_verify, &command_halt, &command_set,  NULL,
};

static void print_commands(FILE *out)
{
    fputs("usage: trex-tree COMMAND RUN [ARGUMENTS]\n\n"
          "Reads the run folder RUN of a search, while it goes on or afterwards. halt and set "
          "leave a "
          "wish in it\n"
          "(control.json); nothing else is ever written there.\n\n",
          out);
    for (int i = 0; commands[i] != NULL; i++) {
        fprintf(out, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\ntrex-tree COMMAND --help says more. Searches are run with trex.\n", out);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_commands(stderr);
        return EXIT_WRONG_INPUT;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_commands(stdout);
        return EXIT_DONE;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        printf("trex-tree %s\n", TREX_VERSION);
        return EXIT_DONE;
    }
    for (int i = 0; commands[i] != NULL; i++) {
        if (strcmp(name, commands[i]->name) == 0) {
            return commands[i]->run(commands[i], argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "trex-tree: there is no command \"%s\"\n\n", name);
    print_commands(stderr);
    return EXIT_WRONG_INPUT;
}
