/* Requests on libcurl's multi interface. Time limits are kept here, by the clock, and not by
 * libcurl's own: it measures speed in whole seconds, and does not tell one limit from another. */
#include "net/http.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/http_url.h"

enum {
    OTHER_BODY_MAX_BYTES = 64 * 1024, /* of an answer that is not 2xx */
    HEADERS_MAX_BYTES = 256 * 1024,   /* of all answers to one request */
    REDIRECTS_MAX = 5,
    WAIT_MAX_MS = 1000,
};

struct transfer {
    int64_t id;
    CURL *easy; /* NULL once it is over */
    struct curl_slist *headers;
    char *sent; /* body */
    char host[HTTP_HOST_BYTES];
    double connect_s, stall_s, total_s;
    size_t max_bytes;
    enum status (*on_bytes)(void *context, const char *bytes, size_t len_bytes, struct error *err);
    void *context;

    double started_s, moved_s; /* moved_s: when a byte came or went last */
    curl_off_t moved_bytes;
    size_t header_bytes;
    bool enough; /* of a body that is not 2xx: the transfer was ended on purpose */
    char detail[CURL_ERROR_SIZE];
    struct buffer kept;
    struct http_response response;
    struct transfer *next;
};

struct http {
    CURLM *multi;
    struct transfer *transfers; /* in the order of their ids */
    int64_t last_id;
};

enum status http_create(struct http **out, struct error *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return FAIL(err, STATUS_EXTERNAL, "libcurl cannot be initialised");
    }
    enum status status = STATUS_OK;
    struct http *http = NULL;
    if ((curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS) == 0) {
        status = FAIL(err, STATUS_UNSUPPORTED,
                      "this libcurl looks names up while the program stands; build it with a "
                      "threaded resolver or c-ares");
        goto cleanup;
    }
    http = mem_calloc(1, sizeof(*http));
    if (http == NULL) {
        status = mem_fail(err, sizeof(*http), "connections");
        goto cleanup;
    }
    http->multi = curl_multi_init();
    if (http->multi == NULL) {
        status = FAIL(err, STATUS_NO_MEMORY, "no memory for connections");
        goto cleanup;
    }
    *out = http;
    return STATUS_OK;
cleanup:
    free(http);
    curl_global_cleanup();
    return status;
}

/* Header lines may hold a key: they do not stay in memory that others get. */
static void free_headers(struct curl_slist *headers)
{
    for (struct curl_slist *line = headers; line != NULL; line = line->next) {
        explicit_bzero(line->data, strlen(line->data));
    }
    curl_slist_free_all(headers);
}

/* Ends what goes on over the network; the response stays. */
static void close_transfer(struct http *http, struct transfer *transfer)
{
    if (transfer->easy != NULL) {
        curl_multi_remove_handle(http->multi, transfer->easy);
        curl_easy_cleanup(transfer->easy);
        transfer->easy = NULL;
    }
    free_headers(transfer->headers);
    transfer->headers = NULL;
    free(transfer->sent);
    transfer->sent = NULL;
}

static void free_transfer(struct http *http, struct transfer *transfer)
{
    close_transfer(http, transfer);
    buffer_fini(&transfer->kept);
    http_response_fini(&transfer->response);
    free(transfer);
}

void http_destroy(struct http *http)
{
    if (http == NULL) {
        return;
    }
    while (http->transfers != NULL) {
        struct transfer *next = http->transfers->next;
        free_transfer(http, http->transfers);
        http->transfers = next;
    }
    curl_multi_cleanup(http->multi);
    free(http);
    curl_global_cleanup();
}

void http_response_fini(struct http_response *response)
{
    free(response->body);
    response->body = NULL;
    response->body_bytes = 0;
}

/* ---- what libcurl calls ---- */

static enum status fail_transfer(struct transfer *transfer, enum status code, const char *format,
                                 ...) BASE_PRINTF(3, 4);

/* The first failure is the one that counts. */
static enum status fail_transfer(struct transfer *transfer, enum status code, const char *format,
                                 ...)
{
    struct http_response *response = &transfer->response;
    if (response->status == STATUS_OK) {
        char message[sizeof(response->error.message)];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(message, sizeof(message), format, arguments);
        va_end(arguments);
        response->status = FAIL(&response->error, code, "%s: %s", transfer->host, message);
    }
    return response->status;
}

