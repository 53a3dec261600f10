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

#include <cjson/cJSON.h>

#include "base/buffer.h"
#include "base/status.h"

struct prompt {
    const char *name;   /* "plan" */
    const char *text;   /* of the .md */
    const char *schema; /* of the .json */
};
const struct prompt *prompt_list(void); /* name NULL at the end */
const struct prompt *prompt_find(const char *name);

/* "prompts" event for the journal, if the search has others or none; NULL in *event if it has
 * these. */
struct search;
enum status prompt_record(const struct search *search, cJSON **event, struct error *err);

struct prompt_value {
    const char *name;
    const char *text;
    bool foreign; /* quoted as data */
    int trim; /* parts with the highest number are cut first where the budget is short; 0: never cut
               */
};

/* The body of a chat call (messages, schema, schema_name) within max_tokens (net/lm.h's estimate).
 * Values are cut at a line, highest `trim` first, and say that they were. STATUS_LIMIT if what may
 * not be cut is too long; STATUS_INTERNAL for a place without a value. */
enum status prompt_fill(const struct prompt *prompt, const struct prompt_value *values, int count,
                        int64_t max_tokens, cJSON **body, struct error *err);

#endif
