#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

enum { TEMPLATE_MAX_BYTES = 16 * 1024 * 1024 };

#define TURN_START "<|im_start|>"
#define TURN_END "<|im_end|>"
#define THINK_START "<think>"
#define THINK_END "</think>"

/* ---- names and detection ------------------------------------------------------------------- */

const char *chat_format_name(enum chat_format format)
{
    static const char *const names[] = {"plain", "chatml", "qwen3"};
    return (int)format >= 0 && format < CHAT_FORMAT_COUNT ? names[format] : "?";
}

const char *chat_end_token(enum chat_format format)
{
    return format == CHAT_PLAIN ? NULL : TURN_END;
}

static bool contains_all(const char *text, const char *const *parts)
{
    for (; *parts != NULL; parts++) {
        if (strstr(text, *parts) == NULL) {
            return false;
        }
    }
    return true;
}

static bool contains_any(const char *text, const char *const *parts)
{
    for (; *parts != NULL; parts++) {
        if (strstr(text, *parts) != NULL) {
            return true;
        }
    }
    return false;
}

/* A template is recognised by what sets it apart. Anything else that its text would write is a
 * reason to say no: a wrong format trains without a complaint, and badly. */
static enum status recognise(const char *template, const char *source, enum chat_format *out,
                             struct error *err)
{
    static const char *const qwen3_parts[] = {TURN_START,
                                              TURN_END,
                                              "enable_thinking is false",
                                              "last_query_index",
                                              "reasoning_content",
                                              THINK_START "\\n\\n" THINK_END "\\n\\n",
                                              NULL};
    static const char *const chatml_parts[] = {TURN_START, TURN_END,  "assistant",
                                               "message",  "content", NULL};
    /* A default system message, thinking, other marks, or contents changed on the way. */
    static const char *const not_chatml[] = {
        "You are",  "think", "default", "bos_token", "eos_token", "[INST]", "<|system|>",
        "<|user|>", "trim",  "strip",   "upper",     "date",      NULL};
    if (contains_all(template, qwen3_parts)) {
        *out = CHAT_QWEN3;
        return STATUS_OK;
    }
    if (contains_all(template, chatml_parts) && !contains_any(template, not_chatml)) {
        *out = CHAT_CHATML;
        return STATUS_OK;
    }
    return FAIL(err, STATUS_UNSUPPORTED,
                "%s: the chat template is none of those known; set task.chat in the job to plain, "
                "chatml or qwen3",
                source);
}

/* "chat_template" is a text, or a list of {"name", "template"} of which "default" counts. NULL if
 * there is none. */
static const char *template_of_config(const cJSON *config)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(config, "chat_template");
    if (cJSON_IsString(value)) {
        return value->valuestring;
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, value) {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");
        const cJSON *template = cJSON_GetObjectItemCaseSensitive(item, "template");
        if (cJSON_IsString(name) && cJSON_IsString(template) &&
            strcmp(name->valuestring, "default") == 0) {
            return template->valuestring;
        }
    }
    return NULL;
}

enum status chat_format_detect(const char *folder, enum chat_format *out, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char config_path[FILE_PATH_BYTES];
    TRY(file_join(folder, "chat_template.jinja", path, err));
    TRY(file_join(folder, "tokenizer_config.json", config_path, err));
    enum status status = STATUS_OK;
    cJSON *config = NULL;
    struct buffer template;
    buffer_init(&template, TEMPLATE_MAX_BYTES);
    if (file_exists(path)) {
        TRY_CLEANUP(file_read(path, &template, err));
        status = recognise(buffer_text(&template), path, out, err);
    } else if (file_exists(config_path)) {
        TRY_CLEANUP(json_parse_file(config_path, TEMPLATE_MAX_BYTES, &config, err));
        const char *text = template_of_config(config);
        if (text != NULL) {
            status = recognise(text, config_path, out, err);
        } else {
            *out = CHAT_PLAIN;
        }
    } else {
        *out = CHAT_PLAIN;
    }
cleanup:
    buffer_fini(&template);
    cJSON_Delete(config);
    return status;
}

/* ---- writing the parts --------------------------------------------------------------------- */

/* A rendered text is a row of parts, each of one kind. */
struct chat_part {
    size_t end;     /* in the text; it begins where the part before ends */
    bool trusted;   /* written by the template: special tokens count */
    bool answered;  /* written by an assistant's turn */
    bool ends_turn; /* CHAT_PLAIN: eos follows */
};

struct chat_writer {
    struct buffer *text;
    size_t text_start; /* length of *text before */
    struct chat_part *parts;
    int64_t count;
    int64_t capacity;
    bool no_memory;
};

