/* test_lm_server: an OpenAI-compatible endpoint that answers from files and fails on request.
 * README.md says how. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/script.h"
#include "net/server.h"
#include "net/wire.h"

enum { HUGE_PIECE_BYTES = 1 << 20, FILE_MAX_BYTES = 64 << 20, PATH_BYTES = 4096 };

struct lm_server {
    struct script script;
    FILE *log;
    double delay_s;
    const char *folder; /* of files for other paths; NULL: none */
    const char *key;    /* that requests must carry; NULL: any or none will do */
    bool key_needed;
    double started_s;
    int64_t chats;
};

/* ---- what goes wrong ---- */

static void set_body(struct server_answer *answer, const char *type, const char *text)
{
    answer->content_type = type;
    answer->body = mem_strdup(text);
    answer->body_bytes = strlen(text);
    answer->chunked = false;
    answer->piece_bytes = 0;
}

/* An event with a mebibyte of text, as often as it takes. */
static void set_huge(struct server_answer *answer, int64_t times)
{
    static const char head[] = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"";
    static const char tail[] = "\"}}]}\n\n";
    struct buffer body;
    buffer_init(&body, 2 * HUGE_PIECE_BYTES);
    buffer_append_text(&body, head);
    for (int i = 0; i < HUGE_PIECE_BYTES / 8; i++) {
        buffer_append_text(&body, "no end. ");
    }
    buffer_append_text(&body, tail);
    answer->body_bytes = body.len_bytes;
    answer->body = buffer_take(&body);
    answer->content_type = "text/event-stream";
    answer->chunked = true;
    answer->repeat = times;
}

/* Faults of the connection and of the code, which need no reply. False: it is another one. */
static bool fail_below(const struct script_fault *fault, const char *authorization,
                       struct server_answer *answer)
{
    const char *what = fault->what;
    const char *argument = fault->argument;
    if (strcmp(what, "http") == 0) {
        char *end = NULL;
        int code = (int)strtol(argument, &end, 10);
        wire_error(code, "scripted_error", "the script says so", answer);
        if (*end == ',') {
            snprintf(answer->headers, sizeof(answer->headers), "Retry-After: %.100s\r\n", end + 1);
        }
    } else if (strcmp(what, "close") == 0) {
        answer->cut = true;
        answer->end_bytes = -1;
    } else if (strcmp(what, "endless") == 0 || strcmp(what, "huge") == 0) {
        set_huge(answer, what[0] == 'h' ? strtoll(argument, NULL, 10) : -1);
    } else if (strcmp(what, "html") == 0) {
        set_body(answer, "text/html", "<html><body>Please log in</body></html>\n");
    } else if (strcmp(what, "garbage") == 0) {
        set_body(answer, "application/octet-stream", "\x01\xfe\x80 data: {{{ \xc3\x28\n\ndata: \"");
    } else if (strcmp(what, "gzip") == 0) {
        snprintf(answer->headers, sizeof(answer->headers), "Content-Encoding: gzip\r\n");
        set_body(answer, "application/json", "\x1f\x8b\x08\x01\x02\x03\x04\x05 not asked for");
    } else if (strcmp(what, "echo") == 0) {
        char message[1024];
        snprintf(message, sizeof(message), "no such key: %.900s", authorization);
        wire_error(401, "invalid_api_key", message, answer);
    } else if (strcmp(what, "redirect") == 0) {
        answer->code = 302;
        snprintf(answer->headers, sizeof(answer->headers), "Location: %.900s\r\n", argument);
    } else {
        return false;
    }
    return true;
}

/* Faults of what is said: another text, or another way to say it. */
static void fail_reply(const struct script_fault *fault, char **text, struct wire *wire)
{
    const char *what = fault->what;
    const char *argument = fault->argument;
    if (strcmp(what, "say") == 0 || strcmp(what, "empty") == 0) {
        free(*text);
        *text = mem_strdup(what[0] == 's' ? argument : "");
    } else if (strcmp(what, "think") == 0) {
        size_t length = strlen(*text) + 128;
        char *longer = mem_calloc(length, 1);
        snprintf(longer, length,
                 "<think>perhaps {\"no\": 1}?</think>\nHere it is:\n```json\n%s\n```", *text);
        free(*text);
        *text = longer;
    } else if (strcmp(what, "length") == 0) {
        (*text)[strlen(*text) / 2] = '\0';
        wire->finish = "length";
    } else if (strcmp(what, "refuse") == 0) {
        wire->refusal = true;
    } else if (strcmp(what, "error") == 0) {
        wire->problem = argument[0] != '\0' ? argument : "server_error";
    } else if (strcmp(what, "no_usage") == 0) {
        wire->no_usage = true;
    } else if (strcmp(what, "usage") == 0) {
        wire->tokens_in = wire->tokens_out = strtoll(argument, NULL, 10);
    } else if (strcmp(what, "whole") == 0) {
        wire->whole = true;
    } else if (strcmp(what, "done") == 0) {
        wire->finish = "";
    }
}

