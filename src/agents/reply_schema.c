/* The part of JSON Schema that prompts use. A reply is hostile, the schema is ours. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/reply.h"
#include "base/mem.h"

enum { PROBLEMS_ENOUGH = 40, FOUND_BYTES = 80, ALLOWED_BYTES = 400 };

static const char *const keywords[] = {
    "type",     "properties",  "required",  "additionalProperties",
    "items",    "enum",        "minimum",   "maximum",
    "minItems", "maxItems",    "minLength", "maxLength",
    "anyOf",    "description", NULL,
};

struct check {
    struct json_problems *problems;
    struct error *err;
};

static enum status check_value(const struct check *check, const cJSON *value, const cJSON *schema,
                               const char *pointer);

/* ---- saying what was found ---- */

static bool is_enough(const struct check *check)
{
    return check->problems->count >= PROBLEMS_ENOUGH;
}

static void describe(const cJSON *value, char out[FOUND_BYTES])
{
    if (cJSON_IsObject(value)) {
        snprintf(out, FOUND_BYTES, "an object");
    } else if (cJSON_IsArray(value)) {
        snprintf(out, FOUND_BYTES, "a list");
    } else if (cJSON_IsString(value)) {
        size_t length = strlen(value->valuestring);
        size_t shown = length < 48 ? length : 48;
        while (shown > 0 && shown < length &&
               ((unsigned char)value->valuestring[shown] & 0xC0) == 0x80) {
            shown--;
        }
        snprintf(out, FOUND_BYTES, "\"%.*s%s\"", (int)shown, value->valuestring,
                 shown < length ? "..." : "");
    } else if (cJSON_IsNumber(value)) {
        snprintf(out, FOUND_BYTES, "%.6g", value->valuedouble);
    } else {
        snprintf(out, FOUND_BYTES, "%s",
                 cJSON_IsTrue(value)    ? "true"
                 : cJSON_IsFalse(value) ? "false"
                                        : "null");
    }
}

static void add_wrong(const struct check *check, const char *pointer, const cJSON *value,
                      const char *allowed)
{
    char found[FOUND_BYTES];
    describe(value, found);
    json_problems_add(check->problems, pointer, "found %s, allowed is %s", found, allowed);
}

static void point_to(const char *pointer, const char *key, char out[JSON_POINTER_BYTES])
{
    snprintf(out, JSON_POINTER_BYTES, "%.*s/%.80s", JSON_POINTER_BYTES / 2, pointer, key);
}

/* ---- one keyword each ---- */

static bool is_whole(const cJSON *value)
{
    return cJSON_IsNumber(value) && isfinite(value->valuedouble) &&
           value->valuedouble == floor(value->valuedouble) && fabs(value->valuedouble) <= 0x1p53;
}

/* 1 or 0; -1: there is no such type. *words: what is allowed. */
static int fits_type(const cJSON *value, const char *name, const char **words)
{
    const struct {
        const char *name, *words;
        bool fits;
    } types[] = {
        {"object", "an object {...}", cJSON_IsObject(value)},
        {"array", "a list [...]", cJSON_IsArray(value)},
        {"string", "a text", cJSON_IsString(value)},
        {"number", "a number", cJSON_IsNumber(value) && isfinite(value->valuedouble)},
        {"integer", "a whole number", is_whole(value)},
        {"boolean", "true or false", cJSON_IsBool(value)},
        {"null", "null", cJSON_IsNull(value)},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (name != NULL && strcmp(types[i].name, name) == 0) {
            *words = types[i].words;
            return types[i].fits;
        }
    }
    return -1;
}

static enum status check_type(const struct check *check, const cJSON *value, const cJSON *type,
                              const char *pointer, bool *fits)
{
    const char *words = "";
    const char *name = cJSON_GetStringValue(type);
    int found = fits_type(value, name, &words);
    if (found < 0) {
        return FAIL(check->err, STATUS_INTERNAL, "schema at %s: type \"%.40s\" is not known",
                    pointer, name != NULL ? name : "?");
    }
    *fits = found == 1;
    if (!*fits) {
        add_wrong(check, pointer, value, words);
    }
    return STATUS_OK;
}

