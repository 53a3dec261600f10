/* The parts of a tokenizer, shared by the files that load it and use it. */
#ifndef MODEL_TOKENIZER_INTERNAL_H
#define MODEL_TOKENIZER_INTERNAL_H

#include "model/added_tokens.h"
#include "model/bpe.h"
#include "model/normalizer.h"
#include "model/splitter.h"
#include "model/text_decoder.h"
#include "model/text_index.h"
#include "model/tokenizer.h"

/* Flags of an id. */
enum { TOKEN_IN_MODEL = 1, TOKEN_SPECIAL = 2, TOKEN_ABSENT = 4 };

struct tokenizer {
    struct text_store texts;       /* tokens as the file writes them */
    struct text_store raws;        /* what each stands for in decoded text */
    struct text_index vocabulary;  /* of texts, without tokens that were only added */
    struct text_index added_names; /* of texts, those that were only added */
    uint8_t *flags;                /* (texts.id_count) */
    struct bpe bpe;
    struct normalizer normalizer;
    struct splitter splitter;
    struct text_decoder decoder;
    struct added_tokens added;            /* found in the text as it comes */
    struct added_tokens added_normalized; /* found in the normalized text */
    struct buffer added_texts;            /* normalized texts of the latter */
    int32_t bos_id;                       /* -1: none */
    int32_t eos_id;
    int32_t first_id; /* put before a text with TOKENIZER_ADD_SPECIAL, -1: nothing */
    int32_t last_id;  /* put behind it */
};

/* Id of a token's text, in the vocabulary or added; -1 if there is none. */
int32_t tokenizer_find_text(const struct tokenizer *tokenizer, const char *text, size_t len_bytes);

#endif