static void write_part(struct chat_writer *writer, const char *data, size_t len_bytes, bool trusted,
                       bool answered)
{
    if (writer->count == writer->capacity) {
        int64_t capacity = writer->capacity > 0 ? 2 * writer->capacity : 32;
        struct chat_part *parts = mem_realloc(writer->parts, (size_t)capacity, sizeof(*parts));
        if (parts == NULL) {
            writer->no_memory = true;
            return;
        }
        writer->parts = parts;
        writer->capacity = capacity;
    }
    buffer_append(writer->text, data, len_bytes);
    writer->parts[writer->count++] =
        (struct chat_part){.end = writer->text->len_bytes - writer->text_start,
                           .trusted = trusted,
                           .answered = answered};
}

static void write_template(struct chat_writer *writer, const char *text, bool answered)
{
    write_part(writer, text, strlen(text), true, answered);
}

static void write_content(struct chat_writer *writer, const char *data, size_t len_bytes,
                          bool answered)
{
    write_part(writer, data, len_bytes, false, answered);
}

static void write_turn_start(struct chat_writer *writer, const char *role)
{
    write_template(writer, TURN_START, false);
    write_template(writer, role, false);
    write_template(writer, "\n", false);
}

/* The mark that ends a turn is part of an answer; the line break behind it is not. */
static void write_turn_end(struct chat_writer *writer, bool answered)
{
    write_template(writer, TURN_END, answered);
    write_template(writer, "\n", false);
}

static void write_turn(struct chat_writer *writer, const struct chat_message *message,
                       const char *content, size_t len)
{
    bool answered = strcmp(message->role, "assistant") == 0;
    write_turn_start(writer, message->role);
    write_content(writer, content, len, answered);
    write_turn_end(writer, answered);
}

/* ---- Qwen3 --------------------------------------------------------------------------------- */

struct span {
    const char *data;
    size_t len;
};

static struct span strip_breaks(struct span text, bool left, bool right)
{
    while (left && text.len > 0 && text.data[0] == '\n') {
        text.data++;
        text.len--;
    }
    while (right && text.len > 0 && text.data[text.len - 1] == '\n') {
        text.len--;
    }
    return text;
}

/* What stands behind the last `mark` in text; all of it if the mark is not there. */
static struct span after_last(struct span text, const char *mark)
{
    size_t mark_len = strlen(mark);
    const char *hit = NULL;
    while ((hit = memmem(text.data, text.len, mark, mark_len)) != NULL) {
        size_t skipped = (size_t)(hit - text.data) + mark_len;
        text = (struct span){.data = text.data + skipped, .len = text.len - skipped};
    }
    return text;
}

/* Takes an answer apart as the template does: what was thought (between the marks) and what was
 * said (after them). */
static void split_reasoning(const char *content, struct span *reasoning, struct span *answer)
{
    *reasoning = (struct span){.data = content, .len = 0};
    *answer = (struct span){.data = content, .len = strlen(content)};
    const char *end = strstr(content, THINK_END);
    if (end == NULL) {
        return;
    }
    struct span before = {.data = content, .len = (size_t)(end - content)};
    *reasoning =
        strip_breaks(after_last(strip_breaks(before, false, true), THINK_START), true, true);
    *answer = strip_breaks(after_last(*answer, THINK_END), true, false);
}

/* Index of the last question: a user's message that is not a tool's answer in disguise. */
static int64_t last_query(const struct chat_message *messages, int64_t count)
{
    static const char opening[] = "<tool_response>";
    static const char closing[] = "</tool_response>";
    for (int64_t i = count - 1; i >= 0; i--) {
        const char *content = messages[i].content;
        size_t len = strlen(content);
        bool is_tool = strncmp(content, opening, strlen(opening)) == 0 && len >= strlen(closing) &&
                       strcmp(content + len - strlen(closing), closing) == 0;
        if (strcmp(messages[i].role, "user") == 0 && !is_tool) {
            return i;
        }
    }
    return count - 1;
}

/* An answer after the last question, with its thinking block. With thinking disabled an empty block
 * is the prompt's. */
static void write_thinking_turn(struct chat_writer *writer, struct span reasoning,
                                struct span answer, bool enable_thinking)
{
    bool thought = enable_thinking || reasoning.len > 0;
    write_turn_start(writer, "assistant");
    write_template(writer, THINK_START "\n", thought);
    write_content(writer, reasoning.data, reasoning.len, thought);
    write_template(writer, "\n" THINK_END "\n\n", thought);
    answer = strip_breaks(answer, true, false);
    write_content(writer, answer.data, answer.len, true);
    write_turn_end(writer, true);
}

