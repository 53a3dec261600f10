#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "eval/generate.h"
#include "run/launch.h"
#include "run/stop.h"
#include "run/weights_file.h"

enum { LINE_MAX_BYTES = 1 << 20, PROMPT_MAX_TOKENS = 1 << 20 };

struct generate_choices {
    const char *weights, *prompt, *system, *backend, *precision, *stop;
    int64_t max_new_tokens, top_k, seed, threads;
    double temperature, top_p;
    bool raw, thinking;
};

/* A model opened for talking to. */
struct speaker {
    const struct generate_choices *choices;
    struct device *device;
    struct model *model;
    struct loaded_network loaded;
    struct network network;
};

static enum status open_speaker(const char *folder, const struct generate_choices *choices,
                                struct speaker *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    out->choices = choices;
    const struct device_options options = {.threads = (int)choices->threads};
    enum dtype dtype = DTYPE_F32;
    if (strcmp(choices->precision, "bf16") == 0) {
        dtype = DTYPE_BF16;
    } else if (strcmp(choices->precision, "f32") != 0) {
        return FAIL(err, STATUS_INVALID, "--precision %s: allowed are f32, bf16",
                    choices->precision);
    }
    if (choices->weights != NULL) { /* trained weights decide their own precision */
        TRY(weights_file_dtype(choices->weights, &dtype, err));
    }
    TRY(device_open(choices->backend, &options, &out->device, err));
    TRY(model_load(folder, out->device, dtype, &out->model, err));
    out->network.config = &out->model->config;
    out->network.weights = &out->model->weights;
    if (choices->weights != NULL) {
        TRY(weights_file_read(choices->weights, out->model, NULL, &out->loaded, err));
        out->network = out->loaded.network;
    }
    return STATUS_OK;
}

static void close_speaker(struct speaker *speaker)
{
    loaded_network_fini(&speaker->loaded);
    model_destroy(speaker->model);
    device_close(speaker->device);
}

static void print_piece(void *context, int64_t index, const char *piece)
{
    (void)context;
    (void)index;
    fputs(piece, stdout);
    fflush(stdout);
}

/* The ids that the model continues: the text as it is (--raw, base models), or a chat turn. */
static enum status encode_turn(const struct speaker *speaker, const char *text,
                               struct token_list *ids, struct error *err)
{
    const struct model *model = speaker->model;
    if (speaker->choices->raw) {
        return tokenizer_encode(model->tokenizer, text, strlen(text), TOKENIZER_ADD_SPECIAL, ids,
                                err);
    }
    struct chat_message messages[2];
    int count = 0;
    if (speaker->choices->system != NULL) {
        messages[count++] = (struct chat_message){"system", speaker->choices->system};
    }
    messages[count++] = (struct chat_message){"user", text};
    return chat_encode(model->tokenizer, model->chat, messages, count, true,
                       speaker->choices->thinking, ids, NULL, err);
}

static enum status stop_on_signal(void *context, const char *phase, int64_t done, int64_t total,
                                  struct error *err)
{
    (void)context;
    (void)phase;
    (void)done;
    (void)total;
    return stop_requested() ? FAIL(err, STATUS_INTERRUPTED, "stopped") : STATUS_OK;
}

static enum status speak(const struct speaker *speaker, const char *text, struct error *err)
{
    const struct generate_choices *choices = speaker->choices;
    const char *const stop[] = {choices->stop, NULL};
    const struct generate_options options = {
        .max_new_tokens = choices->max_new_tokens,
        .sampling = {.temperature = (float)choices->temperature,
                     .top_k = (int32_t)choices->top_k,
                     .top_p = (float)choices->top_p},
        .stop = choices->stop != NULL ? stop : NULL,
        .seed = (uint64_t)choices->seed,
        .slots = 1,
    };
    const struct progress progress = {.tick = stop_on_signal};
    struct generate_output output = {0};
    struct token_list ids;
    token_list_init(&ids, PROMPT_MAX_TOKENS);
    enum status status = encode_turn(speaker, text, &ids, err);
    if (status == STATUS_OK) {
        const int64_t start[2] = {0, ids.count};
        status = generate_run(speaker->model, &speaker->network, ids.ids, start, 1, &options,
                              print_piece, NULL, &progress, &output, err);
        putchar('\n');
    }
    free(output.text);
    token_list_fini(&ids);
    return status;
}

