#include "model/split_regex.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/mem.h"

enum {
    PATTERN_MAX_BYTES = 16 * 1024,
    MATCH_LIMIT = 20 * 1000 * 1000, /* steps of backtracking in one match: well under a second */
    DEPTH_LIMIT = 1000 * 1000,
    HEAP_LIMIT_KIB = 256 * 1024
};

/* Unicode White_Space, which is Oniguruma's \s. PCRE2's has U+180E besides. */
#define WHITE_SPACE                                                                                \
    "\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"   \
    "\\x{3000}"

/* PCRE2's memory comes from base, so that tests can make it fail. */
static void *regex_alloc(size_t size, void *context)
{
    (void)context;
    return mem_calloc(size, 1);
}

static void regex_free(void *pointer, void *context)
{
    (void)context;
    free(pointer);
}

/* ---- translation --------------------------------------------------------------------------- */

struct translation {
    const char *pattern;
    const char *at;
    bool in_class;
    struct buffer *out;
};

static enum status refuse(const struct translation *translation, const char *what,
                          struct error *err)
{
    return FAIL(err, STATUS_UNSUPPORTED,
                "regular expression \"%.200s\", byte %td: %s is not supported",
                translation->pattern, translation->at - translation->pattern, what);
}

/* \p{L}, \P{Han}, \p{^Lu}, \pL: general categories pass; longer names are scripts, which PCRE2 must
 * be told. */
static enum status translate_property(struct translation *translation, struct error *err)
{
    const char *begin = translation->at; /* at the 'p' */
    if (begin[1] != '{') {
        return refuse(translation, "a property without braces", err);
    }
    const char *name = begin + 2 + (begin[2] == '^');
    size_t length = strcspn(name, "}");
    if (name[length] != '}' || length == 0 || length > 32) {
        return refuse(translation, "a property without a name", err);
    }
    if (name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")] != '}') {
        return refuse(translation, "a property of this form", err);
    }
    buffer_printf(translation->out, "\\%c{%s%s%.*s}", begin[0], begin[2] == '^' ? "^" : "",
                  length > 2 ? "sc:" : "", (int)length, name);
    translation->at = name + length + 1;
    return STATUS_OK;
}

/* \x41 and \x{2e80} mean the same to both; Oniguruma's \u2e80 becomes the latter. */
static enum status translate_code_point(struct translation *translation, struct error *err)
{
    const char *at = translation->at; /* at the 'x' or 'u' */
    bool braces = at[0] == 'x' && at[1] == '{';
    const char *digits = at + 1 + braces;
    size_t length = strspn(digits, "0123456789abcdefABCDEF");
    if (!braces) {
        size_t wanted = at[0] == 'x' ? 2 : 4;
        length = length < wanted ? length : wanted;
        if (length < wanted) {
            return refuse(translation, "a code point with fewer digits", err);
        }
    } else if (length == 0 || length > 6 || digits[length] != '}') {
        return refuse(translation, "a code point of this form", err);
    }
    buffer_printf(translation->out, "\\x{%.*s}", (int)length, digits);
    translation->at = digits + length + braces;
    return STATUS_OK;
}

static enum status translate_escape(struct translation *translation, struct error *err)
{
    translation->at++;
    char c = *translation->at;
    switch (c) {
    case 's':
        buffer_append_text(translation->out,
                           translation->in_class ? WHITE_SPACE : "[" WHITE_SPACE "]");
        break;
    case 'S':
        if (translation->in_class) {
            return refuse(translation, "\\S inside [...]", err);
        }
        buffer_append_text(translation->out, "[^" WHITE_SPACE "]");
        break;
    case 'v': /* one character in Oniguruma, a class in PCRE2 */
        buffer_append_text(translation->out, "\\x0b");
        break;
    case 'p':
    case 'P':
        return translate_property(translation, err);
    case 'x':
    case 'u':
        return translate_code_point(translation, err);
    case 'd':
    case 'D':
    case 'r':
    case 'n':
    case 't':
    case 'f':
        buffer_printf(translation->out, "\\%c", c);
        break;
    default:
        if (c <= ' ' || c > '~' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
            (c >= 'a' && c <= 'z')) {
            return refuse(translation, "this escape", err);
        }
        buffer_printf(translation->out, "\\%c", c);
        break;
    }
    translation->at++;
    return STATUS_OK;
}

