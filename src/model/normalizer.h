/* Changes to text before it is split: Unicode normal forms, a prefix, replaced strings. */
#ifndef MODEL_NORMALIZER_H
#define MODEL_NORMALIZER_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/json.h"
#include "model/text_slice.h"
#include "model/unicode_form.h"

enum {
    NORMALIZER_STEPS_MAX = 8,
    NORMALIZER_TEXT_MAX_BYTES = 63, /* of a prefix, pattern or replacement */
    NORMALIZER_OUT_MAX_BYTES = 1024 * 1024 * 1024
};

/* The first four are in the order of enum unicode_form. */
enum normalizer_kind {
    NORMALIZER_NFC,
    NORMALIZER_NFD,
    NORMALIZER_NFKC,
    NORMALIZER_NFKD,
    NORMALIZER_PREPEND,
    NORMALIZER_REPLACE
};

struct normalizer_step {
    enum normalizer_kind kind;
    char pattern[NORMALIZER_TEXT_MAX_BYTES + 1]; /* Replace: what is replaced */
    char content[NORMALIZER_TEXT_MAX_BYTES + 1]; /* Replace: by what; Prepend: the prefix */
};

struct normalizer {
    int step_count;
    struct normalizer_step steps[NORMALIZER_STEPS_MAX];
};

/* Two buffers that the steps write to in turn. */
struct normalizer_scratch {
    struct buffer buffers[2];
    struct unicode_scratch unicode;
};
void normalizer_scratch_init(struct normalizer_scratch *scratch);
void normalizer_scratch_fini(struct normalizer_scratch *scratch);

/* Reads "normalizer" of tokenizer.json; NULL or JSON null: none. */
enum status normalizer_read(struct normalizer *normalizer, const cJSON *node, struct error *err);

/* Reads {"type": "Replace", "pattern": {"String": ...}, "content": ...}, which decoders have too.
 */
enum status normalizer_read_replace(struct normalizer_step *step, const cJSON *node,
                                    struct error *err);

/* Copies a short string of a JSON object; STATUS_FORMAT if it is missing, STATUS_LIMIT if it is too
 * long. */
enum status normalizer_read_text(const cJSON *node, const char *key,
                                 char out[NORMALIZER_TEXT_MAX_BYTES + 1], struct error *err);

/* Appends text to out with each occurrence of step's pattern replaced. out->max_bytes must be
 * SIZE_MAX / 2, so that a failed append means no memory; STATUS_LIMIT over
 * NORMALIZER_OUT_MAX_BYTES. */
enum status normalizer_replace(const struct normalizer_step *step, struct text_slice text,
                               struct buffer *out, struct error *err);

/* *out is text itself or lies in scratch, valid until the next call with it. with_prefix false
 * leaves Prepend out. */
enum status normalizer_apply(const struct normalizer *normalizer, struct text_slice text,
                             bool with_prefix, struct normalizer_scratch *scratch,
                             struct text_slice *out, struct error *err);

#endif
