/* What http.c needs of URLs and headers. */
#ifndef NET_HTTP_URL_H
#define NET_HTTP_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* STATUS_INVALID unless it is one of http(s) with a host, without a user name, of visible ASCII and
 * of allowed length. The error does not hold it. *encrypted: it is https. */
enum status http_check_url(const char *url, bool *encrypted, struct error *err);

/* True if a header line (not NUL-terminated) is `name`'s; its value, cut, in visible ASCII. */
bool http_read_header(const char *line, size_t len_bytes, const char *name, char *value,
                      size_t value_bytes);

/* Seconds from now that a Retry-After asks for, as a number or an HTTP date; NaN: neither. */
double http_read_retry_after(const char *value);

#endif
