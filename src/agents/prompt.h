/* Prompts: files in prompts/, built into the program, filled with what a call is about.
 *
 * prompts/<name>.md has a head (--- lines: what it is for, what it must return) and a text with
 * {{name}} places; the part before a line "## User" is the system message. prompts/<name>.json is
 * the JSON Schema of the reply. Both are built in by CMake, and written into the run file with
 * their hashes (search->prompts).
 *
 * Texts of strangers (papers, cards, rows, outputs of models) go in as data: fenced, each line
 * marked, so that nothing in them can end the fence; the system message of every prompt says that
 * nothing in there is an instruction. */
#ifndef AGENTS_PROMPT_H
#define AGENTS_PROMPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/buffer.h"
#include "base/status.h"

struct prompt {
    const char *name;   /* "plan" */
    const char *text;   /* of the .md */
    const char *schema; /* of the .json; NULL: the prompt is used with another one's ("repair") */
};
extern const struct prompt prompt_texts[]; /* made of the files when the program is built */
const struct prompt *prompt_list(void);    /* name NULL at the end */
const struct prompt *prompt_find(const char *name);

/* The value of a key in the head ("purpose", "returns") in *length bytes; NULL if there is none. */
const char *prompt_head(const struct prompt *prompt, const char *key, size_t *length);

/* "prompts" event for the journal ("plan.md", "plan.json", ...), if the search has others or none;
 * NULL in *event if it has these. */
struct search;
enum status prompt_record(const struct search *search, cJSON **event, struct error *err);

/* How the system message of a prompt begins to say what the reply has to fit. */
#define PROMPT_ASKS "\n\nReply with one JSON object that fits this JSON Schema"

struct prompt_value {
    const char *name;
    const char *text; /* "": says that there is nothing */
    bool foreign;     /* quoted as data */
    int trim; /* parts with the highest number are cut first where the budget is short; 0: never cut
               */
};

/* The body of a chat call (messages, schema, schema_name) within max_tokens (net/lm.h's estimate).
 * The schema, which not every endpoint is given in its own way, stands at the end of the system
 * message. Values are cut at the end of a line, highest `trim` first, and say that they were; those
 * without a place are left out. STATUS_LIMIT if what may not be cut is too long; STATUS_INTERNAL
 * for a place without a value, or a schema that is none. */
enum status prompt_fill(const struct prompt *prompt, const struct prompt_value *values, int count,
                        int64_t max_tokens, cJSON **body, struct error *err);

/* About so many tokens have the messages of a body. */
int64_t prompt_tokens(const cJSON *body);

#endif
