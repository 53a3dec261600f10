#include "model/splitter.h"

#include <stdint.h>

#include "base/mem.h"

/* What ByteLevel splits by when "use_regex" is true: GPT-2's pattern. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- reading ------------------------------------------------------------------------------- */

static bool read_flag(const cJSON *node, const char *key, bool fallback)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(node, key);
    return cJSON_IsBool(value) ? (bool)cJSON_IsTrue(value) : fallback;
}

static const char *read_name(const cJSON *node, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(node, key);
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

static enum status add_stage(struct splitter *splitter, enum splitter_kind kind,
                             struct splitter_stage **stage, struct error *err)
{
    /* One is kept free for splitter_add_word_starts. */
    if (splitter->stage_count >= SPLITTER_STAGES_MAX - 1) {
        return FAIL(err, STATUS_LIMIT, "more than %d pre-tokenizers", SPLITTER_STAGES_MAX - 1);
    }
    *stage = &splitter->stages[splitter->stage_count++];
    (*stage)->kind = kind;
    return STATUS_OK;
}

static enum status add_regex(struct splitter *splitter, const char *pattern, bool literal,
                             struct splitter_stage **stage, struct error *err)
{
    TRY(add_stage(splitter, SPLITTER_REGEX, stage, err));
    return split_regex_init(&(*stage)->regex, pattern, literal, err);
}

static enum status read_split(struct splitter *splitter, const cJSON *node, struct error *err)
{
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(node, "pattern");
    const char *regex = read_name(pattern, "Regex");
    const char *string = read_name(pattern, "String");
    const char *behavior = read_name(node, "behavior");
    if ((regex == NULL && string == NULL) || behavior == NULL) {
        return FAIL(err, STATUS_FORMAT,
                    "Split without \"pattern\" (Regex or String) or \"behavior\"");
    }
    bool removed = strcmp(behavior, "Removed") == 0;
    if (!removed && strcmp(behavior, "Isolated") != 0) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "Split behavior \"%.60s\" is not supported; supported are Isolated, Removed",
                    behavior);
    }
    struct splitter_stage *stage = NULL;
    TRY(add_regex(splitter, regex != NULL ? regex : string, regex == NULL, &stage, err));
    bool invert = read_flag(node, "invert", false);
    stage->drop_matches = removed && !invert;
    stage->drop_between = removed && invert;
    return STATUS_OK;
}

static enum status read_byte_level(struct splitter *splitter, const cJSON *node, struct error *err)
{
    struct splitter_stage *stage = NULL;
    if (read_flag(node, "add_prefix_space", true)) {
        TRY(add_stage(splitter, SPLITTER_BYTE_SPACE, &stage, err));
    }
    if (read_flag(node, "use_regex", true)) {
        TRY(add_regex(splitter, gpt2_pattern, false, &stage, err));
    }
    splitter->byte_level = true;
    return STATUS_OK;
}

static enum status read_metaspace(struct splitter *splitter, const cJSON *node, struct error *err)
{
    static const char *const schemes[] = {"always", "first", "never"};
    const char *replacement = read_name(node, "replacement");
    if (replacement == NULL || strcmp(replacement, TEXT_METASPACE) != 0) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "Metaspace with a replacement other than U+2581 is not supported");
    }
    struct splitter_stage *stage = NULL;
    TRY(add_stage(splitter, SPLITTER_METASPACE, &stage, err));
    stage->cut = read_flag(node, "split", true);
    /* Older files say add_prefix_space. */
    stage->prefix =
        read_flag(node, "add_prefix_space", true) ? SPLITTER_PREFIX_ALWAYS : SPLITTER_PREFIX_NEVER;
    const char *scheme = read_name(node, "prepend_scheme");
    if (scheme == NULL) {
        return STATUS_OK;
    }
    for (int i = 0; i < (int)(sizeof(schemes) / sizeof(schemes[0])); i++) {
        if (strcmp(scheme, schemes[i]) == 0) {
            stage->prefix = (enum splitter_prefix)i;
            return STATUS_OK;
        }
    }
    return FAIL(err, STATUS_FORMAT,
                "Metaspace prepend_scheme \"%.60s\"; allowed are always, first, never", scheme);
}

static enum status read_stage(struct splitter *splitter, const cJSON *node, struct error *err);

static enum status read_sequence(struct splitter *splitter, const cJSON *node, struct error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(node, "pretokenizers");
    if (!cJSON_IsArray(list)) {
        return FAIL(err, STATUS_FORMAT, "Sequence without an array \"pretokenizers\"");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        TRY(read_stage(splitter, item, err));
    }
    return STATUS_OK;
}

