#include "base/hash.h"

#include <stdio.h>

#include <xxhash.h>

#include "base/file.h"
#include "base/mem.h"

/* struct hash_state is never defined: its address is an XXH3_state_t's. */
static XXH3_state_t *inner(struct hash_state *state)
{
    return (XXH3_state_t *)(void *)state;
}

static void format(XXH128_hash_t hash, char out[HASH_TEXT_BYTES])
{
    snprintf(out, HASH_TEXT_BYTES, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

void hash_bytes(const void *data, size_t len_bytes, char out[HASH_TEXT_BYTES])
{
    format(XXH3_128bits(data, len_bytes), out);
}

struct hash_state *hash_create(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state != NULL) {
        XXH3_128bits_reset(state);
    }
    return (struct hash_state *)(void *)state;
}

void hash_update(struct hash_state *state, const void *data, size_t len_bytes)
{
    XXH3_128bits_update(inner(state), data, len_bytes);
}

void hash_digest(const struct hash_state *state, char out[HASH_TEXT_BYTES])
{
    format(XXH3_128bits_digest((const XXH3_state_t *)(const void *)state), out);
}

void hash_destroy(struct hash_state *state)
{
    XXH3_freeState(inner(state));
}

static enum status add_piece(void *context, const char *data, size_t len_bytes, struct error *err)
{
    (void)err;
    hash_update(context, data, len_bytes);
    return STATUS_OK;
}

enum status hash_file(const char *path, char out[HASH_TEXT_BYTES], struct error *err)
{
    struct hash_state *state = hash_create();
    if (state == NULL) {
        return mem_fail(err, HASH_TEXT_BYTES, "a hash");
    }
    enum status status = file_scan(path, add_piece, state, err);
    if (status == STATUS_OK) {
        hash_digest(state, out);
    }
    hash_destroy(state);
    return status;
}
