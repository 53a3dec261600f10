/* Tokens that are cut out of the text before anything else happens to it: "<|im_end|>", "<think>",
 * "<s>". */
#ifndef MODEL_ADDED_TOKENS_H
#define MODEL_ADDED_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "model/text_slice.h"
#include "model/tokenizer.h"

enum { ADDED_TOKENS_MAX = 1 << 17, ADDED_TOKEN_MAX_BYTES = 256 };

struct added_token {
    const char *text; /* borrowed; what is searched for */
    uint32_t len;
    int32_t id;
    bool special;     /* found only where special tokens are allowed */
    bool left_strip;  /* takes the white space before it */
    bool right_strip; /* takes the white space after it */
    bool single_word; /* not inside a word */
};

/* Sorted by text, so that the tokens with a common beginning lie side by side. */
struct added_tokens {
    struct added_token *items; /* (count), owned */
    int64_t count;
    bool starts[256]; /* first bytes of the texts */
};

/* Sorts items and makes them ready for search. STATUS_FORMAT if two have the same text or one has
 * none. */
enum status added_tokens_prepare(struct added_tokens *tokens, struct error *err);
void added_tokens_fini(struct added_tokens *tokens);

/* Where special tokens are allowed: sorted, disjoint parts of the text. */
struct added_allowed {
    const struct text_range *ranges;
    int64_t count;
};

struct added_match {
    size_t begin; /* in the text, with the white space that the token takes */
    size_t end;
    int32_t id;
};

/* Leftmost match at or after `start`, the longest there. */
bool added_tokens_search(const struct added_tokens *tokens, struct text_slice text, size_t start,
                         struct added_allowed allowed, struct added_match *match);

#endif