/* Faults of how the stream goes. */
static void fail_stream(const struct script_fault *fault, struct server_answer *answer)
{
    const char *what = fault->what;
    const char *argument = fault->argument;
    if (strcmp(what, "cut") == 0 || strcmp(what, "stall") == 0) {
        answer->cut = what[0] == 'c';
        answer->stall = !answer->cut;
        answer->end_bytes =
            argument[0] != '\0' ? strtoll(argument, NULL, 10) : (int64_t)answer->body_bytes / 2;
    } else if (strcmp(what, "delay") == 0) {
        answer->delay_s = strtod(argument, NULL);
    } else if (strcmp(what, "slow") == 0) {
        answer->piece_delay_s = strtod(argument, NULL);
    } else if (strcmp(what, "chunks") == 0) {
        answer->bad_chunks = true;
    } else if (strcmp(what, "nul") == 0 || strcmp(what, "unicode") == 0) {
        /* In the middle of a text: a byte that may not be there. */
        char *place = memmem(answer->body, answer->body_bytes, "content\":\"", 10);
        if (place != NULL && place[10] != '"') {
            place[10] = what[0] == 'n' ? '\0' : '\xff';
        }
    }
}

/* ---- chats ---- */

static void put_log(struct lm_server *server, const cJSON *request, const char *name, int64_t nth,
                    const char *authorization, const struct script_fault *fault)
{
    if (server->log == NULL) {
        return;
    }
    char expected[1024];
    snprintf(expected, sizeof(expected), "Bearer %s", server->key != NULL ? server->key : "");
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "n", (double)server->chats);
    cJSON_AddNumberToObject(line, "seconds", clock_monotonic_s() - server->started_s);
    cJSON_AddStringToObject(line, "name", name);
    cJSON_AddNumberToObject(line, "nth", (double)nth);
    cJSON_AddBoolToObject(line, "authorized",
                          server->key == NULL || strcmp(authorization, expected) == 0);
    cJSON_AddStringToObject(line, "fault", fault != NULL ? fault->what : "");
    cJSON_AddItemToObject(line, "request", cJSON_Duplicate(request, true));
    char *text = cJSON_PrintUnformatted(line);
    fprintf(server->log, "%s\n", text);
    fflush(server->log);
    free(text);
    cJSON_Delete(line);
}

static int64_t count_characters(const cJSON *request)
{
    int64_t count = 0;
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, cJSON_GetObjectItem(request, "messages")) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(message, "content"));
        count += text != NULL ? (int64_t)strlen(text) : 0;
    }
    return count;
}

static void answer_chat(struct lm_server *server, const cJSON *request, const char *name,
                        int64_t nth, const struct script_fault *fault, struct server_answer *answer)
{
    char *text = fault != NULL && strcmp(fault->what, "file") == 0
                     ? script_file(&server->script, request, fault->argument, nth)
                     : script_reply(&server->script, request, name, nth);
    if (text == NULL) {
        wire_error(404, "not_found", "no reply of that name, and no schema", answer);
        return;
    }
    struct wire wire = {
        .model = cJSON_GetStringValue(cJSON_GetObjectItem(request, "model")),
        .whole = !cJSON_IsTrue(cJSON_GetObjectItem(request, "stream")),
        .tokens_in = count_characters(request) / 4 + 8,
        .tokens_out = (int64_t)strlen(text) / 4 + 1,
    };
    if (fault != NULL) {
        fail_reply(fault, &text, &wire);
    }
    wire.text = text;
    wire_answer(&wire, answer);
    answer->delay_s = server->delay_s;
    if (fault != NULL) {
        fail_stream(fault, answer);
    }
    free(text);
}

static void handle_chat(struct lm_server *server, const struct server_request *request,
                        struct server_answer *answer)
{
    char authorization[1024];
    char expected[1024];
    server_header(request, "Authorization", authorization, sizeof(authorization));
    snprintf(expected, sizeof(expected), "Bearer %s", server->key != NULL ? server->key : "");
    server->chats++;
    cJSON *chat = cJSON_ParseWithLength(request->body, request->body_bytes);
    char name[64] = "";
    script_name(chat, name);
    int64_t nth = script_count(&server->script, name);
    const struct script_fault *fault = script_find_fault(&server->script, name, nth, server->chats);
    put_log(server, chat, name, nth, authorization, fault);
    if (chat == NULL) {
        wire_error(400, "invalid_request_error", "the body is not JSON", answer);
    } else if (server->key_needed && strcmp(authorization, expected) != 0) {
        wire_error(401, "invalid_api_key", "no key, or a wrong one", answer);
    } else if (fault == NULL || !fail_below(fault, authorization, answer)) {
        answer_chat(server, chat, name, nth, fault, answer);
    }
    cJSON_Delete(chat);
}

/* ---- files ---- */

