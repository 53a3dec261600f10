/* What a language model replied, made into JSON that fits a schema, or into a precise complaint
 * that it can be shown. A reply may be empty, cut, prose around JSON, JSON in a fence, several
 * objects, of wrong types, or hostile. */
#ifndef AGENTS_REPLY_H
#define AGENTS_REPLY_H

#include <cjson/cJSON.h>

#include "base/json.h"
#include "base/status.h"

/* Finds the JSON in a reply (its thinking left out; the last complete object that fits best) and
 * checks it against the schema. STATUS_INVALID, with all complaints in `problems`, each with its
 * JSON pointer; *out is then NULL. */
enum status reply_read(const char *text, const cJSON *schema, struct json_problems *problems,
                       cJSON **out, struct error *err);

/* The part of JSON Schema that prompts/ use: type, properties, required, additionalProperties,
 * items, enum, minimum, maximum, minItems, maxItems, minLength, maxLength (in characters), anyOf;
 * description says something to the model. Anything else in a schema is STATUS_INTERNAL. Numbers
 * are finite, integers exact; of a known property there is one. Complaints end after a few dozen.
 */
enum status reply_check_schema(const cJSON *value, const cJSON *schema,
                               struct json_problems *problems, struct error *err);

#endif
