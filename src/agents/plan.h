/* Plans and configurations as data: reading, comparing, describing. Shared by researchers and the
 * executor. */
#ifndef AGENTS_PLAN_H
#define AGENTS_PLAN_H

#include "agents/researcher.h"
#include "base/hash.h"

/* A configuration from its JSON text over the defaults. False (and the defaults) if it is not one.
 */
bool plan_config_read(const char *text, struct train_config *out);
bool plan_config_read_json(const cJSON *object, struct train_config *out);

/* Identity of a configuration with a recipe: the same for any order of keys and for settings that
 * have no effect (the adapter of a full fine-tune). STATUS_NO_MEMORY. */
enum status plan_fingerprint(const struct train_config *config, const cJSON *recipe,
                             char out[HASH_TEXT_BYTES], struct error *err);

/* Fingerprints of everything that a search has tried or plans to, or that was planned and is not in
 * it yet. */
struct plan_key {
    uint64_t half[2];
};
struct plan_set {
    struct plan_key *items; /* hashed: capacity is a power of two, at least twice the count */
    int64_t count, capacity;
};
void plan_set_init(struct plan_set *set);
void plan_set_fini(struct plan_set *set);
/* *out is a set of its own, whatever it was before. */
enum status plan_set_copy(const struct plan_set *set, struct plan_set *out, struct error *err);
bool plan_set_has(const struct plan_set *set, const char *fingerprint);
enum status plan_set_add(struct plan_set *set, const char *fingerprint, struct error *err);

/* Adds the candidates of the nodes from `first` on (the baseline, which trains nothing, is none).
 */
enum status plan_set_add_search(struct plan_set *set, const struct search *search, int32_t first,
                                struct error *err);

/* In what `a` differs from `b`, in words: "learning_rate 0.003 against 0.001, epochs 4 against 2".
 * Number of differences; seeds are one of them. */
int plan_config_differences(const struct train_config *a, const struct train_config *b,
                            struct buffer *out);

#endif