static enum status read_stage(struct splitter *splitter, const cJSON *node, struct error *err)
{
    const char *type = read_name(node, "type");
    if (type == NULL) {
        return FAIL(err, STATUS_FORMAT, "a pre-tokenizer without a \"type\"");
    }
    if (splitter->byte_level) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "\"%.60s\" after ByteLevel is not supported; ByteLevel must be last", type);
    }
    if (strcmp(type, "Sequence") == 0) {
        return read_sequence(splitter, node, err);
    }
    if (strcmp(type, "Split") == 0) {
        return read_split(splitter, node, err);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        return read_byte_level(splitter, node, err);
    }
    if (strcmp(type, "Metaspace") == 0) {
        return read_metaspace(splitter, node, err);
    }
    if (strcmp(type, "Digits") == 0) {
        struct splitter_stage *stage = NULL;
        return add_regex(splitter,
                         read_flag(node, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", false,
                         &stage, err);
    }
    return FAIL(err, STATUS_UNSUPPORTED,
                "pre-tokenizer \"%.60s\" is not supported; supported are Split, ByteLevel, "
                "Metaspace, Digits, Sequence",
                type);
}

enum status splitter_read(struct splitter *splitter, const cJSON *node, struct error *err)
{
    memset(splitter, 0, sizeof(*splitter));
    if (node == NULL || cJSON_IsNull(node)) {
        return STATUS_OK;
    }
    enum status status = read_stage(splitter, node, err);
    if (status != STATUS_OK) {
        splitter_fini(splitter);
    }
    return status;
}

void splitter_fini(struct splitter *splitter)
{
    for (int i = 0; i < splitter->stage_count; i++) {
        split_regex_fini(&splitter->stages[i].regex);
    }
    memset(splitter, 0, sizeof(*splitter));
}

void splitter_add_word_starts(struct splitter *splitter)
{
    splitter->stages[splitter->stage_count++].kind = SPLITTER_WORD_STARTS;
}

/* ---- splitting ----------------------------------------------------------------------------- */

enum status splitter_run_init(struct splitter_run *run, const struct splitter *splitter,
                              splitter_emit emit, void *context, struct error *err)
{
    memset(run, 0, sizeof(*run));
    run->splitter = splitter;
    run->emit = emit;
    run->context = context;
    bool has_regex = false;
    for (int i = 0; i < splitter->stage_count; i++) {
        buffer_init(&run->copies[i], SIZE_MAX / 2);
        has_regex = has_regex || splitter->stages[i].kind == SPLITTER_REGEX;
    }
    run->match_data = has_regex ? split_regex_match_data() : NULL;
    if (has_regex && run->match_data == NULL) {
        return mem_fail(err, 0, "matching a regular expression");
    }
    return STATUS_OK;
}

void splitter_run_fini(struct splitter_run *run)
{
    for (int i = 0; i < SPLITTER_STAGES_MAX; i++) {
        buffer_fini(&run->copies[i]);
    }
    pcre2_match_data_free(run->match_data);
    run->match_data = NULL;
}

static enum status run_stage(struct splitter_run *run, int index, struct text_slice text,
                             enum splitter_place place, struct error *err);

static enum status pass_on(struct splitter_run *run, int index, struct text_slice text,
                           size_t begin, size_t end, enum splitter_place place, struct error *err)
{
    if (begin == end) {
        return STATUS_OK;
    }
    struct text_slice piece = {.data = text.data + begin, .len_bytes = end - begin};
    if (index + 1 == run->splitter->stage_count) {
        return run->emit(run->context, piece, err);
    }
    return run_stage(run, index + 1, piece, begin == 0 ? place : SPLITTER_INSIDE, err);
}

static enum status run_regex(struct splitter_run *run, int index, struct text_slice text,
                             enum splitter_place place, struct error *err)
{
    const struct splitter_stage *stage = &run->splitter->stages[index];
    size_t at = 0;
    while (at < text.len_bytes) {
        bool found = false;
        size_t begin = text.len_bytes;
        size_t end = text.len_bytes;
        TRY(split_regex_find(&stage->regex, run->match_data, text.data, text.len_bytes, at, &found,
                             &begin, &end, err));
        if (!stage->drop_between) {
            TRY(pass_on(run, index, text, at, begin, place, err));
        }
        if (!stage->drop_matches) {
            TRY(pass_on(run, index, text, begin, end, place, err));
        }
        at = end;
    }
    return STATUS_OK;
}

