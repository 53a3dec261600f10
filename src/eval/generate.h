/* Texts from prompts, many at a time: continuous batching over the decoder's slots. */
#ifndef EVAL_GENERATE_H
#define EVAL_GENERATE_H

#include "base/progress.h"
#include "model/decoder.h"
#include "model/model.h"

struct generate_options {
    int64_t max_new_tokens;
    struct sampling sampling;
    const char *const
        *stop;         /* texts that end an output (not part of it), NULL-terminated; may be NULL */
    uint64_t seed;     /* of row r: Philox(seed, stream r), so order and batching do not matter */
    int64_t slots;     /* 0: chosen from memory and the number of prompts */
    bool keep_special; /* keep special tokens in the text; the one that ends it is never part of it
                        */
    const uint64_t *streams; /* (count) random stream of each prompt, where its index will not do;
                                NULL: its index */
};

enum generate_end { GENERATE_STOPPED, GENERATE_LENGTH };

struct generate_output {
    char *text;     /* owned, well-formed UTF-8; a NUL that the model wrote is U+FFFD in it */
    int64_t tokens; /* written by the model, the end token included */
    enum generate_end end;
};

/* prompts: ids[start[i] .. start[i+1]). outputs: `count` entries, zeroed by the caller, freed with
 * free(text). `on_text`, if not NULL, gets each piece of text of output `index` as it comes (for
 * interactive use): whole characters, and never the beginning of what turns out to be a stop text.
 * An output ends with GENERATE_STOPPED at an end token (the config's, the tokenizer's, a chat
 * format's) or a stop text; with GENERATE_LENGTH after max_new_tokens, or when the model has no
 * more positions. Its text does not depend on `slots`, nor on the other prompts, as far as the
 * backend's products give the same bits for one row as for many. Progress: phase "generate", done
 * of count outputs. Errors: STATUS_INVALID for an empty prompt, STATUS_RANGE for one longer than
 * the model's positions (naming its index) or options out of range, STATUS_INTERRUPTED; outputs are
 * then as before. */
enum status generate_run(const struct model *model, const struct network *network,
                         const int32_t *ids, const int64_t *start, int64_t count,
                         const struct generate_options *options,
                         void (*on_text)(void *context, int64_t index, const char *piece),
                         void *context, const struct progress *progress,
                         struct generate_output *outputs, struct error *err);

/* Bytes on the device, beside the weights, for one prompt and its answer of `tokens` together. */
int64_t generate_bytes(const struct network *network, int64_t tokens);

#endif
