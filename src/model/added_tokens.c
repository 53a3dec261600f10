#include "model/added_tokens.h"

#include <stdlib.h>
#include <utf8proc.h>

static int compare_tokens(const void *a, const void *b)
{
    const struct added_token *left = a;
    const struct added_token *right = b;
    int order = memcmp(left->text, right->text, left->len < right->len ? left->len : right->len);
    return order != 0 ? order : (left->len > right->len) - (left->len < right->len);
}

enum status added_tokens_prepare(struct added_tokens *tokens, struct error *err)
{
    if (tokens->count > 0) {
        qsort(tokens->items, (size_t)tokens->count, sizeof(*tokens->items), compare_tokens);
    }
    for (int64_t i = 0; i < tokens->count; i++) {
        const struct added_token *token = &tokens->items[i];
        if (token->len == 0) {
            return FAIL(err, STATUS_FORMAT, "added token %d has no text", (int)token->id);
        }
        if (i > 0 && compare_tokens(token - 1, token) == 0) {
            return FAIL(err, STATUS_FORMAT, "added token \"%.*s\" is there twice", (int)token->len,
                        token->text);
        }
        tokens->starts[(unsigned char)token->text[0]] = true;
    }
    return STATUS_OK;
}

void added_tokens_fini(struct added_tokens *tokens)
{
    free(tokens->items);
    memset(tokens, 0, sizeof(*tokens));
}

/* \w of Unicode's regular expressions (UTS 18): letters, marks, numbers, connectors, joiners,
 * circled letters. */
static bool is_word_character(uint32_t point)
{
    if (point == 0x200C || point == 0x200D || (point >= 0x24B6 && point <= 0x24E9) ||
        (point >= 0x1F130 && point <= 0x1F149) || (point >= 0x1F150 && point <= 0x1F169) ||
        (point >= 0x1F170 && point <= 0x1F189)) {
        return true;
    }
    switch (utf8proc_category((utf8proc_int32_t)point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

static bool stands_alone(struct text_slice text, size_t begin, size_t end)
{
    size_t len = 0;
    if (begin > 0 &&
        is_word_character(text_code_point(text.data + text_previous(text.data, begin), &len))) {
        return false;
    }
    return end == text.len_bytes || !is_word_character(text_code_point(text.data + end, &len));
}

static bool is_allowed(struct added_allowed allowed, size_t begin, size_t end)
{
    int64_t low = 0;
    int64_t high = allowed.count;
    while (low < high) { /* the first range that ends behind `begin` */
        int64_t middle = low + (high - low) / 2;
        if (allowed.ranges[middle].end <= begin) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < allowed.count && allowed.ranges[low].begin <= begin &&
           end <= allowed.ranges[low].end;
}

/* First item in [low, high) whose byte at `depth` is at least `byte` (all agree before it; shorter
 * ones come first). */
static int64_t narrow(const struct added_tokens *tokens, int64_t low, int64_t high, size_t depth,
                      int byte)
{
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const struct added_token *token = &tokens->items[middle];
        int there = depth < token->len ? (unsigned char)token->text[depth] : -1;
        if (there < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest token at `at` that may stand there, or NULL. */
static const struct added_token *longest_at(const struct added_tokens *tokens,
                                            struct text_slice text, size_t at,
                                            struct added_allowed allowed)
{
    const struct added_token *best = NULL;
    int64_t low = 0;
    int64_t high = tokens->count;
    for (size_t depth = 0; at + depth < text.len_bytes && low < high; depth++) {
        int byte = (unsigned char)text.data[at + depth];
        low = narrow(tokens, low, high, depth, byte);
        high = narrow(tokens, low, high, depth, byte + 1);
        if (low == high) {
            break;
        }
        const struct added_token *token =
            &tokens->items[low]; /* a whole match is the shortest, so the first */
        size_t end = at + depth + 1;
        if (token->len == depth + 1 && (!token->special || is_allowed(allowed, at, end)) &&
            (!token->single_word || stands_alone(text, at, end))) {
            best = token;
        }
    }
    return best;
}

bool added_tokens_search(const struct added_tokens *tokens, struct text_slice text, size_t start,
                         struct added_allowed allowed, struct added_match *match)
{
    for (size_t at = start; tokens->count > 0 && at < text.len_bytes; at++) {
        if (!tokens->starts[(unsigned char)text.data[at]]) {
            continue;
        }
        const struct added_token *token = longest_at(tokens, text, at, allowed);
        if (token == NULL) {
            continue;
        }
        *match = (struct added_match){.begin = at, .end = at + token->len, .id = token->id};
        size_t len = 0;
        while (token->left_strip && match->begin > start) {
            size_t before = text_previous(text.data, match->begin);
            if (!text_is_space(text_code_point(text.data + before, &len))) {
                break;
            }
            match->begin = before;
        }
        while (token->right_strip && match->end < text.len_bytes &&
               text_is_space(text_code_point(text.data + match->end, &len))) {
            match->end += len;
        }
        return true;
    }
    return false;
}