static bool read_file(const char *path, struct server_answer *answer)
{
    struct stat info;
    struct buffer text;
    buffer_init(&text, FILE_MAX_BYTES);
    bool is_there = stat(path, &info) == 0 && S_ISREG(info.st_mode) &&
                    file_read(path, &text, NULL) == STATUS_OK;
    if (is_there) {
        answer->body_bytes = text.len_bytes;
        answer->body = buffer_take(&text);
    }
    buffer_fini(&text);
    return is_there;
}

/* FOLDER/a/b for /a/b, else with one of these ends; the query chooses nothing. */
static void handle_file(struct lm_server *server, const struct server_request *request,
                        struct server_answer *answer)
{
    static const char *const ends[] = {"",       ".json", ".xml",   ".md",
                                       ".jsonl", ".txt",  "/index", NULL};
    char path[PATH_BYTES];
    bool is_safe = strstr(request->path, "..") == NULL && server->folder != NULL;
    for (const char *const *end = ends; is_safe && *end != NULL; end++) {
        snprintf(path, sizeof(path), "%s%s%s", server->folder, request->path, *end);
        if (read_file(path, answer)) {
            answer->content_type = strstr(path, ".xml") != NULL ? "application/atom+xml" : NULL;
            return;
        }
    }
    wire_error(404, "not_found", "no such file", answer);
}

static void handle(void *context, const struct server_request *request,
                   struct server_answer *answer)
{
    static const char chat_path[] = "/chat/completions";
    struct lm_server *server = context;
    size_t length = strlen(request->path);
    bool is_chat = length >= sizeof(chat_path) - 1 &&
                   strcmp(request->path + length - (sizeof(chat_path) - 1), chat_path) == 0;
    if (is_chat) {
        handle_chat(server, request, answer);
    } else {
        handle_file(server, request, answer);
    }
}

/* ---- main ---- */

static int usage(FILE *out)
{
    fprintf(out,
            "Usage: test_lm_server [options]\n"
            "An OpenAI-compatible endpoint on 127.0.0.1, until it is told to end (SIGTERM).\n"
            "  --port-file FILE   the port goes there once it listens\n"
            "  --log FILE         a JSON line for each chat\n"
            "  --replies PATH     folder of <name>.json and <name>.<n>.json, or one file of all\n"
            "  --faults FILE      lines of: when what\n"
            "  --delay S          before each reply\n"
            "  --files FOLDER     what other paths answer\n"
            "  --key-env NAME     variable with the key that a chat must carry\n");
    return out == stdout ? 0 : 2;
}

static int read_options(int argc, char **argv, struct lm_server *server, const char **port_file)
{
    static const struct option options[] = {
        {"port-file", required_argument, NULL, 'p'},
        {"log", required_argument, NULL, 'l'},
        {"replies", required_argument, NULL, 'r'},
        {"faults", required_argument, NULL, 'f'},
        {"delay", required_argument, NULL, 'd'},
        {"files", required_argument, NULL, 's'},
        {"key-env", required_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct error err = {0};
    for (int option = 0; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'p':
            *port_file = optarg;
            break;
        case 'l':
            server->log = fopen(optarg, "a");
            if (server->log == NULL) {
                fprintf(stderr, "test_lm_server: %s: %s\n", optarg, strerror(errno));
                return 1;
            }
            break;
        case 'r':
            server->script.replies = optarg;
            break;
        case 'f':
            if (script_read_faults(&server->script, optarg, &err) != STATUS_OK) {
                fprintf(stderr, "test_lm_server: %s\n", err.message);
                return 1;
            }
            break;
        case 'd':
            server->delay_s = strtod(optarg, NULL);
            break;
        case 's':
            server->folder = optarg;
            break;
        case 'k':
            server->key = getenv(optarg);
            server->key_needed = true;
            break;
        case 'h':
            exit(usage(stdout));
        default:
            return usage(stderr);
        }
    }
    return optind == argc ? 0 : usage(stderr);
}

int main(int argc, char **argv)
{
    struct lm_server *server = mem_calloc(1, sizeof(*server));
    const char *port_file = NULL;
    int code = read_options(argc, argv, server, &port_file);
    if (code != 0) {
        free(server);
        return code;
    }
    server->started_s = clock_monotonic_s();
    /* It does not outlive the script that started it, and its threads take no signals. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    struct server *http = server_start(handle, server);
    char port[16] = "";
    struct error err = {0};
    if (http != NULL) {
        snprintf(port, sizeof(port), "%d\n", server_port(http));
    }
    if (http == NULL ||
        (port_file != NULL && file_write(port_file, port, strlen(port), &err) != STATUS_OK)) {
        fprintf(stderr, "test_lm_server: %s\n", http == NULL ? "no port" : err.message);
        code = 1;
    } else {
        int signal_number = 0;
        sigwait(&signals, &signal_number);
    }
    server_stop(http);
    if (server->log != NULL) {
        fclose(server->log);
    }
    free(server);
    return code;
}