static void write_qwen3(struct chat_writer *writer, const struct chat_message *messages,
                        int64_t count, bool enable_thinking)
{
    int64_t query = last_query(messages, count);
    for (int64_t i = 0; i < count; i++) {
        const struct chat_message *message = &messages[i];
        struct span reasoning = {0};
        struct span answer = {.data = message->content, .len = strlen(message->content)};
        bool from_assistant = strcmp(message->role, "assistant") == 0;
        if (from_assistant) {
            split_reasoning(message->content, &reasoning, &answer);
        }
        if (from_assistant && i > query && (i == count - 1 || reasoning.len > 0)) {
            write_thinking_turn(writer, reasoning, answer, enable_thinking);
        } else {
            write_turn(writer, message, answer.data, answer.len);
        }
    }
}

/* ---- all formats --------------------------------------------------------------------------- */

static enum status check_messages(const struct chat_message *messages, int64_t count,
                                  struct error *err)
{
    if (count <= 0) {
        return FAIL(err, STATUS_INVALID, "a chat without messages");
    }
    for (int64_t i = 0; i < count; i++) {
        const char *role = messages[i].role;
        if (role == NULL || messages[i].content == NULL) {
            return FAIL(err, STATUS_INVALID, "message %lld has no role or no content",
                        (long long)i);
        }
        if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 &&
            strcmp(role, "assistant") != 0) {
            return FAIL(err, STATUS_UNSUPPORTED,
                        "message %lld: role \"%.40s\" is not supported; supported are system, "
                        "user, assistant",
                        (long long)i, role);
        }
    }
    return STATUS_OK;
}

static void write_plain(struct chat_writer *writer, const struct chat_message *messages,
                        int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        bool answered = strcmp(messages[i].role, "assistant") == 0;
        write_content(writer, messages[i].content, strlen(messages[i].content), answered);
        if (!writer->no_memory) {
            writer->parts[writer->count - 1].ends_turn = answered;
        }
    }
}

static enum status write_chat(struct chat_writer *writer, enum chat_format format,
                              const struct chat_message *messages, int64_t count,
                              bool add_generation_prompt, bool enable_thinking, struct error *err)
{
    TRY(check_messages(messages, count, err));
    writer->text_start = writer->text->len_bytes;
    if (format == CHAT_PLAIN) {
        write_plain(writer, messages, count);
    } else if (format == CHAT_QWEN3) {
        write_qwen3(writer, messages, count, enable_thinking);
    } else {
        for (int64_t i = 0; i < count; i++) {
            write_turn(writer, &messages[i], messages[i].content, strlen(messages[i].content));
        }
    }
    if (add_generation_prompt && format != CHAT_PLAIN) {
        write_turn_start(writer, "assistant");
        if (format == CHAT_QWEN3 && !enable_thinking) {
            write_template(writer, THINK_START "\n\n" THINK_END "\n\n", false);
        }
    }
    if (writer->no_memory) {
        return mem_fail(err, (size_t)writer->capacity * sizeof(*writer->parts), "a chat");
    }
    return buffer_check(writer->text, "a chat", err);
}

enum status chat_render(enum chat_format format, const struct chat_message *messages, int64_t count,
                        bool add_generation_prompt, bool enable_thinking, struct buffer *out,
                        struct error *err)
{
    struct chat_writer writer = {.text = out};
    enum status status =
        write_chat(&writer, format, messages, count, add_generation_prompt, enable_thinking, err);
    free(writer.parts);
    return status;
}

/* ---- ids ----------------------------------------------------------------------------------- */

/* What one call writes to and from. */
struct chat_encoder {
    const struct tokenizer *tokenizer;
    enum chat_format format;
    const char *text;
    struct text_range *trusted; /* room for all parts */
    struct token_list *ids;
    struct token_list *answer_mask;
    bool after_token; /* the last id is a special token */
};

static enum status check_tokens(const struct tokenizer *tokenizer, enum chat_format format,
                                struct error *err)
{
    static const char *const marks[] = {TURN_START, TURN_END, THINK_START, THINK_END};
    int needed = format == CHAT_PLAIN ? 0 : format == CHAT_CHATML ? 2 : 4;
    for (int i = 0; i < needed; i++) {
        if (tokenizer_find(tokenizer, marks[i]) < 0) {
            return FAIL(err, STATUS_UNSUPPORTED,
                        "chat format %s needs a token \"%s\", which this tokenizer lacks; set "
                        "task.chat to plain",
                        chat_format_name(format), marks[i]);
        }
    }
    return STATUS_OK;
}

