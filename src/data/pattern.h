/* Regular expressions from outside (PCRE2, UTF-8), with a limit on the work a text may cost. */
#ifndef DATA_PATTERN_H
#define DATA_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "base/status.h"

struct pattern; /* opaque; immutable, so threads may share it */

enum { PATTERN_MAX_BYTES = 4096 };

/* STATUS_INVALID with PCRE2's message and the byte offset if the expression is wrong. `.` does not
 * match a newline; inline options such as (?s) or (?m) change that. */
enum status pattern_compile(const char *text, bool ignore_case, struct pattern **out,
                            struct error *err);
void pattern_destroy(struct pattern *pattern);

int pattern_group_count(const struct pattern *pattern); /* without group 0 */

/* What a match found: a part of the text, [start, start + length). */
struct pattern_span {
    size_t start;
    size_t length;
};

/* Searches valid UTF-8 text; *group (may be NULL) is that of `group_index`, empty if the group took
 * no part. STATUS_LIMIT if the text needs more steps than the limit: a match that explodes is an
 * error, never a hang. */
enum status pattern_search(const struct pattern *pattern, const char *text, size_t len_bytes,
                           int group_index, bool *found, struct pattern_span *group,
                           struct error *err);

/* Compiles only to check: adds a problem at `pointer` if the expression is wrong or has fewer
 * groups than needed. */
void pattern_check(const char *text, bool ignore_case, int groups_needed, const char *pointer,
                   struct json_problems *problems);

#endif
