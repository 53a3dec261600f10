/* The body of an answer while it comes: server-sent events, or one JSON value from an endpoint that
 * does not stream. Whatever bytes come, nothing here grows past a limit. */
#ifndef NET_LM_STREAM_H
#define NET_LM_STREAM_H

#include <stdbool.h>

#include "base/buffer.h"
#include "net/lm_provider.h"

enum { LM_EVENT_MAX_BYTES = 8 << 20 /* a whole reply of LM_REPLY_MAX_BYTES, each byte escaped */ };

struct lm_stream {
    const struct lm_provider *provider;
    struct lm_reading *reading;
    struct buffer line; /* not ended yet; of a whole body: all of it */
    struct buffer data; /* of the event that is not ended yet */
    size_t mark_bytes;  /* of a byte order mark that came before all else */
    bool began;         /* a byte that is no space came */
    bool whole;         /* it is not a stream */
    bool after_return;  /* the byte before was a carriage return */
};

void lm_stream_init(struct lm_stream *stream, const struct lm_provider *provider,
                    struct lm_reading *reading);
void lm_stream_fini(struct lm_stream *stream);

/* STATUS_FORMAT for an event that is not JSON, STATUS_LIMIT for one that is too long, or for a text
 * of more than LM_REPLY_MAX_BYTES; STATUS_NO_MEMORY. */
enum status lm_stream_feed(struct lm_stream *stream, const char *bytes, size_t len_bytes,
                           struct error *err);
/* No more bytes come: reads what has no end of its own. */
enum status lm_stream_end(struct lm_stream *stream, struct error *err);

/* JSON from a stranger: bytes that are not UTF-8, escaped NULs and halves of characters are
 * replaced, so that no text ends early or is refused. */
enum status lm_parse_foreign(const char *text, size_t len_bytes, cJSON **out, struct error *err);

#endif