/* Lengthens the mask to the number of ids. */
static enum status extend_mask(struct chat_encoder *encoder, int64_t id_count_before, bool answered,
                               struct error *err)
{
    int32_t value = answered ? 1 : 0;
    for (int64_t i = id_count_before; encoder->answer_mask != NULL && i < encoder->ids->count;
         i++) {
        TRY(token_list_append(encoder->answer_mask, &value, 1, err));
    }
    return STATUS_OK;
}

static enum status encode_token(struct chat_encoder *encoder, int32_t id, bool answered,
                                struct error *err)
{
    int64_t before = encoder->ids->count;
    TRY(token_list_append(encoder->ids, &id, 1, err));
    encoder->after_token = true;
    return extend_mask(encoder, before, answered, err);
}

/* Encodes parts[0..count), which begin at `begin` of the text and are all of an answer or all of
 * none. They are encoded as one text, so that words across parts come out as in the rendered text.
 */
static enum status encode_parts(struct chat_encoder *encoder, const struct chat_part *parts,
                                int64_t count, size_t begin, struct error *err)
{
    int64_t range_count = 0;
    size_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t end = parts[i].end - begin;
        if (parts[i].trusted && end > at) {
            encoder->trusted[range_count++] = (struct text_range){.begin = at, .end = end};
        }
        at = end;
    }
    if (at == 0) {
        return STATUS_OK;
    }
    int flags = begin == 0 ? 0 : encoder->after_token ? TOKENIZER_AFTER_TOKEN : TOKENIZER_CONTINUE;
    int64_t before = encoder->ids->count;
    TRY(tokenizer_encode_ranges(encoder->tokenizer, encoder->text + begin, at, flags,
                                encoder->trusted, range_count, encoder->ids, err));
    /* An answer of a template ends with its end token. */
    encoder->after_token = encoder->format != CHAT_PLAIN && parts[0].answered;
    return extend_mask(encoder, before, parts[0].answered, err);
}

static enum status encode_chat(struct chat_encoder *encoder, const struct chat_writer *writer,
                               struct error *err)
{
    const struct tokenizer *tokenizer = encoder->tokenizer;
    if (encoder->format == CHAT_PLAIN && tokenizer_adds_bos(tokenizer)) {
        TRY(encode_token(encoder, tokenizer_bos(tokenizer), false, err));
    }
    int64_t first = 0;
    size_t begin = 0;
    for (int64_t i = 0; i < writer->count; i++) {
        const struct chat_part *part = &writer->parts[i];
        bool joins_next =
            i + 1 < writer->count && part[1].answered == part->answered && !part->ends_turn;
        if (joins_next) {
            continue;
        }
        TRY(encode_parts(encoder, writer->parts + first, i + 1 - first, begin, err));
        if (part->ends_turn && tokenizer_eos(tokenizer) >= 0) {
            TRY(encode_token(encoder, tokenizer_eos(tokenizer), true, err));
        }
        first = i + 1;
        begin = part->end;
    }
    return STATUS_OK;
}

enum status chat_encode(const struct tokenizer *tokenizer, enum chat_format format,
                        const struct chat_message *messages, int64_t count,
                        bool add_generation_prompt, bool enable_thinking, struct token_list *ids,
                        struct token_list *answer_mask, struct error *err)
{
    TRY(check_tokens(tokenizer, format, err));
    int64_t id_count = ids->count;
    int64_t mask_count = answer_mask != NULL ? answer_mask->count : 0;
    enum status status = STATUS_OK;
    struct chat_encoder encoder = {
        .tokenizer = tokenizer, .format = format, .ids = ids, .answer_mask = answer_mask};
    struct buffer text;
    buffer_init(&text, TOKENIZER_TEXT_MAX_BYTES);
    struct chat_writer writer = {.text = &text};
    TRY_CLEANUP(
        write_chat(&writer, format, messages, count, add_generation_prompt, enable_thinking, err));
    encoder.text = buffer_text(&text);
    encoder.trusted = mem_calloc((size_t)writer.count, sizeof(*encoder.trusted));
    if (encoder.trusted == NULL) {
        status = mem_fail(err, (size_t)writer.count * sizeof(*encoder.trusted), "a chat");
        goto cleanup;
    }
    status = encode_chat(&encoder, &writer, err);
cleanup:
    if (status != STATUS_OK) {
        ids->count = id_count;
        if (answer_mask != NULL) {
            answer_mask->count = mask_count;
        }
    }
    free(encoder.trusted);
    free(writer.parts);
    buffer_fini(&text);
    return status;
}