static void check_enum(const struct check *check, const cJSON *value, const cJSON *list,
                       const char *pointer)
{
    char allowed[ALLOWED_BYTES] = "one of";
    size_t used = strlen(allowed);
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        char name[FOUND_BYTES];
        if (cJSON_Compare(value, item, true)) {
            return;
        }
        describe(item, name);
        int more = used < sizeof(allowed)
                       ? snprintf(allowed + used, sizeof(allowed) - used, " %s", name)
                       : 0;
        used += more > 0 ? (size_t)more : 0;
    }
    add_wrong(check, pointer, value, allowed);
}

static double number_of(const cJSON *schema, const char *key, double fallback)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(schema, key);
    return cJSON_IsNumber(value) ? value->valuedouble : fallback;
}

static void check_range(const struct check *check, const cJSON *value, const cJSON *schema,
                        const char *pointer)
{
    double min = number_of(schema, "minimum", -INFINITY);
    double max = number_of(schema, "maximum", INFINITY);
    if (cJSON_IsNumber(value) && !(value->valuedouble >= min && value->valuedouble <= max)) {
        char allowed[ALLOWED_BYTES];
        snprintf(allowed, sizeof(allowed), "%g to %g", min, max);
        add_wrong(check, pointer, value, allowed);
    }
}

static int64_t count_characters(const char *text)
{
    int64_t count = 0;
    for (; *text != '\0'; text++) {
        count += ((unsigned char)*text & 0xC0) != 0x80;
    }
    return count;
}

static void check_length(const struct check *check, const cJSON *value, const cJSON *schema,
                         const char *pointer)
{
    bool text = cJSON_IsString(value);
    if (!text && !cJSON_IsArray(value)) {
        return;
    }
    double length =
        text ? (double)count_characters(value->valuestring) : (double)cJSON_GetArraySize(value);
    double min = number_of(schema, text ? "minLength" : "minItems", 0.0);
    double max = number_of(schema, text ? "maxLength" : "maxItems", INFINITY);
    const char *unit = text ? "characters" : "items";
    if (length < min || length > max) {
        json_problems_add(check->problems, pointer, "found %.0f %s, allowed are %g to %g", length,
                          unit, min, max);
    }
}

static enum status check_items(const struct check *check, const cJSON *value, const cJSON *schema,
                               const char *pointer)
{
    const cJSON *items = cJSON_GetObjectItemCaseSensitive(schema, "items");
    const cJSON *item = NULL;
    int index = 0;
    if (items == NULL || !cJSON_IsArray(value)) {
        return STATUS_OK;
    }
    cJSON_ArrayForEach (item, value) {
        char key[16];
        char place[JSON_POINTER_BYTES];
        if (is_enough(check)) {
            break;
        }
        snprintf(key, sizeof(key), "%d", index++);
        point_to(pointer, key, place);
        TRY(check_value(check, item, items, place));
    }
    return STATUS_OK;
}

/* ---- objects ---- */

static void check_required(const struct check *check, const cJSON *value, const cJSON *schema,
                           const char *pointer)
{
    const cJSON *name = NULL;
    cJSON_ArrayForEach (name, cJSON_GetObjectItemCaseSensitive(schema, "required")) {
        const char *key = cJSON_GetStringValue(name);
        if (key != NULL && cJSON_GetObjectItemCaseSensitive(value, key) == NULL) {
            char place[JSON_POINTER_BYTES];
            point_to(pointer, key, place);
            json_problems_add(check->problems, place, "it is missing, and must be there");
        }
    }
}

static void add_unknown(const struct check *check, const cJSON *properties, const char *pointer,
                        const char *key)
{
    char place[JSON_POINTER_BYTES];
    char allowed[ALLOWED_BYTES] = "";
    size_t used = 0;
    const cJSON *known = NULL;
    cJSON_ArrayForEach (known, properties) {
        int more = used < sizeof(allowed) ? snprintf(allowed + used, sizeof(allowed) - used, "%s%s",
                                                     used > 0 ? ", " : "", known->string)
                                          : 0;
        used += more > 0 ? (size_t)more : 0;
    }
    point_to(pointer, key, place);
    json_problems_add(check->problems, place, "there is no such key, allowed are %s", allowed);
}

