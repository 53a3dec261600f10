/* Speed of a tokenizer on one thread: loading, text, and the texts that are hard for it.
 *
 *   bench_tokenizer FOLDER [TEXT_FILE]        FOLDER has tokenizer.json
 *
 * Prints one line of JSON per case; times are medians of five. Without a file the text is made of
 * words of the tokenizer's own vocabulary, short ones more often, which is kinder to it than a real
 * text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/tokenizer.h"

enum { REPEATS = 5, RUN_BYTES = 1024 * 1024, TEXT_BYTES = 4 * 1024 * 1024, TOKENS_MAX = 1 << 27 };

static _Noreturn void stop(const char *message)
{
    fprintf(stderr, "%s\n", message);
    exit(1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double times[REPEATS])
{
    qsort(times, REPEATS, sizeof(times[0]), compare);
    return times[REPEATS / 2];
}

static struct tokenizer *load(const char *folder)
{
    double times[REPEATS];
    struct tokenizer *tokenizer = NULL;
    struct error err = {0};
    for (int i = 0; i < REPEATS; i++) {
        tokenizer_destroy(tokenizer);
        double start_s = clock_monotonic_s();
        if (tokenizer_load(folder, &tokenizer, &err) != STATUS_OK) {
            stop(err.message);
        }
        times[i] = clock_monotonic_s() - start_s;
    }
    printf("{\"bench\": \"tokenizer\", \"case\": \"load\", \"ids\": %lld, \"seconds\": %.4f}\n",
           (long long)tokenizer_vocab_size(tokenizer), median(times));
    return tokenizer;
}

static void measure(const struct tokenizer *tokenizer, const char *name, const char *text,
                    size_t len_bytes)
{
    double times[REPEATS];
    struct token_list ids;
    struct error err = {0};
    token_list_init(&ids, TOKENS_MAX);
    for (int i = 0; i < REPEATS; i++) {
        ids.count = 0;
        double start_s = clock_monotonic_s();
        if (tokenizer_encode(tokenizer, text, len_bytes, 0, &ids, &err) != STATUS_OK) {
            stop(err.message);
        }
        times[i] = clock_monotonic_s() - start_s;
    }
    double seconds = median(times);
    printf("{\"bench\": \"tokenizer\", \"case\": \"%s\", \"bytes\": %zu, \"tokens\": %lld, "
           "\"seconds\": %.4f, "
           "\"mib_per_s\": %.1f}\n",
           name, len_bytes, (long long)ids.count, seconds, (double)len_bytes / 1048576.0 / seconds);
    fflush(stdout);
    token_list_fini(&ids);
}

static void measure_run(const struct tokenizer *tokenizer, const char *name, const char *unit)
{
    struct buffer text;
    buffer_init(&text, 2 * (size_t)RUN_BYTES);
    while (text.len_bytes < RUN_BYTES) {
        buffer_append_text(&text, unit);
    }
    measure(tokenizer, name, buffer_text(&text), text.len_bytes);
    buffer_fini(&text);
}

/* Decoded tokens drawn with probability falling with the id, as frequent words have small ids. */
static void make_text(const struct tokenizer *tokenizer, struct buffer *text)
{
    struct rng rng;
    struct error err = {0};
    rng_init(&rng, 1, 0);
    double vocab_size = (double)tokenizer_vocab_size(tokenizer);
    while (text->len_bytes < TEXT_BYTES && !text->failed) {
        double u = rng_uniform(&rng);
        int32_t id = (int32_t)(vocab_size * u * u * u);
        struct buffer word;
        buffer_init(&word, 1024);
        if (tokenizer_decode_continuation(tokenizer, &id, 1, true, &word, &err) == STATUS_OK &&
            strstr(buffer_text(&word), "\xEF\xBF\xBD") == NULL) {
            buffer_append_text(text, buffer_text(&word));
        }
        buffer_fini(&word);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        stop("usage: bench_tokenizer FOLDER [TEXT_FILE]");
    }
    struct error err = {0};
    struct tokenizer *tokenizer = load(argv[1]);
    struct buffer text;
    buffer_init(&text, TOKENIZER_TEXT_MAX_BYTES);
    if (argc == 3) {
        if (file_read(argv[2], &text, &err) != STATUS_OK) {
            stop(err.message);
        }
    } else {
        make_text(tokenizer, &text);
    }
    measure(tokenizer, argc == 3 ? "file" : "made_text", buffer_text(&text), text.len_bytes);
    measure_run(tokenizer, "one_letter", "a");
    measure_run(tokenizer, "spaces", " ");
    measure_run(tokenizer, "digits", "7");
    measure_run(tokenizer, "cjk", "\xE4\xB8\xAD");
    measure_run(tokenizer, "line_breaks", "\n");
    measure_run(tokenizer, "punctuation", "=");
    measure_run(tokenizer, "marks", "e\xCC\x81");
    buffer_fini(&text);
    tokenizer_destroy(tokenizer);
    return 0;
}
