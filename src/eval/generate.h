/* Texts from prompts, many at a time: continuous batching over the decoder's slots. */
#ifndef EVAL_GENERATE_H
#define EVAL_GENERATE_H

#include "base/progress.h"
#include "model/decoder.h"
#include "model/model.h"

struct generate_options {
    int64_t max_new_tokens;
    struct sampling sampling;
    const char *const *stop; /* texts that end an output (not part of it), NULL-terminated; may be NULL */
    uint64_t seed;           /* of row r: Philox(seed, stream r), so order and batching do not matter */
    int64_t slots;           /* 0: chosen from memory and the number of prompts */
    bool keep_special;       /* keep special tokens in the text */
};

enum generate_end { GENERATE_STOPPED, GENERATE_LENGTH };

struct generate_output {
    char *text; /* owned, UTF-8 */
    int64_t tokens;
    enum generate_end end;
};

/* prompts: ids[start[i] .. start[i+1]). outputs: `count` entries, zeroed by the caller, freed with free(text).
 * `on_text`, if not NULL, gets each piece of text of output `index` as it comes (for interactive use). */
enum status generate_run(const struct model *model, const struct network *network, const int32_t *ids,
                         const int64_t *start, int64_t count, const struct generate_options *options,
                         void (*on_text)(void *context, int64_t index, const char *piece), void *context,
                         const struct progress *progress, struct generate_output *outputs, struct error *err);

#endif
