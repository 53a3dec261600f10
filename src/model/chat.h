/* Messages to the text a chat model was trained on. The templates that are known are written in C; the Jinja text in
 * tokenizer_config.json only tells which one it is. */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/status.h"

enum chat_format {
    CHAT_PLAIN,  /* contents one after the other, nothing in between: base models */
    CHAT_CHATML, /* <|im_start|>role\ncontent<|im_end|>\n */
    CHAT_QWEN3,  /* ChatML with Qwen3's thinking block */
    CHAT_FORMAT_COUNT
};

const char *chat_format_name(enum chat_format format);

/* From <folder>/tokenizer_config.json (or chat_template.jinja): CHAT_PLAIN if there is no template. STATUS_UNSUPPORTED
 * for a template that is none of the above; the message says to set task.chat in the job. */
enum status chat_format_detect(const char *folder, enum chat_format *out, struct error *err);

struct chat_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *content;
};

/* Appends the text of messages to out. With add_generation_prompt it ends where the assistant's answer begins;
 * enable_thinking false puts Qwen3's empty thinking block there. */
enum status chat_render(enum chat_format format, const struct chat_message *messages, int64_t count,
                        bool add_generation_prompt, bool enable_thinking, struct buffer *out, struct error *err);

/* The token whose appearance ends an answer ("<|im_end|>"), or NULL for CHAT_PLAIN (the tokenizer's eos). */
const char *chat_end_token(enum chat_format format);

#endif
