/* Bodies of the services of papers and data, read by each reader (the first byte says by which):
 * what comes out is bounded, is JSON, and holds nothing that a person does not see. */
#include "fuzz/fuzz.h"

#include "net/source_service.h"

enum { COUNT = 5, CLEAN_BYTES = 100 };

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments; /* its seeds are the goldens, see run */
    return 0;
}

/* Control characters but line ends, and marks that are invisible or turn the direction. */
static bool is_clean(const char *text)
{
    static const char *const marks[] = {"\u200B", "\u200E", "\u202A", "\u202E",   "\u2060",
                                        "\u2066", "\u2069", "\uFEFF", "\xC2\x85", NULL};
    for (const char *at = text; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' && *at != '\n') {
            return false;
        }
    }
    for (const char *const *mark = marks; *mark != NULL; mark++) {
        if (strstr(text, *mark) != NULL) {
            return false;
        }
    }
    return fuzz_is_utf8(text);
}

static void check_values(const cJSON *value)
{
    FUZZ_HOLDS(!cJSON_IsString(value) || is_clean(value->valuestring));
    FUZZ_HOLDS(value->string == NULL || is_clean(value->string));
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, value) {
        check_values(item);
    }
}

static void check_documents(const cJSON *documents)
{
    char *text = NULL;
    cJSON *again = NULL;
    FUZZ_HOLDS(cJSON_GetArraySize(documents) <= COUNT);
    FUZZ_HOLDS(source_print(documents, &text, NULL) == STATUS_OK);
    FUZZ_HOLDS(strlen(text) < SOURCE_ANSWER_MAX_BYTES);
    FUZZ_HOLDS(json_parse(text, strlen(text), "answer", &again, NULL) == STATUS_OK);
    check_values(again);
    cJSON_Delete(again);
    free(text);
}

static void read_card(const char *text)
{
    struct source_card card;
    source_read_card(text, &card);
    FUZZ_HOLDS(card.text >= text && card.text <= text + strlen(text));
    FUZZ_HOLDS(is_clean(card.title) && is_clean(card.licence));
}

static void read_text(const char *text)
{
    char licence[SOURCE_LICENCE_BYTES];
    struct buffer once;
    struct buffer twice;
    source_licence(text, licence);
    FUZZ_HOLDS(is_clean(licence));
    buffer_init(&once, CLEAN_BYTES);
    buffer_init(&twice, CLEAN_BYTES);
    source_clean(text, true, CLEAN_BYTES, &once);
    FUZZ_HOLDS(!once.failed && is_clean(buffer_text(&once)));
    source_clean(buffer_text(&once), true, CLEAN_BYTES, &twice);
    FUZZ_HOLDS(strcmp(buffer_text(&once), buffer_text(&twice)) == 0);
    FUZZ_HOLDS(!source_id_valid(text) || strstr(text, "..") == NULL);
    buffer_fini(&once);
    buffer_fini(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static enum status (*const readers[])(const char *body, size_t len_bytes, int count,
                                          cJSON *documents, struct error *err) = {
        source_arxiv_read, source_semantic_scholar_read, source_openalex_read,
        source_hf_papers_read, source_hf_datasets_read};
    enum { READERS = sizeof(readers) / sizeof(readers[0]) };
    if (size == 0) {
        return 0;
    }
    int which = data[0] % (READERS + 2);
    char *body = fuzz_text(data + 1, size - 1);
    cJSON *documents = cJSON_CreateArray();
    if (which < READERS) {
        (void)readers[which](body, size - 1, COUNT, documents, NULL);
    } else if (which == READERS) {
        read_card(body);
    } else {
        read_text(body);
    }
    check_documents(documents);
    cJSON_Delete(documents);
    free(body);
    return 0;
}
