/* Messages to the text a chat model was trained on. The templates that are known are written in C;
 * the Jinja text in tokenizer_config.json only tells which one it is. */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/status.h"
#include "model/tokenizer.h"

enum chat_format {
    CHAT_PLAIN,  /* contents one after the other, nothing in between: base models */
    CHAT_CHATML, /* <|im_start|>role\ncontent<|im_end|>\n */
    CHAT_QWEN3,  /* ChatML with Qwen3's thinking block */
    CHAT_FORMAT_COUNT
};

const char *chat_format_name(enum chat_format format);

/* From <folder>/tokenizer_config.json (or chat_template.jinja): CHAT_PLAIN if there is no template.
 * STATUS_UNSUPPORTED for a template that is none of the above; the message says to set task.chat in
 * the job. */
enum status chat_format_detect(const char *folder, enum chat_format *out, struct error *err);

struct chat_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *content;
};

/* Appends the text of messages to out. With add_generation_prompt it ends where the assistant's
 * answer begins; enable_thinking false puts Qwen3's empty thinking block there. */
enum status chat_render(enum chat_format format, const struct chat_message *messages, int64_t count,
                        bool add_generation_prompt, bool enable_thinking, struct buffer *out,
                        struct error *err);

/* Appends the ids of messages to ids. answer_mask may be NULL; else it gets as many entries: 1 for
 * each id that an assistant's turn wrote (its content and its end token), 0 for all others.
 *
 * Equal to encoding chat_render's text, with three differences, each for a reason:
 *   - Contents come from data: text in them such as "<|im_end|>" stays plain text. The special
 *     tokens are the template's.
 *   - An answer's ids begin where its prompt's end, whatever the answer begins with. So the ids
 *     with add_generation_prompt are a prefix of the ids with the answer, for the same
 *     enable_thinking (if that is false: for an answer without reasoning of its own). With
 *     enable_thinking, Qwen3's thinking block belongs to the answer.
 *   - CHAT_PLAIN begins with bos if the tokenizer adds it, and puts eos, if there is one, behind
 *     each answer.
 * Errors: STATUS_INVALID for no messages or a NULL, STATUS_UNSUPPORTED for a role that is not one
 * of the three or a tokenizer without the template's tokens, STATUS_FORMAT for invalid UTF-8,
 * STATUS_LIMIT; the lists are then as before. */
enum status chat_encode(const struct tokenizer *tokenizer, enum chat_format format,
                        const struct chat_message *messages, int64_t count,
                        bool add_generation_prompt, bool enable_thinking, struct token_list *ids,
                        struct token_list *answer_mask, struct error *err);

/* The token whose appearance ends an answer ("<|im_end|>"), or NULL for CHAT_PLAIN (the tokenizer's
 * eos). */
const char *chat_end_token(enum chat_format format);

#endif
