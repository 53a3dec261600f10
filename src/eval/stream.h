/* The text of one sequence as its tokens come: whole characters only, and nothing of a stop text.
 *
 *   tokens so far   [Hel][lo][ \xE4][\xBD]         a character can be spread over tokens, and so
 * can a stop text text            H e l l o _                    whole characters released        H
 * e l l                        held back: "o_" may be the beginning of the stop text "o Bob" */
#ifndef EVAL_STREAM_H
#define EVAL_STREAM_H

#include "model/tokenizer.h"

enum { STREAM_PENDING_MAX = 16, STREAM_TEXT_MAX_BYTES = 64 << 20 };

struct stream {
    const struct tokenizer *tokenizer; /* borrowed, as are the stop texts */
    const char *const *stop;           /* NULL-terminated, or NULL */
    bool keep_special;
    bool at_start; /* nothing but special tokens before: a leading space is no text */
    int32_t pending[STREAM_PENDING_MAX]; /* tokens that end inside a character */
    int pending_count;
    struct buffer text;    /* without NULs; cut before a stop text once one was found */
    struct buffer scratch; /* one decoded piece */
    size_t released_bytes; /* of text, handed out by stream_release */
    bool stopped;          /* a stop text was found */
};

/* A stream that goes on from a prompt. Empty stop texts are ignored. */
enum status stream_init(struct stream *stream, const struct tokenizer *tokenizer,
                        const int32_t *prompt, int64_t prompt_count, const char *const *stop,
                        bool keep_special, struct error *err);
void stream_fini(struct stream *stream);

/* Adds a token. Afterwards `stopped` says whether the output has ended. STATUS_LIMIT beyond
 * STREAM_TEXT_MAX_BYTES. */
enum status stream_push(struct stream *stream, int32_t token, struct error *err);

/* No more tokens: a character that stayed incomplete becomes U+FFFD, and everything may be
 * released. */
enum status stream_finish(struct stream *stream, struct error *err);

/* The text that is certain by now and was not yet handed out, into the empty `piece`; `finished`:
 * nothing is held back. */
void stream_release(struct stream *stream, bool finished, struct buffer *piece);

#endif
