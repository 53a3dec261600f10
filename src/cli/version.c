#include <stdio.h>
#include <string.h>

#include <curl/curl.h>
#include <hdf5.h>
#include <mpi.h>

#include "cli/cli.h"
#include "kernels/ops.h"

static void print_device(const char *backend)
{
    const struct device_options options = {0};
    struct device *device = NULL;
    struct error err = {0};
    char text[256];
    if (device_open(backend, &options, &device, &err) == STATUS_OK) {
        device->ops->describe(device, text, sizeof(text));
        printf("  %-5s %s\n", backend, text);
        device_close(device);
    } else {
        printf("  %-5s none: %s\n", backend, err.message);
    }
}

static void print_errors(void)
{
    static const struct {
        const char *name, *text, *advice;
    } rows[] = {
#define ROW(name, text, advice) {#name, text, advice},
        STATUS_LIST(ROW)
#undef ROW
    };
    puts("| error | meaning | what to do |\n| --- | --- | --- |");
    for (size_t i = 1; i < sizeof(rows) / sizeof(rows[0]); i++) {
        printf("| `%s` | %s | %s |\n", rows[i].name, rows[i].text, rows[i].advice);
    }
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    bool errors = false;
    const struct cli_option options[] = {{"errors", CLI_FLAG, &errors}, {NULL, CLI_FLAG, NULL}};
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 0, 0, &arguments, &exit_code)) {
        return exit_code;
    }
    if (errors) {
        print_errors();
        return CLI_DONE;
    }
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    unsigned major = 0, minor = 0, release = 0;
    MPI_Get_library_version(mpi, &length);
    H5get_libversion(&major, &minor, &release);
    printf("trex %s\n  %.*s\n  HDF5 %u.%u.%u\n  %s\ndevices\n", TREX_VERSION,
           (int)strcspn(mpi, ","), mpi, major, minor, release, curl_version());
    print_device("cpu");
    print_device("cuda");
    return CLI_DONE;
}

const struct cli_command cli_version = {
    .name = "version",
    .summary = "version, libraries and devices",
    .usage = "usage: trex version [--errors]\n\n"
             "Prints the version, the libraries it was built with and the devices it can use.\n\n"
             "  --errors   the table of errors instead, as in INSTALL\n\n"
             "example: trex version\n",
    .run = run,
};
