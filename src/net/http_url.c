/* URLs and headers as text: what may be asked for, how a place is called in records, when to come
 * back. */
#include "net/http_url.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "net/http.h"

/* Visible ASCII alone: the rest must come percent-encoded. */
static bool is_plain(const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        if (*c <= ' ' || *c >= 0x7F) {
            return false;
        }
    }
    return true;
}

static bool has_part(CURLU *parsed, CURLUPart part)
{
    char *text = NULL;
    bool has = curl_url_get(parsed, part, &text, 0) == CURLUE_OK;
    curl_free(text);
    return has;
}

static bool has_web_scheme(CURLU *parsed, bool *encrypted)
{
    char *scheme = NULL;
    bool known = false;
    if (curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK) {
        *encrypted = strcasecmp(scheme, "https") == 0;
        known = *encrypted || strcasecmp(scheme, "http") == 0;
    }
    curl_free(scheme);
    return known;
}

enum status http_check_url(const char *url, bool *encrypted, struct error *err)
{
    if (strlen(url) > HTTP_URL_MAX_BYTES) {
        return FAIL(err, STATUS_INVALID, "a URL of %zu bytes; allowed are %d", strlen(url),
                    HTTP_URL_MAX_BYTES);
    }
    if (!is_plain(url)) {
        return FAIL(err, STATUS_INVALID,
                    "a URL with spaces, control characters or letters that are not ASCII; "
                    "percent-encode them");
    }
    CURLU *parsed = curl_url();
    if (parsed == NULL) {
        return FAIL(err, STATUS_NO_MEMORY, "no memory for a URL");
    }
    enum status status = STATUS_OK;
    /* libcurl would also take a third slash, or none. */
    const char *slashes = strstr(url, "://");
    if (slashes == NULL || slashes[3] == '/' ||
        curl_url_set(parsed, CURLUPART_URL, url, 0) != CURLUE_OK ||
        !has_web_scheme(parsed, encrypted)) {
        status = FAIL(err, STATUS_INVALID, "a URL that is none of http:// or https:// with a host");
    } else if (has_part(parsed, CURLUPART_USER) || has_part(parsed, CURLUPART_PASSWORD)) {
        status = FAIL(err, STATUS_INVALID,
                      "a URL with a user name in it; a key goes into an environment variable");
    }
    curl_url_cleanup(parsed);
    return status;
}

void http_host(const char *url, char out[HTTP_HOST_BYTES])
{
    char *host = NULL;
    char *port = NULL;
    out[0] = '\0';
    CURLU *parsed = curl_url();
    if (parsed != NULL && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK) {
        snprintf(out, HTTP_HOST_BYTES, "%s:%s", host, port);
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parsed);
}

void http_append_escaped(struct buffer *out, const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        if ((byte < 0x80 && isalnum(byte)) || strchr("-._~", byte) != NULL) {
            buffer_append_char(out, *c);
        } else {
            buffer_printf(out, "%%%02X", byte);
        }
    }
}

bool http_read_header(const char *line, size_t len_bytes, const char *name, char *value,
                      size_t value_bytes)
{
    size_t at = strlen(name);
    if (len_bytes <= at || strncasecmp(line, name, at) != 0 || line[at] != ':') {
        return false;
    }
    at++;
    while (at < len_bytes && (line[at] == ' ' || line[at] == '\t')) {
        at++;
    }
    while (len_bytes > at && isspace((unsigned char)line[len_bytes - 1])) {
        len_bytes--;
    }
    size_t length = len_bytes - at < value_bytes - 1 ? len_bytes - at : value_bytes - 1;
    for (size_t i = 0; i < length; i++) {
        char c = line[at + i];
        value[i] = '?';
        if (c >= ' ' && c < 0x7F) {
            value[i] = c;
        }
    }
    value[length] = '\0';
    return true;
}

double http_read_retry_after(const char *value)
{
    if (isdigit((unsigned char)value[0])) {
        char *end = NULL;
        double seconds = strtod(value, &end);
        return *end == '\0' && isfinite(seconds) ? seconds : (double)NAN;
    }
    time_t when = curl_getdate(value, NULL);
    if (when == (time_t)-1) {
        return (double)NAN;
    }
    return fmax(0.0, (double)when - clock_wall_s());
}
