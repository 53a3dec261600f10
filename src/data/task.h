/* clang-format off */
/* A task as the job file describes it: its splits, how a row becomes a prompt, how an answer is
 * found and scored.
 *
 * {
 *   "name": "sst2",
 *   "train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl",     test: optional
 *   "extract": {"sentence": {"field": "prompt", "pattern": "Sentence: (.*)"}},
 *                                   new fields by regex group 1; no match: ""
 *   "template": "{sentence} =>",    what the model reads; default "{prompt}"; {field} of the row,
 *                                   {a.b} of an object in it; {{ and }} are braces
 *   "answer": " {answer}",          what it should write; default "{answer}"
 *   "system": "...",                optional system message (chat formats only)
 *   "chat": "auto",                 auto | plain | chatml | qwen3
 *   "thinking": false,              qwen3: let the model think before it answers
 *   "metric": "accuracy",           a name of eval/scorer.h's registry
 *   "predict": "choice",            choice: likelihood of each of the row's choices | generate;
 *                                   default: choice for accuracy, else generate
 *   "labels": ["a", "b"],           default choices of rows that have none; label set of macro_f1
 *   "separator": "; ",              between labels of a multi-label answer
 *   "max_new_tokens": 64, "temperature": 0, "stop": ["\n"],
 *   "command": ["./score.py"], "command_timeout_s": 60,                metric "command" only
 *   "limit": {"train": 0, "validation": 0, "test": 0}                  most rows read, 0: all
 * } */
/* clang-format on */
#ifndef DATA_TASK_H
#define DATA_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/json.h"
#include "data/dataset.h"
#include "model/chat.h"

struct pattern;

enum {
    TASK_FIELDS_MAX = 16,
    TASK_LABELS_MAX = 256,
    TASK_STOPS_MAX = 8,
    TASK_COMMAND_MAX = 32,
    TASK_TURNS_MAX = 1024
};

enum task_split { TASK_TRAIN, TASK_VALIDATION, TASK_TEST, TASK_SPLIT_COUNT };
enum task_predict { TASK_PREDICT_CHOICE, TASK_PREDICT_GENERATE };

struct task_extract {
    char *name;
    char *field;
    char *pattern;            /* PCRE2; group 1 becomes the value; no match leaves it "" */
    struct pattern *compiled; /* of pattern, shared by threads; NULL: compiled at each use */
};

struct task {
    char *name;
    char *path[TASK_SPLIT_COUNT]; /* as the working directory sees them; test may be NULL */
    int64_t limit[TASK_SPLIT_COUNT];
    struct task_extract extract[TASK_FIELDS_MAX];
    int extract_count;
    char *template_text;
    char *answer_template;
    char *system; /* or NULL */
    bool chat_auto;
    enum chat_format chat; /* if not chat_auto */
    bool thinking;
    char *metric;
    enum task_predict predict;
    char *labels[TASK_LABELS_MAX];
    int label_count;
    char *separator;
    int64_t max_new_tokens;
    double temperature;
    char *stop[TASK_STOPS_MAX];
    int stop_count;
    char *command[TASK_COMMAND_MAX + 1]; /* NULL-terminated */
    int command_count;
    double command_timeout_s;
};

/* "train", "validation", "test", NULL */
extern const char *const task_split_names[TASK_SPLIT_COUNT + 1];

/* Reads and checks the "task" object of a job; mistakes go to the problems, paths are resolved
 * against `folder`. Whether the metric exists is checked by the caller (eval/scorer.h). *out is
 * always safe to pass to task_fini. */
enum status task_read(const cJSON *object, const char *pointer, const char *folder,
                      struct json_problems *problems, struct task *out, struct error *err);
void task_fini(struct task *task);

/* Reads one split, applying its limit, and checks every row with task_check_row. */
enum status task_load_split(const struct task *task, enum task_split split, struct dataset *out,
                            struct error *err);

/* STATUS_INVALID, saying what is missing and what is there, if the row lacks what the template
 * needs; what the answer needs (an empty answer is allowed; in the test split none is needed); or,
 * where choices are scored by likelihood outside the training split, if it has no choices or its
 * answer is none of them. */
enum status task_check_row(const struct task *task, enum task_split split,
                           const struct data_row *row, struct error *err);

/* A row as the model sees it. Strings are owned; free with task_example_fini.
 *
 * Choices are the row's "choices", else the task's labels; where "answer" is a capital letter that
 * is none of them but counts them ("C" of four), they are the letters A, B, C, D. */
struct task_example {
    char *prompt;   /* template filled in */
    char *answer;   /* answer template filled in; "" if the row has no answer */
    char **choices; /* answer template filled with each choice, or NULL */
    int choice_count;
    int choice_answer; /* index of the right one, -1 if none matches */
    char *raw_answer;  /* the row's own "answer"; without one, `answer` less space at its ends */
    char *system;      /* the row's "system", else the task's, else NULL */
    /* The messages before the answer of a row in chat form, when the template is the bare
     * "{prompt}"; else NULL, and the prompt is the one user message. Role and content are owned. */
    struct chat_message *turns;
    int turn_count;
};
enum status task_render(const struct task *task, const struct data_row *row,
                        struct task_example *out, struct error *err);
void task_example_fini(struct task_example *example);

/* Only the prompt, or only the answer ("" if there is none), appended to out. */
enum status task_render_prompt(const struct task *task, const struct data_row *row,
                               struct buffer *out, struct error *err);
enum status task_render_answer(const struct task *task, const struct data_row *row,
                               struct buffer *out, struct error *err);

#endif