static enum status check_members(const struct check *check, const cJSON *value, const cJSON *schema,
                                 const char *pointer)
{
    const cJSON *properties = cJSON_GetObjectItemCaseSensitive(schema, "properties");
    const cJSON *others = cJSON_GetObjectItemCaseSensitive(schema, "additionalProperties");
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, value) {
        char place[JSON_POINTER_BYTES];
        const char *key = item->string != NULL ? item->string : "";
        const cJSON *property = cJSON_GetObjectItemCaseSensitive(properties, key);
        if (is_enough(check)) {
            break;
        }
        point_to(pointer, key, place);
        if (property != NULL) {
            /* Whoever reads it sees the first: a second one would be one that nobody checked. */
            if (cJSON_GetObjectItemCaseSensitive(value, key) != item) {
                json_problems_add(check->problems, place, "it is there twice");
            }
            TRY(check_value(check, item, property, place));
        } else if (cJSON_IsFalse(others)) {
            add_unknown(check, properties, pointer, key);
        }
    }
    return STATUS_OK;
}

/* ---- alternatives ---- */

/* If none of the alternatives fits: what is wrong with the one that comes nearest, of the right
 * type first. */
static enum status check_any(const struct check *check, const cJSON *value, const cJSON *list,
                             const char *pointer)
{
    enum status status = STATUS_OK;
    struct json_problems nearest;
    json_problems_init(&nearest);
    int distance = INT_MAX;
    const cJSON *alternative = NULL;
    cJSON_ArrayForEach (alternative, list) {
        const char *words;
        const cJSON *type = cJSON_GetObjectItemCaseSensitive(alternative, "type");
        struct json_problems own;
        json_problems_init(&own);
        const struct check inner = {&own, check->err};
        status = check_value(&inner, value, alternative, pointer);
        bool other_type = fits_type(value, cJSON_GetStringValue(type), &words) == 0;
        int far = own.count + (other_type ? 2 * PROBLEMS_ENOUGH : 0);
        if (far < distance) {
            struct json_problems further = nearest;
            nearest = own;
            own = further;
            distance = far;
        }
        json_problems_fini(&own);
        if (status != STATUS_OK || distance == 0) {
            break;
        }
    }
    check->problems->count += nearest.count;
    buffer_append_text(&check->problems->text, buffer_text(&nearest.text));
    json_problems_fini(&nearest);
    return status;
}

/* ---- a value ---- */

static enum status check_keywords(const struct check *check, const cJSON *schema,
                                  const char *pointer)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, schema) {
        int i = 0;
        while (keywords[i] != NULL && strcmp(keywords[i], item->string) != 0) {
            i++;
        }
        if (keywords[i] == NULL) {
            return FAIL(check->err, STATUS_INTERNAL, "schema at %s: \"%.40s\" is not known",
                        pointer, item->string);
        }
    }
    return cJSON_IsObject(schema)
               ? STATUS_OK
               : FAIL(check->err, STATUS_INTERNAL, "schema at %s: it is no object", pointer);
}

static enum status check_value(const struct check *check, const cJSON *value, const cJSON *schema,
                               const char *pointer)
{
    bool fits = true;
    TRY(check_keywords(check, schema, pointer));
    const cJSON *any = cJSON_GetObjectItemCaseSensitive(schema, "anyOf");
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(schema, "type");
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(schema, "enum");
    if (is_enough(check)) {
        return STATUS_OK;
    }
    if (any != NULL) {
        TRY(check_any(check, value, any, pointer));
    }
    if (type != NULL) {
        TRY(check_type(check, value, type, pointer, &fits));
    }
    if (!fits) {
        return STATUS_OK; /* all else would only repeat it */
    }
    if (choices != NULL) {
        check_enum(check, value, choices, pointer);
    }
    check_range(check, value, schema, pointer);
    check_length(check, value, schema, pointer);
    TRY(check_items(check, value, schema, pointer));
    if (cJSON_IsObject(value)) {
        check_required(check, value, schema, pointer);
        return check_members(check, value, schema, pointer);
    }
    return STATUS_OK;
}

enum status reply_check_schema(const cJSON *value, const cJSON *schema,
                               struct json_problems *problems, struct error *err)
{
    const struct check check = {problems, err};
    return check_value(&check, value, schema, "");
}
