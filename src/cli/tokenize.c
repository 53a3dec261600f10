#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"
#include "model/tokenizer.h"

enum { INPUT_MAX_BYTES = 1 << 30 };

static enum status read_input(const char *given, struct buffer *out, struct error *err)
{
    if (strcmp(given, "-") != 0) {
        buffer_append_text(out, given);
        return buffer_check(out, "the text", err);
    }
    char block[65536];
    size_t got = 0;
    while ((got = fread(block, 1, sizeof(block), stdin)) > 0) {
        buffer_append(out, block, got);
    }
    return buffer_check(out, "standard input", err);
}

static enum status print_tokens(const struct tokenizer *tokenizer, const struct token_list *list,
                                bool ids_only, struct error *err)
{
    for (int64_t i = 0; i < list->count; i++) {
        if (ids_only) {
            printf("%s%d", i > 0 ? " " : "", list->ids[i]);
            continue;
        }
        struct buffer piece;
        buffer_init(&piece, 1 << 16);
        enum status status = tokenizer_decode(tokenizer, &list->ids[i], 1, false, &piece, err);
        cJSON *text = cJSON_CreateString(buffer_text(&piece));
        char *quoted = cJSON_PrintUnformatted(text);
        printf("%8d  %s\n", list->ids[i], quoted != NULL ? quoted : "?");
        cJSON_free(quoted);
        cJSON_Delete(text);
        buffer_fini(&piece);
        TRY(status);
    }
    if (ids_only) {
        putchar('\n');
    }
    return STATUS_OK;
}

static enum status parse_ids(const char *text, struct token_list *list, struct error *err)
{
    while (*text != '\0') {
        char *end = NULL;
        long value = strtol(text, &end, 10);
        if (end == text) {
            if (strchr(" ,\n\t[]", *text) == NULL) {
                return FAIL(err, STATUS_FORMAT, "\"%.20s\" is no token id", text);
            }
            text++;
            continue;
        }
        int32_t id = (int32_t)value;
        if (value < 0 || value > INT32_MAX) {
            return FAIL(err, STATUS_RANGE, "%ld is no token id", value);
        }
        TRY(token_list_append(list, &id, 1, err));
        text = end;
    }
    return STATUS_OK;
}

static enum status tokenize(const char *folder, const char *given, bool ids_only, bool decode,
                            bool special, struct error *err)
{
    struct tokenizer *tokenizer = NULL;
    struct buffer text;
    struct buffer decoded;
    struct token_list list;
    buffer_init(&text, INPUT_MAX_BYTES);
    buffer_init(&decoded, INPUT_MAX_BYTES);
    token_list_init(&list, INPUT_MAX_BYTES);
    enum status status = STATUS_OK;
    TRY_CLEANUP(tokenizer_load(folder, &tokenizer, err));
    TRY_CLEANUP(read_input(given, &text, err));
    if (decode) {
        TRY_CLEANUP(parse_ids(buffer_text(&text), &list, err));
        TRY_CLEANUP(tokenizer_decode(tokenizer, list.ids, list.count, false, &decoded, err));
        puts(buffer_text(&decoded));
    } else {
        int flags = special ? TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL : 0;
        TRY_CLEANUP(
            tokenizer_encode(tokenizer, buffer_text(&text), text.len_bytes, flags, &list, err));
        TRY_CLEANUP(print_tokens(tokenizer, &list, ids_only, err));
    }
cleanup:
    token_list_fini(&list);
    buffer_fini(&decoded);
    buffer_fini(&text);
    tokenizer_destroy(tokenizer);
    return status;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    bool ids_only = false;
    bool decode = false;
    bool special = false;
    const struct cli_option options[] = {
        {"ids", CLI_FLAG, &ids_only},
        {"decode", CLI_FLAG, &decode},
        {"special", CLI_FLAG, &special},
        {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 2, 2, &arguments, &exit_code)) {
        return exit_code;
    }
    struct error err = {0};
    enum status status = tokenize(arguments[0], arguments[1], ids_only, decode, special, &err);
    return status == STATUS_OK ? CLI_DONE : cli_fail(&err, NULL);
}

const struct cli_command cli_tokenize = {
    .name = "tokenize",
    .summary = "text to token ids and back",
    .usage =
        "usage: trex tokenize MODEL TEXT|- [--ids] [--special]\n"
        "       trex tokenize MODEL --decode \"IDS\"|-\n\n"
        "Shows how the tokenizer of a model folder cuts a text (- reads standard input).\n\n"
        "  --ids       ids alone, on one line\n"
        "  --special   text such as <|im_end|> becomes its token; bos is added where the model\n"
        "              wants it\n"
        "  --decode    the argument is ids; prints their text\n\n"
        "example: trex tokenize models/Qwen3-1.7B \"Hello world\"\n",
    .run = run,
};
