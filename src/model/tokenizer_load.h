/* Reading tokenizer.json and tokenizer_config.json, in the order in which the parts need each
 * other: pre-tokenizer and decoder, texts of all ids, merges, normalizer, added tokens, bos and
 * eos. */
#ifndef MODEL_TOKENIZER_LOAD_H
#define MODEL_TOKENIZER_LOAD_H

#include "base/json.h"
#include "model/byte_alphabet.h"
#include "model/tokenizer_internal.h"

struct tokenizer_source {
    const cJSON *root;   /* tokenizer.json */
    const cJSON *config; /* tokenizer_config.json, or NULL */
    struct byte_alphabet alphabet;
};

/* An id, or -1 if the value is not a whole number from 0 to BPE_VOCAB_MAX - 1. */
int32_t tokenizer_read_id(const cJSON *value);

/* Fills texts, raws, flags, vocabulary and added_names from the vocabulary and the added tokens. */
enum status tokenizer_load_texts(struct tokenizer *tokenizer, const struct tokenizer_source *source,
                                 struct error *err);

/* Fills bpe, and adds word starts to the splitter where they change nothing. Needs the texts. */
enum status tokenizer_load_merges(struct tokenizer *tokenizer,
                                  const struct tokenizer_source *source, struct error *err);

/* Fills added and added_normalized. Needs the texts and the normalizer. */
enum status tokenizer_load_added(struct tokenizer *tokenizer, const struct tokenizer_source *source,
                                 struct error *err);

/* Calls visit for each added token: those of tokenizer.json, then those that only
 * tokenizer_config.json has. The item has "content" and flags; the id is checked. */
typedef enum status (*tokenizer_visit_added)(void *context, int32_t id, const cJSON *item,
                                             bool from_config, struct error *err);
enum status tokenizer_each_added(const struct tokenizer_source *source, tokenizer_visit_added visit,
                                 void *context, struct error *err);

#endif
