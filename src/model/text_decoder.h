/* From tokens back to text ("decoder" in tokenizer.json). What can be done to each token by itself
 * is done once, when the tokenizer is loaded; decoding then puts the results one after the other.
 */
#ifndef MODEL_TEXT_DECODER_H
#define MODEL_TEXT_DECODER_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/json.h"
#include "model/byte_alphabet.h"
#include "model/normalizer.h"
#include "model/text_index.h"

enum { TEXT_DECODER_REPLACES_MAX = 4 };

struct text_decoder {
    bool byte_level;
    bool byte_fallback; /* "<0x41>" is a byte */
    bool fuse;
    bool drop_first_space; /* Metaspace: U+2581 in the first token is dropped */
    int replace_count;
    struct normalizer_step replaces[TEXT_DECODER_REPLACES_MAX];
    char strip[5]; /* the character that Strip takes off the text's ends, "" if there is no Strip */
    int64_t strip_start;
    int64_t strip_stop;
};

/* Reads "decoder" of tokenizer.json. */
enum status text_decoder_read(struct text_decoder *decoder, const cJSON *node, struct error *err);

/* Appends to out what one token's text stands for. */
enum status text_decoder_token(const struct text_decoder *decoder,
                               const struct byte_alphabet *alphabet, struct text_slice token,
                               struct buffer *out, struct error *err);

/* Byte of a token such as "<0x41>", -1 if it is not of that form or the decoder has no byte
 * fallback. */
int text_decoder_byte(const struct text_decoder *decoder, struct text_slice token);

/* Decodes count ids. texts: tokens as in the file; raws: what text_decoder_token made of them. Ids
 * with a flag of left_out give nothing, as do ids outside the stores. A continuation keeps its
 * first space. */
enum status text_decoder_decode(const struct text_decoder *decoder, const struct text_store *texts,
                                const struct text_store *raws, const uint8_t *flags,
                                unsigned left_out, const int32_t *ids, int64_t count,
                                bool continuation, struct buffer *out, struct error *err);

#endif
