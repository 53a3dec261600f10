#include "data/pattern.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"

enum {
    MATCH_STEPS_MAX = 5 * 1000 * 1000, /* some tens of milliseconds */
    MATCH_DEPTH_MAX = 20 * 1000,
    MATCH_HEAP_KIB = 64 * 1024,
    MESSAGE_BYTES = 128,
};

struct pattern {
    pcre2_code *code;
    pcre2_match_context *limits;
    uint32_t group_count;
};

static enum status compile(const char *text, bool ignore_case, struct pattern *pattern,
                           struct error *err)
{
    int code = 0;
    PCRE2_SIZE offset = 0;
    uint32_t options =
        PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | (ignore_case ? PCRE2_CASELESS : 0);
    pattern->code = pcre2_compile((PCRE2_SPTR)text, strlen(text), options, &code, &offset, NULL);
    if (pattern->code == NULL) {
        PCRE2_UCHAR message[MESSAGE_BYTES];
        pcre2_get_error_message(code, message, sizeof(message));
        return FAIL(err, STATUS_INVALID, "pattern \"%.80s\" is wrong at byte %zu: %s", text,
                    (size_t)offset, (const char *)message);
    }
    pattern->limits = pcre2_match_context_create(NULL);
    if (pattern->limits == NULL) {
        return mem_fail(err, sizeof(void *), "the limits of a pattern");
    }
    pcre2_set_match_limit(pattern->limits, MATCH_STEPS_MAX);
    pcre2_set_depth_limit(pattern->limits, MATCH_DEPTH_MAX);
    pcre2_set_heap_limit(pattern->limits, MATCH_HEAP_KIB);
    pcre2_pattern_info(pattern->code, PCRE2_INFO_CAPTURECOUNT, &pattern->group_count);
    pcre2_jit_compile(pattern->code,
                      PCRE2_JIT_COMPLETE); /* where there is no JIT, the interpreter matches */
    return STATUS_OK;
}

enum status pattern_compile(const char *text, bool ignore_case, struct pattern **out,
                            struct error *err)
{
    if (strlen(text) > PATTERN_MAX_BYTES) {
        return FAIL(err, STATUS_INVALID, "pattern of %zu bytes, allowed are %d", strlen(text),
                    PATTERN_MAX_BYTES);
    }
    struct pattern *pattern = mem_calloc(1, sizeof(*pattern));
    if (pattern == NULL) {
        return mem_fail(err, sizeof(*pattern), "a pattern");
    }
    enum status status = compile(text, ignore_case, pattern, err);
    if (status != STATUS_OK) {
        pattern_destroy(pattern);
        return status;
    }
    *out = pattern;
    return STATUS_OK;
}

void pattern_destroy(struct pattern *pattern)
{
    if (pattern == NULL) {
        return;
    }
    pcre2_match_context_free(pattern->limits);
    pcre2_code_free(pattern->code);
    free(pattern);
}

int pattern_group_count(const struct pattern *pattern)
{
    return (int)pattern->group_count;
}

enum status pattern_search(const struct pattern *pattern, const char *text, size_t len_bytes,
                           int group_index, bool *found, struct pattern_span *group,
                           struct error *err)
{
    /* Per call, because threads share the pattern; it is one small allocation. */
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(pattern->code, NULL);
    if (match == NULL) {
        return mem_fail(err, sizeof(void *), "a match");
    }
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int result = pcre2_match(pattern->code, subject, len_bytes, 0, PCRE2_NO_UTF_CHECK, match,
                             pattern->limits);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
        /* JIT code runs on a 32 KiB stack; the interpreter takes the heap, up to its limit. */
        result = pcre2_match(pattern->code, subject, len_bytes, 0,
                             PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, pattern->limits);
    }
    enum status status = STATUS_OK;
    if (result == PCRE2_ERROR_NOMATCH) {
        *found = false;
    } else if (result < 0) {
        PCRE2_UCHAR message[MESSAGE_BYTES];
        pcre2_get_error_message(result, message, sizeof(message));
        status = FAIL(err, STATUS_LIMIT,
                      "a pattern needs too much work on a text of %zu bytes (%s); simplify it",
                      len_bytes, (const char *)message);
    } else {
        *found = true;
        if (group != NULL) {
            const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(match);
            const PCRE2_SIZE *span = ends + 2 * (size_t)group_index;
            /* \K in a look-ahead can put the start behind the end: such a match is empty. */
            bool set = (uint32_t)group_index <= pattern->group_count && span[0] != PCRE2_UNSET &&
                       span[0] <= span[1];
            *group = set ? (struct pattern_span){span[0], span[1] - span[0]}
                         : (struct pattern_span){0, 0};
        }
    }
    pcre2_match_data_free(match);
    return status;
}

void pattern_check(const char *text, bool ignore_case, int groups_needed, const char *pointer,
                   struct json_problems *problems)
{
    struct pattern *pattern = NULL;
    struct error err = {0};
    if (pattern_compile(text, ignore_case, &pattern, &err) != STATUS_OK) {
        json_problems_add(problems, pointer, "%s", err.message);
    } else if (pattern_group_count(pattern) < groups_needed) {
        json_problems_add(problems, pointer, "pattern \"%.80s\" has %d groups (...), needed is %d",
                          text, pattern_group_count(pattern), groups_needed);
    }
    pattern_destroy(pattern);
}