static enum status run_byte_space(struct splitter_run *run, int index, struct text_slice text,
                                  enum splitter_place place, struct error *err)
{
    if (place == SPLITTER_CONTINUED || text_starts_with(text, " ", 1)) {
        return pass_on(run, index, text, 0, text.len_bytes, place, err);
    }
    struct buffer *copy = &run->copies[index];
    buffer_clear(copy);
    buffer_append_char(copy, ' ');
    buffer_append(copy, text.data, text.len_bytes);
    if (copy->failed) {
        return mem_fail(err, text.len_bytes, "a text with its prefix");
    }
    struct text_slice longer = {.data = buffer_text(copy), .len_bytes = copy->len_bytes};
    return pass_on(run, index, longer, 0, longer.len_bytes, place, err);
}

/* Copies text with U+2581 for each space, and one in front where the stage wants it. */
static enum status copy_metaspace(const struct splitter_stage *stage, struct text_slice text,
                                  enum splitter_place place, struct buffer *copy, struct error *err)
{
    bool has_one = text_starts_with(text, " ", 1) ||
                   text_starts_with(text, TEXT_METASPACE, TEXT_METASPACE_BYTES);
    bool wanted = (stage->prefix == SPLITTER_PREFIX_ALWAYS && place != SPLITTER_CONTINUED) ||
                  (stage->prefix == SPLITTER_PREFIX_FIRST && place == SPLITTER_TEXT_START);
    buffer_clear(copy);
    if (wanted && !has_one) {
        buffer_append(copy, TEXT_METASPACE, TEXT_METASPACE_BYTES);
    }
    for (size_t at = 0; at < text.len_bytes;) {
        const char *space = memchr(text.data + at, ' ', text.len_bytes - at);
        size_t stop = space != NULL ? (size_t)(space - text.data) : text.len_bytes;
        buffer_append(copy, text.data + at, stop - at);
        if (space != NULL) {
            buffer_append(copy, TEXT_METASPACE, TEXT_METASPACE_BYTES);
        }
        at = stop + (space != NULL);
    }
    return copy->failed ? mem_fail(err, 3 * text.len_bytes, "a text with visible spaces")
                        : STATUS_OK;
}

/* Passes on pieces that begin at U+2581: at each one, or (whole_runs) at the first of each run of
 * them. */
static enum status cut_at_metaspaces(struct splitter_run *run, int index, struct text_slice text,
                                     bool whole_runs, enum splitter_place place, struct error *err)
{
    size_t begin = 0;
    while (begin < text.len_bytes) {
        struct text_slice rest = {.data = text.data + begin, .len_bytes = text.len_bytes - begin};
        size_t skip = 0;
        while (text_starts_with(rest, TEXT_METASPACE, TEXT_METASPACE_BYTES)) {
            skip += TEXT_METASPACE_BYTES;
            rest = (struct text_slice){rest.data + TEXT_METASPACE_BYTES,
                                       rest.len_bytes - TEXT_METASPACE_BYTES};
            if (!whole_runs) {
                break;
            }
        }
        const char *next = memmem(rest.data, rest.len_bytes, TEXT_METASPACE, TEXT_METASPACE_BYTES);
        size_t end = next != NULL ? begin + skip + (size_t)(next - rest.data) : text.len_bytes;
        TRY(pass_on(run, index, text, begin, end, place, err));
        begin = end;
    }
    return STATUS_OK;
}

static enum status run_metaspace(struct splitter_run *run, int index, struct text_slice text,
                                 enum splitter_place place, struct error *err)
{
    const struct splitter_stage *stage = &run->splitter->stages[index];
    struct buffer *copy = &run->copies[index];
    TRY(copy_metaspace(stage, text, place, copy, err));
    struct text_slice visible = {.data = buffer_text(copy), .len_bytes = copy->len_bytes};
    if (stage->cut) {
        return cut_at_metaspaces(run, index, visible, false, place, err);
    }
    return pass_on(run, index, visible, 0, visible.len_bytes, place, err);
}

static enum status run_stage(struct splitter_run *run, int index, struct text_slice text,
                             enum splitter_place place, struct error *err)
{
    switch (run->splitter->stages[index].kind) {
    case SPLITTER_REGEX:
        return run_regex(run, index, text, place, err);
    case SPLITTER_BYTE_SPACE:
        return run_byte_space(run, index, text, place, err);
    case SPLITTER_METASPACE:
        return run_metaspace(run, index, text, place, err);
    case SPLITTER_WORD_STARTS:
        return cut_at_metaspaces(run, index, text, true, place, err);
    }
    return FAIL(err, STATUS_INTERNAL, "a pre-tokenizer of unknown kind");
}

enum status splitter_split(struct splitter_run *run, struct text_slice text,
                           enum splitter_place place, struct error *err)
{
    if (text.len_bytes == 0) {
        return STATUS_OK;
    }
    if (run->splitter->stage_count == 0) {
        return run->emit(run->context, text, err);
    }
    return run_stage(run, 0, text, place, err);
}
