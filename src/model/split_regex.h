/* Regular expressions of tokenizer.json, which are Oniguruma's (Ruby syntax), on PCRE2 with its
 * JIT.
 *
 * The two agree on what tokenizers use, apart from a few constructs. Those are translated (\s, \v,
 * scripts) or refused by name; a pattern is never run with another meaning than it had. */
#ifndef MODEL_SPLIT_REGEX_H
#define MODEL_SPLIT_REGEX_H

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct split_regex {
    pcre2_code *code;
    pcre2_match_context *limits; /* on backtracking, so that no pattern can hang the program */
    bool has_jit;
};

/* Compiles a pattern, or a plain text if `literal`. STATUS_FORMAT for a wrong pattern,
 * STATUS_UNSUPPORTED for one that would mean something else here or that matches the empty text. */
enum status split_regex_init(struct split_regex *regex, const char *pattern, bool literal,
                             struct error *err);
void split_regex_fini(struct split_regex *regex);

/* One per call of the tokenizer: matching writes into it. NULL without memory. Free with
 * pcre2_match_data_free. */
pcre2_match_data *split_regex_match_data(void);

/* First match at or after `start` in valid UTF-8; *found false if there is none. STATUS_LIMIT if
 * the pattern needs too much backtracking on this text. */
enum status split_regex_find(const struct split_regex *regex, pcre2_match_data *data,
                             const char *text, size_t len_bytes, size_t start, bool *found,
                             size_t *begin, size_t *end, struct error *err);

#endif
