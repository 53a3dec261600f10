/* Where the JSON is in a reply. Models think aloud, explain, repeat the question's example, fence,
 * and stop in the middle. Tried in turn:
 *
 *   1. the whole reply, or the whole of what stands in its last fence
 *   2. each complete object outside the thinking; of those the last that fits, else the one with
 *      the fewest mistakes, the later of two
 *
 * An object that is alone in another one, under a name that was not asked for, stands for it.
 * An object that is cut is never guessed at: the model is told so. */
#include "agents/reply.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { OBJECTS_MAX = 64, WORK_FACTOR = 16 };

/* The best object so far. */
struct choice {
    cJSON *object;
    struct json_problems problems;
    struct json_problems *out;
    const cJSON *schema;
    int objects; /* looked at */
};

/* ---- parts of a text ---- */

struct span {
    const char *text;
    size_t length;
};

static struct span trim(struct span span)
{
    while (span.length > 0 && strchr(" \t\r\n", span.text[0]) != NULL) {
        span.text++;
        span.length--;
    }
    while (span.length > 0 && strchr(" \t\r\n", span.text[span.length - 1]) != NULL) {
        span.length--;
    }
    return span;
}

/* The last place of a text in a span, or NULL. */
static const char *find_last(struct span span, const char *text)
{
    size_t length = strlen(text);
    for (size_t i = span.length >= length ? span.length - length + 1 : 0; i > 0; i--) {
        if (memcmp(span.text + i - 1, text, length) == 0) {
            return span.text + i - 1;
        }
    }
    return NULL;
}

/* What comes after the thinking; nothing if the thinking never ends. */
static struct span after_thinking(struct span span)
{
    static const char *const tags[][2] = {{"<think>", "</think>"}, {"<thinking>", "</thinking>"}};
    const char *end = span.text + span.length;
    for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
        const char *close = find_last(span, tags[i][1]);
        const char *from = close != NULL ? close + strlen(tags[i][1]) : span.text;
        span = (struct span){from, (size_t)(end - from)};
        struct span start = trim(span);
        size_t tag = strlen(tags[i][0]);
        if (start.length >= tag && memcmp(start.text, tags[i][0], tag) == 0) {
            return (struct span){end, 0};
        }
    }
    return span;
}

/* What stands between the last two lines of ```; the whole where there are none. */
static struct span in_fence(struct span span)
{
    const char *close = find_last(span, "```");
    if (close == NULL) {
        return span;
    }
    struct span before = {span.text, (size_t)(close - span.text)};
    const char *open = find_last(before, "```");
    if (open == NULL) {
        return span;
    }
    const char *line = memchr(open, '\n', (size_t)(close - open));
    line = line != NULL ? line + 1 : open + 3;
    return (struct span){line, (size_t)(close - line)};
}

/* Length of the object that begins here, 0 if it never ends. *seen: bytes that were looked at. */
static size_t object_length(struct span span, size_t *seen)
{
    int64_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < span.length; i++) {
        char c = span.text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{') {
            depth++;
        } else if (c == '}' && --depth == 0) {
            *seen += i + 1;
            return i + 1;
        }
    }
    *seen += span.length;
    return 0;
}

/* ---- choosing ---- */

/* {"plan": {...}} where {...} was asked for: the inner object, and the outer one is gone. */
static cJSON *unwrap(cJSON *object, const cJSON *schema)
{
    const cJSON *properties = cJSON_GetObjectItemCaseSensitive(schema, "properties");
    cJSON *only = cJSON_IsObject(object) ? object->child : NULL;
    if (only == NULL || only->next != NULL || !cJSON_IsObject(only) ||
        cJSON_GetObjectItemCaseSensitive(properties, only->string) != NULL) {
        return object;
    }
    cJSON_DetachItemViaPointer(object, only);
    cJSON_Delete(object);
    return only;
}

/* Keeps the object if it is better than the one so far, or as good: later ones count. Takes it. */
static enum status consider(struct choice *choice, cJSON *object, struct error *err)
{
    struct json_problems own;
    json_problems_init(&own);
    choice->objects++;
    object = unwrap(object, choice->schema);
    enum status status = reply_check_schema(object, choice->schema, &own, err);
    bool better = choice->object == NULL || own.count <= choice->problems.count;
    if (status == STATUS_OK && better) {
        cJSON *other = choice->object;
        struct json_problems further = choice->problems;
        choice->object = object;
        choice->problems = own;
        object = other;
        own = further;
    }
    cJSON_Delete(object);
    json_problems_fini(&own);
    return status;
}