/* What begins with "(": plain, atomic and case-insensitive groups, look-ahead and look-behind. */
static enum status translate_group(struct translation *translation, struct error *err)
{
    static const char *const known[] = {"(?:", "(?=",  "(?!",   "(?<=", "(?<!",
                                        "(?>", "(?i:", "(?-i:", "(?i)"};
    const char *at = translation->at;
    if (at[1] == '*') {
        return refuse(translation, "(*", err);
    }
    size_t length = 1;
    if (at[1] == '?') {
        length = 0;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            bool allowed = strcmp(known[i], "(?i)") != 0 ||
                           at == translation->pattern; /* else its scope differs */
            if (allowed && strncmp(at, known[i], strlen(known[i])) == 0) {
                length = strlen(known[i]);
            }
        }
        if (length == 0) {
            return refuse(translation, "this kind of group", err);
        }
    }
    buffer_append(translation->out, at, length);
    translation->at += length;
    return STATUS_OK;
}

static enum status translate_class_character(struct translation *translation, struct error *err)
{
    const char *at = translation->at;
    if (*at == '[') {
        return refuse(translation, "[ inside [...]", err);
    }
    if (at[0] == '&' && at[1] == '&') {
        return refuse(translation, "&& inside [...]", err);
    }
    if (*at == ']') {
        translation->in_class = false;
    }
    buffer_append_char(translation->out, *at);
    translation->at++;
    return STATUS_OK;
}

static enum status translate_plain(struct translation *translation, struct error *err)
{
    const char *at = translation->at;
    switch (*at) {
    case '(':
        return translate_group(translation, err);
    case '^': /* Ruby's anchors hold at every line */
    case '$':
        return refuse(translation, "an anchor", err);
    case '}':
        if (at[1] == '+' || at[1] == '?') { /* possessive or lazy in PCRE2, repeated in Oniguruma */
            return refuse(translation, "+ or ? after {...}", err);
        }
        break;
    case '{':
        if (at[1] == ',') { /* plain text in PCRE2 */
            return refuse(translation, "{,", err);
        }
        break;
    case '[':
        translation->in_class = true;
        buffer_append_char(translation->out, '[');
        translation->at++;
        if (*translation->at == '^') {
            buffer_append_char(translation->out, '^');
            translation->at++;
        }
        if (*translation->at == ']') {
            return refuse(translation, "] at the start of [...]", err);
        }
        return STATUS_OK;
    default:
        break;
    }
    buffer_append_char(translation->out, *at);
    translation->at++;
    return STATUS_OK;
}

static enum status translate(const char *pattern, struct buffer *out, struct error *err)
{
    struct translation translation = {.pattern = pattern, .at = pattern, .out = out};
    while (*translation.at != '\0') {
        if (*translation.at == '\\') {
            TRY(translate_escape(&translation, err));
        } else if (translation.in_class) {
            TRY(translate_class_character(&translation, err));
        } else {
            TRY(translate_plain(&translation, err));
        }
    }
    if (out->failed) {
        return mem_fail(err, out->len_bytes, "a regular expression");
    }
    return STATUS_OK;
}

/* ---- compiling ----------------------------------------------------------------------------- */

