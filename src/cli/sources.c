#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "net/source.h"
#include "run/secrets.h"
#include "run/stop.h"

struct arguments {
    const char *source, *text;
    const char *cache, *folder, *out, *config, *split, *licence, *base_url;
    bool card, download, offline;
    int64_t count, rows;
};

static void print_sources(void)
{
    for (const struct source_info *info = source_list(); info->name != NULL; info++) {
        printf("%-17s %-10s %s\n", info->name,
               info->kind == SOURCE_LITERATURE ? "literature" : "data", info->summary);
    }
}

static cJSON *make_question(const struct arguments *arguments)
{
    cJSON *question = cJSON_CreateObject();
    bool search = !arguments->card && !arguments->download;
    cJSON_AddStringToObject(question, "source", arguments->source);
    cJSON_AddStringToObject(question, "do",
                            search            ? "search"
                            : arguments->card ? "card"
                                              : "download");
    cJSON_AddStringToObject(question, search ? "text" : "id", arguments->text);
    if (search) {
        cJSON_AddNumberToObject(question, "count", (double)arguments->count);
        return question;
    }
    cJSON_AddStringToObject(question, "config", arguments->config);
    cJSON_AddStringToObject(question, "split", arguments->split);
    if (arguments->download) {
        cJSON_AddNumberToObject(question, "rows", (double)arguments->rows);
    }
    return question;
}

/* Here, unlike in a search, there is nothing else to do than to wait. */
static enum status wait_for(struct sources *sources, struct http *http, int64_t id,
                            struct source_answer *answer, struct error *err)
{
    while (true) {
        TRY(sources_turn(sources, err));
        if (sources_take(sources, id, answer)) {
            break;
        }
        if (stop_requested()) {
            return FAIL(err, STATUS_INTERRUPTED, "stopped by signal %d", stop_signal());
        }
        if (http != NULL) {
            http_wait(http, 0.1);
        }
    }
    if (answer->status != STATUS_OK) {
        *err = answer->error;
    }
    return answer->status;
}

static enum status print_documents(const struct source_answer *answer, struct error *err)
{
    cJSON *json = NULL;
    TRY(json_parse(answer->text, strlen(answer->text), "answer", &json, err));
    const cJSON *document = NULL;
    cJSON_ArrayForEach (document, cJSON_GetObjectItemCaseSensitive(json, "documents")) {
        char *line = json_print_line(document);
        printf("%s\n", line != NULL ? line : "");
        free(line);
    }
    fprintf(stderr, "%d found in %.1f s%s%s%s\n",
            cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "documents")),
            answer->seconds, answer->cached ? ", from the cache" : "",
            answer->host[0] != '\0' ? ", from " : "", answer->host);
    cJSON_Delete(json);
    return STATUS_OK;
}

static enum status ask(const struct arguments *arguments, struct error *err)
{
    const char *folders[] = {arguments->folder, NULL};
    const char *licences[] = {arguments->licence, NULL};
    struct log log;
    log_init(&log, stderr, -1, LOG_WARNING);
    const struct source_options options = {
        .cache_folder = arguments->cache,
        .cache_s = 7 * 86400.0,
        .offline = arguments->offline,
        .folders = folders,
        .download_folder = arguments->out,
        .licences = arguments->licence != NULL ? licences : NULL,
        .rows_max = arguments->rows,
        .base_url = arguments->base_url,
        .log = &log,
    };
    struct http *http = NULL;
    struct sources *sources = NULL;
    struct source_answer answer = {.text = NULL};
    int64_t id = 0;
    cJSON *question = make_question(arguments);
    enum status status = STATUS_OK;
    struct secrets secrets;
    stop_install();
    secrets_find(NULL, &secrets);
    secrets_show(&secrets);
    if (!arguments->offline) {
        TRY_CLEANUP(http_create(&http, err));
    }
    TRY_CLEANUP(sources_create(&options, http, &sources, err));
    secrets_forget(&secrets, false);
    TRY_CLEANUP(sources_ask(sources, question, &id, err));
    TRY_CLEANUP(wait_for(sources, http, id, &answer, err));
    TRY_CLEANUP(print_documents(&answer, err));

cleanup:
    source_answer_fini(&answer);
    sources_destroy(sources);
    http_destroy(http);
    cJSON_Delete(question);
    return status;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct arguments given = {.config = "", .split = "", .out = ".", .count = 5, .rows = 1000};
    const struct cli_option options[] = {
        {"card", CLI_FLAG, &given.card},
        {"download", CLI_FLAG, &given.download},
        {"count", CLI_INTEGER, &given.count},
        {"rows", CLI_INTEGER, &given.rows},
        {"config", CLI_TEXT, &given.config},
        {"split", CLI_TEXT, &given.split},
        {"licence", CLI_TEXT, &given.licence},
        {"out", CLI_TEXT, &given.out},
        {"folder", CLI_TEXT, &given.folder},
        {"cache", CLI_TEXT, &given.cache},
        {"offline", CLI_FLAG, &given.offline},
        {"base-url", CLI_TEXT, &given.base_url},
        {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 0, 2, &arguments, &exit_code)) {
        return exit_code;
    }
    int count = argc - (int)(arguments - argv);
    if (count == 0) {
        print_sources();
        return CLI_DONE;
    }
    if (count != 2 || (given.card && given.download)) {
        fprintf(stderr, "trex sources: a source and a text are needed, and one question\n\n%s",
                command->usage);
        return CLI_WRONG_INPUT;
    }
    struct error err = {0};
    given.source = arguments[0];
    given.text = arguments[1];
    return ask(&given, &err) == STATUS_OK ? CLI_DONE : cli_fail(&err, NULL);
}

const struct cli_command cli_sources = {
    .name = "sources",
    .summary = "look up papers and data sets as a Researcher does",
    .usage =
        "usage: trex sources\n"
        "       trex sources SOURCE TEXT [--count N]\n"
        "       trex sources SOURCE ID --card | --download [--config C] [--split S] [--rows N]\n\n"
        "Without arguments: lists the sources. Else asks one, and prints a document a line, as\n"
        "JSON: papers or data sets that match TEXT, the card of the data set ID with its first\n"
        "rows, or the file that its rows were written to.\n\n"
        "  --count N         documents of a search, at most 25 (5)\n"
        "  --card            licence, splits, columns and first rows of a data set\n"
        "  --download        its rows as JSON Lines; only under a licence that is known\n"
        "  --config C        of a data set with several; default the first\n"
        "  --split S         default train; those for tests are never taken\n"
        "  --rows N          of a download, at most (1000)\n"
        "  --licence L       the only one that rows may be downloaded under\n"
        "  --out DIR         where they go (.)\n"
        "  --folder DIR      of the source local: data sets with a README.md and *.jsonl\n"
        "  --cache DIR       keeps answers there, and takes those of the last week from there\n"
        "  --offline         asks no network: the cache and local folders alone\n"
        "  --base-url URL    asks URL/arxiv, URL/semantic_scholar, URL/openalex, URL/hf and\n"
        "                    URL/hf_rows instead of the services: a mirror, a test\n\n"
        "Optional keys, from the environment: HF_TOKEN, S2_API_KEY, OPENALEX_API_KEY.\n\n"
        "example: trex sources arxiv \"low-rank adaptation sentiment\" --count 3\n",
    .run = run,
};