static enum status consider_text(struct choice *choice, struct span span, bool *parsed,
                                 struct error *why, struct error *err)
{
    cJSON *object = NULL;
    *parsed = json_parse(span.text, span.length, "the reply", &object, why) == STATUS_OK;
    return *parsed ? consider(choice, object, err) : STATUS_OK;
}

/* All complete objects of a span. *cut: there was one that never ends; *broken: what is wrong with
 * the first that ends and is no JSON. */
static enum status consider_objects(struct choice *choice, struct span span, bool *cut,
                                    struct error *broken, struct error *err)
{
    size_t seen = 0;
    size_t at = 0;
    while (at < span.length && choice->objects < OBJECTS_MAX && seen <= WORK_FACTOR * span.length) {
        const char *open = memchr(span.text + at, '{', span.length - at);
        if (open == NULL) {
            break;
        }
        at = (size_t)(open - span.text);
        struct span rest = {open, span.length - at};
        size_t length = object_length(rest, &seen);
        bool parsed = false;
        struct error why = {0};
        if (length > 0) {
            rest.length = length;
            seen += length;
            TRY(consider_text(choice, rest, &parsed, &why, err));
            *broken = parsed || broken->message[0] != '\0' ? *broken : why;
        } else {
            *cut = true;
        }
        at += parsed ? length : 1;
    }
    return STATUS_OK;
}

/* ---- complaints ---- */

/* Whether the best object is part of the answer itself, and not of something in it. */
static bool has_a_required_key(const struct choice *choice)
{
    const cJSON *name = NULL;
    cJSON_ArrayForEach (name, cJSON_GetObjectItemCaseSensitive(choice->schema, "required")) {
        const char *key = cJSON_GetStringValue(name);
        if (key != NULL && cJSON_GetObjectItemCaseSensitive(choice->object, key) != NULL) {
            return true;
        }
    }
    return false;
}

static void complain(const struct choice *choice, struct span whole, struct span answer, bool cut,
                     const struct error *broken)
{
    struct json_problems *out = choice->out;
    bool hopeless = choice->object == NULL || !has_a_required_key(choice);
    if (whole.length == 0) {
        json_problems_add(out, "", "the reply is empty; needed is one JSON object");
    } else if (answer.length == 0) {
        json_problems_add(out, "",
                          "the reply holds thinking and no answer; needed is one JSON "
                          "object after it, so think less");
    } else if (hopeless && cut) {
        json_problems_add(out, "",
                          "the reply ends inside a JSON object (or a quote or bracket is never "
                          "closed); write it whole, and shorter");
    } else if (hopeless && broken->message[0] != '\0') {
        json_problems_add(out, "", "%.300s; needed is one valid JSON object", broken->message);
    } else if (choice->object == NULL) {
        json_problems_add(out, "",
                          "the reply holds no JSON object; needed is one, and nothing "
                          "else");
    } else {
        out->count += choice->problems.count;
        buffer_append_text(&out->text, buffer_text(&choice->problems.text));
    }
}

enum status reply_read(const char *text, const cJSON *schema, struct json_problems *problems,
                       cJSON **out, struct error *err)
{
    enum status status = STATUS_OK;
    struct choice choice = {.out = problems, .schema = schema};
    struct error ignored = {0};
    struct error broken = {0};
    bool parsed = false;
    bool cut = false;
    struct span whole = trim((struct span){text != NULL ? text : "", text ? strlen(text) : 0});
    struct span answer = trim(after_thinking(whole));
    json_problems_init(&choice.problems);
    *out = NULL;
    if (whole.length > 0) {
        /* First as it stands: a text in the JSON may look like the end of a thinking, or a fence.
         */
        TRY_CLEANUP(consider_text(&choice, whole, &parsed, &ignored, err));
    }
    if (!parsed && answer.length > 0) {
        TRY_CLEANUP(consider_text(&choice, trim(in_fence(answer)), &parsed, &ignored, err));
    }
    if ((!parsed || choice.problems.count > 0) && answer.length > 0) {
        TRY_CLEANUP(consider_objects(&choice, answer, &cut, &broken, err));
    }
    if (choice.object != NULL && choice.problems.count == 0) {
        *out = choice.object;
        choice.object = NULL;
    } else {
        complain(&choice, whole, answer, cut, &broken);
        status = FAIL(err, STATUS_INVALID, "the reply: %d mistake%s: %.700s", problems->count,
                      problems->count == 1 ? "" : "s", buffer_text(&problems->text));
    }
cleanup:
    cJSON_Delete(choice.object);
    json_problems_fini(&choice.problems);
    return status;
}
