/* Cuts normalized text into the pieces that are encoded each by itself ("pre-tokenizer" in
 * tokenizer.json).
 *
 *   text -> stage 0 -> pieces -> stage 1 -> smaller pieces -> ... -> emit(piece)
 *
 * depth first, from left to right.
 */
#ifndef MODEL_SPLITTER_H
#define MODEL_SPLITTER_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/json.h"
#include "model/split_regex.h"
#include "model/text_slice.h"

enum { SPLITTER_STAGES_MAX = 8 };

enum splitter_kind {
    SPLITTER_REGEX,      /* matches and what lies between them are pieces */
    SPLITTER_BYTE_SPACE, /* puts a space before a piece that begins without one */
    SPLITTER_METASPACE,  /* spaces become U+2581, one is put in front, a piece begins at each */
    SPLITTER_WORD_STARTS /* a piece begins at each U+2581 that follows another character */
};

enum splitter_prefix { SPLITTER_PREFIX_ALWAYS, SPLITTER_PREFIX_FIRST, SPLITTER_PREFIX_NEVER };

/* Where a piece stands: only some places get a prefix. */
enum splitter_place { SPLITTER_TEXT_START, SPLITTER_INSIDE, SPLITTER_CONTINUED };

struct splitter_stage {
    enum splitter_kind kind;
    struct split_regex regex;
    bool drop_matches; /* behaviour "Removed" */
    bool drop_between; /* "Removed" with "invert" */
    enum splitter_prefix prefix;
    bool cut; /* Metaspace "split" */
};

struct splitter {
    int stage_count;
    bool byte_level; /* pieces are encoded as bytes */
    struct splitter_stage stages[SPLITTER_STAGES_MAX];
};

typedef enum status (*splitter_emit)(void *context, struct text_slice piece, struct error *err);

/* Memory of one call, and where the pieces go. */
struct splitter_run {
    const struct splitter *splitter;
    pcre2_match_data *match_data; /* NULL if no stage needs it */
    struct buffer copies[SPLITTER_STAGES_MAX];
    splitter_emit emit;
    void *context;
};
enum status splitter_run_init(struct splitter_run *run, const struct splitter *splitter,
                              splitter_emit emit, void *context, struct error *err);
void splitter_run_fini(struct splitter_run *run);

/* Reads "pre_tokenizer" of tokenizer.json; NULL or JSON null: none. */
enum status splitter_read(struct splitter *splitter, const cJSON *node, struct error *err);
void splitter_fini(struct splitter *splitter);

/* Adds a last stage that begins a piece at each U+2581. For vocabularies in which no token has a
 * U+2581 after another character: the ids are the same, and words can be looked up whole. */
void splitter_add_word_starts(struct splitter *splitter);

enum status splitter_split(struct splitter_run *run, struct text_slice text,
                           enum splitter_place place, struct error *err);

#endif