/* One prompt a line until the input ends. */
static enum status converse(const struct speaker *speaker, struct error *err)
{
    bool terminal = isatty(STDIN_FILENO);
    char *line = mem_calloc(LINE_MAX_BYTES, 1);
    if (line == NULL) {
        return FAIL(err, STATUS_NO_MEMORY, "no memory for a line");
    }
    enum status status = STATUS_OK;
    if (terminal) {
        fprintf(stderr, "One prompt a line; Ctrl-D ends.\n");
    }
    while (status == STATUS_OK && !stop_requested()) {
        if (terminal) {
            fputs("> ", stderr);
        }
        if (fgets(line, LINE_MAX_BYTES, stdin) == NULL) {
            break;
        }
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0') {
            status = speak(speaker, line, err);
        }
    }
    free(line);
    return status;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct generate_choices choices = {
        .backend = "auto",
        .precision = "f32",
        .max_new_tokens = 256,
        .top_p = 1.0,
        .seed = 1,
    };
    const struct cli_option options[] = {
        {"weights", CLI_TEXT, &choices.weights},
        {"prompt", CLI_TEXT, &choices.prompt},
        {"system", CLI_TEXT, &choices.system},
        {"backend", CLI_TEXT, &choices.backend},
        {"precision", CLI_TEXT, &choices.precision},
        {"stop", CLI_TEXT, &choices.stop},
        {"max-new-tokens", CLI_INTEGER, &choices.max_new_tokens},
        {"temperature", CLI_NUMBER, &choices.temperature},
        {"top-k", CLI_INTEGER, &choices.top_k},
        {"top-p", CLI_NUMBER, &choices.top_p},
        {"seed", CLI_INTEGER, &choices.seed},
        {"threads", CLI_INTEGER, &choices.threads},
        {"thinking", CLI_FLAG, &choices.thinking},
        {"raw", CLI_FLAG, &choices.raw},
        {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 1, 1, &arguments, &exit_code)) {
        return exit_code;
    }
    struct error err = {0};
    struct speaker speaker;
    stop_install();
    enum status status = STATUS_OK;
    if (choices.max_new_tokens < 1 || choices.temperature < 0.0 || choices.top_p <= 0.0 ||
        choices.top_p > 1.0 || choices.top_k < 0 || choices.top_k > INT32_MAX ||
        choices.threads < 0 || choices.threads > 1024) {
        fprintf(stderr, "trex generate: --max-new-tokens from 1, --temperature from 0, --top-p "
                        "above 0 to 1, --top-k from 0, --threads 0 to 1024\n");
        return CLI_WRONG_INPUT;
    }
    status = open_speaker(arguments[0], &choices, &speaker, &err);
    if (status == STATUS_OK) {
        status = choices.prompt != NULL ? speak(&speaker, choices.prompt, &err)
                                        : converse(&speaker, &err);
    }
    close_speaker(&speaker);
    return status == STATUS_OK ? CLI_DONE : cli_fail(&err, NULL);
}

const struct cli_command cli_generate = {
    .name = "generate",
    .summary = "talk to a model, or continue a text",
    .usage =
        "usage: trex generate MODEL [--prompt TEXT] [options]\n\n"
        "Answers a prompt with a model folder; without --prompt it reads one prompt a line.\n"
        "Text goes to standard output as it is made.\n\n"
        "  --weights FILE        trained weights over the model (runs/my/weights/n0003-c1.h5)\n"
        "  --raw                 continue the text as it is, without a chat template\n"
        "  --system TEXT         system message\n"
        "  --thinking            let a Qwen3 model think before it answers\n"
        "  --max-new-tokens N    at most N tokens (256)\n"
        "  --temperature X       0 (greedy, the default) or more\n"
        "  --top-k N, --top-p X  sample among the best only\n"
        "  --stop TEXT           end at this text\n"
        "  --seed N              of the sampling (1)\n"
        "  --precision P         f32 (default) or bf16\n"
        "  --backend B           auto (default), cpu, cuda\n"
        "  --threads N           CPU threads (all)\n\n"
        "example: trex generate models/stories260K --raw --prompt \"Once upon a time\"\n",
    .run = run,
};