static size_t on_header(char *line, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    size_t len_bytes = size * count;
    transfer->moved_s = clock_monotonic_s();
    transfer->header_bytes += len_bytes;
    if (transfer->header_bytes > HEADERS_MAX_BYTES) {
        fail_transfer(transfer, STATUS_LIMIT, "headers of more than %d bytes", HEADERS_MAX_BYTES);
        return 0;
    }
    char value[128];
    if (len_bytes >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        /* Another answer begins: after a redirect, or after a code of 1xx. */
        transfer->response.retry_after_s = (double)NAN;
        transfer->response.content_type[0] = '\0';
    } else if (http_read_header(line, len_bytes, "Retry-After", value, sizeof(value))) {
        transfer->response.retry_after_s = http_read_retry_after(value);
    } else if (http_read_header(line, len_bytes, "Content-Type", value, sizeof(value))) {
        memcpy(transfer->response.content_type, value, sizeof(value));
    }
    return len_bytes;
}

static bool is_connected(const struct transfer *transfer)
{
    curl_off_t connected_us = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_PRETRANSFER_TIME_T, &connected_us);
    return connected_us > 0;
}

static bool is_good(const struct transfer *transfer)
{
    long code = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &code);
    return code >= 200 && code < 300;
}

static size_t keep_other(struct transfer *transfer, const char *bytes, size_t len_bytes)
{
    size_t room = OTHER_BODY_MAX_BYTES - transfer->kept.len_bytes;
    buffer_append(&transfer->kept, bytes, len_bytes < room ? len_bytes : room);
    transfer->enough = len_bytes > room;
    return transfer->enough ? 0 : len_bytes;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    struct http_response *response = &transfer->response;
    size_t len_bytes = size * count;
    transfer->moved_s = clock_monotonic_s();
    if (!is_good(transfer)) {
        return keep_other(transfer, bytes, len_bytes);
    }
    response->body_bytes += len_bytes;
    if (response->body_bytes > transfer->max_bytes) {
        fail_transfer(transfer, STATUS_LIMIT, "an answer of more than %zu bytes",
                      transfer->max_bytes);
        return 0;
    }
    if (transfer->on_bytes == NULL) {
        buffer_append(&transfer->kept, bytes, len_bytes);
        return transfer->kept.failed ? 0 : len_bytes;
    }
    struct error err = {0};
    enum status status = transfer->on_bytes(transfer->context, bytes, len_bytes, &err);
    if (status != STATUS_OK) {
        response->status = status;
        response->error = err;
        return 0;
    }
    return len_bytes;
}

/* Sees that a body goes out: bytes that were sent are a sign of life too. */
static int on_progress(void *context, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    (void)down_total;
    (void)up_total;
    struct transfer *transfer = context;
    if (down + up != transfer->moved_bytes) {
        transfer->moved_bytes = down + up;
        transfer->moved_s = clock_monotonic_s();
    }
    return 0;
}

/* ---- start ---- */

static enum status add_header(struct transfer *transfer, const char *line, struct error *err)
{
    if (strpbrk(line, "\r\n") != NULL || strchr(line, ':') == NULL) {
        return FAIL(err, STATUS_INVALID, "%s: a header that is none (its text is not shown)",
                    transfer->host);
    }
    struct curl_slist *longer = curl_slist_append(transfer->headers, line);
    if (longer == NULL) {
        return mem_fail(err, strlen(line), "a header");
    }
    transfer->headers = longer;
    return STATUS_OK;
}

static enum status add_headers(struct transfer *transfer, const struct http_request *request,
                               struct error *err)
{
    /* libcurl would wait for a go-ahead that some servers never give. */
    TRY(add_header(transfer, "Expect:", err));
    for (int i = 0; request->headers != NULL && request->headers[i] != NULL; i++) {
        if (i == HTTP_HEADERS_MAX) {
            return FAIL(err, STATUS_INVALID, "more than %d headers", HTTP_HEADERS_MAX);
        }
        TRY(add_header(transfer, request->headers[i], err));
    }
    return request->secret_header != NULL ? add_header(transfer, request->secret_header, err)
                                          : STATUS_OK;
}

