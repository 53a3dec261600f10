/* HTTP without waiting, on libcurl's multi interface: requests are started, then pushed on by
 * http_turn from a loop that does other things.
 *
 * Certificates are always verified; CA bundle from SSL_CERT_FILE or CURL_CA_BUNDLE, else the
 * system's; proxies from https_proxy, http_proxy, no_proxy; redirects are followed for a GET
 * alone, never from https to another scheme, and with a secret only if it is "Authorization", which
 * goes to no other host, port or scheme. Nothing of a secret header, and no query of a URL, reaches
 * an error or a log. */
#ifndef NET_HTTP_H
#define NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { HTTP_URL_MAX_BYTES = 8192, HTTP_HEADERS_MAX = 16, HTTP_HOST_BYTES = 256 };

struct http; /* opaque: a pool of connections */

enum status http_create(struct http **out, struct error *err);
void http_destroy(struct http *http); /* ends what is under way; NULL allowed */

struct http_request {
    const char *url;
    const char *const *headers; /* "Name: value", NULL at the end; NULL: none */
    const char *secret_header;  /* likewise, one, e.g. with the key; NULL: none */
    const char *body;           /* NULL: GET, else POST */
    size_t body_bytes;
    double connect_s; /* most for name, connection and TLS */
    double stall_s;   /* most without a byte, also before the first */
    double total_s;   /* most in all */
    size_t max_bytes; /* of the body; more is STATUS_LIMIT */
    /* Called with each piece of a body whose code is 2xx, so that a stream can be read as it comes;
     * an error ends the request. NULL: the body is kept. A body of another code is always kept, up
     * to 64 KiB. */
    enum status (*on_bytes)(void *context, const char *bytes, size_t len_bytes, struct error *err);
    void *context;
};

struct http_response {
    enum status status;   /* STATUS_OK: an answer came, with any code; STATUS_TIMEOUT, STATUS_LIMIT,
                             STATUS_EXTERNAL (name, connection, certificate: which of them `error`
                             says), or what on_bytes returned */
    bool lasting;         /* of STATUS_EXTERNAL: a certificate; asking again will not help */
    bool connected;       /* the request began to go out: it may have been served */
    int code;             /* HTTP's; 0: none came */
    double retry_after_s; /* of the header, seconds or date; NaN: none */
    char content_type[128]; /* "" if there is none */
    char *body; /* owned, NUL-terminated; "" at least; NULL with on_bytes and a 2xx code */
    size_t body_bytes;
    double seconds;
    struct error error;
};
void http_response_fini(struct http_response *response);

/* Everything is copied. *id names the request for the others. STATUS_INVALID for a URL that is none
 * of http(s), is too long or holds a user name; STATUS_NO_MEMORY. */
enum status http_start(struct http *http, const struct http_request *request, int64_t *id,
                       struct error *err);

/* Moves all requests on; never blocks (names are looked up on a thread of libcurl's). */
enum status http_turn(struct http *http, struct error *err);

/* True, and the response in *out (http_response_fini it), if request `id` is over. */
bool http_take(struct http *http, int64_t id, struct http_response *out);
void http_cancel(struct http *http, int64_t id);

/* Waits until something can move on, or timeout_s or a second is over: for threads and programs
 * whose whole work is this (trex relay). */
void http_wait(struct http *http, double timeout_s);

/* Ends http_wait, the one under way or the next. From any thread, unlike all others. */
void http_wake(struct http *http);

/* "host:port" of a URL for people and records: no path, no query, no user. "" if it is none. */
void http_host(const char *url, char out[HTTP_HOST_BYTES]);

/* Text for a query or path, percent-encoded, appended. */
struct buffer;
void http_append_escaped(struct buffer *out, const char *text);

#endif
