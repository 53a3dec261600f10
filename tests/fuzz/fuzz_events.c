/* Lines that are bodies of events, as in tests/tree/life.h: what is refused changes nothing, what
 * is accepted is accepted from its line in the journal, and the search that comes of it is the one
 * that run.h5 gives back. */
#include <setjmp.h>
#include <stdarg.h>

#include "fuzz/fuzz.h"

#include <cmocka.h>

#include "base/file.h"
#include "store/store.h"
#include "tree/life.h"

enum { EVENT_MAX_BYTES = 16 << 20, SAVED_EVERY = 64 /* saving syncs, which takes long */ };

static char folder[FILE_PATH_BYTES];

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    const char *base = getenv("TMPDIR");
    for (int events = 3; events <= LIFE_EVENTS; events += 3) {
        struct buffer text;
        buffer_init(&text, EVENT_MAX_BYTES);
        for (int i = 0; i < events; i++) {
            buffer_printf(&text, "%s\n", whole_life[i]);
        }
        fuzz_write_seed(events, "", 0, buffer_text(&text));
        buffer_fini(&text);
    }
    snprintf(folder, sizeof(folder), "%s/trex-fuzz-XXXXXX", base != NULL ? base : "/tmp");
    FUZZ_HOLDS(mkdtemp(folder) != NULL);
    return 0;
}

static bool same(const struct search *a, const struct search *b)
{
    char *left = dump_search(a);
    char *right = dump_search(b);
    bool equal = strcmp(left, right) == 0;
    free(left);
    free(right);
    return equal;
}

/* From the line that the journal would hold. */
static void apply_again(struct search *search, const cJSON *event)
{
    struct buffer line;
    cJSON *again = NULL;
    buffer_init(&line, EVENT_MAX_BYTES);
    json_append_line(event, &line);
    FUZZ_HOLDS(json_parse(buffer_text(&line), line.len_bytes, "line", &again, NULL) == STATUS_OK);
    FUZZ_HOLDS(search_apply(search, again, NULL) == STATUS_OK);
    cJSON_Delete(again);
    buffer_fini(&line);
}

static void apply_line(struct search *search, struct search *replayed, const char *body)
{
    struct buffer text;
    cJSON *event = NULL;
    long long next = (long long)search->last_sequence + 1;
    buffer_init(&text, EVENT_MAX_BYTES);
    buffer_printf(&text, "{\"sequence\":%lld,\"time_s\":%lld,%s}", next, 100 + next, body);
    if (json_parse(buffer_text(&text), text.len_bytes, "event", &event, NULL) == STATUS_OK) {
        if (search_apply(search, event, NULL) == STATUS_OK) {
            apply_again(replayed, event);
        }
        FUZZ_HOLDS(tree_check(&search->tree, NULL) == STATUS_OK);
    }
    cJSON_Delete(event);
    buffer_fini(&text);
}

static void save_and_read(const struct search *search)
{
    struct search found;
    char path[FILE_PATH_BYTES];
    FUZZ_HOLDS(file_join(folder, "run.h5", path, NULL) == STATUS_OK);
    FUZZ_HOLDS(store_run_save(folder, search, NULL) == STATUS_OK);
    FUZZ_HOLDS(store_run_read(path, &found, NULL) == STATUS_OK);
    FUZZ_HOLDS(same(search, &found));
    search_fini(&found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct search search;
    struct search replayed; /* has seen only what was accepted */
    unsigned sum = 0;
    char *text = fuzz_text(data, size);
    char *rest = text;
    search_init(&search);
    search_init(&replayed);
    for (size_t i = 0; i < size; i++) {
        sum = 31 * sum + data[i];
    }
    for (char *line = NULL; (line = strsep(&rest, "\n")) != NULL;) {
        apply_line(&search, &replayed, line);
    }
    FUZZ_HOLDS(same(&search, &replayed));
    if (search.last_sequence > 0 && sum % SAVED_EVERY == 0) {
        save_and_read(&search);
    }
    search_fini(&search);
    search_fini(&replayed);
    free(text);
    return 0;
}
