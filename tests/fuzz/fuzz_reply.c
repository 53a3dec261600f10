/* Replies of language models against the schema of each prompt (the first byte says which): what is
 * accepted prints as what is accepted again, what is not has a complaint. */
#include "fuzz/fuzz.h"

#include "agents/prompt.h"
#include "agents/reply.h"

enum { SCHEMAS_MAX = 32, LINE_MAX_BYTES = 64 << 20 };

static cJSON *schemas[SCHEMAS_MAX];
static int schema_count;

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    for (const struct prompt *prompt = prompt_list(); prompt->name != NULL; prompt++) {
        if (prompt->schema != NULL && schema_count < SCHEMAS_MAX) {
            char number = (char)schema_count;
            fuzz_write_seed(schema_count, &number, 1, prompt->schema);
            schemas[schema_count++] = cJSON_Parse(prompt->schema);
        }
    }
    return 0;
}

static void read_again(const cJSON *accepted, const cJSON *schema)
{
    struct buffer line;
    struct json_problems problems;
    struct error err = {0};
    cJSON *again = NULL;
    buffer_init(&line, LINE_MAX_BYTES);
    json_problems_init(&problems);
    json_append_line(accepted, &line);
    FUZZ_HOLDS(reply_read(buffer_text(&line), schema, &problems, &again, &err) == STATUS_OK);
    FUZZ_HOLDS(cJSON_Compare(accepted, again, true));
    cJSON_Delete(again);
    json_problems_fini(&problems);
    buffer_fini(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_problems problems;
    struct error err = {0};
    cJSON *accepted = NULL;
    if (size == 0) {
        return 0;
    }
    const cJSON *schema = schemas[data[0] % schema_count];
    char *text = fuzz_text(data + 1, size - 1);
    json_problems_init(&problems);
    enum status status = reply_read(text, schema, &problems, &accepted, &err);
    FUZZ_HOLDS(status == STATUS_OK || status == STATUS_INVALID);
    FUZZ_HOLDS((status == STATUS_OK) == (accepted != NULL));
    FUZZ_HOLDS((status == STATUS_OK) == (problems.count == 0));
    FUZZ_HOLDS(fuzz_is_utf8(buffer_text(&problems.text)));
    if (accepted != NULL) {
        read_again(accepted, schema);
    }
    cJSON_Delete(accepted);
    json_problems_fini(&problems);
    free(text);
    return 0;
}
