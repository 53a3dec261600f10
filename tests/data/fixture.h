/* What the tests of this room share: a scratch folder, files in it, tasks and rows from JSON text,
 * a tiny tokenizer. */
#ifndef TESTS_DATA_FIXTURE_H
#define TESTS_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/recipe.h"
#include "data/task.h"

#define FIXTURE_UNUSED __attribute__((unused))

/* A fresh folder; removed by fixture_remove. */
static FIXTURE_UNUSED char *fixture_folder(void)
{
    char path[] = "/tmp/trex-data-XXXXXX";
    assert_non_null(mkdtemp(path));
    char *copy = mem_strdup(path);
    assert_non_null(copy);
    return copy;
}

static FIXTURE_UNUSED void fixture_remove(char *folder)
{
    char command[FILE_PATH_BYTES + 16];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    free(folder);
}

/* Path of a name in the folder; a static ring, so a few may be used at once. */
static FIXTURE_UNUSED const char *fixture_path(const char *folder, const char *name)
{
    static char paths[8][FILE_PATH_BYTES];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, FILE_PATH_BYTES, "%s/%s", folder, name);
    return path;
}

static FIXTURE_UNUSED const char *fixture_write_bytes(const char *folder, const char *name,
                                                      const void *data, size_t len_bytes)
{
    const char *path = fixture_path(folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len_bytes, file), len_bytes);
    assert_int_equal(fclose(file), 0);
    return path;
}

static FIXTURE_UNUSED const char *fixture_write(const char *folder, const char *name,
                                                const char *text)
{
    return fixture_write_bytes(folder, name, text, strlen(text));
}

/* JSON with single quotes for double ones, because it stands in C strings. */
static FIXTURE_UNUSED cJSON *fixture_json(const char *text)
{
    char *copy = strdup(text); /* not of base/mem.h, which tests make fail */
    assert_non_null(copy);
    for (char *c = copy; *c != '\0'; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    cJSON *value = cJSON_Parse(copy);
    if (value == NULL) {
        fail_msg("not JSON: %s", copy);
    }
    free(copy);
    return value;
}

/* JSON Lines, single quotes as above. */
static FIXTURE_UNUSED void fixture_rows(struct dataset *rows, const char *text)
{
    dataset_init(rows);
    struct error err = {0};
    int64_t line = 1;
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");
        char *one = mem_strndup(text, length);
        assert_non_null(one);
        assert_int_equal(dataset_append(rows, fixture_json(one), "rows.jsonl", line++, &err),
                         STATUS_OK);
        free(one);
        text += length + (text[length] == '\n' ? 1 : 0);
    }
}

/* A task from the inside of its object, with empty files for the splits it needs. */
static FIXTURE_UNUSED void fixture_task(const char *folder, const char *keys, struct task *task)
{
    fixture_write(folder, "train.jsonl", "");
    fixture_write(folder, "dev.jsonl", "");
    char text[4096];
    snprintf(text, sizeof(text), "{'train': 'train.jsonl', 'validation': 'dev.jsonl'%s%s}",
             keys[0] != '\0' ? ", " : "", keys);
    cJSON *object = fixture_json(text);
    struct json_problems problems;
    json_problems_init(&problems);
    struct error err = {0};
    assert_int_equal(task_read(object, "/task", folder, &problems, task, &err), STATUS_OK);
    if (problems.count != 0) {
        fail_msg("%s", buffer_text(&problems.text));
    }
    json_problems_fini(&problems);
    cJSON_Delete(object);
}

/* All rows as lines of compact JSON; free with buffer_fini. */
static FIXTURE_UNUSED void fixture_print(const struct dataset *rows, struct buffer *out)
{
    buffer_init(out, (size_t)64 << 20);
    for (int64_t i = 0; i < rows->count; i++) {
        char *line = json_print_line(rows->rows[i].object);
        buffer_append_text(out, line);
        buffer_append_char(out, '\n');
        cJSON_free(line);
    }
}

/* A byte-level tokenizer in the folder: ids 0-255 are the bytes, in GPT-2's alphabet; 256 and more
 * the special tokens named here. With bos, every text begins with <s>. */
enum {
    FIXTURE_IM_START = 256,
    FIXTURE_IM_END,
    FIXTURE_THINK,
    FIXTURE_END_THINK,
    FIXTURE_BOS,
    FIXTURE_EOS
};

static FIXTURE_UNUSED void fixture_append_point(struct buffer *out, unsigned point)
{
    if (point == '"' || point == '\\') {
        buffer_append_char(out, '\\');
    }
    if (point < 0x80) {
        buffer_append_char(out, (char)point);
    } else {
        buffer_append_char(out, (char)(0xC0 | point >> 6));
        buffer_append_char(out, (char)(0x80 | (point & 0x3F)));
    }
}

static FIXTURE_UNUSED void fixture_write_tokenizer(const char *folder, bool bos)
{
    static const char *const special[] = {"<|im_start|>", "<|im_end|>", "<think>",
                                          "</think>",     "<s>",        "</s>"};
    struct buffer text;
    buffer_init(&text, 1 << 20);
    buffer_append_text(
        &text,
        "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [");
    for (int i = 0; i < 6; i++) {
        buffer_printf(&text,
                      "%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": "
                      "false, \"rstrip\": "
                      "false, \"normalized\": false, \"special\": true}",
                      i > 0 ? ", " : "", 256 + i, special[i]);
    }
    buffer_append_text(
        &text, "], \"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
               "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}, "
               "\"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\", "
               "\"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true}, "
               "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
               "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": "
               "false, \"byte_fallback\": false, \"vocab\": {");
    unsigned moved = 256;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool stays = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
        buffer_append_text(&text, byte > 0 ? ", \"" : "\"");
        fixture_append_point(&text, stays ? byte : moved++);
        buffer_printf(&text, "\": %u", byte);
    }
    buffer_append_text(&text, "}, \"merges\": []}}");
    fixture_write(folder, "tokenizer.json", buffer_text(&text));
    buffer_fini(&text);
    fixture_write(
        folder, "tokenizer_config.json",
        bos ? "{\"add_bos_token\": true, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}"
            : "{\"add_bos_token\": false, \"bos_token\": null, \"eos_token\": \"<|im_end|>\"}");
}

#endif
