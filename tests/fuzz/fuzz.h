/* What the fuzzers share. A property that does not hold ends the process, so that libFuzzer keeps
 * the input that broke it. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define FUZZ_HOLDS(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* libFuzzer's; main is its own. */
int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes as a text on the heap, NUL behind them. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    FUZZ_HOLDS(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

static inline bool fuzz_is_utf8(const char *text)
{
    return json_utf8_valid(text, strlen(text));
}

/* Writes an input to begin with into the folder that FUZZ_SEEDS names, if it does. */
static inline void fuzz_write_seed(int number, const char *head, size_t head_bytes,
                                   const char *text)
{
    char path[4096];
    const char *folder = getenv("FUZZ_SEEDS");
    if (folder == NULL) {
        return;
    }
    snprintf(path, sizeof(path), "%s/made-%03d", folder, number);
    FILE *file = fopen(path, "wb");
    FUZZ_HOLDS(file != NULL);
    fwrite(head, 1, head_bytes, file);
    fputs(text, file);
    FUZZ_HOLDS(fclose(file) == 0);
}

#endif
