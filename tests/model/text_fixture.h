/* Tokenizers and lines of JSON for the tests of text. */
#ifndef TESTS_MODEL_TEXT_FIXTURE_H
#define TESTS_MODEL_TEXT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "model/tokenizer.h"

enum { FIXTURE_FILE_MAX_BYTES = 256 * 1024 * 1024 };

/* Folder below an environment variable, or NULL (with a line that says so) if it is not set. */
static inline const char *fixture_shared(const char *variable, const char *name,
                                         char path[FILE_PATH_BYTES])
{
    const char *root = getenv(variable);
    if (root == NULL || root[0] == '\0') {
        printf("%s is not set: this test is skipped\n", variable);
        return NULL;
    }
    snprintf(path, FILE_PATH_BYTES, "%s/%s", root, name);
    return path;
}

/* Unpacks the Qwen tokenizer into the build folder and returns that folder; NULL if TOKENIZERS is
 * not set. */
static inline const char *fixture_qwen(char path[FILE_PATH_BYTES])
{
    char shared[FILE_PATH_BYTES];
    if (fixture_shared("TOKENIZERS", "qwen", shared) == NULL) {
        return NULL;
    }
    /* Each test program has a folder of its own, so that they may run at the same time. */
    snprintf(path, FILE_PATH_BYTES, "%s/qwen-%ld", TEST_BINARY_DIR, (long)getpid());
    char command[6 * FILE_PATH_BYTES];
    snprintf(command, sizeof(command),
             "mkdir -p '%s' && gzip -dc '%s/tokenizer.json.gz' > '%s/tokenizer.json' && "
             "cp '%s/tokenizer_config.json' '%s/'",
             path, shared, path, shared, path);
    assert_int_equal(system(command), 0);
    return path;
}

static inline void fixture_remove(const char *folder)
{
    char command[FILE_PATH_BYTES + 16];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

static inline struct tokenizer *fixture_load(const char *folder)
{
    struct tokenizer *tokenizer = NULL;
    struct error err = {0};
    if (tokenizer_load(folder, &tokenizer, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return tokenizer;
}

/* Calls check for each line of a JSON Lines file; returns how many there were. */
static inline int fixture_each_line(const char *path,
                                    void (*check)(void *context, const cJSON *line), void *context)
{
    struct buffer text;
    struct error err = {0};
    buffer_init(&text, FIXTURE_FILE_MAX_BYTES);
    if (file_read(path, &text, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    int count = 0;
    const char *at = buffer_text(&text);
    while (*at != '\0') {
        size_t len = strcspn(at, "\n");
        cJSON *line = NULL;
        if (json_parse(at, len, path, &line, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        check(context, line);
        cJSON_Delete(line);
        count++;
        at += len + (at[len] == '\n');
    }
    buffer_fini(&text);
    return count;
}

/* Fails with the text if the ids are not those of a JSON array. */
static inline void fixture_check_ids(const struct token_list *ids, const cJSON *expected,
                                     const char *text)
{
    bool same = ids->count == cJSON_GetArraySize(expected);
    int64_t i = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, expected) {
        same = same && ids->ids[i++] == item->valueint;
    }
    if (!same) {
        char *wanted = cJSON_PrintUnformatted(expected);
        print_error("text \"%s\"\nwanted %s\nfound  [", text, wanted);
        for (i = 0; i < ids->count; i++) {
            print_error("%s%d", i > 0 ? "," : "", ids->ids[i]);
        }
        print_error("]\n");
        free(wanted);
        fail();
    }
}

#endif
