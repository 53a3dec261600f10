/* Text to token ids and back, from a Hugging Face tokenizer.json.
 *
 *   text -> cut out added tokens -> normalize (NFC, prepend, replace) -> split (regex, bytes)
 *        -> merge by rank (byte-level BPE, or SentencePiece-style BPE with byte fallback) -> ids
 *
 * Supported: model type BPE with normalizers NFC (NFD, NFKC, NFKD), Prepend, Replace, Sequence;
 * pre-tokenizers Split, ByteLevel, Metaspace, Digits, Sequence; decoders of the same;
 * post-processors only as bos/eos. Anything else is refused by name. */
#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/status.h"

struct tokenizer; /* opaque; immutable after loading, so threads may share it */

/* Reads <folder>/tokenizer.json and, if there, tokenizer_config.json (bos, eos,
 * add_bos_token, add_eos_token). */
enum status tokenizer_load(const char *folder, struct tokenizer **out, struct error *err);
void tokenizer_destroy(struct tokenizer *tokenizer);

enum { TOKENIZER_TEXT_MAX_BYTES = 64 * 1024 * 1024 };

/* A growing array of ids with a cap, owned by the caller. */
struct token_list {
    int32_t *ids;
    int64_t count;
    int64_t capacity;
    int64_t max_count;
};
void token_list_init(struct token_list *list, int64_t max_count);
void token_list_fini(struct token_list *list);
enum status token_list_append(struct token_list *list, const int32_t *ids, int64_t count,
                              struct error *err);

enum {
    /* Put bos (and eos) where tokenizer_config.json says so. */
    TOKENIZER_ADD_SPECIAL = 1,
    /* Text such as "<|im_end|>" becomes its special token; else it is plain text. Added tokens that
     * are not special ("<think>" of Qwen3) are found in any case. */
    TOKENIZER_PARSE_SPECIAL = 2,
    /* The text goes on from text that was encoded before: no dummy prefix (SentencePiece). */
    TOKENIZER_CONTINUE = 4,
    /* The text goes on after a special token that was put there by its id. */
    TOKENIZER_AFTER_TOKEN = 8,
};

/* Appends the ids of text to list, which is unchanged on failure. STATUS_FORMAT if it is not UTF-8,
 * STATUS_LIMIT over the list's cap, TOKENIZER_TEXT_MAX_BYTES, or what a pattern may backtrack. Near
 * linear in the length, also for long runs of one character. */
enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t len_bytes,
                             int flags, struct token_list *list, struct error *err);

/* A part of a text, in bytes: [begin, end). */
struct text_range {
    size_t begin;
    size_t end;
};

/* The same with special tokens found only inside the given ranges, which are sorted and do not
 * overlap: for text of which only some parts can be trusted. TOKENIZER_PARSE_SPECIAL is ignored. */
enum status tokenizer_encode_ranges(const struct tokenizer *tokenizer, const char *text,
                                    size_t len_bytes, int flags, const struct text_range *ranges,
                                    int64_t range_count, struct token_list *list,
                                    struct error *err);

/* Appends the text of ids to out; special tokens are left out if skip_special. Invalid UTF-8
 * becomes U+FFFD. */
enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, int64_t count,
                             bool skip_special, struct buffer *out, struct error *err);

/* The same for ids that go on from earlier ones, such as a model's continuation: a leading space is
 * kept. */
enum status tokenizer_decode_continuation(const struct tokenizer *tokenizer, const int32_t *ids,
                                          int64_t count, bool skip_special, struct buffer *out,
                                          struct error *err);

int64_t tokenizer_vocab_size(const struct tokenizer *tokenizer); /* largest id + 1 */
int32_t tokenizer_bos(const struct tokenizer *tokenizer);        /* -1 if there is none */
int32_t tokenizer_eos(const struct tokenizer *tokenizer);
bool tokenizer_adds_bos(const struct tokenizer *tokenizer);

/* Id of a token's text as tokenizer.json writes it; -1 if there is none. */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *token);

#endif
