#include "model/normalizer.h"

#include <stdint.h>

#include "base/mem.h"

void normalizer_scratch_init(struct normalizer_scratch *scratch)
{
    memset(scratch, 0, sizeof(*scratch));
    buffer_init(&scratch->buffers[0], SIZE_MAX / 2);
    buffer_init(&scratch->buffers[1], SIZE_MAX / 2);
}

void normalizer_scratch_fini(struct normalizer_scratch *scratch)
{
    buffer_fini(&scratch->buffers[0]);
    buffer_fini(&scratch->buffers[1]);
    unicode_scratch_fini(&scratch->unicode);
}

/* ---- reading ------------------------------------------------------------------------------- */

enum status normalizer_read_text(const cJSON *node, const char *key,
                                 char out[NORMALIZER_TEXT_MAX_BYTES + 1], struct error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(node, key);
    if (!cJSON_IsString(value)) {
        return FAIL(err, STATUS_FORMAT, "\"%s\" must be a string", key);
    }
    if (strlen(value->valuestring) > NORMALIZER_TEXT_MAX_BYTES) {
        return FAIL(err, STATUS_LIMIT, "\"%s\" is longer than %d bytes", key,
                    NORMALIZER_TEXT_MAX_BYTES);
    }
    memcpy(out, value->valuestring, strlen(value->valuestring) + 1);
    return STATUS_OK;
}

enum status normalizer_read_replace(struct normalizer_step *step, const cJSON *node,
                                    struct error *err)
{
    step->kind = NORMALIZER_REPLACE;
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(node, "pattern");
    if (cJSON_GetObjectItemCaseSensitive(pattern, "Regex") != NULL) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "Replace with a Regex is not supported; supported is a String");
    }
    TRY(normalizer_read_text(pattern, "String", step->pattern, err));
    if (step->pattern[0] == '\0') {
        return FAIL(err, STATUS_FORMAT, "Replace with an empty String");
    }
    return normalizer_read_text(node, "content", step->content, err);
}

static enum status read_step(struct normalizer *normalizer, const cJSON *node, struct error *err);

static enum status read_sequence(struct normalizer *normalizer, const cJSON *node,
                                 struct error *err)
{
    const cJSON *steps = cJSON_GetObjectItemCaseSensitive(node, "normalizers");
    if (!cJSON_IsArray(steps)) {
        return FAIL(err, STATUS_FORMAT, "Sequence without an array \"normalizers\"");
    }
    const cJSON *step = NULL;
    cJSON_ArrayForEach (step, steps) {
        TRY(read_step(normalizer, step, err));
    }
    return STATUS_OK;
}

static enum status read_step(struct normalizer *normalizer, const cJSON *node, struct error *err)
{
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(node, "type");
    if (!cJSON_IsString(type)) {
        return FAIL(err, STATUS_FORMAT, "a normalizer without a \"type\"");
    }
    if (strcmp(type->valuestring, "Sequence") == 0) {
        return read_sequence(normalizer, node, err);
    }
    if (normalizer->step_count == NORMALIZER_STEPS_MAX) {
        return FAIL(err, STATUS_LIMIT, "more than %d normalizers", NORMALIZER_STEPS_MAX);
    }
    struct normalizer_step *step = &normalizer->steps[normalizer->step_count++];
    for (int form = 0; form < (int)(sizeof(forms) / sizeof(forms[0])); form++) {
        if (strcmp(type->valuestring, forms[form]) == 0) {
            step->kind = (enum normalizer_kind)form;
            return STATUS_OK;
        }
    }
    if (strcmp(type->valuestring, "Prepend") == 0) {
        step->kind = NORMALIZER_PREPEND;
        return normalizer_read_text(node, "prepend", step->content, err);
    }
    if (strcmp(type->valuestring, "Replace") == 0) {
        return normalizer_read_replace(step, node, err);
    }
    return FAIL(err, STATUS_UNSUPPORTED,
                "normalizer \"%.60s\" is not supported; supported are NFC, NFD, NFKC, NFKD, "
                "Prepend, Replace, Sequence",
                type->valuestring);
}

enum status normalizer_read(struct normalizer *normalizer, const cJSON *node, struct error *err)
{
    normalizer->step_count = 0;
    if (node == NULL || cJSON_IsNull(node)) {
        return STATUS_OK;
    }
    return read_step(normalizer, node, err);
}

/* ---- applying ------------------------------------------------------------------------------ */

enum status normalizer_replace(const struct normalizer_step *step, struct text_slice text,
                               struct buffer *out, struct error *err)
{
    size_t pattern_len = strlen(step->pattern);
    size_t content_len = strlen(step->content);
    const char *at = text.data;
    const char *end = text.data + text.len_bytes;
    while (at < end) {
        const char *hit = memmem(at, (size_t)(end - at), step->pattern, pattern_len);
        const char *stop = hit != NULL ? hit : end;
        buffer_append(out, at, (size_t)(stop - at));
        if (hit != NULL) {
            buffer_append(out, step->content, content_len);
        }
        if (out->failed) {
            return mem_fail(err, out->len_bytes, "a text with replaced strings");
        }
        if (out->len_bytes > NORMALIZER_OUT_MAX_BYTES) {
            return FAIL(err, STATUS_LIMIT, "normalized text is longer than %d bytes",
                        NORMALIZER_OUT_MAX_BYTES);
        }
        at = hit != NULL ? hit + pattern_len : end;
    }
    return STATUS_OK;
}

/* True if the step leaves text as it is, so that no copy is needed. */
static bool changes_nothing(const struct normalizer_step *step, struct text_slice text,
                            bool with_prefix)
{
    switch (step->kind) {
    case NORMALIZER_PREPEND:
        return !with_prefix || text.len_bytes == 0;
    case NORMALIZER_REPLACE:
        return memmem(text.data, text.len_bytes, step->pattern, strlen(step->pattern)) == NULL;
    default:
        return unicode_form_inert(text, (enum unicode_form)step->kind) == text.len_bytes;
    }
}

static enum status apply_step(const struct normalizer_step *step, struct text_slice text,
                              struct buffer *out, struct unicode_scratch *unicode,
                              struct error *err)
{
    switch (step->kind) {
    case NORMALIZER_PREPEND:
        buffer_append_text(out, step->content);
        buffer_append(out, text.data, text.len_bytes);
        return out->failed ? mem_fail(err, text.len_bytes, "a text with its prefix") : STATUS_OK;
    case NORMALIZER_REPLACE:
        return normalizer_replace(step, text, out, err);
    default:
        return unicode_form_append(text, (enum unicode_form)step->kind, unicode, out, err);
    }
}

enum status normalizer_apply(const struct normalizer *normalizer, struct text_slice text,
                             bool with_prefix, struct normalizer_scratch *scratch,
                             struct text_slice *out, struct error *err)
{
    int turn = 0;
    for (int i = 0; i < normalizer->step_count; i++) {
        if (changes_nothing(&normalizer->steps[i], text, with_prefix)) {
            continue;
        }
        struct buffer *target = &scratch->buffers[turn];
        buffer_clear(target);
        TRY(apply_step(&normalizer->steps[i], text, target, &scratch->unicode, err));
        text = (struct text_slice){.data = buffer_text(target), .len_bytes = target->len_bytes};
        turn = 1 - turn;
    }
    *out = text;
    return STATUS_OK;
}