static const char *first_set(const char *name, const char *other_name)
{
    const char *value = getenv(name);
    if (value == NULL || value[0] == '\0') {
        value = getenv(other_name);
    }
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* The first option that libcurl refuses says so for all. */
#define SET(option, value)                                                                         \
    do {                                                                                           \
        if (code == CURLE_OK) {                                                                    \
            code = curl_easy_setopt(transfer->easy, option, value);                                \
        }                                                                                          \
    } while (0)

/* libcurl takes "Authorization" to no other host, port or scheme; another secret would go along. */
static bool may_redirect(const struct http_request *request)
{
    static const char name[] = "Authorization:";
    return request->body == NULL &&
           (request->secret_header == NULL ||
            strncasecmp(request->secret_header, name, sizeof(name) - 1) == 0);
}

static CURLcode set_limits(struct transfer *transfer, const struct http_request *request,
                           bool encrypted)
{
    CURLcode code = CURLE_OK;
    SET(CURLOPT_NOSIGNAL, 1L);
    /* A name that is still looked up when its request ends is not waited for. */
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)fmax(1.0, fmin(request->connect_s * 1e3, 1e9)));
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    /* A connection each: one that breaks takes no other request with it. */
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_REDIR_PROTOCOLS_STR, encrypted ? "https" : "http,https");
    SET(CURLOPT_FOLLOWLOCATION, may_redirect(request) ? 1L : 0L);
    SET(CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    const char *bundle = first_set("SSL_CERT_FILE", "CURL_CA_BUNDLE");
    if (bundle != NULL) {
        SET(CURLOPT_CAINFO, bundle);
    }
    return code;
}

static CURLcode set_request(struct transfer *transfer, const struct http_request *request)
{
    CURLcode code = CURLE_OK;
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_USERAGENT, "trex/" TREX_VERSION);
    SET(CURLOPT_HTTPHEADER, transfer->headers);
    if (transfer->sent != NULL) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, transfer->sent);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_bytes);
    }
    SET(CURLOPT_PRIVATE, transfer);
    SET(CURLOPT_ERRORBUFFER, transfer->detail);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, transfer);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, transfer);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    SET(CURLOPT_XFERINFODATA, transfer);
    SET(CURLOPT_NOPROGRESS, 0L);
    return code;
}
#undef SET

static enum status fill_transfer(struct transfer *transfer, const struct http_request *request,
                                 struct error *err)
{
    bool encrypted = false;
    TRY(http_check_url(request->url, &encrypted, err));
    http_host(request->url, transfer->host);
    transfer->connect_s = request->connect_s;
    transfer->stall_s = request->stall_s;
    transfer->total_s = request->total_s;
    transfer->max_bytes = request->max_bytes;
    transfer->on_bytes = request->on_bytes;
    transfer->context = request->context;
    transfer->response.retry_after_s = (double)NAN;
    size_t kept_max = request->on_bytes == NULL ? request->max_bytes : 0;
    buffer_init(&transfer->kept, kept_max > OTHER_BODY_MAX_BYTES ? kept_max : OTHER_BODY_MAX_BYTES);
    if (request->body != NULL) {
        transfer->sent = mem_calloc(request->body_bytes + 1, 1);
        if (transfer->sent == NULL) {
            return mem_fail(err, request->body_bytes, "a request");
        }
        memcpy(transfer->sent, request->body, request->body_bytes);
    }
    TRY(add_headers(transfer, request, err));
    transfer->easy = curl_easy_init();
    if (transfer->easy == NULL) {
        return FAIL(err, STATUS_NO_MEMORY, "no memory for a request");
    }
    CURLcode code = set_limits(transfer, request, encrypted);
    if (code == CURLE_OK) {
        code = set_request(transfer, request);
    }
    if (code != CURLE_OK) {
        return FAIL(err, code == CURLE_OUT_OF_MEMORY ? STATUS_NO_MEMORY : STATUS_UNSUPPORTED,
                    "libcurl refuses an option: %s", curl_easy_strerror(code));
    }
    return STATUS_OK;
}

enum status http_start(struct http *http, const struct http_request *request, int64_t *id,
                       struct error *err)
{
    struct transfer *transfer = mem_calloc(1, sizeof(*transfer));
    if (transfer == NULL) {
        return mem_fail(err, sizeof(*transfer), "a request");
    }
    enum status status = STATUS_OK;
    TRY_CLEANUP(fill_transfer(transfer, request, err));
    CURLMcode code = curl_multi_add_handle(http->multi, transfer->easy);
    if (code != CURLM_OK) {
        status = FAIL(err, STATUS_NO_MEMORY, "a request: %s", curl_multi_strerror(code));
        goto cleanup;
    }
    transfer->id = ++http->last_id;
    transfer->started_s = transfer->moved_s = clock_monotonic_s();
    struct transfer **end = &http->transfers;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = transfer;
    *id = transfer->id;
    return STATUS_OK;
cleanup:
    free_transfer(http, transfer);
    return status;
}

/* ---- turn ---- */

static bool is_about_certificate(CURLcode code)
{
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
           code == CURLE_SSL_ISSUER_ERROR || code == CURLE_SSL_CERTPROBLEM ||
           code == CURLE_SSL_INVALIDCERTSTATUS;
}

