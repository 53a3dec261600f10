/* Rows by a program that a language model, or a person, wrote: it reads the rows as JSON Lines and
 * prints others.
 *
 * It runs in a process and an empty folder of its own, shut in by `trex confine` (base/confine.h):
 * no network, no other files, no signals, limits on time, memory and output. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/process.h"
#include "data/operators.h"

enum { PROGRAM_MAX_BYTES = 64 << 10, SECONDS_MAX = 300 };
static const size_t output_max_bytes = (size_t)512 << 20;

void operator_code_check(struct json_reader *args)
{
    json_require(args, "program", "the text of a Python program");
    const char *program = json_read_string(args, "program", "");
    if (strlen(program) > PROGRAM_MAX_BYTES) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(args, "program", pointer);
        json_problems_add(args->problems, pointer, "longer than %d bytes", PROGRAM_MAX_BYTES);
    }
}

struct exchange {
    const struct row_list *in;
    struct row_list *out;
    int64_t sent;
    char *line; /* that is being sent */
    size_t received_bytes;
    int64_t received;
};

static enum status next_row(void *context, const char **data, size_t *len_bytes, struct error *err)
{
    struct exchange *exchange = context;
    free(exchange->line);
    exchange->line = NULL;
    if (exchange->sent == exchange->in->count) {
        *len_bytes = 0;
        return STATUS_OK;
    }
    char *json = cJSON_PrintUnformatted(exchange->in->rows[exchange->sent++]->row.object);
    size_t length = json != NULL ? strlen(json) : 0;
    exchange->line = json != NULL ? mem_calloc(length + 2, 1) : NULL;
    if (exchange->line != NULL) {
        memcpy(exchange->line, json, length);
        exchange->line[length++] = '\n';
    }
    cJSON_free(json);
    *data = exchange->line;
    *len_bytes = length;
    return exchange->line != NULL ? STATUS_OK : mem_fail(err, length, "a row for a program");
}

static enum status take_row(void *context, const char *text, size_t len_bytes, struct error *err)
{
    struct exchange *exchange = context;
    exchange->received_bytes += len_bytes;
    if (exchange->received_bytes > output_max_bytes || exchange->out->count == ROW_LIST_MAX) {
        return FAIL(err, STATUS_LIMIT, "the program printed more than %d rows or 512 MiB",
                    ROW_LIST_MAX);
    }
    char source[64];
    snprintf(source, sizeof(source), "line %lld of the program's output",
             (long long)++exchange->received);
    cJSON *row = NULL;
    TRY(json_parse(text, len_bytes, source, &row, err));
    if (!cJSON_IsObject(row)) {
        cJSON_Delete(row);
        return FAIL(err, STATUS_FORMAT, "%s: allowed is a JSON object, a row", source);
    }
    return row_list_add(exchange->out, row, false, "code", exchange->received, err);
}

static enum status converse(const struct operator_run *run, const char *folder, struct row_list *in,
                            struct row_list *out, struct error *err)
{
    char seconds[16];
    snprintf(seconds, sizeof(seconds), "%d", SECONDS_MAX);
    /* Sets have the same order on every run, and nothing is read from a user's own folders. */
    const char *argv[] = {
        run->context->confine, "confine", "--folder", folder, "--seconds",  seconds, "--", "env",
        "PYTHONHASHSEED=0",    "python3", "-s",       "-B",   "program.py", NULL};
    struct exchange exchange = {.in = in, .out = out};
    const struct process_io io = {next_row, take_row, &exchange};
    enum status status = process_run((char *const *)argv, SECONDS_MAX, &io, err);
    free(exchange.line);
    if (status != STATUS_OK) {
        error_context(err, "code");
    }
    return status;
}

/* A folder of its own, in TMPDIR. */
static enum status make_folder(char *folder, size_t size, struct error *err)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, size, "%s/trex-code-XXXXXX", base != NULL && base[0] == '/' ? base : "/tmp");
    return mkdtemp(folder) != NULL ? STATUS_OK
                                   : FAIL_ERRNO(err, "cannot make the folder %s", folder);
}

enum status operator_code_run(struct operator_run *run, struct json_reader *args,
                              struct row_list *rows, struct error *err)
{
    const char *program = json_read_string(args, "program", "");
    char folder[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    struct row_list out;
    if (run->context->confine == NULL) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "code is off; \"researcher\": {\"code\": true} in the job allows it");
    }
    TRY(make_folder(folder, sizeof(folder), err));
    row_list_init(&out);
    enum status status = STATUS_OK;
    TRY_CLEANUP(file_join(folder, "program.py", path, err));
    TRY_CLEANUP(file_write(path, program, strlen(program), err));
    TRY_CLEANUP(converse(run, folder, rows, &out, err));
    operator_note(run, "%lld rows in, %lld out", (long long)rows->count, (long long)out.count);
    struct row_list old = *rows;
    *rows = out;
    out = old;
cleanup:
    row_list_fini(&out);
    file_remove_folder(folder);
    return status;
}
