#include "agents/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

enum { RECIPE_TEXT_MAX_BYTES = 1 << 20 };

void plan_fini(struct plan *plan)
{
    free(plan->strategy);
    free(plan->goal);
    free(plan->rationale);
    free(plan->researcher);
    free(plan->subject);
    cJSON_Delete(plan->recipe);
    for (int i = 0; i < plan->config_count; i++) {
        cJSON_Delete(plan->configs[i]);
    }
    memset(plan, 0, sizeof(*plan));
}

bool plan_config_read_json(const cJSON *object, struct train_config *out)
{
    struct json_problems problems;
    json_problems_init(&problems);
    *out = train_config_default();
    train_config_read(object, "", &problems, out);
    bool good = cJSON_IsObject(object) && problems.count == 0;
    if (!good) {
        *out = train_config_default();
    }
    json_problems_fini(&problems);
    return good;
}

bool plan_config_read(const char *text, struct train_config *out)
{
    cJSON *object = NULL;
    struct error ignored;
    *out = train_config_default();
    if (text == NULL ||
        json_parse(text, strlen(text), "configuration", &object, &ignored) != STATUS_OK) {
        return false;
    }
    bool good = plan_config_read_json(object, out);
    cJSON_Delete(object);
    return good;
}

/* ---- identity ---- */

static enum status hash_json(struct hash_state *state, const cJSON *value, struct error *err)
{
    char *line = json_print_line(value);
    if (line == NULL) {
        return mem_fail(err, RECIPE_TEXT_MAX_BYTES, "a plan as text");
    }
    hash_update(state, line, strlen(line) + 1);
    cJSON_free(line);
    return STATUS_OK;
}

enum status plan_fingerprint(const struct train_config *config, const cJSON *recipe,
                             char out[HASH_TEXT_BYTES], struct error *err)
{
    enum status status = STATUS_OK;
    struct train_config canonical = *config;
    if (canonical.method == TRAIN_FULL) {
        canonical.lora = train_config_default().lora;
    }
    cJSON *object = train_config_to_json(&canonical);
    struct hash_state *state = hash_create();
    if (object == NULL || state == NULL) {
        status = mem_fail(err, sizeof(canonical), "a plan's identity");
        goto cleanup;
    }
    TRY_CLEANUP(hash_json(state, object, err));
    TRY_CLEANUP(hash_json(state, recipe, err));
    hash_digest(state, out);
cleanup:
    cJSON_Delete(object);
    hash_destroy(state);
    return status;
}

/* ---- sets ---- */

void plan_set_init(struct plan_set *set)
{
    memset(set, 0, sizeof(*set));
}

void plan_set_fini(struct plan_set *set)
{
    free(set->items);
    plan_set_init(set);
}

/* The fingerprint's own bits; never all zero, which marks a free place. */
static struct plan_key key_of(const char *fingerprint)
{
    struct plan_key key = {{0, 0}};
    for (int i = 0; i < HASH_TEXT_BYTES - 1 && fingerprint[i] != '\0'; i++) {
        uint64_t letter = (unsigned char)fingerprint[i];
        uint64_t digit = letter <= '9' ? letter - '0' : letter - 'a' + 10;
        key.half[i / 16] = key.half[i / 16] << 4 | (digit & 15);
    }
    key.half[1] += key.half[0] == 0 && key.half[1] == 0;
    return key;
}

/* Where the key is, or the free place where it would go. There is one: the table is never full. */
static struct plan_key *find_place(const struct plan_set *set, struct plan_key key)
{
    uint64_t mask = (uint64_t)set->capacity - 1;
    for (uint64_t at = key.half[0] & mask;; at = (at + 1) & mask) {
        struct plan_key *place = &set->items[at];
        bool is_free = place->half[0] == 0 && place->half[1] == 0;
        if (is_free || (place->half[0] == key.half[0] && place->half[1] == key.half[1])) {
            return place;
        }
    }
}

enum status plan_set_copy(const struct plan_set *set, struct plan_set *out, struct error *err)
{
    *out = (struct plan_set){.count = set->count, .capacity = set->capacity};
    if (set->capacity == 0) {
        return STATUS_OK;
    }
    size_t bytes = (size_t)set->capacity * sizeof(*out->items);
    out->items = mem_calloc((size_t)set->capacity, sizeof(*out->items));
    if (out->items == NULL) {
        plan_set_init(out);
        return mem_fail(err, bytes, "identities of plans");
    }
    memcpy(out->items, set->items, bytes);
    return STATUS_OK;
}

bool plan_set_has(const struct plan_set *set, const char *fingerprint)
{
    if (set->count == 0) {
        return false;
    }
    const struct plan_key *place = find_place(set, key_of(fingerprint));
    return place->half[0] != 0 || place->half[1] != 0;
}