static void judge(struct transfer *transfer, CURLcode code)
{
    if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && transfer->enough)) {
        return;
    }
    /* libcurl's words, unless they quote what they were given: the query of a URL, or the password
     * of a proxy, is nobody's business. */
    const char *detail = transfer->detail;
    if (detail[0] == '\0' || strchr(detail, '@') != NULL || strstr(detail, "://") != NULL) {
        detail = curl_easy_strerror(code);
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        fail_transfer(transfer, STATUS_TIMEOUT, "no connection within %g s", transfer->connect_s);
    } else if (is_about_certificate(code)) {
        transfer->response.lasting = true;
        fail_transfer(transfer, STATUS_EXTERNAL,
                      "certificate: %s (a site's own CA bundle can be named in SSL_CERT_FILE)",
                      detail);
    } else if (code == CURLE_OUT_OF_MEMORY || transfer->kept.out_of_memory) {
        fail_transfer(transfer, STATUS_NO_MEMORY, "no memory for the answer");
    } else {
        fail_transfer(transfer, STATUS_EXTERNAL, "%s", detail);
    }
}

static void end_transfer(struct http *http, struct transfer *transfer, CURLcode code)
{
    struct http_response *response = &transfer->response;
    long http_code = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &http_code);
    response->code = (int)http_code;
    response->connected = is_connected(transfer);
    response->seconds = clock_monotonic_s() - transfer->started_s;
    judge(transfer, code);
    if (transfer->on_bytes == NULL || !is_good(transfer)) {
        response->body_bytes = transfer->kept.len_bytes;
        response->body = buffer_take(&transfer->kept);
        if (response->body == NULL) {
            fail_transfer(transfer, STATUS_NO_MEMORY, "no memory for the answer");
        }
    }
    close_transfer(http, transfer);
}

/* The limits of one that is under way. Until it is connected the limit for that counts alone. */
static void check_limits(struct http *http, struct transfer *transfer, double now_s)
{
    if (!is_connected(transfer)) {
        transfer->moved_s = now_s;
    }
    if (now_s - transfer->started_s > transfer->total_s) {
        fail_transfer(transfer, STATUS_TIMEOUT, "not done within %g s", transfer->total_s);
    } else if (now_s - transfer->moved_s > transfer->stall_s) {
        fail_transfer(transfer, STATUS_TIMEOUT, "not a byte for %g s", transfer->stall_s);
    }
    if (transfer->response.status != STATUS_OK) {
        end_transfer(http, transfer, CURLE_OK);
    }
}

enum status http_turn(struct http *http, struct error *err)
{
    int running = 0;
    CURLMcode code = curl_multi_perform(http->multi, &running);
    if (code != CURLM_OK) {
        return FAIL(err, code == CURLM_OUT_OF_MEMORY ? STATUS_NO_MEMORY : STATUS_EXTERNAL,
                    "libcurl: %s", curl_multi_strerror(code));
    }
    int left = 0;
    for (CURLMsg *message = NULL; (message = curl_multi_info_read(http->multi, &left)) != NULL;) {
        struct transfer *transfer = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        if (message->msg == CURLMSG_DONE) {
            end_transfer(http, transfer, message->data.result);
        }
    }
    double now_s = clock_monotonic_s();
    for (struct transfer *transfer = http->transfers; transfer != NULL; transfer = transfer->next) {
        if (transfer->easy != NULL) {
            check_limits(http, transfer, now_s);
        }
    }
    return STATUS_OK;
}

void http_wait(struct http *http, double timeout_s)
{
    /* Not past a time limit of a request: they are looked at each second at the latest. */
    int timeout_ms = (int)ceil(fmin(fmax(timeout_s, 0.0) * 1e3, WAIT_MAX_MS));
    curl_multi_poll(http->multi, NULL, 0, timeout_ms, NULL);
}

void http_wake(struct http *http)
{
    curl_multi_wakeup(http->multi);
}

/* ---- the end of one ---- */

static struct transfer **find(struct http *http, int64_t id)
{
    struct transfer **place = &http->transfers;
    while (*place != NULL && (*place)->id != id) {
        place = &(*place)->next;
    }
    return place;
}

bool http_take(struct http *http, int64_t id, struct http_response *out)
{
    struct transfer **place = find(http, id);
    struct transfer *transfer = *place;
    if (transfer == NULL || transfer->easy != NULL) {
        return false;
    }
    *out = transfer->response;
    memset(&transfer->response, 0, sizeof(transfer->response));
    *place = transfer->next;
    free_transfer(http, transfer);
    return true;
}

void http_cancel(struct http *http, int64_t id)
{
    struct transfer **place = find(http, id);
    struct transfer *transfer = *place;
    if (transfer != NULL) {
        *place = transfer->next;
        free_transfer(http, transfer);
    }
}
