/* Unicode normal forms of valid UTF-8, in time linear in the length whatever the text (utf8proc has
 * the tables, but sorts long runs of combining marks in quadratic time). */
#ifndef MODEL_UNICODE_FORM_H
#define MODEL_UNICODE_FORM_H

#include "base/buffer.h"
#include "base/status.h"
#include "model/text_slice.h"

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };

/* Memory for code points, kept from one call to the next. Zero-initialise; points is freed with
 * free(). */
struct unicode_scratch {
    int32_t *points;
    int32_t *sorted;
    size_t points_capacity;
    size_t sorted_capacity;
};
void unicode_scratch_fini(struct unicode_scratch *scratch);

/* Bytes at the start of text that are in the form already, whatever comes after; text.len_bytes for
 * most text. */
size_t unicode_form_inert(struct text_slice text, enum unicode_form form);

/* Appends text in the given form to out, whose max_bytes is never reached for want of room but of
 * memory. */
enum status unicode_form_append(struct text_slice text, enum unicode_form form,
                                struct unicode_scratch *scratch, struct buffer *out,
                                struct error *err);

#endif