static enum status set_limits(struct split_regex *regex, pcre2_general_context *general,
                              struct error *err)
{
    regex->limits = pcre2_match_context_create(general);
    if (regex->limits == NULL) {
        return mem_fail(err, 0, "a regular expression");
    }
    pcre2_set_match_limit(regex->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(regex->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(regex->limits, HEAP_LIMIT_KIB);
    return STATUS_OK;
}

static enum status compile(struct split_regex *regex, const char *pattern, const char *shown,
                           bool literal, pcre2_compile_context *context, struct error *err)
{
    uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
    int code = 0;
    PCRE2_SIZE offset = 0;
    regex->code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options, &code, &offset, context);
    if (regex->code == NULL) {
        if (code == 121) { /* "failed to allocate heap memory": pcre2.h has no name for it */
            return mem_fail(err, strlen(pattern), "a regular expression");
        }
        char reason[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof(reason));
        return FAIL(err, STATUS_FORMAT, "regular expression \"%.200s\": %s", shown, reason);
    }
    uint32_t matches_empty = 0;
    pcre2_pattern_info(regex->code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
    if (matches_empty != 0) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "regular expression \"%.200s\": one that matches the empty text is not "
                    "supported",
                    shown);
    }
    regex->has_jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0;
    return STATUS_OK;
}

enum status split_regex_init(struct split_regex *regex, const char *pattern, bool literal,
                             struct error *err)
{
    memset(regex, 0, sizeof(*regex));
    if (strlen(pattern) > PATTERN_MAX_BYTES) {
        return FAIL(err, STATUS_LIMIT, "a regular expression of more than %d bytes",
                    PATTERN_MAX_BYTES);
    }
    enum status status = STATUS_OK;
    struct buffer translated;
    buffer_init(&translated, 64 * (size_t)PATTERN_MAX_BYTES);
    pcre2_compile_context *context = NULL;
    pcre2_general_context *general = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    if (general == NULL || (context = pcre2_compile_context_create(general)) == NULL) {
        status = mem_fail(err, 0, "a regular expression");
        goto cleanup;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    TRY_CLEANUP(set_limits(regex, general, err));
    if (literal) {
        buffer_append_text(&translated, pattern);
    } else {
        TRY_CLEANUP(translate(pattern, &translated, err));
    }
    TRY_CLEANUP(compile(regex, buffer_text(&translated), pattern, literal, context, err));
cleanup:
    if (status != STATUS_OK) {
        split_regex_fini(regex);
    }
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    buffer_fini(&translated);
    return status;
}

void split_regex_fini(struct split_regex *regex)
{
    pcre2_match_context_free(regex->limits);
    pcre2_code_free(regex->code);
    memset(regex, 0, sizeof(*regex));
}

/* ---- matching ------------------------------------------------------------------------------ */

pcre2_match_data *split_regex_match_data(void)
{
    pcre2_general_context *general = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    pcre2_match_data *data = general != NULL ? pcre2_match_data_create(1, general) : NULL;
    pcre2_general_context_free(general);
    return data;
}

enum status split_regex_find(const struct split_regex *regex, pcre2_match_data *data,
                             const char *text, size_t len_bytes, size_t start, bool *found,
                             size_t *begin, size_t *end, struct error *err)
{
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int result = PCRE2_ERROR_JIT_STACKLIMIT;
    if (regex->has_jit) {
        result = pcre2_jit_match(regex->code, subject, len_bytes, start, PCRE2_NO_UTF_CHECK, data,
                                 regex->limits);
    }
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) { /* the interpreter keeps its stack on the heap */
        result = pcre2_match(regex->code, subject, len_bytes, start,
                             PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, regex->limits);
    }
    *found = result >= 0;
    if (result >= 0) {
        const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(data);
        *begin = offsets[0];
        *end = offsets[1];
        return STATUS_OK;
    }
    switch (result) {
    case PCRE2_ERROR_NOMATCH:
        return STATUS_OK;
    case PCRE2_ERROR_NOMEMORY:
        return mem_fail(err, len_bytes, "matching a regular expression");
    case PCRE2_ERROR_MATCHLIMIT:
    case PCRE2_ERROR_DEPTHLIMIT:
    case PCRE2_ERROR_HEAPLIMIT:
        return FAIL(err, STATUS_LIMIT,
                    "the tokenizer's regular expression backtracks too much on this text at byte "
                    "%zu of %zu",
                    start, len_bytes);
    default:
        return FAIL(err, STATUS_INTERNAL,
                    "matching the tokenizer's regular expression: error %d of PCRE2", result);
    }
}
