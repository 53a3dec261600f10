/* A small HTTP/1.1 server on a free port of 127.0.0.1, for tests: what it answers, and how it
 * fails, a function decides, request by request. One thread a connection. */
#ifndef TESTS_NET_SERVER_H
#define TESTS_NET_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct server_request {
    int64_t number; /* from 1 */
    const char *method;
    const char *path;    /* without the query */
    const char *query;   /* "" if there is none */
    const char *headers; /* lines as they came */
    const char *body;    /* NUL-terminated */
    size_t body_bytes;
};

/* Value of a header, "" if it is not there. */
void server_header(const struct server_request *request, const char *name, char *value,
                   size_t value_bytes);

/* All zero: code 200 without a body. */
struct server_answer {
    int code;                 /* 0: 200 */
    const char *content_type; /* NULL: application/json */
    char headers[1024];       /* more of them, each ended by \r\n */
    char *body;               /* on the heap; the server frees it */
    size_t body_bytes;        /* 0: it is a string */
    int64_t repeat;           /* the body comes so often; 0: once; -1: without an end */
    size_t piece_bytes;       /* sent at once; 0: all */
    double delay_s;           /* before the first byte */
    double piece_delay_s;     /* before every other piece */
    bool cut, stall;          /* the connection is closed, or says nothing more, .. */
    int64_t end_bytes;        /* .. after so many bytes of the body; -1: before the status line */
    bool chunked;             /* else with its length, or ended by the connection's end */
    bool bad_chunks;          /* the framing breaks after the first piece */
    bool raw;                 /* the body is all that is sent, status line included */
};

/* One request at a time is in here, so that `context` needs no lock. */
typedef void (*server_handler)(void *context, const struct server_request *request,
                               struct server_answer *answer);

struct server;                                                      /* opaque */
struct server *server_start(server_handler handler, void *context); /* NULL: it cannot */
void server_stop(struct server *server); /* also what is under way; NULL allowed */

int server_port(const struct server *server);
int64_t server_count(struct server *server);   /* requests so far */
int server_most_open(struct server *server);   /* requests that were under way at once, at most */
int server_connections(struct server *server); /* so far */

#endif