static enum status grow_set(struct plan_set *set, struct error *err)
{
    struct plan_set grown = {.count = set->count,
                             .capacity = set->capacity > 0 ? set->capacity * 2 : 64};
    grown.items = mem_calloc((size_t)grown.capacity, sizeof(*grown.items));
    if (grown.items == NULL) {
        return mem_fail(err, (size_t)grown.capacity * sizeof(*grown.items), "identities of plans");
    }
    for (int64_t i = 0; i < set->capacity; i++) {
        if (set->items[i].half[0] != 0 || set->items[i].half[1] != 0) {
            *find_place(&grown, set->items[i]) = set->items[i];
        }
    }
    free(set->items);
    *set = grown;
    return STATUS_OK;
}

enum status plan_set_add(struct plan_set *set, const char *fingerprint, struct error *err)
{
    if (plan_set_has(set, fingerprint)) {
        return STATUS_OK;
    }
    if (2 * (set->count + 1) > set->capacity) {
        TRY(grow_set(set, err));
    }
    struct plan_key key = key_of(fingerprint);
    *find_place(set, key) = key;
    set->count++;
    return STATUS_OK;
}

static enum status add_node(struct plan_set *set, const struct search_node *node, struct error *err)
{
    cJSON *recipe = NULL;
    const char *text = search_text(node->recipe);
    enum status status = json_parse(text, strlen(text), "recipe", &recipe, err);
    for (int32_t i = 0; i < node->candidate_count && status == STATUS_OK; i++) {
        struct train_config config;
        char fingerprint[HASH_TEXT_BYTES];
        if (!plan_config_read(node->candidates[i].config, &config)) {
            continue;
        }
        status = plan_fingerprint(&config, recipe, fingerprint, err);
        if (status == STATUS_OK) {
            status = plan_set_add(set, fingerprint, err);
        }
    }
    cJSON_Delete(recipe);
    return status;
}

enum status plan_set_add_search(struct plan_set *set, const struct search *search, int32_t first,
                                struct error *err)
{
    for (int32_t i = first > 0 ? first : 1; i < search->tree.count; i++) {
        TRY(add_node(set, &search->nodes[i], err));
    }
    return STATUS_OK;
}

/* ---- differences ---- */

static void begin_difference(struct buffer *out, int *count)
{
    if ((*count)++ > 0) {
        buffer_append_text(out, ", ");
    }
}

static void number_difference(struct buffer *out, int *count, const char *name, double a, double b)
{
    if (a < b || a > b) {
        begin_difference(out, count);
        buffer_printf(out, "%s %.3g against %.3g", name, a, b);
    }
}

static void name_difference(struct buffer *out, int *count, const char *name,
                            const char *const *names, int a, int b)
{
    if (a != b) {
        begin_difference(out, count);
        buffer_printf(out, "%s %s against %s", name, names[a], names[b]);
    }
}

int plan_config_differences(const struct train_config *a, const struct train_config *b,
                            struct buffer *out)
{
    int count = 0;
    name_difference(out, &count, "method", train_method_names, (int)a->method, (int)b->method);
    if (a->method == TRAIN_LORA && b->method == TRAIN_LORA) {
        number_difference(out, &count, "lora rank", (double)a->lora.rank, (double)b->lora.rank);
        number_difference(out, &count, "lora alpha", a->lora.alpha, b->lora.alpha);
        number_difference(out, &count, "lora targets (bits)", a->lora.targets, b->lora.targets);
    }
    number_difference(out, &count, "learning_rate", a->learning_rate, b->learning_rate);
    name_difference(out, &count, "schedule", train_schedule_names, (int)a->schedule,
                    (int)b->schedule);
    number_difference(out, &count, "warmup_ratio", a->warmup_ratio, b->warmup_ratio);
    number_difference(out, &count, "final_ratio", a->final_ratio, b->final_ratio);
    number_difference(out, &count, "epochs", a->epochs, b->epochs);
    number_difference(out, &count, "max_steps", (double)a->max_steps, (double)b->max_steps);
    number_difference(out, &count, "tokens a step",
                      (double)a->batch_tokens * (double)a->accumulation,
                      (double)b->batch_tokens * (double)b->accumulation);
    number_difference(out, &count, "sequence_length", (double)a->sequence_length,
                      (double)b->sequence_length);
    number_difference(out, &count, "beta2", a->beta2, b->beta2);
    number_difference(out, &count, "weight_decay", a->weight_decay, b->weight_decay);
    number_difference(out, &count, "clip_norm", a->clip_norm, b->clip_norm);
    number_difference(out, &count, "patience", (double)a->patience, (double)b->patience);
    number_difference(out, &count, "seed", (double)a->seed, (double)b->seed);
    return count;
}
