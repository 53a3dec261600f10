/* What an OpenAI-compatible endpoint sends for a reply. */
#ifndef TESTS_NET_WIRE_H
#define TESTS_NET_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "net/server.h"

struct wire {
    const char *text;
    const char *model;
    const char *finish; /* finish_reason; NULL: "stop"; "": none comes, as if it were cut */
    bool whole;         /* one JSON value instead of a stream */
    bool refusal;       /* the text is one */
    bool no_usage;
    int64_t tokens_in, tokens_out;
    const char *problem; /* an error object of this type after half of the text; NULL: none */
};

/* Fills the body and its type. Pieces of the stream end where events do not. */
void wire_answer(const struct wire *wire, struct server_answer *answer);

/* An error as OpenAI sends it, with its code. */
void wire_error(int code, const char *type, const char *message, struct server_answer *answer);

#endif
